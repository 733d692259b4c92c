"""Forwarding mode nat: the listener's port becomes the target's, replies leave from the VIP the way the client came."""
from scapy.all import ICMP, IP, TCP, UDP, Dot1Q, Ether, ICMPv6DestUnreach, IPv6, Raw, raw

from ..frames import (ANY_MAC, CLIENT4, CLIENT6, CLIENT_MAC, LB_MAC, T4, T6, VIP4, VIP6, aged, at, config, ether, group, listener,
                      next_hop_mac, tcp, udp)
from ..harness import case, drop, punt, tx

PORT, TARGET_PORT, CLIENT_PORT = 80, 8080, 40000
TARGET_MAC = "02:77:00:00:00:01"
ROUTER4, ROUTER6 = "198.51.100.1", "2001:db8:99::1"
FAMILIES = (("v4", "web", VIP4, T4[0], CLIENT4, ROUTER4), ("v6", "web6", VIP6, T6[0], CLIENT6, ROUTER6))


def nat(vip="web", protocol="TCP", targets=(T4[0],), port=TARGET_PORT, listeners=None, vips=None, **extra):
    return config(listeners or [listener(vip=vip, protocol=protocol)], [group(targets=list(targets), protocol=protocol, mode="nat", port=port, **extra)],
                  vips=vips)


def changed(packet, **fields):
    """The packet with other addresses and ports, one hop later; scapy computes every checksum again."""
    packet = aged(packet)
    l4 = packet[TCP] if TCP in packet else packet[UDP]
    for name, value in fields.items():
        setattr(l4 if name in ("sport", "dport") else packet, name, value)
    if l4.chksum != 0:
        del l4.chksum
    return packet


def forward(packet, target=T4[0], port=TARGET_PORT):
    return Ether(src=LB_MAC, dst=next_hop_mac(target)) / changed(packet, dst=target, dport=port)


def reply_frame(packet):
    return Ether(src=TARGET_MAC, dst=LB_MAC) / packet


def returned(packet, vip, port=PORT, mac=CLIENT_MAC, own=ANY_MAC, vlan=None):
    frame = Ether(src=own, dst=mac)
    return (frame / Dot1Q(vlan=vlan) if vlan else frame) / changed(packet, src=vip, sport=port)


def reply(target, client, flags="SA", payload=b"", **fields):
    return tcp(flags, source=target, destination=client, sport=TARGET_PORT, dport=CLIENT_PORT, seq=77, ack=1001, payload=payload, **fields)


def found_everywhere(run):
    assert all(verdict["verdict"] == "tx" for verdict in run.verdicts)
    workers = [verdict["worker"] for verdict in run.verdicts]
    assert any(one != other for one, other in zip(workers[0::2], workers[1::2])), "no reply landed on another worker"


for family, vip_name, vip, target, client, router in FAMILIES:
    one_target = {"config": nat(vip_name, targets=[target])}
    syn, ack = tcp(destination=vip), tcp("PA", destination=vip, payload=b"odd", seq=1001, ack=78)
    syn_ack, data = reply(target, client), reply(target, client, "PA", b"y" * 1000)
    case("nat", f"{family} the destination becomes the target's address and port, and the client's stays", packets=[ether(syn), ether(ack)],
         expect=[tx(forward(syn, target), flow="new", target=at(target, TARGET_PORT), listener="web-80"), tx(forward(ack, target), flow="hit")],
         **one_target)
    case("nat", f"{family} replies leave from the VIP and the listener's port, back where the client's packets came from",
         packets=[ether(syn), reply_frame(syn_ack), ether(ack), reply_frame(data)],
         expect=[tx(forward(syn, target)), tx(returned(syn_ack, vip), flow="hit", listener="web-80", target=at(target, TARGET_PORT)),
                 tx(forward(ack, target)), tx(returned(data, vip))], **one_target)
    query = udp(destination=vip)
    answer = udp(b"answer", source=target, destination=client, sport=TARGET_PORT, dport=CLIENT_PORT)
    case("nat", f"{family} UDP goes both ways", config=nat(vip_name, "UDP", [target]), packets=[ether(query), reply_frame(answer)],
         expect=[tx(forward(query, target), flow="new"), tx(returned(answer, vip), flow="hit")])
    case("nat", f"{family} a packet from a target's port that answers no flow is the kernel's",
         packets=[reply_frame(syn_ack), ether(syn), reply_frame(syn_ack)],
         expect=[punt(), tx(forward(syn, target)), tx(returned(syn_ack, vip))], **one_target)
    other = reply(target, client)
    other[TCP].dport = CLIENT_PORT + 1
    foreign = reply(target, client)
    foreign[TCP].sport = 22
    case("nat", f"{family} neither another client port nor another port of the target passes for a reply",
         packets=[ether(syn), reply_frame(other), reply_frame(foreign)], expect=[tx(forward(syn, target)), punt(), punt()], **one_target)
    last_hop = reply(target, client, ttl=1)
    case("nat", f"{family} a reply whose TTL is used up is dropped by name", packets=[ether(syn), reply_frame(last_hop)],
         expect=[tx(forward(syn, target)), drop("ttl_expired")], **one_target)
    case("nat", f"{family} a flow that came on a VLAN is answered on it", packets=[ether(syn, vlan=(7,)), reply_frame(syn_ack)],
         expect=[tx(forward(syn, target)), tx(returned(syn_ack, vip, vlan=7))], **one_target)
    moved = Ether(src="02:c1:00:00:00:02", dst=LB_MAC) / ack
    case("nat", f"{family} replies follow the client's packets to another router", packets=[ether(syn), moved, reply_frame(data)],
         expect=[tx(forward(syn, target)), tx(forward(ack, target)), tx(returned(data, vip, mac="02:c1:00:00:00:02", own=LB_MAC))], **one_target)
    wrong = ack.copy()
    wrong[TCP].chksum = 0x1234

    def still_wrong(run, wrong=wrong):
        came = Ether(run.out(1)[0])
        intact = came.copy()
        del intact[TCP].chksum
        assert came[TCP].chksum != Ether(raw(intact))[TCP].chksum

    case("nat", f"{family} a wrong TCP checksum stays wrong, so that the target sees it", packets=[ether(syn), ether(wrong)],
         check=still_wrong, **one_target)
    case("nat", f"{family} replies find their flow on whichever worker they land", config=nat(vip_name, targets=[target]), args=["--workers", "4"],
         packets=[frame for port in range(41000, 41016) for frame in
                  (ether(tcp(destination=vip, sport=port)), reply_frame(tcp("SA", source=target, destination=client, sport=TARGET_PORT, dport=port)))],
         check=found_everywhere)

    # ICMP errors
    seen = aged(changed(syn, dst=target, dport=TARGET_PORT))
    quote = raw(seen)[:(20 if family == "v4" else 40) + 8]

    def unreachable(source, destination, quoted, family=family):
        if family == "v4":
            return IP(src=source, dst=destination, id=7) / ICMP(type=3, code=3) / Raw(quoted)
        return IPv6(src=source, dst=destination) / ICMPv6DestUnreach(code=4) / Raw(quoted)

    def told(source, quoted, vip=vip, client=client, family=family):
        return Ether(src=ANY_MAC, dst=CLIENT_MAC) / aged(unreachable(source, client, quoted, family))

    def quote_for_client(whole, vip=vip, syn=syn, family=family, seen=seen):
        """What the client sent, as far as the error quotes it."""
        original = seen.copy()
        original.dst, original[TCP].dport = vip, PORT
        if family == "v4":
            del original.chksum
        del original[TCP].chksum
        return raw(original)[:whole]

    case("nat-icmp", f"{family} an error from the target reaches the client as one from the VIP, about what the client sent",
         packets=[ether(syn), reply_frame(unreachable(target, client, quote))],
         expect=[tx(forward(syn, target)), tx(told(vip, quote_for_client(len(quote))), flow="hit")], **one_target)
    case("nat-icmp", f"{family} an error from a router keeps its source, and its quote is rewritten with all its checksums",
         packets=[ether(syn), reply_frame(unreachable(router, client, raw(seen)))],
         expect=[tx(forward(syn, target)), tx(told(router, quote_for_client(len(raw(seen)))))], **one_target)
    case("nat-icmp", f"{family} an error that quotes no flow of lb's is the kernel's",
         packets=[reply_frame(unreachable(target, client, quote))], expect=[punt()], **one_target)
    case("nat-icmp", f"{family} an error on its way to someone else is the kernel's",
         packets=[ether(syn), reply_frame(unreachable(target, router, quote))], expect=[tx(forward(syn, target)), punt()], **one_target)
    # What the client was sent by lb, and what the target sent for it.
    sent, received = changed(syn_ack, src=vip, sport=PORT), aged(syn_ack)
    from_client = unreachable(client, vip, raw(sent))
    for_target = unreachable(client, target, raw(received))
    case("nat-icmp", f"{family} an error from the client about a reply reaches the target, about what the target sent",
         packets=[ether(syn), reply_frame(syn_ack), ether(from_client)],
         expect=[tx(forward(syn, target)), tx(returned(syn_ack, vip)),
                 tx(Ether(src=LB_MAC, dst=next_hop_mac(target)) / aged(for_target), target=at(target, TARGET_PORT))], **one_target)


def stays(run):
    assert [verdict["verdict"] for verdict in run.verdicts] == ["tx"] * 5, run.verdicts
    assert run.verdicts[0]["worker"] != run.verdicts[1]["worker"], "choose another port: the replies are to be on another worker"


def stream(port):
    """One datagram of the client, then the target speaks alone, for longer than the idle timeout in all."""
    answer = reply_frame(udp(b"more", source=T4[0], destination=CLIENT4, sport=TARGET_PORT, dport=port))
    return [(0, ether(udp(sport=port))), *((seconds, answer) for seconds in (50, 100, 150, 200))]


case("nat", "a target that streams keeps its flow, also from another worker", config=nat(protocol="UDP"), args=["--workers", "4"],
     packets=stream(41001), check=stays)

no_checksum = udp()
no_checksum[UDP].chksum = 0
case("nat", "an IPv4 UDP packet without a checksum gets none", config=nat(protocol="UDP"), packets=[ether(no_checksum)],
     expect=[tx(forward(no_checksum))])
case("nat", "a target without a port of its own is asked on the listener's", config=config(groups=[group(mode="nat")]), packets=[ether(tcp())],
     expect=[tx(forward(tcp(), port=80), target=at(T4[0], 80))])

# Two listeners share a target: a reply belongs to the one its client came by.
SHARED = config([listener("web-80"), listener("api-80", vip="api")], [group(mode="nat", port=TARGET_PORT)],
                vips=[{"name": "web", "address": VIP4}, {"name": "api", "address": "192.0.2.11"}])
to_web, to_api = tcp(sport=40001), tcp(sport=40002, destination="192.0.2.11")


def shared_reply(port):
    return tcp("SA", source=T4[0], destination=CLIENT4, sport=TARGET_PORT, dport=port)


case("nat", "where listeners share a target, a reply leaves from the VIP that its client asked", config=SHARED,
     packets=[ether(to_web), ether(to_api), reply_frame(shared_reply(40001)), reply_frame(shared_reply(40002))],
     expect=[tx(forward(to_web), listener="web-80"), tx(forward(to_api), listener="api-80"),
             tx(returned(shared_reply(40001), VIP4), listener="web-80"),
             tx(returned(shared_reply(40002), "192.0.2.11"), listener="api-80")])

# ---- tcp.mss_clamp: both directions' SYNs pass lb ----


def announcing(packet, mss):
    packet = packet.copy()
    packet[TCP].options = [("MSS", mss)]
    return type(packet)(raw(packet.__class__(raw(_without_sums(packet)))))


def _without_sums(packet):
    del packet[TCP].chksum
    packet[TCP].dataofs = None
    if IP in packet:
        del packet.chksum
        packet.len = None
    else:
        packet.plen = None
    return packet


for family, vip_name, vip, target, client, router in FAMILIES:
    fits = 1400 - (60 if family == "v6" else 40)
    syn, syn_ack = tcp(destination=vip), reply(target, client)
    case("nat", f"{family} with tcp.mss_clamp SYN and SYN-ACK announce what fits the way to the target", args=["--mtu", "1400"],
         config=nat(vip_name, targets=[target], attributes={"tcp.mss_clamp.enabled": True}),
         packets=[ether(announcing(syn, 1460)), reply_frame(announcing(syn_ack, 8960))],
         expect=[tx(forward(announcing(syn, fits), target)), tx(returned(announcing(syn_ack, fits), vip))])
