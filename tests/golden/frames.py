"""Configurations and packets the cases are made of, and the frames lb should make of them, all by scapy."""
import ipaddress

from scapy.all import GRE, ICMP, IP, TCP, UDP, Dot1Q, Ether, IPv6, Raw, raw

CLIENT_MAC = "02:c1:00:00:00:01"
ANY_MAC = "02:99:00:00:00:99"   # lb-replay takes frames for any MAC
LB_MAC = "02:00:00:00:00:01"
TUNNEL_V4, TUNNEL_V6 = "198.18.0.1", "2001:2::1"

VIP4, VIP6 = "192.0.2.10", "2001:db8:ff::10"
CLIENT4, CLIENT6 = "203.0.113.5", "2001:db8:c::5"
T4 = ["10.77.2.2", "10.77.2.3", "10.77.2.4", "10.77.2.5"]
T6 = ["2001:db8:2::2", "2001:db8:2::3"]


def next_hop_mac(address):
    packed = ipaddress.ip_address(address).packed
    return ":".join(f"{b:02x}" for b in bytes([2, 4 if len(packed) == 4 else 6]) + packed[-4:])


def is_v6(address):
    return ":" in address


def at(address, port=80):
    return f"[{address}]:{port}" if is_v6(address) else f"{address}:{port}"


# ---- configurations ----

def group(name="blue", targets=(T4[0],), protocol="TCP", mode="ipip", attributes=None, **extra):
    """targets: addresses, or (address, weight); on their listener's port."""
    rows = [{"address": t} if isinstance(t, str) else {"address": t[0], "weight": t[1]} for t in targets]
    result = {"name": name, "protocol": protocol, "forwarding_mode": mode, "targets": rows, **extra}
    if attributes:
        result["attributes"] = attributes
    return result


def listener(name="web-80", vip="web", protocol="TCP", port=80, groups=("blue",)):
    """groups: names, or (name, weight)."""
    shares = [{"name": g} if isinstance(g, str) else {"name": g[0], "weight": g[1]} for g in groups]
    return {"name": name, "vip": vip, "protocol": protocol, "port": port, "target_groups": shares}


def config(listeners=None, groups=None, vips=None, **extra):
    return {"version": 1, "seed": 1,
            "vips": vips or [{"name": "web", "address": VIP4}, {"name": "web6", "address": VIP6}],
            "listeners": listeners or [listener()], "target_groups": groups or [group()], **extra}


def one(vip="web", protocol="TCP", target=T4[0], mode="ipip", port=80, attributes=None, of_group=None, **extra):
    """One listener, one target group, one target."""
    return config([listener(vip=vip, protocol=protocol, port=port)],
                  [group(targets=[target], protocol=protocol, mode=mode, attributes=attributes, **(of_group or {}))], **extra)


# ---- packets in ----

def ether(packet, vlan=()):
    """A client's frame; vlan: VIDs, outermost first."""
    frame = Ether(src=CLIENT_MAC, dst=ANY_MAC)
    for vid in vlan:
        frame = frame / Dot1Q(vlan=vid)
    return frame / packet


def ip(source=CLIENT4, destination=VIP4, df=True, **fields):
    if is_v6(destination):
        fields = {"hlim": fields.pop("ttl", 64), "tc": fields.pop("tos", 0), **fields}
        return IPv6(src=source, dst=destination, **fields)
    return IP(src=source, dst=destination, **{"flags": "DF" if df else 0, "ttl": 64, "id": 0x1234, **fields})


def tcp(flags="S", sport=40000, dport=80, payload=b"", source=None, destination=VIP4, seq=1000, ack=0, **ip_fields):
    source = source or (CLIENT6 if is_v6(destination) else CLIENT4)
    packet = ip(source, destination, **ip_fields) / TCP(sport=sport, dport=dport, flags=flags, seq=seq, ack=ack, window=8192)
    return packet / Raw(payload) if payload else packet


def udp(payload=b"datagram", sport=40000, dport=80, source=None, destination=VIP4, **ip_fields):
    source = source or (CLIENT6 if is_v6(destination) else CLIENT4)
    return ip(source, destination, **ip_fields) / UDP(sport=sport, dport=dport) / Raw(payload)


# ---- frames out ----

def aged(packet):
    """One hop later; scapy computes every checksum again."""
    packet = packet.copy()
    if isinstance(packet, IPv6):
        packet.hlim -= 1
    else:
        packet.ttl -= 1
        del packet.chksum
    return packet


def ipip(packet, target=T4[0], source=None, vlan=None, mac=None):
    """`packet` inside an outer header for `target`. Takes what came out, for the fields lb is free to choose: the flow label
    of an outer IPv6 header, the id of an outer IPv4 header that may be fragmented."""
    inner = raw(aged(packet))
    inner_v6 = isinstance(packet, IPv6)
    tos = packet.tc if inner_v6 else packet.tos
    protocol = 41 if inner_v6 else 4
    link = Ether(src=LB_MAC, dst=mac or next_hop_mac(target))

    def expected(got):
        came = Ether(got)
        if is_v6(target):
            label = came[IPv6].fl if IPv6 in came else 0
            outer = IPv6(src=source or TUNNEL_V6, dst=target, tc=tos, fl=label, hlim=64, nh=protocol)
            return raw(link / outer / Raw(inner))
        may_fragment = not inner_v6 and not packet.flags.DF
        chosen = came[IP].id if may_fragment and IP in came else 0
        outer = IP(src=source or TUNNEL_V4, dst=target, tos=tos, id=chosen, flags="" if may_fragment else "DF", ttl=64,
                   proto=protocol)
        return raw(link / outer / Raw(inner))

    return expected


def tunnel(header, packet, target=T4[0]):
    """`packet` behind an outer IP header and `header`, a function from what came out and the inner bytes to scapy's layers."""
    inner_v6 = isinstance(packet, IPv6)
    link = Ether(src=LB_MAC, dst=next_hop_mac(target))

    def expected(got):
        came = Ether(got)
        layers = header(came, 6 if inner_v6 else 4) / Raw(raw(aged(packet)))
        tos = packet.tc if inner_v6 else packet.tos
        if is_v6(target):
            return raw(link / IPv6(src=TUNNEL_V6, dst=target, tc=tos, fl=came[IPv6].fl if IPv6 in came else 0, hlim=64) / layers)
        may_fragment = not inner_v6 and not packet.flags.DF
        chosen = came[IP].id if may_fragment and IP in came else 0
        return raw(link / IP(src=TUNNEL_V4, dst=target, tos=tos, id=chosen, flags="" if may_fragment else "DF", ttl=64) / layers)

    return expected


def gue(packet, target=T4[0], port=6080, zero_checksum=False):
    """Variant 0 without options. The source port is lb's to choose among the dynamic ones. scapy computes the outer checksum;
    IPv4 goes without."""
    def header(came, family):
        source = came[UDP].sport if UDP in came and came[UDP].sport >= 49152 else 0
        checksum = {"chksum": 0} if zero_checksum or not is_v6(target) else {}
        return UDP(sport=source, dport=port, **checksum) / Raw(bytes([0, {4: 4, 6: 41}[family], 0, 0]))

    return tunnel(header, packet, target)


def gre(packet, target=T4[0], key=None):
    def header(_, family):
        keyed = {} if key is None else {"key_present": 1, "key": key}
        return GRE(proto={4: 0x0800, 6: 0x86DD}[family], **keyed)

    return tunnel(header, packet, target)


def l2dsr(packet, target=T4[0]):
    """The client's IP packet, untouched, to the target's MAC."""
    return raw(Ether(src=LB_MAC, dst=next_hop_mac(target)) / packet)


def back(packet, vlan=()):
    """A frame from lb back to the client's MAC."""
    frame = Ether(src=ANY_MAC, dst=CLIENT_MAC)
    for vid in vlan:
        frame = frame / Dot1Q(vlan=vid)
    return raw(frame / packet)


def _own_ip(source, destination):
    return ip(source, destination, ttl=64, id=0) if not is_v6(destination) else ip(source, destination, ttl=64)


def addresses(packet):
    return (packet.src, packet.dst)


def reset_to_client(packet, vlan=()):
    """RFC 9293 §3.10.7: seq is the client's ACK; without one, seq 0 and everything received is acknowledged."""
    client, vip = addresses(packet)
    segment = packet[TCP]
    header = {"sport": segment.dport, "dport": segment.sport, "window": 0}
    if segment.flags.A:
        header.update(flags="R", seq=segment.ack, ack=0)
    else:
        space = len(segment.payload) + int(segment.flags.S) + int(segment.flags.F)
        header.update(flags="RA", seq=0, ack=segment.seq + space)
    return back(_own_ip(vip, client) / TCP(**header), vlan)


def reset_to_target(packet):
    """The client's own reset, as the target would have had it: to be forwarded like the packet it stands for."""
    client, vip = addresses(packet)
    segment = packet[TCP]
    has_ack = bool(segment.flags.A)
    return _own_ip(client, vip) / TCP(sport=segment.sport, dport=segment.dport, flags="RA" if has_ack else "R",
                                      seq=segment.seq, ack=segment.ack if has_ack else 0, window=0)


def fragmentation_needed(packet, mtu, vlan=()):
    """RFC 792 type 3 code 4 with the MTU of RFC 1191; as much of the packet as fits 576 bytes, and never more
    bytes than it answers."""
    client, vip = addresses(packet)
    quote = raw(packet)[:min(576, len(packet)) - 20 - 8]
    return back(_own_ip(vip, client) / ICMP(type=3, code=4, nexthopmtu=mtu) / Raw(quote), vlan)


def packet_too_big(packet, mtu, vlan=()):
    """RFC 4443 §3.2; as much of the packet as fits 1280 bytes, and never more bytes than it answers."""
    from scapy.all import ICMPv6PacketTooBig
    client, vip = addresses(packet)
    quote = raw(packet)[:min(1280, len(packet)) - 40 - 8]
    return back(_own_ip(vip, client) / ICMPv6PacketTooBig(mtu=mtu) / Raw(quote), vlan)
