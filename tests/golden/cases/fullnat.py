"""Forwarding mode fullnat: both addresses and ports change; replies come to a SNAT address, whatever the targets' routes say."""
from scapy.all import ICMP, IP, TCP, UDP, Ether, ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6, Raw, raw

from ..frames import (ANY_MAC, CLIENT4, CLIENT6, CLIENT_MAC, LB_MAC, T4, T6, VIP4, VIP6, aged, at, config, ether, group, listener,
                      next_hop_mac, reset_to_client, tcp, udp)
from ..harness import answered, case, drop, tx

PORT, TARGET_PORT, CLIENT_PORT, FIRST = 80, 8080, 40000, 1024
SNAT4, SNAT6 = "10.77.2.200", "2001:db8:2::200"
TARGET_MAC = "02:77:00:00:00:01"
# name, VIP's name and address, target, client, SNAT address
SIDES = (("v4 to v4", "web", VIP4, T4[0], CLIENT4, SNAT4), ("v6 to v6", "web6", VIP6, T6[0], CLIENT6, SNAT6),
         ("v4 to v6", "web", VIP4, T6[0], CLIENT4, SNAT6), ("v6 to v4", "web6", VIP6, T4[0], CLIENT6, SNAT4))


def fullnat(vip="web", protocol="TCP", targets=(T4[0],), port=TARGET_PORT, snat=f"{SNAT4},{SNAT6}", attributes=None, **extra):
    return config([listener(vip=vip, protocol=protocol)],
                  [group(targets=list(targets), protocol=protocol, mode="fullnat", port=port, attributes={"snat.addresses": snat, **(attributes or {})},
                         **extra)])


def told(packet, source, destination, sport, dport, tcp_fields=None, payload=None):
    """The packet with another tuple, one hop later, of the family of its new addresses; every checksum computed again. Takes what
    came out for the id of an IPv4 header made anew, which is lb's to choose where the packet may be fragmented."""
    v6 = ":" in destination
    was_v6 = isinstance(packet, IPv6)
    l4 = (packet[TCP] if TCP in packet else packet[UDP]).copy()
    l4.sport, l4.dport = sport, dport
    for name, value in (tcp_fields or {}).items():
        setattr(l4, name, value)
    if payload is not None:
        l4.remove_payload()
        l4 = l4 / Raw(payload) if payload else l4
    for name in ("chksum", "len"):
        if name in l4.fields:
            delattr(l4, name)

    def build(came):
        if v6 == was_v6:
            header = aged(packet)
            header.remove_payload()
            header.src, header.dst = source, destination
            for name in ("chksum", "len", "plen"):
                if name in header.fields:
                    delattr(header, name)
            return header / l4
        tos, ttl = (packet.tc, packet.hlim) if was_v6 else (packet.tos, packet.ttl)
        if v6:
            return IPv6(src=source, dst=destination, tc=tos, hlim=ttl - 1) / l4
        large = 20 + len(raw(l4)) > 1260
        return IP(src=source, dst=destination, tos=tos, ttl=ttl - 1, flags="DF" if large else 0, id=0 if large or IP not in came else came[IP].id) / l4

    return build


def to_target(packet, side, port=FIRST, **changes):
    _, _, _, target, _, snat = side
    build = told(packet, snat, target, port, TARGET_PORT, **changes)
    return lambda got: raw(Ether(src=LB_MAC, dst=next_hop_mac(target)) / build(Ether(got)))


def to_client(packet, side, **changes):
    _, _, vip, _, client, _ = side
    build = told(packet, vip, client, PORT, CLIENT_PORT, **changes)
    return lambda got: raw(Ether(src=ANY_MAC, dst=CLIENT_MAC) / build(Ether(got)))


def from_target(packet):
    return Ether(src=TARGET_MAC, dst=LB_MAC) / packet


def reply(side, flags="SA", port=FIRST, seq=77, ack=1001, payload=b"", options=None, **fields):
    _, _, _, target, _, snat = side
    packet = tcp(flags, source=target, destination=snat, sport=TARGET_PORT, dport=port, seq=seq, ack=ack, payload=payload, **fields)
    if options:
        packet[TCP].options = options
    return packet


def answer(side, payload=b"answer", port=FIRST):
    _, _, _, target, _, snat = side
    return udp(payload, source=target, destination=snat, sport=TARGET_PORT, dport=port)


for side in SIDES:
    name, vip_name, vip, target, client, snat = side
    one_target = {"config": fullnat(vip_name, targets=[target])}
    syn, data = tcp(destination=vip), tcp("PA", destination=vip, payload=b"odd", seq=1001, ack=78)
    syn_ack, much = reply(side), reply(side, "PA", seq=78, ack=1004, payload=b"y" * 1000)
    case("fullnat", f"{name} source becomes a SNAT address and port, destination the target's; replies go back the same way",
         packets=[ether(syn), from_target(syn_ack), ether(data), from_target(much)],
         expect=[tx(to_target(syn, side), flow="new", target=at(target, TARGET_PORT), listener="web-80"),
                 tx(to_client(syn_ack, side), flow="hit", listener="web-80", target=at(target, TARGET_PORT)),
                 tx(to_target(data, side), flow="hit"), tx(to_client(much, side))], **one_target)
    query = udp(destination=vip)
    case("fullnat", f"{name} UDP goes both ways", config=fullnat(vip_name, "UDP", [target]), packets=[ether(query), from_target(answer(side))],
         expect=[tx(to_target(query, side), flow="new"), tx(to_client(answer(side), side), flow="hit")])
    other = reply(side)
    other.src = (T6 if ":" in target else T4)[1]
    case("fullnat", f"{name} only the flow's own target is answered for; anybody else who sends there is reset",
         packets=[ether(syn), from_target(other)],
         expect=[tx(to_target(syn, side)),
                 answered("answered_rst", lambda got, other=other: raw(Ether(src=LB_MAC, dst=TARGET_MAC) / Ether(reset_to_client(other)).payload))],
         **one_target)

    # ICMP errors about what the target was sent, and about what the client was sent.
    v6_target, v6_client = ":" in target, ":" in client
    seen = Ether(to_target(syn, side)(raw(ether(syn)))).payload

    def unreachable(source, destination, quoted):
        if ":" in destination:
            return IPv6(src=source, dst=destination) / ICMPv6DestUnreach(code=4) / Raw(quoted)
        return IP(src=source, dst=destination, flags="DF", id=0) / ICMP(type=3, code=3) / Raw(quoted)

    def about(run, n, source, destination, first, second, v6):
        """The error reached its receiver and quotes the packet that one had sent, as far as it can be known."""
        came = Ether(run.out(n)[0]).payload
        assert (came.src, came.dst) == (source, destination)
        intact = came.copy()
        body = intact.payload
        for field in ("chksum", "cksum"):
            if field in body.fields:
                delattr(body, field)
        assert raw(intact) == raw(came), "a checksum is wrong"
        assert (came[ICMPv6DestUnreach].code == 4) if v6 else (came[ICMP].type, came[ICMP].code) == (3, 3)
        quoted = (IPv6 if v6 else IP)(raw(came.payload)[8:])
        assert (quoted.src, quoted[1].sport) == first and (quoted.dst, quoted[1].dport) == second

    case("fullnat-icmp", f"{name} the target's error reaches the client as one from the VIP, about what the client sent",
         packets=[ether(syn), from_target(unreachable(target, snat, raw(seen)[:(40 if v6_target else 20) + 8]))],
         check=lambda run, a=vip, b=client, v6=v6_client: about(run, 1, a, b, (b, CLIENT_PORT), (a, PORT), v6), **one_target)
    case("fullnat-icmp", f"{name} the client's error reaches the target, about what the target sent",
         packets=[ether(syn), from_target(syn_ack),
                  ether(unreachable(client, vip, raw(Ether(to_client(syn_ack, side)(raw(from_target(syn_ack)))).payload)))],
         check=lambda run, a=snat, b=target, v6=v6_target: about(run, 2, a, b, (b, TARGET_PORT), (a, FIRST), v6), **one_target)

    # The client's address, told.
    proxied = {"config": fullnat(vip_name, targets=[target], attributes={"proxy_protocol_v2.enabled": True})}

    def header(client=client, vip=vip):
        import ipaddress
        packed = ipaddress.ip_address(client).packed + ipaddress.ip_address(vip).packed
        ports = CLIENT_PORT.to_bytes(2, "big") + PORT.to_bytes(2, "big")
        body = packed + ports
        return b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x21, 0x21 if len(packed) == 32 else 0x11]) + len(body).to_bytes(2, "big") + body

    size = len(header())
    ack = tcp("A", destination=vip, seq=1001, ack=78)
    late = reply(side, "A", seq=78, ack=1001 + size + 3)
    case("fullnat-proxy", f"{name} the PROXY header rides on the client's first acknowledgment, and all numbers behind it are shifted",
         packets=[ether(syn), from_target(syn_ack), ether(ack), ether(data), from_target(late)],
         expect=[tx(to_target(syn, side)), tx(to_client(syn_ack, side)),
                 tx(to_target(ack, side, tcp_fields={"flags": "PA"}, payload=header())),
                 tx(to_target(data, side, tcp_fields={"flags": "PA"}, payload=header() + b"odd")),
                 tx(to_client(late, side, tcp_fields={"ack": 1004}))], **proxied)
    arrived = reply(side, "A", seq=78, ack=1001 + size)
    holes = reply(side, "A", seq=78, ack=1001 + size, options=[("NOP", None), ("SAck", (1001 + size + 3, 1001 + size + 9))])
    more = tcp("A", destination=vip, payload=b"later", seq=1007, ack=78)
    case("fullnat-proxy", f"{name} once the target has acknowledged the header it is sent no more; SACK blocks are shifted as well",
         packets=[ether(syn), from_target(syn_ack), ether(ack), from_target(arrived), ether(data), ether(more), from_target(holes)],
         expect=[tx(to_target(syn, side)), tx(to_client(syn_ack, side)), tx(to_target(ack, side, tcp_fields={"flags": "PA"}, payload=header())),
                 tx(to_client(arrived, side, tcp_fields={"ack": 1001})), tx(to_target(data, side, tcp_fields={"seq": 1001 + size})),
                 tx(to_target(more, side, tcp_fields={"seq": 1007 + size})),
                 tx(to_client(holes, side, tcp_fields={"ack": 1001, "options": [("NOP", None), ("SAck", (1004, 1010))]}))], **proxied)
    case("fullnat-proxy", f"{name} while the header is missing the client is told that its first byte is, and nothing beyond",
         packets=[ether(syn), from_target(syn_ack), ether(data), from_target(reply(side, "A", seq=78, ack=1001, options=[
             ("NOP", None), ("SAck", (1001 + size, 1004 + size))]))],
         expect=[tx(to_target(syn, side)), tx(to_client(syn_ack, side)), tx(to_target(data, side, payload=header() + b"odd")),
                 tx(to_client(reply(side, "A", seq=78, ack=1001), side, tcp_fields={"dataofs": 8, "options": [("NOP", None)] * 11}))], **proxied)
    full = tcp("PA", destination=vip, payload=b"z" * (1500 - (60 if v6_client else 40)), seq=1001, ack=78)
    overhead = (60 if v6_target else 40)

    def trimmed(run, header=header, overhead=overhead):
        came = Ether(run.out(2)[0]).payload if run.verdicts[2]["verdict"] == "tx" else None
        assert came is not None and len(came) == 1500 and bytes(came[TCP].payload) == header() + b"z" * (1500 - overhead - len(header()))

    if not (v6_target and not v6_client):  # there a full-size packet does not fit at all
        case("fullnat-proxy", f"{name} where the header does not fit beside the payload, the payload's end is left to a retransmission",
             packets=[ether(syn), from_target(syn_ack), ether(full)], check=trimmed, **proxied)
    optioned = {"config": fullnat(vip_name, targets=[target], attributes={"client_address_option.enabled": True})}

    def has_option(run, client=client):
        import ipaddress
        packed = ipaddress.ip_address(client).packed
        wanted = (254, CLIENT_PORT.to_bytes(2, "big") + packed)
        for n in (0, 2):
            segment = Ether(run.out(n)[0])[TCP]
            assert wanted in segment.options, segment.options
            intact = Ether(run.out(n)[0])
            del intact[TCP].chksum
            assert raw(intact) == run.out(n)[0]
        assert wanted not in Ether(run.out(3)[0])[TCP].options

    case("fullnat-option", f"{name} TCP option 254 tells the client's address on the SYN and the first packet after it",
         packets=[ether(syn), from_target(syn_ack), ether(ack), ether(more)], check=has_option, **optioned)



def must(condition):
    def check(run):
        assert condition(run), run.verdicts
    return check


V4, V6, NAT46, NAT64 = SIDES
SYN = tcp()
ONE = {"config": fullnat()}
case("fullnat", "each flow has a port of its own, in order", packets=[ether(tcp(sport=sport)) for sport in (40000, 40001, 40002)],
     check=must(lambda run: [Ether(run.out(n)[0])[TCP].sport for n in range(3)] == [1024, 1025, 1026]), **ONE)
case("fullnat", "a packet to a SNAT address that belongs to no flow is answered with a reset, or port unreachable",
     packets=[from_target(reply(V4)), from_target(answer(V4))],
     check=must(lambda run: [verdict["reason"] for verdict in run.verdicts] == ["answered_rst", "answered_icmp"]), **ONE)


def split(workers):
    return [1024 + 64512 * worker // workers for worker in range(workers)]


def found_everywhere(run):
    """The first flow of each worker is answered; the replies land where they may."""
    replies = run.verdicts[16:]
    assert [verdict["verdict"] for verdict in replies] == ["tx"] * 4, replies
    assert any(verdict["worker"] != owner for owner, verdict in enumerate(replies)), "no reply landed on another worker"


case("fullnat", "replies find their flow on whichever worker they land", config=fullnat(), args=["--workers", "4"],
     packets=[ether(tcp(sport=sport)) for sport in range(41000, 41016)] + [from_target(reply(V4, port=port)) for port in split(4)], check=found_everywhere)


def owned(run):
    """Each worker gives ports of its own range."""
    for n, verdict in enumerate(run.verdicts):
        first = split(4)
        port = Ether(run.out(n)[0])[TCP].sport
        assert first[verdict["worker"]] <= port < (first + [65536])[verdict["worker"] + 1]


case("fullnat", "ports are split among the workers, so that a port names its owner", config=fullnat(), args=["--workers", "4"],
     packets=[ether(tcp(sport=sport)) for sport in range(41000, 41016)], check=owned)
def resets(run):
    went = [verdict["target"] for verdict in run.verdicts[:8]]
    assert len(set(went)) == 2
    for n in range(8):
        if went[n] != f"{T4[0]}:{TARGET_PORT}":
            assert run.verdicts[8 + n]["verdict"] == "tx"
            continue
        assert run.verdicts[8 + n]["reason"] == "answered_rst"
        target, client = (Ether(frame) for frame in run.out(8 + n))
        assert (target[IP].src, target[TCP].sport, target[IP].dst) == (SNAT4, Ether(run.out(n)[0])[TCP].sport, T4[0]) and target[TCP].flags.R
        assert client[IP].dst == CLIENT4 and client[TCP].flags.R


case("fullnat", "a flow of an unhealthy target is reset on both sides, towards the target from its SNAT port", config=fullnat(targets=T4[:2]),
     packets=[(0, ether(tcp(sport=sport))) for sport in range(40000, 40008)] + [(20, ether(tcp("A", sport=sport, seq=1001, ack=78)))
                                                                                for sport in range(40000, 40008)],
     events=[{"at": 1, "unhealthy": f"{T4[0]}:{TARGET_PORT}"}],
     check=resets)


FIN = tcp("FA", seq=1001, ack=78)
TARGET_FIN = reply(V4, "FA", seq=78, ack=1002)


case("fullnat", "a client that begins anew with the tuple of a closed flow gets another SNAT port", config=fullnat(),
     packets=[ether(SYN), from_target(reply(V4)), ether(tcp("A", seq=1001, ack=78)), ether(FIN), from_target(TARGET_FIN), ether(tcp("A", seq=1002, ack=79)),
              ether(tcp(seq=5000))],
     check=must(lambda run: (Ether(run.out(3)[0])[TCP].sport, Ether(run.out(6)[0])[TCP].sport) == (1024, 1025)))
case("fullnat", "a fragment is dropped by name: its ports are not known with every piece",
     packets=[ether(IP(src=CLIENT4, dst=VIP4, flags="MF", id=9) / UDP(sport=40000, dport=80, len=100) / Raw(b"x" * 64))], config=fullnat(protocol="UDP"),
     expect=[drop("fragment")])
BIG = tcp("PA", payload=b"x" * 1460, seq=1001, ack=78)
case("fullnat", "v4 to v6 a packet that grows beyond the MTU is answered with what fits", config=fullnat(targets=[T6[0]]), packets=[ether(SYN), ether(BIG)],
     check=must(lambda run: Ether(run.out(1)[0])[ICMP].nexthopmtu == 1480))
SEEN6 = IPv6(src=SNAT6, dst=T6[0]) / TCP(sport=FIRST, dport=TARGET_PORT, seq=1001) / Raw(b"x" * 1440)
case("fullnat", "v4 to v6 an MTU that a router tells in IPv6 is told in IPv4, 20 bytes less", config=fullnat(targets=[T6[0]]),
     packets=[ether(SYN), from_target(IPv6(src="2001:db8:99::1", dst=SNAT6) / ICMPv6PacketTooBig(mtu=1400) / Raw(raw(SEEN6)[:1200]))],
     check=must(lambda run: (Ether(run.out(1)[0])[ICMP].type, Ether(run.out(1)[0])[ICMP].nexthopmtu) == (3, 1380)))
case("fullnat", "v4 to v6 a datagram without a checksum gets one", config=fullnat(protocol="UDP", targets=[T6[0]]),
     packets=[ether(IP(src=CLIENT4, dst=VIP4, ttl=64) / UDP(sport=40000, dport=80, chksum=0) / Raw(b"bare"))],
     expect=[tx(to_target(udp(b"bare"), NAT46))])
