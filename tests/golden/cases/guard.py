"""Packet hygiene: what no honest client sends ends in a drop of its own name, and each check can be switched off."""
from scapy.all import (IP, TCP, UDP, Ether, IPOption_LSRR, IPOption_RR, IPOption_SSRR, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrRouting,
                       Raw)

from ..frames import CLIENT4, CLIENT6, T6, VIP4, VIP6, config, ether, group, ip, ipip, listener, tcp, udp
from ..harness import case, drop, tx


def guarded(**hygiene):
    extra = {"packet_hygiene": hygiene} if hygiene else {}
    return config([listener(protocol="TCP_UDP"), listener("web6-80", "web6", protocol="TCP_UDP", groups=["blue6"])],
                  [group(protocol="TCP_UDP"), group("blue6", [T6[0]], protocol="TCP_UDP")], **extra)


# ---- TCP flags ----

BAD_FLAGS = {"SYN and FIN": "SF", "SYN and RST": "SR", "no flag at all": "", "FIN, PSH and URG (Xmas)": "FPU",
             "only bits of ECN": "EC", "SYN, FIN and ACK": "SFA", "all flags": "FSRPAU"}
for name, flags in BAD_FLAGS.items():
    case("tcp-flags", f"{name} is dropped by name, with an entry and without", config=guarded(),
         packets=[ether(tcp(flags)), ether(tcp(sport=2)), ether(tcp("A", sport=2)), ether(tcp(flags, sport=2)),
                  ether(tcp("A", sport=2)), ether(tcp(flags, destination=VIP6))],
         expect=[drop("bad_tcp_flags", flow="none"), tx(ipip(tcp(sport=2)), flow="new"), tx(ipip(tcp("A", sport=2)), flow="hit"),
                 drop("bad_tcp_flags"), tx(ipip(tcp("A", sport=2)), flow="hit"), drop("bad_tcp_flags", flow="none")])
GOOD_FLAGS = ["S", "SEC", "SA", "A", "PA", "FA", "FPA", "R", "RA", "UA", "F", "P", "U"]
case("tcp-flags", "flags that TCP does use pass", config=guarded(),
     packets=[ether(tcp(flags, sport=n + 1)) for n, flags in enumerate(GOOD_FLAGS)],
     expect=[tx(ipip(tcp(flags, sport=n + 1))) for n, flags in enumerate(GOOD_FLAGS)])
case("tcp-flags", "UDP has no flags to be wrong", config=guarded(), packets=[ether(udp()), ether(udp())],
     expect=[tx(ipip(udp()), flow="new"), tx(ipip(udp()), flow="hit")])
case("tcp-flags", "wrong flags pass where the check is off", config=guarded(tcp_flags=False), packets=[ether(tcp("SF"))],
     expect=[tx(ipip(tcp("SF")))])

# ---- sources ----

for family, vip in (("IPv4", VIP4), ("IPv6", VIP6)):
    land = tcp(source=vip, destination=vip)
    case("land", f"an {family} packet from the VIP itself is dropped by name", config=guarded(), packets=[ether(land)],
         expect=[drop("land", flow="none")])
case("land", "a VLAN tag does not hide a packet from the VIP itself", config=guarded(),
     packets=[ether(tcp(source=VIP4), vlan=(7,))], expect=[drop("land")])
case("land", "a packet from the VIP passes where the check is off", config=guarded(land=False), packets=[ether(tcp(source=VIP4))],
     expect=[tx(ipip(tcp(source=VIP4)))])
MARTIANS = {"0.1.2.3": VIP4, "240.0.0.1": VIP4, "127.255.255.254": VIP4, "fe80::1": VIP6, "febf::1": VIP6,
            "::192.0.2.1": VIP6}
for source, vip in MARTIANS.items():
    case("martian", f"a packet from {source} is dropped by name", config=guarded(),
         packets=[ether(tcp(source=source, destination=vip))], expect=[drop("bad_source", flow="none")])
NEIGHBOURS = {"1.0.0.0": VIP4, "126.255.255.255": VIP4, "128.0.0.1": VIP4, "169.254.7.7": VIP4,
              "223.255.255.255": VIP4, "fec0::1": VIP6, "fd00::1": VIP6, "64:ff9b::c000:201": VIP6}
for source, vip in NEIGHBOURS.items():
    packet = tcp(source=source, destination=vip)
    case("martian", f"a packet from {source} is none", config=guarded(), packets=[ether(packet)],
         expect=[tx(ipip(packet, T6[0]) if vip == VIP6 else ipip(packet))])
case("martian", "a martian passes where the check is off", config=guarded(martians=False),
     packets=[ether(tcp(source="127.0.0.1"))], expect=[tx(ipip(tcp(source="127.0.0.1")))])

# ---- source routes ----


def routed(option):
    return IP(src=CLIENT4, dst=VIP4, flags="DF", ttl=64, options=[option]) / TCP(sport=40000, dport=80, flags="S")


ROUTES = {"loose": IPOption_LSRR(routers=["10.0.0.1"]), "strict": IPOption_SSRR(routers=["10.0.0.1"])}
for name, option in ROUTES.items():
    case("source-route", f"a {name} source route is dropped by name", config=guarded(), packets=[ether(routed(option))],
         expect=[drop("source_route", flow="none")])
recorded = routed(IPOption_RR(routers=["0.0.0.0"]))
case("source-route", "another IPv4 option passes", config=guarded(), packets=[ether(recorded)], expect=[tx(ipip(recorded))])
case("source-route", "a source route passes where the check is off", config=guarded(source_route=False),
     packets=[ether(routed(ROUTES["loose"]))], expect=[tx(ipip(routed(ROUTES["loose"])))])
onward = IPv6(src=CLIENT6, dst=VIP6) / IPv6ExtHdrRouting(type=0, segleft=1, addresses=["2001:db8::7"]) / TCP(dport=80, flags="S")
case("source-route", "an IPv6 routing header with segments left is dropped by name", config=guarded(), packets=[ether(onward)],
     expect=[drop("source_route")])

# ---- tiny fragments ----

TINY = {
    "a first fragment without TCP flags": IP(src=CLIENT4, dst=VIP4, flags="MF", proto=6) / Raw(b"\0\1\0\x50" + b"\0" * 4),
    "a TCP fragment over the flags of the first": IP(src=CLIENT4, dst=VIP4, flags="MF", frag=1, proto=6) / Raw(b"\0" * 64),
    "a last TCP fragment within the header": IP(src=CLIENT4, dst=VIP4, frag=2, proto=6) / Raw(b"\0" * 64),
    "a first IPv6 fragment without TCP flags":
        IPv6(src=CLIENT6, dst=VIP6) / IPv6ExtHdrFragment(offset=0, m=1, id=7, nh=6) / Raw(b"\0\1\0\x50" + b"\0" * 4),
    "an empty fragment of UDP": IP(src=CLIENT4, dst=VIP4, flags="MF", frag=9, proto=17),
}
for name, packet in TINY.items():
    case("tiny-fragment", f"{name} is dropped by name", config=guarded(), packets=[ether(packet)], expect=[drop("tiny_fragment")])

# ---- L4 checksums ----


def damaged(packet):
    """One bit of the payload turned behind the checksum's back."""
    data = bytearray(bytes(packet))
    data[-1] ^= 1
    return bytes(data)


SUMMED = {"TCP": tcp("PA", payload=b"odd"), "UDP": udp(payload=b"odd"), "TCP over IPv6": tcp("PA", destination=VIP6, payload=b"odd"),
          "UDP over IPv6": udp(destination=VIP6, payload=b"odd")}
for name, packet in SUMMED.items():
    whole = ipip(packet, T6[0]) if "IPv6" in name else ipip(packet)
    case("l4-checksum", f"a damaged {name} packet is dropped by name, a whole one passes", config=guarded(l4_checksums=True),
         packets=[damaged(ether(packet)), ether(packet)], expect=[drop("bad_l4_checksum", flow="none"), tx(whole, flow="new")])
    case("l4-checksum", f"a damaged {name} packet passes by default", config=guarded(), packets=[damaged(ether(packet))],
         expect=[tx(lambda came: came)])
unsummed = ip() / UDP(sport=1, dport=80, chksum=0) / Raw(b"none")
case("l4-checksum", "UDP over IPv4 may come without a checksum", config=guarded(l4_checksums=True), packets=[ether(unsummed)],
     expect=[tx(ipip(unsummed))])
unsummed6 = IPv6(src=CLIENT6, dst=VIP6) / UDP(sport=1, dport=80, chksum=0) / Raw(b"none")
case("l4-checksum", "UDP over IPv6 may not", config=guarded(l4_checksums=True), packets=[ether(unsummed6)],
     expect=[drop("bad_l4_checksum")])
padded = Ether(bytes(ether(ip() / UDP(sport=1, dport=80) / Raw(b"data"))) + b"\0" * 20)
case("l4-checksum", "Ethernet padding is no part of the sum", config=guarded(l4_checksums=True), packets=[padded],
     expect=[tx(ipip(ip() / UDP(sport=1, dport=80) / Raw(b"data")))])
