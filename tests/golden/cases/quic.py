"""QUIC: the connection ID names the target, whatever addresses and ports a packet comes with."""
import random

from scapy.all import IP, UDP, Ether, fragment

from tests.lib.quic_lb import long_header, make_cid, short_header

from ..frames import (ANY_MAC, CLIENT_MAC, T4, T6, VIP4, VIP6, at, config, ether, group, ipip, l2dsr, listener, next_hop_mac, udp)
from ..harness import case, drop, tx

PORT = 443
KEY = bytes.fromhex("8f95f09245765f80256934e50c66207f")
RANDOM = random.Random(9000)
# Appendix B of the draft: config, server ID, key, connection ID. Its row without a key that has an odd number of digits is left
# out; its last row begins with 0x12, which is config 0: 3 << 5 | 18 is 0x72.
VECTORS = [(0, "c4605e", None, "07c4605e4504cc4f"), (0, "ed793a", KEY, "0720b1d07b359d3c"),
           (1, "ed793a51d49b8f5fab65", KEY, "2fcc381bc74cb4fbad2823a3d1f8fed2"), (2, "ed793a51d49b8f5f", KEY, "504dd2d05a7b0de9b2b9907afb5ecf8cc3"),
           (3, "ed793a51d49b8f5fab", KEY, "725779c9cc86beb3a3a4a3ca96fce4bfe0cdbc")]


def quic_config(number, server_id_length, nonce_length, key=None):
    entry = {"id": number, "server_id_length": server_id_length, "nonce_length": nonce_length}
    return {**entry, "key": key.hex()} if key else entry


def named(server_ids, addresses=T4, **weights):
    """Targets with these server IDs, a hex text each."""
    return [{"address": address, "server_id": text, **weights} for address, text in zip(addresses, server_ids)]


def quic(targets, configs, mode="ipip", vip="web", name="blue", **extra):
    made = group(name, [], protocol="UDP", mode=mode, quic={"configs": configs}, **extra)
    made["targets"] = targets
    return config([listener("quic", vip, "UDP", PORT, groups=(name,))], [made])


def datagram(payload, client="203.0.113.5", port=50000, vip=VIP4):
    return udp(payload, source=client, destination=vip, sport=port, dport=PORT)


def to(target, packet, **fields):
    return tx(ipip(packet, target), target=at(target, PORT), **fields)


for number, server_id, key, cid in VECTORS:
    bytes_ = len(server_id) // 2
    rows = quic(named(["00" * bytes_, server_id, "01" * bytes_]), [quic_config(number, bytes_, len(cid) // 2 - 1 - bytes_, key)])
    sent = [datagram(short_header(bytes.fromhex(cid))), datagram(long_header(bytes.fromhex(cid)), port=50001)]
    case("quic", f"the draft's connection ID {cid} names its server in short and long headers", config=rows, packets=[ether(p) for p in sent],
         expect=[to(T4[1], p, flow="new", listener="quic") for p in sent])

ROTATION = [quic_config(0, 2, 6), quic_config(1, 3, 5, KEY), quic_config(5, 4, 12, KEY), quic_config(6, 3, 4, KEY)]
NAMES = ["0a01,c4605e,000000aa", "0a02,c4605f,000000ab", "0a03,ffffff,000000ac", "0b01,00beef,000000ad"]


def cid_of(number, target, config_id=None):
    """A connection ID that the target's server would make by entry `number` of ROTATION."""
    entry = ROTATION[number]
    server_id = next(bytes.fromhex(text) for text in NAMES[target].split(",") if len(text) == 2 * entry["server_id_length"])
    return make_cid(entry["id"] if config_id is None else config_id, server_id, RANDOM.randbytes(entry["nonce_length"]),
                    bytes.fromhex(entry["key"]) if "key" in entry else None)


MIXED = [(number, target, datagram(short_header(cid_of(number, target)), f"203.0.113.{n + 1}", 40000 + 131 * n))
         for n, (number, target) in enumerate((number, target) for number in range(4) for target in range(4))]
case("quic", "connection IDs of several configs are read at once, by any worker", config=quic(named(NAMES), ROTATION), args=["--workers", "4"],
     packets=[ether(p) for _, _, p in MIXED], expect=[to(T4[target], p, flow="new") for _, target, p in MIXED])


def migrates(client, vip, mode, targets, expected):
    """One connection, and with each packet a new address, port and connection ID."""
    sent = [datagram(short_header(cid_of(n % 4, 2), b"x" * n), client.format(n + 1), 30000 + 997 * n, vip) for n in range(12)]
    case("quic", f"{mode} to {targets[2]}: a client keeps its target when its address, port and worker change",
         config=quic(named(NAMES, targets), ROTATION, mode, "web6" if ":" in vip else "web"), args=["--workers", "4"],
         packets=[ether(p) for p in sent], expect=[tx(expected(p), target=at(targets[2], PORT)) for p in sent],
         check=lambda run: [len(set(v["worker"] for v in run.verdicts)) > 1 or pytest_fail()])


def pytest_fail():
    raise AssertionError("all packets came to one worker")


SIX = T6 + ["2001:db8:2::4", "2001:db8:2::5"]
migrates("203.0.113.{}", VIP4, "ipip", T4, lambda p: ipip(p, T4[2]))
migrates("2001:db8:c::{}", VIP6, "ipip", SIX, lambda p: ipip(p, SIX[2]))
migrates("203.0.113.{}", VIP4, "l2dsr", T4, lambda p: l2dsr(p, T4[2]))
migrates("2001:db8:c::{}", VIP6, "l2dsr", SIX, lambda p: l2dsr(p, SIX[2]))


def goes_with_its_flow(run):
    """The first packets have what the client made up; one target gets them all, and its own connection ID leads there as well."""
    assert [v["flow"] for v in run.verdicts] == ["new", "hit", "hit", "hit"]
    assert len(set(run.targets())) == 1
    assert run.summary["quic_unroutable"] == 4 and run.summary["quic_routed"] == 0


MADE_UP = [make_cid(7, b"", RANDOM.randbytes(8)), make_cid(3, b"\x0a\x01", RANDOM.randbytes(6)), b"\x08\x0a\x01", make_cid(0, b"\x77\x77", RANDOM.randbytes(6))]
case("quic", "connection IDs that name no target go by their flow: no config's, too short, nobody's server ID", config=quic(named(NAMES), ROTATION),
     packets=[ether(datagram(long_header(cid) if len(cid) > 3 else b"\x40" + cid)) for cid in MADE_UP], check=goes_with_its_flow)

FLOWS = [datagram(long_header(make_cid(7, b"", RANDOM.randbytes(8))), f"198.51.100.{n % 250 + 1}", 20000 + n) for n in range(400)]


def spread(run):
    shares = [run.targets().count(at(target, PORT)) / len(FLOWS) for target in T4]
    assert all(0.15 < share < 0.35 for share in shares), shares
    assert all(v["flow"] == "new" for v in run.verdicts)


case("quic", "new connections spread by hash over all targets", config=quic(named(NAMES), ROTATION), packets=[ether(p) for p in FLOWS], check=spread)

SAME = {"client": "203.0.113.9", "port": 55555}
FIRST, SECOND = (datagram(short_header(cid_of(0, target)), **SAME) for target in (0, 1))
case("quic", "a connection ID goes before the flow of another connection that had the same address and port", config=quic(named(NAMES), ROTATION),
     packets=[ether(p) for p in (FIRST, FIRST, SECOND, FIRST, SECOND)],
     expect=[to(T4[0], FIRST, flow="new"), to(T4[0], FIRST, flow="hit"), to(T4[1], SECOND, flow="none"), to(T4[0], FIRST, flow="hit"),
             to(T4[1], SECOND, flow="none")])

# Time is the capture's.
DELAY = {"deregistration_delay.timeout_seconds": 60}
KEPT = datagram(short_header(cid_of(1, 0)), "203.0.113.20", 1111)
MOVED = datagram(short_header(cid_of(2, 0)), "203.0.113.21", 2222)
LATE = datagram(short_header(cid_of(1, 0)), "203.0.113.22", 3333)


def elsewhere_at_last(run):
    assert run.targets()[:3] == [at(T4[0], PORT)] * 3
    assert run.targets()[3] != at(T4[0], PORT) and run.verdicts[3]["verdict"] == "tx"
    assert run.summary["quic_routed"] == 3 and run.summary["quic_unroutable"] == 1


case("quic", "a drained target keeps its connections, moving ones as well, until its delay is over", config=quic(named(NAMES), ROTATION, attributes=DELAY),
     events=[{"at": 1, "drain": at(T4[0], PORT)}],
     packets=[(0, ether(KEPT)), (2, ether(KEPT)), (60, ether(MOVED)), (62, ether(LATE))], check=elsewhere_at_last)

FEWER = quic(named(NAMES[1:], T4[1:]), ROTATION, attributes=DELAY)
case("quic", "a target that is taken out of the configuration keeps its connections until its delay is over",
     config=quic(named(NAMES), ROTATION, attributes=DELAY), files={"fewer.yaml": FEWER}, events=[{"at": 1, "apply": "fewer.yaml"}],
     packets=[(0, ether(KEPT)), (2, ether(KEPT)), (60, ether(MOVED)), (62, ether(LATE))], check=elsewhere_at_last)

OLD, NEW = quic_config(3, 3, 4, KEY), quic_config(4, 2, 8, KEY)
BEFORE = quic(named(["c4605e", "c4605f"]), [OLD])
BOTH = quic(named(["c4605e,0a01", "c4605f,0a02"]), [OLD, NEW])
AFTER = quic(named(["0a01", "0a02"]), [NEW])
OLD_CIDS = [datagram(short_header(make_cid(3, bytes.fromhex("c4605f"), RANDOM.randbytes(4), KEY)), f"203.0.113.{n}", 5000 + n) for n in range(1, 4)]
NEW_CIDS = [datagram(short_header(make_cid(4, bytes.fromhex("0a02"), RANDOM.randbytes(8), KEY)), f"203.0.113.{n}", 6000 + n) for n in range(1, 4)]


def rotated(run):
    assert run.targets()[:4] == [at(T4[1], PORT)] * 4 and run.targets()[5] == at(T4[1], PORT)
    assert run.verdicts[4]["flow"] == "new"  # by hash
    assert run.summary["quic_routed"] == 5 and run.summary["quic_unroutable"] == 1


case("quic", "servers change over from one config to the next: both are read meanwhile, and then the new one alone", config=BEFORE,
     files={"both.yaml": BOTH, "after.yaml": AFTER}, events=[{"at": 1, "apply": "both.yaml"}, {"at": 3, "apply": "after.yaml"}],
     packets=[(0, ether(OLD_CIDS[0])), (2, ether(OLD_CIDS[1])), (2, ether(NEW_CIDS[0])), (4, ether(NEW_CIDS[1])), (4, ether(OLD_CIDS[2])),
              (4, ether(NEW_CIDS[2]))], check=rotated)

WEIGHTED = quic(named(["0a"], T4[:1]), [quic_config(0, 1, 4)])
WEIGHTED["target_groups"].append({**group("green", [], protocol="UDP"), "quic": {"configs": [quic_config(1, 1, 4, KEY)]}, "targets": named(["0b"], T4[1:2])})
WEIGHTED["listeners"][0]["target_groups"] = [{"name": "blue", "weight": 0}, {"name": "green", "weight": 1}]
BLUE, GREEN = datagram(short_header(make_cid(0, b"\x0a", b"1234"))), datagram(short_header(make_cid(1, b"\x0b", b"1234", KEY)), port=50001)
case("quic", "connections of a group that takes no new ones any more stay there", config=WEIGHTED, packets=[ether(BLUE), ether(GREEN)],
     expect=[to(T4[0], BLUE, target_group="blue"), to(T4[1], GREEN, target_group="green")])

BIG = datagram(short_header(cid_of(2, 3), b"z" * 2500), "203.0.113.77", 7777)
PARTS = fragment(IP(bytes(IP(**{**{k: v for k, v in BIG.fields.items() if k not in ("len", "chksum", "flags")}, "flags": 0}) / BIG.payload)), fragsize=1000)
case("quic", "all fragments of a datagram go where its connection ID says", config=quic(named(NAMES), ROTATION), packets=[ether(p) for p in PARTS],
     check=lambda run: [(v["verdict"], v["target"]) == ("tx", at(T4[3], PORT)) or one_astray(v) for v in run.verdicts])


def one_astray(verdict):
    raise AssertionError(f"a fragment went astray: {verdict}")


def one_verdict_each(run):
    assert all(v["verdict"] == "tx" for v in run.verdicts)
    assert run.summary["quic_routed"] + run.summary["quic_unroutable"] == len(run.verdicts)


WHOLE = long_header(cid_of(2, 1), b"scid")
case("quic", "a header cut at every byte goes somewhere, and by its connection ID as soon as that is whole", config=quic(named(NAMES), ROTATION),
     packets=[ether(datagram(WHOLE[:n], port=10000 + n)) for n in range(len(WHOLE))],
     check=lambda run: [one_verdict_each(run), routed_from(run, 6 + 17)])


def routed_from(run, first):
    assert run.summary["quic_routed"] == len(run.verdicts) - first
    assert run.targets()[first:] == [at(T4[1], PORT)] * (len(run.verdicts) - first)


NOISE = [datagram(RANDOM.randbytes(RANDOM.randrange(60)), port=1024 + n) for n in range(500)]
case("quic", "whatever the bytes of a datagram, it is sent to one target", config=quic(named(NAMES), ROTATION), packets=[ether(p) for p in NOISE],
     check=one_verdict_each)

# Replies come back through lb: the flow of the new address has to be known.
NAT = quic(named(NAMES), ROTATION, mode="nat", port=8443)
ASKED = [datagram(short_header(cid_of(0, 1)), f"203.0.113.{n}", 1000 + n) for n in (1, 2)]
AGAIN = datagram(short_header(cid_of(0, 0)), "203.0.113.1", 1001)


def answer_to(packet, target):
    return Ether(src=next_hop_mac(target), dst=ANY_MAC) / IP(src=target, dst=packet[IP].src, ttl=64) / UDP(sport=8443, dport=packet[UDP].sport) / b"answer"


def come_back(run):
    assert all(v["verdict"] == "tx" for v in run.verdicts), run.verdicts
    targets = [at(T4[1], 8443), at(T4[1], 8443), at(T4[1], 8443), at(T4[1], 8443), at(T4[0], 8443), at(T4[0], 8443)]
    assert run.targets() == targets
    for n in (1, 3, 5):
        reply = Ether(run.out(n)[0])
        assert (reply.dst, reply[IP].src, reply[UDP].sport) == (CLIENT_MAC, VIP4, PORT)


case("quic", "nat: replies find the client at its new address, and one that took over another's address and port", config=NAT,
     packets=[ether(ASKED[0]), answer_to(ASKED[0], T4[1]), ether(ASKED[1]), answer_to(ASKED[1], T4[1]), ether(AGAIN), answer_to(AGAIN, T4[0])],
     check=come_back)


# A flow that a connection ID has begun counts as any other.
LIMITED = quic(named(NAMES), ROTATION)
LIMITED["listeners"][0]["rate_limits"] = {"per_source": {"concurrent_flows": 2}}
MOVES = [(n * 0.01, datagram(short_header(cid_of(0, 1)), port=30000 + n // 2)) for n in range(6)]
case("quic", "a client that moves has as many flows as it may, and those it has go on", config=LIMITED,
     packets=[(at_time, ether(p)) for at_time, p in MOVES] + [(0.1, ether(MOVES[0][1]))],
     expect=[to(T4[1], MOVES[0][1], flow="new"), to(T4[1], MOVES[1][1], flow="hit"), to(T4[1], MOVES[2][1], flow="new"),
             to(T4[1], MOVES[3][1], flow="hit"), drop("source_rate_limit", flow="none", target=None, listener="quic"),
             drop("source_rate_limit", flow="none", target=None, listener="quic"), to(T4[1], MOVES[0][1], flow="hit")])
