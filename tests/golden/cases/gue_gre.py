"""Forwarding modes gue and gre: IPv4 and IPv6 inside either."""
from scapy.all import TCP, UDP, Ether, IPv6, IPv6ExtHdrDestOpt, Raw

from ..frames import (T4, T6, VIP4, VIP6, at, ether, fragmentation_needed, gre, gue, ip, one, packet_too_big, tcp, udp)
from ..harness import answered, case, drop, tx

WAYS = {"4in4": ("web", VIP4, T4[0]), "6in6": ("web6", VIP6, T6[0]), "4in6": ("web", VIP4, T6[0]), "6in4": ("web6", VIP6, T4[0])}


def with_key(packet, target=T4[0]):
    return gre(packet, target, key=0xDEADBEEF)


# Topic: mode, attributes, the frame expected, bytes between outer IP header and inner packet.
TUNNELS = {
    "gue": ("gue", None, gue, 12),
    "gre": ("gre", None, gre, 4),
    "gre-key": ("gre", {"gre.key": 0xDEADBEEF}, with_key, 8),
}


def sized(ip_bytes, destination, **fields):
    headers = 60 if destination == VIP6 else 40
    return tcp("A", destination=destination, payload=bytes(i % 251 for i in range(ip_bytes - headers)), seq=1, ack=1, **fields)


for topic, (mode, attributes, frame, header_bytes) in TUNNELS.items():
    for name, (vip_name, vip, target) in WAYS.items():
        settings = {"config": one(vip=vip_name, target=target, mode=mode, attributes=attributes)}
        fields = {"listener": "web-80", "target_group": "blue", "target": at(target), "worker": 0}
        syn, data = tcp(destination=vip), tcp("PA", destination=vip, payload=b"GET / HTTP/1.1\r\n\r\n", seq=1001, ack=77)
        case(topic, f"{name}: a flow leaves in its tunnel, the first packet and the next", packets=[ether(syn), ether(data)],
             expect=[tx(frame(syn, target), flow="new", **fields), tx(frame(data, target), flow="hit", **fields)], **settings)
        marked = tcp("A", destination=vip, tos=0xB8 | 0x03, ttl=2, payload=b"odd")
        case(topic, f"{name}: DSCP and ECN are copied, the inner TTL loses one, the outer one starts at 64", packets=[ether(marked)],
             expect=[tx(frame(marked, target), **fields)], **settings)
        datagram = udp(destination=vip, payload=b"\x12\x34\x01")
        case(topic, f"{name}: a UDP datagram", packets=[ether(datagram)], expect=[tx(frame(datagram, target), flow="new")],
             config=one(vip=vip_name, protocol="UDP", target=target, mode=mode, attributes=attributes))
        tagged = tcp(destination=vip)
        case(topic, f"{name}: VLAN tags of the client's link do not go into the tunnel", packets=[ether(tagged, vlan=(7, 42))],
             expect=[tx(frame(tagged, target))], **settings)
        room = 1500 - header_bytes - (40 if target == T6[0] else 20)
        case(topic, f"{name}: {room} bytes fit a link of 1500", packets=[ether(sized(room, vip))],
             expect=[tx(frame(sized(room, vip), target), out_len=1514)], **settings)
        answer = packet_too_big if vip == VIP6 else fragmentation_needed
        case(topic, f"{name}: {room + 1} bytes do not, and the client is told {room}", packets=[ether(sized(room + 1, vip))],
             expect=[answered("answered_icmp", answer(sized(room + 1, vip), room))], **settings)

    fragmentable = ip(df=False) / TCP(sport=40000, dport=80, flags="S")
    case(topic, "an inner packet without DF gets an outer header without DF", packets=[ether(fragmentable)],
         config=one(mode=mode, attributes=attributes), expect=[tx(frame(fragmentable))])
    case(topic, "without DF a packet that does not fit is dropped by name", config=one(mode=mode, attributes=attributes),
         packets=[ether(sized(1480, VIP4, df=False))], expect=[drop("too_big")])

# ---- the outer checksum of GUE over IPv6 ----

OVER6 = {"mode": "gue", "target": T6[0]}
case("gue-checksum", "over IPv6 it is 0 where the target group says so", packets=[ether(tcp())],
     config=one(**OVER6, attributes={"gue.ipv6_zero_checksum.enabled": True}), expect=[tx(gue(tcp(), T6[0], zero_checksum=True))])
unchecked = ip() / UDP(sport=5, dport=80, chksum=0) / Raw(b"no checksum of its own")
case("gue-checksum", "a datagram without checksum is summed for the outer one", config=one(**OVER6, protocol="UDP"),
     packets=[ether(unchecked)], expect=[tx(gue(unchecked, T6[0]))])
short = ip() / UDP(sport=5, dport=80, len=8 + 4, chksum=0x1234) / Raw(b"four, and bytes behind the datagram")
case("gue-checksum", "bytes behind a datagram are summed as well", config=one(**OVER6, protocol="UDP"), packets=[ether(short)],
     expect=[tx(gue(short, T6[0]))])
options = ip(source="2001:db8:c::5", destination=VIP6) / IPv6ExtHdrDestOpt() / TCP(sport=40000, dport=80, flags="S")
case("gue-checksum", "extension headers are summed as well", config=one(vip="web6", **OVER6), packets=[ether(options)],
     expect=[tx(gue(options, T6[0]))])

# ---- ports and keys ----

case("gue", "the destination port is the target group's", config=one(mode="gue", attributes={"gue.port": 9886}), packets=[ether(tcp())],
     expect=[tx(gue(tcp(), port=9886))])
case("gre-key", "a key of 0 is a key", config=one(mode="gre", attributes={"gre.key": 0}), packets=[ether(tcp())],
     expect=[tx(gre(tcp(), key=0))])


def ports_follow_flows(run):
    by_flow = {}
    for n, frame in enumerate(run.frames):
        outer = Ether(frame)[UDP]
        assert outer.sport >= 49152, outer.sport
        by_flow.setdefault(n % 64, set()).add(outer.sport)
    assert all(len(ports) == 1 for ports in by_flow.values()), "a flow keeps its source port"
    assert len({port for ports in by_flow.values() for port in ports}) > 48, "flows spread over the ports"


case("gue", "the source port follows the flow", config=one(mode="gue"), packets=[ether(tcp(sport=30000 + n % 64)) for n in range(128)],
     check=ports_follow_flows)


def label_follows_flow(run):
    assert len({Ether(frame)[IPv6].fl for frame in run.frames}) == 1
    assert Ether(run.frames[0])[IPv6].nh == 47


case("gre", "the outer flow label is the same for all packets of a flow", config=one(mode="gre", target=T6[0]),
     packets=[ether(tcp())] * 3, check=label_follows_flow)
