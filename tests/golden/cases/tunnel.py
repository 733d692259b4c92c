"""Forwarding mode ipip: 4in4, 6in6, 4in6, 6in4."""
from scapy.all import IP, TCP, UDP, Ether, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, Raw, raw

from ..frames import (CLIENT4, T4, T6, TUNNEL_V4, TUNNEL_V6, VIP4, VIP6, at, config, ether, group, ip, ipip, listener, one, tcp, udp)
from ..harness import case, tx

TOPICS = {
    "ipip44": {"vip": "web", "address": VIP4, "target": T4[0]},
    "ipip66": {"vip": "web6", "address": VIP6, "target": T6[0]},
    "ipip46": {"vip": "web", "address": VIP4, "target": T6[0]},
    "ipip64": {"vip": "web6", "address": VIP6, "target": T4[0]},
}

for topic, its in TOPICS.items():
    vip, target = its["address"], its["target"]
    settings = {"config": one(vip=its["vip"], target=target)}
    fields = {"listener": "web-80", "target_group": "blue", "target": at(target), "worker": 0}

    syn, data = tcp(destination=vip), tcp("PA", destination=vip, payload=b"GET / HTTP/1.1\r\n\r\n", seq=1001, ack=77)
    case(topic, "a SYN leaves inside an outer header addressed to its target", packets=[ether(syn)],
         expect=[tx(ipip(syn, target), flow="new", **fields)], **settings)

    case(topic, "later packets of a flow hit its entry and go the same way", packets=[ether(syn), ether(data)],
         expect=[tx(ipip(syn, target), flow="new", **fields), tx(ipip(data, target), flow="hit", **fields)], **settings)

    full = tcp("A", destination=vip, payload=bytes(i % 256 for i in range(1300)), seq=1, ack=1)
    case(topic, "payload is carried unchanged", packets=[ether(full)], expect=[tx(ipip(full, target), flow="new", **fields)],
         **settings)

    query = udp(destination=vip, payload=b"\x12\x34\x01\x00")
    case(topic, "a UDP datagram is forwarded and its second packet is a hit", packets=[ether(query), ether(query)],
         config=one(vip=its["vip"], protocol="UDP", target=target),
         expect=[tx(ipip(query, target), flow="new", **fields), tx(ipip(query, target), flow="hit", **fields)])

    marked = tcp(destination=vip, tos=0xB8 | 0x03)
    case(topic, "DSCP and a congestion mark are copied to the outer header", packets=[ether(marked)],
         expect=[tx(ipip(marked, target), **fields)], **settings)

    last_hop = tcp(destination=vip, ttl=2)
    case(topic, "the inner TTL loses one and the outer TTL starts at 64", packets=[ether(last_hop)],
         expect=[tx(ipip(last_hop, target), **fields)], **settings)

    stray = tcp("A", destination=vip, seq=5, ack=9)
    case(topic, "a packet of a flow nobody knows is forwarded and earns an entry", packets=[ether(stray), ether(stray)],
         expect=[tx(ipip(stray, target), flow="new"), tx(ipip(stray, target), flow="hit")], **settings)


def same_choice(outer, field):
    def check(run):
        values = {getattr(Ether(frame)[outer], field) for frame in run.frames}
        assert len(values) == 1, f"{field} differs within a flow: {values}"
    return check


for topic, inner in (("ipip46", tcp(destination=VIP4)), ("ipip66", tcp(destination=VIP6))):
    its = TOPICS[topic]
    case(topic, "the outer flow label is the same for all packets of a flow", config=one(vip=its["vip"], target=its["target"]),
         packets=[ether(inner)] * 3, check=same_choice(IPv6, "fl"))

fragmentable = ip(df=False) / TCP(sport=40000, dport=80, flags="S")
case("ipip44", "an inner packet without DF gets an outer header without DF", config=one(), packets=[ether(fragmentable)],
     expect=[tx(ipip(fragmentable, T4[0]))])


def checksum_is(value):
    """A packet whose header checksum is `value`: the id makes up for the rest."""
    packet = tcp()
    packet.id = 0
    base = IP(raw(packet)).chksum
    packet.id = (base - value) % 0xFFFF
    packet = IP(raw(packet))
    assert packet.chksum == value, hex(packet.chksum)
    return packet


for value in (0xFEFF, 0xFF00, 0x0001):
    wrapping = checksum_is(value)
    case("ipip44", f"the inner checksum is right after the TTL fell, coming from 0x{value:04x}", config=one(),
         packets=[ether(wrapping)], expect=[tx(ipip(wrapping, T4[0]))])

case("ipip44", "a UDP checksum of zero stays zero", config=one(protocol="UDP"),
     packets=[ether(ip() / UDP(sport=5, dport=80, chksum=0) / Raw(b"no checksum"))],
     expect=[tx(ipip(ip() / UDP(sport=5, dport=80, chksum=0) / Raw(b"no checksum")))])

case("ipip44", "a wrong TCP checksum is the target's to judge", config=one(), packets=[ether(ip() / TCP(dport=80, chksum=0xBEEF))],
     expect=[tx(ipip(ip() / TCP(dport=80, chksum=0xBEEF)))])

# ---- IPv4 options, IPv6 extension headers ----

for name, options in (("four bytes of", b"\x01\x01\x01\x00"), ("forty bytes of", b"\x01" * 39 + b"\x00")):
    header = raw(IP(src=CLIENT4, dst=VIP4, flags="DF", ttl=64, id=7, proto=6, ihl=5 + len(options) // 4,
                    len=20 + len(options) + 20, chksum=0))[:20]
    segment = raw(tcp())[20:]
    packet = IP(header + options + segment)
    del packet.chksum
    packet = IP(raw(packet))
    case("ipv4-options", f"a packet with {name} options is forwarded with them", config=one(), packets=[ether(packet)],
         expect=[tx(ipip(packet), flow="new", target=at(T4[0]))])

SYN6 = TCP(sport=40000, dport=80, flags="S", seq=1000, window=8192)
EXTENSIONS = {
    "a hop-by-hop header": IPv6ExtHdrHopByHop(),
    "destination options": IPv6ExtHdrDestOpt(),
    "hop-by-hop and destination options": IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt(),
}
for name, headers in EXTENSIONS.items():
    packet = ip(source="2001:db8:c::5", destination=VIP6) / headers / SYN6
    case("ipv6-extensions", f"TCP behind {name} is found and forwarded with it", config=one(vip="web6", target=T6[0]),
         packets=[ether(packet)], expect=[tx(ipip(packet, T6[0]), flow="new")])

# ---- outer source ----

case("tunnel-source", "the configured address is the outer source", config=one(tunnel_source={"ipv4": "10.9.9.9"}),
     packets=[ether(tcp())], expect=[tx(ipip(tcp(), T4[0], source="10.9.9.9"))])
case("tunnel-source", "the configured IPv6 address is the outer source of IPv4 packets too",
     config=one(target=T6[0], tunnel_source={"ipv6": "2001:db8:9::9"}),
     packets=[ether(tcp())], expect=[tx(ipip(tcp(), T6[0], source="2001:db8:9::9"))])
case("tunnel-source", "without one it is a fixed address of the outer family",
     config=config([listener(), listener("web6-80", "web6", groups=["blue"])], [group(targets=[T4[0]])]),
     packets=[ether(tcp()), ether(tcp(destination=VIP6))],
     expect=[tx(ipip(tcp(), T4[0], source=TUNNEL_V4)), tx(ipip(tcp(destination=VIP6), T4[0], source=TUNNEL_V4))])
case("tunnel-source", "without one IPv6 tunnels have a fixed address as well", config=one(target=T6[0]), packets=[ether(tcp())],
     expect=[tx(ipip(tcp(), T6[0], source=TUNNEL_V6))])


def sources_spread(run):
    by_flow = {}
    for n, frame in enumerate(run.frames):
        outer = Ether(frame)[IP]
        assert outer.src.startswith("10.9.9."), outer.src
        by_flow.setdefault(n % 64, set()).add(outer.src)
    assert all(len(sources) == 1 for sources in by_flow.values()), "a flow keeps its outer source"
    assert len({source for sources in by_flow.values() for source in sources}) > 32, "flows spread over the prefix"


case("tunnel-source", "host bits of a prefix follow the flow", config=one(tunnel_source={"ipv4": "10.9.9.0/24"}),
     packets=[ether(tcp(sport=30000 + n % 64)) for n in range(128)], check=sources_spread)
