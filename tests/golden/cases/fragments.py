"""Fragments of packets to a VIP, first or not, in any order, go to their flow's target."""
import itertools

from scapy.all import IP, UDP, IPv6, IPv6ExtHdrFragment, Raw, fragment, fragment6, raw

from ..frames import CLIENT4, T4, T6, VIP4, VIP6, at, config, ether, group, ipip, l2dsr, listener, one, tcp, udp
from ..harness import ANY, case, drop, tx

PAYLOAD = bytes(i % 251 for i in range(2600))
UDP4 = {"config": one(protocol="UDP", port=53)}
UDP6 = {"config": one(vip="web6", protocol="UDP", port=53, target=T6[0])}


def pieces(packet, size=1000):
    """Its fragments, in order."""
    if isinstance(packet, IPv6):
        whole = IPv6(raw(packet))
        split = IPv6(src=whole.src, dst=whole.dst, hlim=64) / IPv6ExtHdrFragment(id=0x12345678) / whole.payload
        return [IPv6(raw(piece)) for piece in fragment6(split, size)]
    return [IP(raw(piece)) for piece in fragment(IP(raw(packet)), size)]


QUERY4 = udp(dport=53, payload=PAYLOAD, df=False)
QUERY6 = udp(dport=53, payload=PAYLOAD, destination=VIP6)

for name, query, target, settings in (("v4", QUERY4, T4[0], UDP4), ("v6", QUERY6, T6[0], UDP6)):
    parts = pieces(query)
    assert len(parts) >= 3
    case("fragment", f"{name}: all fragments of a datagram go to its flow's target", packets=[ether(part) for part in parts],
         expect=[tx(ipip(parts[0], target), flow="new", listener="web-80")] +
                [tx(ipip(part, target), flow="hit", listener="web-80", target=at(target, 53)) for part in parts[1:]], **settings)
    for order in itertools.islice(itertools.permutations(range(3)), 1, None):
        case("fragment", f"{name}: fragments in the order {order} all reach the target", packets=[ether(parts[i]) for i in order],
             expect=[tx(ipip(parts[i], target), flow=ANY, target=at(target, 53), target_group="blue") for i in order], **settings)
    case("fragment", f"{name}: fragments whose first one never comes are dropped by name, in time", packets=[ether(parts[1]), ether(parts[2])],
         expect=[drop("fragment_timeout")] * 2, **settings)
    case("fragment", f"{name}: a fragment that comes long after the others waits for nobody", packets=[ether(parts[0]), (40, ether(parts[1]))],
         expect=[tx(ipip(parts[0], target)), drop("fragment_timeout")], **settings)
    case("fragment", f"{name}: fragments to a port nobody listens on go nowhere", packets=[ether(part) for part in pieces(udp(
        dport=54, payload=PAYLOAD, **({"df": False} if name == "v4" else {"destination": VIP6})))],
         expect=[drop("no_listener")] + [drop("fragment_timeout")] * (len(parts) - 1), **settings)

# A flow's target is not the one the table would give it now: it began while it was the only one.
MOVED = {"config": one(protocol="UDP", port=53),
         "files": {"more.yaml": config([listener(protocol="UDP", port=53)], [group(protocol="UDP", targets=[T4[0], (T4[1], 100), (T4[2], 100)])])},
         "events": [{"at": 1, "apply": "more.yaml"}]}


def small(sport):
    return udp(dport=53, sport=sport)


def stays(run):
    assert {verdict["target"] for verdict in run.verdicts} == {at(T4[0], 53)}


def many(count, workers):
    """Flows that start with whole datagrams, and go on with fragments in the wrong order."""
    packets = [(n / 1000, ether(small(40000 + n))) for n in range(count)]
    for n in range(count):
        parts = pieces(udp(dport=53, sport=40000 + n, payload=PAYLOAD, df=False, id=n + 1))
        packets += [(2 + n / 1000 + i / 10000, ether(part)) for i, part in enumerate(reversed(parts))]
    case("fragment", f"fragments follow their flow, not the hash, with {workers} workers", packets=packets, args=["--workers", str(workers)],
         check=stays, **MOVED)


many(24, 1)
many(24, 2)

SEGMENT = tcp("PA", payload=PAYLOAD, df=False, seq=1001, ack=1)
parts = pieces(SEGMENT)
case("fragment", "TCP in fragments goes to its flow's target", config=one(), packets=[ether(tcp())] + [ether(part) for part in parts],
     expect=[tx(ipip(tcp()), flow="new")] + [tx(ipip(part), flow="hit") for part in parts])
case("fragment", "in l2dsr fragments get the target's MAC and nothing else changes", config=one(mode="l2dsr", protocol="UDP", port=53),
     packets=[ether(part) for part in pieces(QUERY4)], expect=[tx(l2dsr(part)) for part in pieces(QUERY4)])


def bit(offset, more, payload, proto=17, ttl=64):
    return IP(raw(IP(src=CLIENT4, dst=VIP4, proto=proto, id=9, ttl=ttl, frag=offset // 8, flags="MF" if more else 0) / Raw(payload)))


BAD = (("a first fragment whose datagram is no longer than itself", bit(0, True, raw(UDP(sport=1, dport=53, len=24)) + b"x" * 16)),
       ("a fragment that is not the last and no multiple of eight", bit(8, True, b"x" * 23)),
       ("a fragment that reaches past 65,535 bytes", bit(65528, False, b"x" * 24)))
for text, packet in BAD:
    case("fragment", f"{text} is dropped by name", packets=[ether(packet)], expect=[drop("bad_fragment")], **UDP4)
case("fragment", "a fragment with one hop left is dropped by name", packets=[ether(bit(800, True, b"x" * 64, ttl=1))],
     expect=[drop("ttl_expired")], **UDP4)
case("fragment", "a fragment of another protocol to a VIP is dropped by name",
     packets=[ether(bit(0, True, b"x" * 64, proto=1)), ether(bit(64, False, b"x", proto=47))], expect=[drop("fragment")] * 2, **UDP4)


def bounded(run):
    """64 are held; the others are refused at once; a datagram in order passes all the same."""
    reasons = [verdict["reason"] for verdict in run.verdicts]
    assert reasons[:64] == ["fragment_timeout"] * 64 and set(reasons[64:-3]) == {"fragment_table_full"} and reasons[-3:] == [None] * 3


case("fragment", "a flood of fragments without a first harms no datagram in order", check=bounded,
     packets=[(n / 1e6, ether(IP(src=f"203.0.113.{n % 250}", dst=VIP4, proto=17, id=n, frag=100) / Raw(b"x" * 64))) for n in range(300)] +
             [(0.001 + i / 1e6, ether(part)) for i, part in enumerate(pieces(QUERY4))], **UDP4)
FRAME = raw(ether(pieces(QUERY4)[1]))


def cut_everywhere(run):
    assert {verdict["reason"] for verdict in run.verdicts} == {"truncated"}


case("fragment", "a fragment's frame cut at any byte is dropped as truncated", packets=[(n / 1000, FRAME, n) for n in range(0, len(FRAME), 7)],
     check=cut_everywhere, **UDP4)
FRAME6 = raw(ether(pieces(QUERY6)[1]))
case("fragment", "an IPv6 fragment's frame cut at any byte is dropped as truncated", packets=[(n / 1000, FRAME6, n) for n in range(0, len(FRAME6), 7)],
     check=cut_everywhere, **UDP6)
