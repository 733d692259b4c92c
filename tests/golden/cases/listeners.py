"""Which listener takes a packet, and what becomes of packets none takes."""
from scapy.all import ARP, ICMP, ICMPv6ND_NS, IP, LLC, Dot3, Ether, IPv6, Raw, raw

from ..frames import (CLIENT4, CLIENT_MAC, T4, T6, VIP4, VIP6, config, ether, group, ipip, listener, one, tcp, udp)
from ..harness import case, drop, punt, tx

CHECKED_ON_80 = {"health_check": {"port": 80}}  # their listeners have more than one port
GROUPS = [group("a", [T4[0]], **CHECKED_ON_80), group("b", [T4[1]], **CHECKED_ON_80), group("c", [T4[2]], **CHECKED_ON_80)]


def to(port, target, name, group_name, flow="new"):
    return tx(ipip(tcp(dport=port), target), listener=name, target_group=group_name, flow=flow)


# ---- ports ----

case("listener", "each port of a VIP has its own target group",
     config=config([listener("web-80", groups=["a"]), listener("web-443", port=443, groups=["b"])], GROUPS),
     packets=[ether(tcp(dport=80)), ether(tcp(dport=443))],
     expect=[to(80, T4[0], "web-80", "a"), to(443, T4[1], "web-443", "b")])
case("listener", "a VIP's port without a listener is dropped by name", config=one(), packets=[ether(tcp(dport=81))],
     expect=[drop("no_listener", listener=None, target_group=None, target=None, flow="none")])
case("listener", "UDP to a TCP listener is dropped by name", config=one(), packets=[ether(udp())], expect=[drop("no_listener")])
case("listener", "TCP to a UDP listener is dropped by name", config=one(protocol="UDP"), packets=[ether(tcp())],
     expect=[drop("no_listener")])
case("listener", "the same port of another VIP is another listener",
     config=config([listener("web-80", groups=["a"]), listener("api-80", "api", groups=["b"])], GROUPS,
                   vips=[{"name": "web", "address": VIP4}, {"name": "api", "address": "192.0.2.11"}]),
     packets=[ether(tcp()), ether(tcp(destination="192.0.2.11"))],
     expect=[to(80, T4[0], "web-80", "a"),
             tx(ipip(tcp(destination="192.0.2.11"), T4[1]), listener="api-80", target_group="b", flow="new")])
case("listener", "a TCP_UDP listener takes both, as separate flows",
     config=one(protocol="TCP_UDP"), packets=[ether(tcp()), ether(udp()), ether(udp()), ether(tcp("A"))],
     expect=[tx(ipip(tcp()), flow="new", listener="web-80"), tx(ipip(udp()), flow="new", listener="web-80"),
             tx(ipip(udp()), flow="hit"), tx(ipip(tcp("A")), flow="hit")])
case("listener", "a TCP listener may use a TCP_UDP target group",
     config=config([listener(protocol="TCP")], [group(protocol="TCP_UDP")]), packets=[ether(tcp()), ether(udp())],
     expect=[tx(ipip(tcp()), flow="new"), drop("no_listener")])

RANGE = config([listener("wide", port="1000-2000", groups=["a"]), listener("narrow", port="1400-1500", groups=["b"]),
                listener("single", port=1450, groups=["c"])], GROUPS)
case("listener-range", "a range takes its first and its last port and none beside them", config=RANGE,
     packets=[ether(tcp(dport=p)) for p in (999, 1000, 2000, 2001)],
     expect=[drop("no_listener"), to(1000, T4[0], "wide", "a"), to(2000, T4[0], "wide", "a"), drop("no_listener")])
case("listener-range", "the narrowest range wins, and a single port over any range", config=RANGE,
     packets=[ether(tcp(dport=p)) for p in (1399, 1400, 1450, 1500, 1501)],
     expect=[to(1399, T4[0], "wide", "a"), to(1400, T4[1], "narrow", "b"), to(1450, T4[2], "single", "c"),
             to(1500, T4[1], "narrow", "b"), to(1501, T4[0], "wide", "a")])
ANY_PORT = config([listener("all", port="any", groups=["a"]), listener("web-80", groups=["b"])], GROUPS)
case("listener-range", "a listener for any port takes what no other takes", config=ANY_PORT,
     packets=[ether(tcp(dport=p)) for p in (1, 80, 65535)],
     expect=[to(1, T4[0], "all", "a"), to(80, T4[1], "web-80", "b"), to(65535, T4[0], "all", "a")])
case("listener-range", "any port means any TCP port, not UDP", config=ANY_PORT, packets=[ether(udp(dport=53))],
     expect=[drop("no_listener")])

# ---- VIPs that are prefixes ----

PREFIXES = config([listener("wide-any", "wide", port="any", groups=["a"]), listener("wide-443", "wide", port=443, groups=["c"]),
                   listener("narrow-80", "narrow", groups=["b"]), listener("one-80", "one", groups=["c"])], GROUPS,
                  vips=[{"name": "wide", "address": "192.0.2.0/24"}, {"name": "narrow", "address": "192.0.2.16/28"},
                        {"name": "one", "address": "192.0.2.17/32"}])


def at_address(destination, port, target, name, group_name):
    return tx(ipip(tcp(destination=destination, dport=port), target), listener=name, target_group=group_name, flow="new")


case("listener-prefix", "every address of a prefix is a VIP, the first and the last included", config=PREFIXES,
     packets=[ether(tcp(destination=f"192.0.2.{last}")) for last in (0, 1, 15, 32, 255)],
     expect=[at_address(f"192.0.2.{last}", 80, T4[0], "wide-any", "a") for last in (0, 1, 15, 32, 255)])
case("listener-prefix", "of prefixes in each other the longest takes the packet, a single address before all", config=PREFIXES,
     packets=[ether(tcp(destination=f"192.0.2.{last}")) for last in (16, 17, 18, 31)],
     expect=[at_address("192.0.2.16", 80, T4[1], "narrow-80", "b"), at_address("192.0.2.17", 80, T4[2], "one-80", "c"),
             at_address("192.0.2.18", 80, T4[1], "narrow-80", "b"), at_address("192.0.2.31", 80, T4[1], "narrow-80", "b")])
case("listener-prefix", "within a prefix a port goes before any port", config=PREFIXES,
     packets=[ether(tcp(destination="192.0.2.1", dport=port)) for port in (442, 443)],
     expect=[at_address("192.0.2.1", 442, T4[0], "wide-any", "a"), at_address("192.0.2.1", 443, T4[2], "wide-443", "c")])
case("listener-prefix", "the longest prefix decides alone: without a listener there the packet is dropped by name", config=PREFIXES,
     packets=[ether(tcp(destination="192.0.2.20", dport=443)), ether(tcp(destination="192.0.2.17", dport=443)), ether(udp(destination="192.0.2.1"))],
     expect=[drop("no_listener"), drop("no_listener"), drop("no_listener")])
case("listener-prefix", "beside a prefix the kernel is asked", config=PREFIXES,
     packets=[ether(tcp(destination="192.0.1.255")), ether(tcp(destination="192.0.3.0")), ether(tcp(destination=VIP6))], expect=[punt(), punt(), punt()])
case("listener-prefix", "addresses of a prefix are flows apart", config=PREFIXES,
     packets=[ether(tcp(destination="192.0.2.1")), ether(tcp("A", destination="192.0.2.2")), ether(tcp("A", destination="192.0.2.1"))],
     expect=[at_address("192.0.2.1", 80, T4[0], "wide-any", "a"),
             tx(ipip(tcp("A", destination="192.0.2.2"), T4[0]), flow="new"), tx(ipip(tcp("A", destination="192.0.2.1"), T4[0]), flow="hit")])
WIDE6 = config([listener("wide6", "wide6", protocol="TCP_UDP", port="1-1024", groups=["u"])], [group("u", [T4[0]], "TCP_UDP", **CHECKED_ON_80)],
               vips=[{"name": "wide6", "address": "2001:db8:77::/48"}])
case("listener-prefix", "an IPv6 prefix, a range of ports and both protocols at once", config=WIDE6,
     packets=[ether(tcp(destination="2001:db8:77:ffff::1")), ether(udp(destination="2001:db8:77::", dport=1024)),
              ether(udp(destination="2001:db8:77::", dport=1025)), ether(tcp(destination="2001:db8:78::1"))],
     expect=[tx(ipip(tcp(destination="2001:db8:77:ffff::1"), T4[0]), listener="wide6"),
             tx(ipip(udp(destination="2001:db8:77::", dport=1024), T4[0]), listener="wide6"), drop("no_listener"), punt()])

# ---- not for lb ----

case("punt", "a packet for another address is the kernel's", config=one(),
     packets=[ether(tcp(destination="192.0.2.99")), ether(tcp(destination="2001:db8::99")), ether(udp(destination="192.0.2.99"))],
     expect=[punt(), punt(), punt()])
case("punt", "ARP is the kernel's", config=one(), packets=[Ether(src=CLIENT_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(pdst=VIP4)],
     expect=[punt()])
case("punt", "frames that are no IP are the kernel's", config=one(),
     packets=[Ether(src=CLIENT_MAC, dst="01:80:c2:00:00:0e", type=0x88CC) / Raw(b"lldp"),
              Dot3(src=CLIENT_MAC, dst="01:80:c2:00:00:00") / LLC() / Raw(b"stp")],
     expect=[punt(), punt()])
case("punt", "neighbour discovery is the kernel's", config=one(),
     packets=[ether(IPv6(src="fe80::1", dst="ff02::1:ff00:10", hlim=255) / ICMPv6ND_NS(tgt="2001:db8::1"))], expect=[punt()])
case("punt", "a TTL of one is no fault in a packet for the kernel", config=one(),
     packets=[ether(tcp(destination="224.0.0.5", ttl=1))], expect=[punt()])
case("punt", "other IP protocols to other addresses are the kernel's", config=one(),
     packets=[ether(IP(src=CLIENT4, dst="192.0.2.99", proto=89) / Raw(b"ospf")), ether(IP(src=CLIENT4, dst="192.0.2.99") / ICMP())],
     expect=[punt(), punt()])
case("punt", "a fragment for another address is the kernel's", config=one(),
     packets=[ether(IP(src=CLIENT4, dst="192.0.2.99", frag=100, proto=17) / Raw(b"x" * 64))], expect=[punt()])

# ---- IPv6 listeners ----

case("listener", "IPv4 and IPv6 VIPs may share a target group of either family",
     config=config([listener("web-80", groups=["a"]), listener("web6-80", "web6", groups=["a"])], GROUPS),
     packets=[ether(tcp()), ether(tcp(destination=VIP6))],
     expect=[to(80, T4[0], "web-80", "a"), tx(ipip(tcp(destination=VIP6), T4[0]), listener="web6-80", target_group="a", flow="new")])
case("listener", "a target group may hold targets of both families",
     config=config([listener()], [group(targets=[T4[0], (T6[0], 0)])]), packets=[ether(tcp())], expect=[tx(ipip(tcp(), T4[0]))])
case("listener", "whole runs of ports of one client are separate flows", config=one(),
     packets=[ether(tcp(sport=p)) for p in (1, 2, 65535)] + [raw(ether(tcp("A", sport=1)))],
     expect=[tx(ipip(tcp(sport=1)), flow="new"), tx(ipip(tcp(sport=2)), flow="new"), tx(ipip(tcp(sport=65535)), flow="new"),
             tx(ipip(tcp("A", sport=1)), flow="hit")])


def target_is(run):
    assert run.targets() == [f"{T4[0]}:1000", f"{T4[0]}:2000"]


case("listener-range", "the verdict's target has the port the client asked for", config=RANGE, check=target_is,
     packets=[ether(tcp(dport=p)) for p in (1000, 2000)])

# A VIP within another's prefix: what is the inner one's never becomes the outer one's while the inner one is a VIP.
NESTED = [{"name": "web", "address": VIP4}, {"name": "wide", "address": "192.0.2.0/24"}]
INNER, OUTER = listener("inner"), listener("outer", "wide")


def inner_removed(vips, frame, **expected):
    case("listener-prefix", f"a removed listener of a VIP within a prefix {expected.pop('says')}",
         config=config([INNER, OUTER], [group()], NESTED), files={"less.yaml": config([OUTER], [group()], vips)}, events=[{"at": 1, "apply": "less.yaml"}],
         packets=[(0, ether(tcp())), (2, ether(tcp("A"))), (2, ether(tcp(sport=41000)))],
         expect=[tx(ipip(tcp()), listener="inner", flow="new"), tx(ipip(tcp("A")), flow="hit", **expected), frame])


inner_removed(NESTED, drop("listener_draining", listener="inner"), listener="inner", says="drains although the prefix has one of the same port")
inner_removed(NESTED[1:], tx(ipip(tcp(sport=41000)), listener="outer"), listener="outer", says="gives way to the prefix's when its VIP goes as well")
