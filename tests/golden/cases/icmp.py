"""ICMP to a VIP: errors about its flows go where the flows go; echo is answered by lb."""
from scapy.all import (ICMP, IP, TCP, UDP, ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6ND_NA,
                       ICMPv6PacketTooBig, ICMPv6ParamProblem, ICMPv6TimeExceeded, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPOption, Raw, raw)

from ..frames import (CLIENT4, CLIENT6, T4, T6, VIP4, VIP6, at, back, config, ether, group, ip, ipip, is_v6, l2dsr, one, tcp, udp)
from ..harness import answered, case, drop, punt, tx

ROUTER4, ROUTER6 = "198.51.100.1", "2001:db8:a::1"


def answer_of(packet, payload=b"x" * 600):
    """What a target sends to the client of `packet`, in the VIP's name."""
    l4 = packet[TCP] if TCP in packet else packet[UDP]
    head = ip(packet.dst, packet.src)
    if TCP in packet:
        return head / TCP(sport=l4.dport, dport=l4.sport, flags="PA", seq=77, ack=1001) / Raw(payload)
    return head / UDP(sport=l4.dport, dport=l4.sport) / Raw(payload)


def error(quoted, message=None, router=None, cut=None, **fields):
    """From a router on the target's way to the client; `cut`: bytes of the quoted L4 header and payload."""
    six = is_v6(quoted.src)
    data = raw(quoted)
    data = data[:(40 if six else 20) + cut] if cut is not None else data[:500]
    message = message or (ICMPv6PacketTooBig(mtu=1300) if six else ICMP(type=3, code=4, nexthopmtu=1300))
    head = ip(router or (ROUTER6 if six else ROUTER4), quoted.src, df=False, **fields)
    packet = head / message / Raw(data)
    return type(head)(raw(packet))


# A flow's target is not the one the table would give it now: it began while it was the only one.
MOVED = {"config": one(), "files": {"more.yaml": config(groups=[group(targets=[T4[0], (T4[1], 100), (T4[2], 100)])])},
         "events": [{"at": 1, "apply": "more.yaml"}]}
V6 = {"config": one(vip="web6", target=T6[0])}


def cases_of_family(name, vip, settings, target):
    syn = tcp(destination=vip)
    said = answer_of(syn)
    for text, arguments in (("whole", {}), ("cut after eight bytes of TCP", {"cut": 8})):
        message = error(said, **arguments)
        case("icmp-error", f"{name}: an error whose quote is {text} goes to its flow's target", packets=[ether(syn), ether(message)],
             expect=[tx(ipip(syn, target), flow="new"), tx(ipip(message, target), flow="hit", target=at(target), listener="web-80")], **settings)
    message = error(said)
    case("icmp-error", f"{name}: an error about a flow without an entry goes by hash, and makes none", packets=[ether(message), ether(syn)],
         expect=[tx(ipip(message, target), flow="none"), tx(ipip(syn, target), flow="new")], **settings)
    cut = error(said, cut=7)
    case("icmp-error", f"{name}: a quote without both ports in it is dropped by name", packets=[ether(cut)],
         expect=[drop("bad_icmp", listener=None)], **settings)
    foreign = error(answer_of(tcp(destination=vip, dport=81)))
    case("icmp-error", f"{name}: an error about a port nobody listens on is dropped by name", packets=[ether(foreign)],
         expect=[drop("icmp_no_flow", listener=None)], **settings)
    old = error(said, ttl=1)
    case("icmp-error", f"{name}: an error out of hops is dropped by name", packets=[ether(old)], expect=[drop("ttl_expired")], **settings)
    bad = bytearray(raw(ether(message)))
    bad[-1] ^= 1
    case("icmp-error", f"{name}: an error with a wrong checksum is dropped by name", packets=[bytes(bad)], expect=[drop("bad_icmp")], **settings)
    big = error(answer_of(syn, b"x" * 2000), cut=1300)
    case("icmp-error", f"{name}: an error that fits no tunnel is dropped, never answered with another", packets=[ether(big)],
         expect=[drop("too_big")], args=["--mtu", "1280"], **settings)


cases_of_family("v4", VIP4, {"config": one()}, T4[0])
cases_of_family("v6", VIP6, V6, T6[0])

SYN = tcp()
PTB = error(answer_of(SYN))
case("icmp-error", "an error follows its flow, not the hash", packets=[ether(SYN), (2, ether(PTB)), (2.1, ether(tcp("A", seq=1001, ack=5)))],
     expect=[tx(ipip(SYN), flow="new"), tx(ipip(PTB), flow="hit", target=at(T4[0])), tx(ipip(tcp("A", seq=1001, ack=5)), flow="hit")], **MOVED)


def another_worker(run):
    """Errors come by the router's address, so that of many routers half land on each worker."""
    assert {verdict["worker"] for verdict in run.verdicts[1:]} == {0, 1}
    assert all(verdict["flow"] == "hit" and verdict["target"] == at(T4[0]) for verdict in run.verdicts[1:])
    assert run.summary["peer_looks"] > 0


case("icmp-error", "an error finds its flow in another worker's table", args=["--workers", "2"],
     packets=[ether(SYN)] + [(2 + n / 100, ether(error(answer_of(SYN), router=f"198.51.100.{n + 1}"))) for n in range(40)], check=another_worker, **MOVED)

QUERY = udp(dport=53)
case("icmp-error", "an error about a UDP flow goes to its target", config=one(protocol="UDP", port=53),
     packets=[ether(QUERY), ether(error(answer_of(QUERY)))], expect=[tx(ipip(QUERY), flow="new"), tx(ipip(error(answer_of(QUERY))), flow="hit")])
case("icmp-error", "in l2dsr an error gets the target's MAC and nothing else changes", config=one(mode="l2dsr"), packets=[ether(SYN), ether(PTB)],
     expect=[tx(l2dsr(SYN)), tx(l2dsr(PTB), flow="hit")])
FOURS = (("destination unreachable", ICMP(type=3, code=1)), ("time exceeded", ICMP(type=11, code=0)), ("a parameter problem", ICMP(type=12, code=0)))
for text, message in FOURS:
    case("icmp-error", f"v4: {text} goes to the flow's target", config=one(), packets=[ether(error(answer_of(SYN), message))],
         expect=[tx(ipip(error(answer_of(SYN), message)))])
SYN6 = tcp(destination=VIP6)
SIXES = (("destination unreachable", ICMPv6DestUnreach(code=3)), ("time exceeded", ICMPv6TimeExceeded()),
         ("a parameter problem", ICMPv6ParamProblem()))
for text, message in SIXES:
    case("icmp-error", f"v6: {text} goes to the flow's target", packets=[ether(error(answer_of(SYN6), message))],
         expect=[tx(ipip(error(answer_of(SYN6), message), T6[0]))], **V6)

QUOTE6 = answer_of(SYN6)
with_options = IPv6(src=VIP6, dst=CLIENT6) / IPv6ExtHdrDestOpt() / QUOTE6[TCP]
case("icmp-error", "extension headers of the quoted packet are looked through", packets=[ether(error(with_options))],
     expect=[tx(ipip(error(with_options), T6[0]))], **V6)
later = IPv6(src=VIP6, dst=CLIENT6) / IPv6ExtHdrFragment(offset=100, nh=6) / Raw(b"x" * 64)
case("icmp-error", "a quoted fragment that is not the first names no flow", packets=[ether(error(later))], expect=[drop("icmp_no_flow")], **V6)
case("icmp-error", "an error that quotes another protocol is dropped by name", config=one(),
     packets=[ether(error(ip(VIP4, CLIENT4) / ICMP(type=0) / Raw(b"x" * 40)))], expect=[drop("icmp_no_flow")])
case("icmp-error", "an error that quotes a packet from elsewhere is dropped by name", config=one(),
     packets=[ether(ip(ROUTER4, VIP4) / ICMP(type=3, code=1) / Raw(raw(ip("192.0.2.99", CLIENT4) / TCP(sport=80, dport=40000))))],
     expect=[drop("icmp_no_flow")])
case("icmp-error", "an error from the VIP itself is dropped by name", config=one(), packets=[ether(error(answer_of(SYN), router=VIP4))],
     expect=[drop("land")])
case("icmp-error", "a quote cut within its own IP header is dropped by name", config=one(),
     packets=[ether(ip(ROUTER4, VIP4) / ICMP(type=3, code=1) / Raw(raw(answer_of(SYN))[:19]))], expect=[drop("bad_icmp")])
options = IP(raw(IP(src=VIP4, dst=CLIENT4, options=[IPOption(b"\x01")] * 4) / TCP(sport=80, dport=40000)))
case("icmp-error", "options of the quoted packet are looked over", config=one(), packets=[ether(error(options))], expect=[tx(ipip(error(options)))])

ERROR_FRAME = raw(ether(PTB))
TRUNCATED = [(n / 1000, ERROR_FRAME, n) for n in range(len(ERROR_FRAME))]


def cut_everywhere(run):
    assert {verdict["reason"] for verdict in run.verdicts} == {"truncated"}


case("icmp-error", "a frame cut at any byte is dropped as truncated", config=one(), packets=TRUNCATED, check=cut_everywhere)

case("icmp-error", "an ICMP message shorter than its header is dropped", config=one(),
     packets=[ether(IP(raw(ip(ROUTER4, VIP4, proto=1) / Raw(b"\x03\x04\x00\x00\x00\x00\x00"[:n])))) for n in range(1, 8)],
     expect=[drop("bad_icmp")] * 7)


# ---- echo ----

def pong(packet, payload, vlan=()):
    if is_v6(packet.dst):
        request = packet[ICMPv6EchoRequest]
        reply = IPv6(src=packet.dst, dst=packet.src, hlim=64) / ICMPv6EchoReply(id=request.id, seq=request.seq, data=payload)
    else:
        reply = IP(src=packet.dst, dst=packet.src, id=0, flags="DF", ttl=64) / ICMP(type=0, id=packet[ICMP].id, seq=packet[ICMP].seq) / Raw(payload)
    return back(reply, vlan)


def ping(vip, payload=b"lb answers", **fields):
    head = ip(CLIENT6 if is_v6(vip) else CLIENT4, vip, **fields)
    return head / (ICMPv6EchoRequest(id=7, seq=3, data=payload) if is_v6(vip) else ICMP(id=7, seq=3) / Raw(payload))


for family, vip in (("v4", VIP4), ("v6", VIP6)):
    case("icmp-echo", f"{family}: a ping of a VIP is answered by lb with its id, sequence and payload", config=one(),
         packets=[ether(ping(vip)), ether(ping(vip, b"x" * 1001))],
         expect=[answered("answered_echo", pong(ping(vip), b"lb answers")), answered("answered_echo", pong(ping(vip), b"x" * 1001))])
    case("icmp-echo", f"{family}: a ping on a VLAN is answered on it", config=one(), packets=[ether(ping(vip), vlan=(5, 6))],
         expect=[answered("answered_echo", pong(ping(vip), b"lb answers", vlan=(5, 6)))])
    case("icmp-echo", f"{family}: a ping with one hop left has arrived", config=one(), packets=[ether(ping(vip, ttl=1))],
         expect=[answered("answered_echo", pong(ping(vip), b"lb answers"))])
    silent = one(vips=[{"name": "web", "address": VIP4, "icmp_echo": False}, {"name": "web6", "address": VIP6, "icmp_echo": False}])
    case("icmp-echo", f"{family}: a VIP with icmp_echo false does not answer", config=silent, packets=[ether(ping(vip))], expect=[drop("echo_disabled")])
    wrong = bytearray(raw(ether(ping(vip))))
    wrong[-1] ^= 0xFF
    case("icmp-echo", f"{family}: a ping with a wrong checksum is dropped by name", config=one(), packets=[bytes(wrong)], expect=[drop("bad_icmp")])
case("icmp-echo", "a ping that says it comes from the VIP is dropped by name", config=one(),
     packets=[ether(ip(VIP4, VIP4) / ICMP())], expect=[drop("land")])
routed = IP(src=CLIENT4, dst=VIP4, options=[IPOption(b"\x01")] * 4) / ICMP(id=7, seq=3) / Raw(b"lb answers")
case("icmp-echo", "a ping with IP options is answered without them", config=one(), packets=[ether(routed)],
     expect=[answered("answered_echo", pong(ping(VIP4), b"lb answers"))])


def limited(run):
    reasons = [verdict["reason"] for verdict in run.verdicts]
    assert set(reasons) == {"answered_echo", "icmp_rate_limited"} and reasons[0] == "answered_echo"


case("icmp-echo", "a flood of pings is answered up to the limit", config=one(), packets=[(0, ether(ping(VIP4)))] * 200, check=limited)
case("icmp-echo", "other ICMP is the kernel's", config=one(),
     packets=[ether(ip(ROUTER4, VIP4) / ICMP(type=13)), ether(ip(ROUTER4, VIP4) / ICMP(type=5, code=1)),
              ether(IPv6(src=ROUTER6, dst=VIP6, hlim=255) / ICMPv6ND_NA(tgt=ROUTER6)), ether(ip(CLIENT4, VIP4) / ICMP(type=0))],
     expect=[punt(), punt(), punt(), punt()])
