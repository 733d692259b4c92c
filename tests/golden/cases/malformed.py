"""Bytes that are no good packet: each ends in one named drop."""
from scapy.all import TCP, UDP, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, Raw, raw

from ..frames import CLIENT6, T6, VIP4, VIP6, config, ether, group, ip, ipip, listener, one, tcp, udp
from ..harness import case, drop, tx

BOTH = config([listener(protocol="TCP_UDP"), listener("web6-80", "web6", protocol="TCP_UDP", groups=["blue6"])],
              [group(protocol="TCP_UDP"), group("blue6", [T6[0]], protocol="TCP_UDP")])
SYN4, SYN6 = ether(tcp()), ether(tcp(destination=VIP6))
DGRAM4, DGRAM6 = ether(udp()), ether(udp(destination=VIP6))


def patched(frame, *changes):
    """changes: (offset, bytes)."""
    data = bytearray(raw(frame))
    for offset, new in changes:
        data[offset:offset + len(new)] = new
    return bytes(data)


def summed(frame):
    """With the IPv4 header checksum put right, the header length as it says."""
    data = bytearray(frame)
    length = (data[14] & 15) * 4
    data[24:26] = b"\0\0"
    total = sum(int.from_bytes(data[i:i + 2], "big") for i in range(14, 14 + length, 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    data[24:26] = (0xFFFF - total).to_bytes(2, "big")
    return bytes(data)


# ---- truncation: the capture holds less than there was ----

TRUNCATIONS = {
    "an empty frame": (SYN4, 0),
    "a frame cut within the Ethernet header": (SYN4, 13),
    "a frame cut within a VLAN tag": (ether(tcp(), vlan=(5,)), 16),
    "a frame that ends after the Ethernet header": (SYN4, 14),
    "an IPv4 header cut short": (SYN4, 14 + 19),
    "a TCP header cut short": (SYN4, 14 + 20 + 19),
    "TCP ports cut off": (SYN4, 14 + 20 + 2),
    "a UDP header cut short": (DGRAM4, 14 + 20 + 7),
    "a TCP payload cut short": (ether(tcp("A", payload=b"x" * 100)), 14 + 20 + 20 + 99),
    "a UDP payload cut short": (DGRAM4, 14 + 20 + 8 + 1),
    "an IPv6 header cut short": (SYN6, 14 + 39),
    "a TCP header cut short behind IPv6": (SYN6, 14 + 40 + 19),
    "a UDP payload cut short behind IPv6": (DGRAM6, 14 + 40 + 8 + 1),
}
for name, (frame, kept) in TRUNCATIONS.items():
    case("truncated", f"{name} is dropped", config=BOTH, packets=[(0, frame, kept)],
         expect=[drop("truncated", listener=None, target=None, flow="none")])

case("truncated", "an IPv4 length that leaves no room for the TCP header is dropped", config=BOTH,
     packets=[summed(patched(SYN4, (16, (39).to_bytes(2, "big"))))], expect=[drop("truncated")])
case("truncated", "what follows a dropped frame is handled as if it had not come", config=BOTH,
     packets=[(0, SYN4, 30), (1, SYN4)], expect=[drop("truncated"), tx(ipip(tcp()), flow="new")])

# ---- lengths and versions ----

case("bad-length", "an IPv4 header length below five words is dropped", config=BOTH,
     packets=[patched(SYN4, (14, b"\x44"))], expect=[drop("bad_ip_header")])
case("bad-length", "an IPv4 header longer than the packet is dropped", config=BOTH,
     packets=[patched(SYN4, (14, b"\x4f"))], expect=[drop("bad_ip_header")])
case("bad-length", "an IPv4 total length below the header is dropped", config=BOTH,
     packets=[summed(patched(SYN4, (16, b"\x00\x13")))], expect=[drop("bad_ip_header")])
case("bad-length", "an IPv4 total length beyond the frame is dropped", config=BOTH,
     packets=[summed(patched(SYN4, (16, b"\x01\x00")))], expect=[drop("truncated")])
case("bad-length", "an Ethernet type that contradicts the IP version is dropped", config=BOTH,
     packets=[patched(SYN4, (12, b"\x86\xdd"), (14, b"\x45")), patched(SYN6, (12, b"\x08\x00"))],
     expect=[drop("bad_ip_header"), drop("bad_ip_header")])
case("bad-length", "a TCP data offset below five words is dropped", config=BOTH,
     packets=[patched(SYN4, (14 + 20 + 12, b"\x40"))], expect=[drop("bad_l4_header")])
case("bad-length", "a TCP data offset beyond the packet is dropped", config=BOTH,
     packets=[patched(SYN4, (14 + 20 + 12, b"\xf0"))], expect=[drop("bad_l4_header")])
case("bad-length", "a UDP length below its header is dropped", config=BOTH,
     packets=[patched(DGRAM4, (14 + 20 + 4, b"\x00\x07"))], expect=[drop("bad_l4_header")])
case("bad-length", "a UDP length beyond the packet is dropped", config=BOTH,
     packets=[patched(DGRAM4, (14 + 20 + 4, b"\x01\x00"))], expect=[drop("bad_l4_header")])
case("bad-length", "an IPv6 payload length of zero is dropped", config=BOTH, packets=[patched(SYN6, (18, b"\x00\x00"))],
     expect=[drop("bad_ip_header")])
case("bad-length", "an IPv6 payload length beyond the frame is dropped", config=BOTH,
     packets=[patched(SYN6, (18, b"\x01\x00"))], expect=[drop("truncated")])
short = ip() / UDP(sport=1, dport=80, len=8) / Raw(b"behind the datagram")
case("bad-length", "a UDP length below the payload is no fault", config=BOTH, packets=[ether(short)], expect=[tx(ipip(short))])
case("bad-length", "an IPv4-mapped address in an IPv6 packet is dropped", config=BOTH,
     packets=[ether(IPv6(src=CLIENT6, dst="::ffff:" + VIP4) / TCP(dport=80))], expect=[drop("bad_ip_header")])

case("checksum", "an IPv4 header checksum that is off by one bit is dropped", config=one(),
     packets=[patched(SYN4, (24, bytes([raw(SYN4)[24] ^ 1])))], expect=[drop("bad_ip_checksum", listener=None)])
case("checksum", "an IPv4 header checksum of zero is dropped", config=one(), packets=[patched(SYN4, (24, b"\0\0"))],
     expect=[drop("bad_ip_checksum")])

# ---- TTL ----

for ttl in (0, 1):
    for family, vip in (("IPv4", VIP4), ("IPv6", VIP6)):
        case("ttl", f"{family} with {ttl} hops left is dropped", config=BOTH, packets=[ether(tcp(destination=vip, ttl=ttl))],
             expect=[drop("ttl_expired")])
    case("ttl", f"l2dsr does not forward a packet with {ttl} hops left", config=one(mode="l2dsr"),
         packets=[ether(tcp(ttl=ttl))], expect=[drop("ttl_expired")])

# ---- fragments: cases/fragments.py ----

atomic = IPv6(src=CLIENT6, dst=VIP6) / IPv6ExtHdrFragment(offset=0, m=0, id=7) / TCP(sport=40000, dport=80, flags="S")
case("fragment", "an IPv6 fragment header around a whole packet is no fragment", config=BOTH, packets=[ether(atomic)],
     expect=[tx(ipip(atomic, T6[0]), flow="new")])

# ---- extension headers ----

TCP80 = TCP(sport=40000, dport=80, flags="S")
V6 = IPv6(src=CLIENT6, dst=VIP6)


def options(count):
    packet = V6
    for _ in range(count):
        packet = packet / IPv6ExtHdrDestOpt()
    return packet / TCP80


case("ipv6-extensions", "eight extension headers are followed", config=BOTH, packets=[ether(options(8))],
     expect=[tx(ipip(options(8), T6[0]))])
case("ipv6-extensions", "nine extension headers are dropped by name", config=BOTH, packets=[ether(options(9))],
     expect=[drop("bad_extension_header")])
case("ipv6-extensions", "a hop-by-hop header that is not the first is dropped by name", config=BOTH,
     packets=[ether(V6 / IPv6ExtHdrDestOpt() / IPv6ExtHdrHopByHop() / TCP80)], expect=[drop("bad_extension_header")])
case("ipv6-extensions", "an extension header longer than the packet is dropped by name", config=BOTH,
     packets=[patched(ether(options(1)), (14 + 40 + 1, b"\xff"))], expect=[drop("bad_extension_header")])
visited = V6 / IPv6ExtHdrRouting(type=0, segleft=0, addresses=["2001:db8::7"]) / TCP80
case("ipv6-extensions", "a routing header that has run its course is followed", config=BOTH, packets=[ether(visited)],
     expect=[tx(ipip(visited, T6[0]))])

# ---- source addresses ----

SOURCES = {
    "a multicast address": ("224.0.0.5", VIP4), "a loopback address": ("127.0.0.1", VIP4),
    "the unspecified address": ("0.0.0.0", VIP4), "the broadcast address": ("255.255.255.255", VIP4),
    "an IPv6 multicast address": ("ff02::1", VIP6), "the IPv6 loopback address": ("::1", VIP6),
    "the IPv6 unspecified address": ("::", VIP6),
}
for name, (source, vip) in SOURCES.items():
    case("bad-source", f"a packet from {name} is dropped by name", config=BOTH, packets=[ether(tcp(source=source, destination=vip))],
         expect=[drop("bad_source", flow="none")])
