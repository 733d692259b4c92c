"""Forwarding mode geneve: through an appliance and on, by a flow cookie that both directions of a flow share."""
import struct

from scapy.all import (ICMP, IP, TCP, UDP, Ether, ICMPv6EchoRequest, ICMPv6TimeExceeded, IPv6, IPv6ExtHdrRouting, Raw, fragment, raw)

from ..frames import (CLIENT4, CLIENT6, LB_MAC, T4, T6, TUNNEL_V4, TUNNEL_V6, VIP4, VIP6, aged, config, ether, fragmentation_needed, ip,
                      is_v6, listener, group, next_hop_mac, packet_too_big, tcp, tunnel, udp)
from ..harness import answered, case, drop, punt, tx
from ..twins import SlotHash

HASH = SlotHash(1)
VPCE, ATTACHMENT, CLASS = 0x1122334455667788, 0x99AABBCCDDEEFF00, 0x0108
IDS = {"geneve.vpce_id": VPCE, "geneve.attachment_id": ATTACHMENT}
VIPS = [{"name": "servers", "address": "192.0.2.0/24"}, {"name": "clients", "address": "203.0.113.0/24"},
        {"name": "servers6", "address": "2001:db8:ff::/64"}, {"name": "clients6", "address": "2001:db8:c::/64"}]
PROTOCOLS = {"icmp": 1, "icmp6": 58, "esp": 50}


def gateway(targets=(T4[0],), attributes=None, listeners=(), groups=(), vips=VIPS, **extra):
    through = [{"name": f"to-{vip['name']}", "vip": vip["name"], "protocol": "GENEVE", "target_groups": [{"name": "firewalls"}]} for vip in vips]
    return config([*through, *listeners],
                  [group("firewalls", targets, "GENEVE", "geneve", {**IDS, **(attributes or {})}, health_check={"protocol": "TCP", "port": 80}), *groups],
                  vips=[*vips, *extra.pop("more_vips", [])], **extra)


def cookie_of(packet, protocol=None):
    l4 = packet.getlayer(TCP) or packet.getlayer(UDP)
    if protocol is not None or l4 is None:
        return HASH.cookie(packet.src, packet.dst, 0, 0, protocol or (packet.nh if isinstance(packet, IPv6) else packet.proto))
    return HASH.cookie(packet.src, packet.dst, l4.sport, l4.dport, 6 if TCP in packet else 17)


def options(cookie, vpce=VPCE, attachment=ATTACHMENT, option_class=CLASS):
    return b"".join(struct.pack("!HBB", option_class, kind, len(value) // 4) + value for kind, value in
                    ((1, struct.pack("!Q", vpce)), (2, struct.pack("!Q", attachment)), (3, struct.pack("!I", cookie))))


def header(packet, cookie, **fields):
    return struct.pack("!BBHI", 8, 0, 0x86DD if isinstance(packet, IPv6) else 0x0800, 0) + options(cookie, **fields)


def into(packet, target=T4[0], cookie=None, **fields):
    """The frame to the appliance."""
    cookie = cookie_of(packet) if cookie is None else cookie

    def layers(came, _):
        source = came[UDP].sport if UDP in came and came[UDP].sport >= 49152 else 0
        return UDP(sport=source, dport=6081, **({} if is_v6(target) else {"chksum": 0})) / Raw(header(packet, cookie, **fields))

    return tunnel(layers, packet, target)


def from_appliance(payload, target=T4[0], tos=0, **udp_fields):
    outer = IPv6(src=target, dst=TUNNEL_V6, tc=tos) if is_v6(target) else IP(src=target, dst=TUNNEL_V4, tos=tos)
    return Ether(src=next_hop_mac(target), dst=LB_MAC) / outer / UDP(sport=50000, **{"dport": 6081, **udp_fields}) / Raw(payload)


def given_back(packet, target=T4[0], cookie=None, tos=0, **fields):
    """What an appliance sends that echoes the options."""
    cookie = cookie_of(packet) if cookie is None else cookie
    return from_appliance(header(packet, cookie, **fields) + raw(aged(packet)), target, tos)


def onward(packet):
    """By the default route, its TTL lowered once."""
    return Ether(src=LB_MAC, dst=next_hop_mac("::" if isinstance(packet, IPv6) else "0.0.0.0")) / aged(packet)


def reply(packet, flags="SA", payload=b""):
    client, server = (packet.src, packet.dst)
    return tcp(flags, source=server, destination=client, sport=packet[TCP].dport, dport=packet[TCP].sport, seq=5, ack=1001, payload=payload)


FIELDS = {"listener": "to-servers", "target_group": "firewalls", "target": f"{T4[0]}:6081", "worker": 0}
for name, source, destination, target in (("4in4", CLIENT4, VIP4, T4[0]), ("6in6", CLIENT6, VIP6, T6[0]), ("4in6", CLIENT4, VIP4, T6[0]),
                                          ("6in4", CLIENT6, VIP6, T4[0])):
    syn = tcp(source=source, destination=destination)
    back = reply(syn)
    case("geneve", f"{name}: a flow goes through its appliance and on, and so do its answers, under one cookie", config=gateway([target]),
         packets=[ether(syn), given_back(syn, target), ether(back), given_back(back, target)],
         expect=[tx(into(syn, target), flow="new"), tx(onward(syn), flow="hit"), tx(into(back, target, cookie_of(syn)), flow="hit"), tx(onward(back))])
    marked = tcp("A", source=source, destination=destination, tos=0xB8 | 1, ttl=9)
    case("geneve", f"{name}: DSCP and ECN are copied outwards, and the TTL loses one", config=gateway([target]), packets=[ether(marked)],
         expect=[tx(into(marked, target))])
    ping = ip(source, destination) / (ICMPv6EchoRequest() if is_v6(destination) else ICMP())
    number = 58 if is_v6(destination) else 1
    case("geneve", f"{name}: a ping goes through the appliance, and lb does not answer it", config=gateway([target]),
         packets=[ether(ping), given_back(ping, target, cookie_of(ping, number))],
         expect=[tx(into(ping, target, cookie_of(ping, number)), flow="new"), tx(onward(ping))])
    room = 1500 - 48 - (40 if is_v6(target) else 20)
    fits = tcp("A", source=source, destination=destination, payload=b"x" * (room - (60 if is_v6(destination) else 40)))
    longer = tcp("A", source=source, destination=destination, payload=b"x" * (room + 1 - (60 if is_v6(destination) else 40)))
    answer = packet_too_big if is_v6(destination) else fragmentation_needed
    case("geneve", f"{name}: {room} bytes fit a link of 1500, and the sender of one more is told so", config=gateway([target]),
         packets=[ether(fits), ether(longer)], expect=[tx(into(fits, target), out_len=1514), answered("answered_icmp", answer(longer, room))])

SYN, DATA = tcp(), tcp("PA", seq=1001, ack=6, payload=b"GET / HTTP/1.1\r\n\r\n")
case("geneve", "listener, target group and target are named for packets both to and from the appliance", config=gateway(),
     packets=[ether(SYN), given_back(SYN)], expect=[tx(into(SYN), flow="new", **FIELDS), tx(onward(SYN), **FIELDS)])
case("geneve", "the option class is the target group's", config=gateway(attributes={"geneve.option_class": 0x0107}),
     packets=[ether(SYN), given_back(SYN, option_class=0x0107), given_back(SYN)],
     expect=[tx(into(SYN, option_class=0x0107)), tx(onward(SYN)), drop("bad_geneve")])
ESP = IP(src=CLIENT4, dst=VIP4, proto=50, ttl=64, flags="DF") / Raw(b"\0\0\1\2\0\0\0\1opaque")
case("geneve", "a protocol without ports is a flow by its addresses", config=gateway(), packets=[ether(ESP), given_back(ESP)],
     expect=[tx(into(ESP), flow="new"), tx(onward(ESP))])
case("geneve", "a listener for a port of the VIP wins over the one for all traffic",
     config=gateway(listeners=[listener(vip="servers")], groups=[group()]), packets=[ether(SYN), ether(tcp(dport=81))],
     expect=[tx(lambda got: got, listener="web-80"), tx(into(tcp(dport=81)), listener="to-servers")])
case("geneve", "all that comes in by a port goes through the appliance, whatever its destination",
     config=config([{"name": "inside", "interface": "inside0", "protocol": "GENEVE", "target_groups": [{"name": "firewalls"}]}],
                   [group("firewalls", [T4[0]], "GENEVE", "geneve", IDS, health_check={"protocol": "NONE"})], vips=[{"name": "web", "address": "192.0.2.99"}]),
     packets=[ether(SYN), given_back(SYN), ether(ip(destination="169.254.0.9") / UDP(sport=1, dport=2)), ether(tcp(destination="192.0.2.99"))],
     expect=[tx(into(SYN), listener="inside"), tx(onward(SYN)), punt(), drop("no_listener")])

# ---- one appliance for both directions ----

FLOWS = [tcp(sport=40000 + n) for n in range(24)]


def pairs_meet(run):
    targets = run.targets()
    assert targets[0::2] == targets[1::2], "an answer went to another appliance"
    assert len(set(targets)) == 3


BOTH_WAYS = [ether(each) for syn in FLOWS for each in (syn, reply(syn))]
case("geneve", "both directions of every flow meet at one appliance, though each is picked anew", check=pairs_meet, packets=BOTH_WAYS,
     config=gateway(T4[:3]))
case("geneve", "both directions meet with four workers as well", check=pairs_meet, packets=BOTH_WAYS, config=gateway(T4[:3]), args=["--workers", "4"])


def one_target(run):
    assert len(set(run.targets())) == 1, run.targets()


def meet_by_protocol(run):
    tcp_targets, udp_targets = set(run.targets()[:24]), set(run.targets()[24:])
    assert len(tcp_targets) == len(udp_targets) == 1


TWO_TUPLE = {"stickiness.enabled": True, "stickiness.type": "source_ip_dest_ip"}
THREE_TUPLE = {"stickiness.enabled": True, "stickiness.type": "source_ip_dest_ip_proto"}
DATAGRAMS = [ether(udp(sport=4000 + n)) for n in range(8)]
case("geneve", "2-tuple: all between two hosts goes to one appliance, either way and by either protocol", check=one_target,
     config=gateway(T4[:3], TWO_TUPLE), packets=[*BOTH_WAYS[:24], *DATAGRAMS])
case("geneve", "3-tuple: all of one protocol between two hosts goes to one appliance", check=meet_by_protocol,
     config=gateway(T4[:3], THREE_TUPLE), packets=[*BOTH_WAYS[:24], *DATAGRAMS])

# ---- target_failover ----

LATER = tcp("A", seq=1001, ack=6)
TWO = T4[:2]


for word, rebalances in (("rebalance", True), ("no_rebalance", False)):
    failover = {"target_failover.on_deregistration": word, "target_failover.on_unhealthy": word, "deregistration_delay.timeout_seconds": 0}
    for event in ("unhealthy", "drain"):
        for target in TWO:
            # One of the two has the flow: with the other nothing is to be seen.
            def check(run, target=target, rebalances=rebalances):
                before, after = run.targets()
                assert (before != after) == (rebalances and before == f"{target}:6081"), (before, after)
            case("geneve", f"{word}: a flow whose appliance is {event} {'moves' if rebalances else 'stays'} ({target})", config=gateway(TWO, failover),
                 packets=[(0.0, ether(SYN)), (5.0, ether(LATER))], events=[{"at": 2, event: f"{target}:6081"}], check=check)

# ---- what comes back is not believed ----

OTHER = tcp(sport=41000)
GOOD = header(SYN, cookie_of(SYN)) + raw(aged(SYN))
BAD_HEADERS = {"version 1": (0, 0x48), "a control packet": (1, 0x80), "another protocol than IP": (2, 0x65), "a VNI": (4, 1), "a VNI's last byte": (6, 1),
               "options longer than the packet": (0, 0x3F), "an option that runs out of the rest": (11, 0x1F), "a wrong length of option 1": (11, 1),
               "a wrong length of option 2": (23, 3), "a wrong length of the cookie": (35, 0), "option 1 under another number": (10, 4),
               "option 2 under the number of option 1": (22, 1), "the cookie under another class": (32, 2), "a critical option it does not know": (10, 0x85)}
for name, (at, value) in BAD_HEADERS.items():
    payload = GOOD[:at] + bytes([value]) + GOOD[at + 1:]
    case("geneve-bad", f"{name} is dropped as bad_geneve", config=gateway(), packets=[ether(SYN), from_appliance(payload)],
         expect=[tx(into(SYN)), drop("bad_geneve")])
for name, payload in (("no options", struct.pack("!BBHI", 0, 0, 0x0800, 0) + raw(aged(SYN))), ("a header cut short", GOOD[:7]),
                      ("bytes behind the packet inside", GOOD + b"\0" * 4), ("nothing at all", b"")):
    case("geneve-bad", f"{name} is dropped as bad_geneve", config=gateway(), packets=[ether(SYN), from_appliance(payload)],
         expect=[tx(into(SYN)), drop("bad_geneve")])
for name, fields in (("cookie", {"cookie": cookie_of(SYN) ^ 1}), ("vpce id", {"vpce": VPCE + 1}), ("attachment id", {"attachment": 0})):
    case("geneve-bad", f"another {name} is dropped as bad_cookie", config=gateway(), packets=[ether(SYN), given_back(SYN, **fields)],
         expect=[tx(into(SYN)), drop("bad_cookie")])
case("geneve-bad", "a packet of a flow that lb has not sent is dropped", config=gateway(), packets=[ether(SYN), given_back(OTHER)],
     expect=[tx(into(SYN)), drop("geneve_no_flow")])
case("geneve-bad", "a packet from another host than the flow's appliance is dropped", config=gateway(),
     packets=[ether(SYN), given_back(SYN, "10.77.2.77")], expect=[tx(into(SYN)), drop("geneve_no_flow")])
UNKNOWN = struct.pack("!HBB", 0x0104, 9, 1) + b"more"
case("geneve-bad", "options it does not know and that are not critical are passed over, and reserved bits are not looked at", config=gateway(),
     packets=[ether(SYN), from_appliance(bytes([10, 0x3F]) + GOOD[2:7] + b"\xff" + UNKNOWN + GOOD[8:])], expect=[tx(into(SYN)), tx(onward(SYN))])
INNER_FAULTS = {"bad_ip_header": (0, 0x65), "bad_ip_checksum": (10, 0x00), "bad_l4_header": (32, 0x40)}
for reason, (at, value) in INNER_FAULTS.items():
    inner = raw(aged(SYN))
    inner = inner[:at] + bytes([value]) + inner[at + 1:]
    case("geneve-bad", f"a packet inside that is wrong is dropped as {reason}", config=gateway(),
         packets=[ether(SYN), from_appliance(GOOD[:40] + inner)], expect=[tx(into(SYN)), drop(reason)])


def every_cut_ends_in_one_drop(run):
    reasons = [verdict["reason"] for verdict in run.verdicts[1:-1]]
    assert set(reasons) <= {"truncated", "bad_geneve", "bad_ip_header"}, reasons
    assert run.verdicts[-1]["verdict"] == "tx"


WHOLE = given_back(SYN)
CUT = [raw(from_appliance(GOOD[:n])) for n in range(len(GOOD))]
SHORT = [raw(WHOLE)[:n] for n in range(34, len(raw(WHOLE)))]
case("geneve-bad", "truncated at every byte, inside and outside, it ends in one drop", config=gateway(), packets=[ether(SYN), *CUT, *SHORT, WHOLE],
     check=every_cut_ends_in_one_drop)
case("geneve-bad", "lb's own outer packet that comes back is dropped as own_outer", config=gateway(),
     packets=[Ether(dst=LB_MAC) / IP(src=TUNNEL_V4, dst=T4[0]) / UDP(sport=50000, dport=6081) / Raw(GOOD),
              Ether(dst=LB_MAC) / IP(src=TUNNEL_V4, dst="10.77.2.9", proto=4) / raw(SYN),
              Ether(dst=LB_MAC) / IPv6(src=TUNNEL_V6, dst=T6[0], nh=47) / Raw(b"\0\0\x08\0")],
     expect=[drop("own_outer")] * 3)
case("geneve-bad", "the rules of packet hygiene hold for all traffic", config=gateway(),
     packets=[ether(tcp(source="127.0.0.1")), ether(tcp(ttl=1)), ether(IP(src=VIP4, dst=VIP4, proto=50) / Raw(b"12345678")),
              ether(ip(CLIENT6, VIP6) / IPv6ExtHdrRouting(addresses=["::1"], segleft=1) / Raw(b"12345678"))],
     expect=[drop("bad_source"), drop("ttl_expired"), drop("land"), drop("source_route")])

# ---- ECN at the tunnel's end: RFC 6040 §4.2 ----

NOT_ECT, ECT1, ECT0, CE = 0, 1, 2, 3
COMBINED = {(NOT_ECT, CE): None, (ECT0, ECT1): ECT1, (ECT0, CE): CE, (ECT1, CE): CE}
for family, source, destination in (("IPv4", CLIENT4, VIP4), ("IPv6", CLIENT6, VIP6)):
    sent = tcp("A", source=source, destination=destination)
    ways = [(inner, outer) for inner in range(4) for outer in range(4)]
    packets, expected = [ether(sent)], [tx(into(sent))]
    for inner, outer in ways:
        packet = tcp("A", source=source, destination=destination, tos=0x28 | inner)
        left = COMBINED.get((inner, outer), inner)
        packets.append(given_back(packet, tos=0xB8 | outer))
        expected.append(drop("bad_ecn") if left is None else tx(onward(tcp("A", source=source, destination=destination, tos=0x28 | left))))
    case("geneve", f"ECN of the outer header is combined with the packet's, its DSCP is not: {family}", config=gateway(), packets=packets, expect=expected)

# ---- ICMP errors and fragments ----

ROUTER = "198.51.100.1"
UNREACHABLE = IP(src=ROUTER, dst=CLIENT4, ttl=60, flags="DF") / ICMP(type=3, code=1) / Raw(raw(SYN)[:28])
case("geneve", "an ICMP error goes to the appliance of the flow it quotes, under that flow's cookie", config=gateway(T4[:3]),
     packets=[ether(SYN), ether(UNREACHABLE)], check=one_target)
case("geneve", "an ICMP error comes back under that cookie and goes on", config=gateway(),
     packets=[ether(SYN), ether(UNREACHABLE), given_back(UNREACHABLE, cookie=cookie_of(SYN))],
     expect=[tx(into(SYN)), tx(into(UNREACHABLE, cookie=cookie_of(SYN)), flow="hit"), tx(onward(UNREACHABLE))])
EXCEEDED = IPv6(src="2001:db8:99::1", dst=CLIENT6, hlim=60) / ICMPv6TimeExceeded() / Raw(raw(tcp(destination=VIP6))[:48])
case("geneve", "an ICMPv6 error as well", config=gateway(), packets=[ether(tcp(destination=VIP6)), ether(EXCEEDED)],
     expect=[tx(into(tcp(destination=VIP6))), tx(into(EXCEEDED, cookie=cookie_of(tcp(destination=VIP6))), flow="hit")])
BIG = IP(src=CLIENT4, dst=VIP4, ttl=64, id=77) / UDP(sport=4000, dport=53) / Raw(b"z" * 2000)
PARTS = [IP(raw(part)) for part in fragment(BIG, fragsize=1400)]
BIG_COOKIE = HASH.cookie(CLIENT4, VIP4, 4000, 53, 17)
case("geneve", "fragments go through their flow's appliance, and on, under the flow's cookie", config=gateway(),
     packets=[*map(ether, PARTS), *(given_back(part, cookie=BIG_COOKIE) for part in PARTS)],
     expect=[*(tx(into(part, cookie=BIG_COOKIE)) for part in PARTS), *(tx(onward(part)) for part in PARTS)])
PING = IP(src=CLIENT4, dst=VIP4, ttl=64, id=78) / ICMP() / Raw(b"p" * 2000)
PINGS = [IP(raw(part)) for part in fragment(PING, fragsize=1400)]
case("geneve", "fragments of a protocol without ports go by their addresses", config=gateway(),
     packets=[*map(ether, PINGS), *(given_back(part, cookie=cookie_of(PING, 1)) for part in PINGS)],
     expect=[*(tx(into(part, cookie=cookie_of(PING, 1))) for part in PINGS), *(tx(onward(part)) for part in PINGS)])
