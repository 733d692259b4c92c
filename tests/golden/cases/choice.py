"""Which target a new flow gets: shares, weights, stickiness, workers."""
import collections

from scapy.all import IP, UDP, Raw, fragment, raw

from ..frames import T4, T6, VIP4, VIP6, at, config, ether, group, ipip, listener, one, tcp, udp
from ..harness import case, drop, tx
from ..twins import chosen_targets, rss

FLOWS = [tcp(sport=20000 + 7 * n, source=f"203.0.113.{1 + n % 200}") for n in range(600)]


def shares(run):
    counts = collections.Counter(run.targets())
    return {target: count / sum(counts.values()) for target, count in counts.items()}


def expect_shares(wanted):
    """Shares of 600 flows; 5 standard deviations of a fair choice are at most 0.10."""
    def check(run):
        assert all(verdict["verdict"] == "tx" and verdict["flow"] == "new" for verdict in run.verdicts)
        came = shares(run)
        assert set(came) == {target for target, share in wanted.items() if share > 0}
        for target, share in wanted.items():
            assert abs(came.get(target, 0) - share) < 0.10, f"{target}: {came.get(target, 0)} of flows, not {share}"
    return check


def trio(**attributes):
    return config([listener()], [group(targets=T4[:3], attributes=attributes or None)])


case("spread", "flows spread evenly over equal targets", config=trio(), packets=[ether(p) for p in FLOWS],
     check=expect_shares({at(t): 1 / 3 for t in T4[:3]}))


def all_exact(run):
    for n, packet in enumerate(FLOWS):
        target = run.verdicts[n]["target"].rsplit(":", 1)[0]
        assert run.out(n)[0] == ipip(packet, target)(run.out(n)[0])


case("spread", "every packet is addressed to the target its verdict names", config=trio(), packets=[ether(p) for p in FLOWS],
     check=all_exact)

UNEVEN = config([listener()], [group(targets=[(T4[0], 1), (T4[1], 3), (T4[2], 0)])])
case("weight", "targets share flows by weight and weight 0 takes none", config=UNEVEN, packets=[ether(p) for p in FLOWS],
     check=expect_shares({at(T4[0]): 0.25, at(T4[1]): 0.75, at(T4[2]): 0}))
case("weight", "a group whose targets all have weight 0 drops new flows by name",
     config=config([listener()], [group(targets=[(T4[0], 0), (T4[1], 0)])]), packets=[ether(tcp())],
     expect=[drop("no_target", listener="web-80", target=None)])
case("weight", "a group without targets drops by name", config=config([listener()], [group(targets=[])]), packets=[ether(tcp())],
     expect=[drop("no_target", listener="web-80", target_group="blue", target=None, flow="none")])

GROUPS = [group("blue", [T4[0]]), group("green", [T4[1]])]
case("weighted-groups", "a listener shares flows over its groups by weight",
     config=config([listener(groups=[("blue", 1), ("green", 4)])], GROUPS), packets=[ether(p) for p in FLOWS],
     check=expect_shares({at(T4[0]): 0.2, at(T4[1]): 0.8}))
case("weighted-groups", "a group of weight 0 gets no new flow",
     config=config([listener(groups=[("blue", 0), ("green", 1)])], GROUPS), packets=[ether(p) for p in FLOWS],
     check=expect_shares({at(T4[0]): 0, at(T4[1]): 1}))
case("weighted-groups", "a listener whose groups all have weight 0 drops new flows by name",
     config=config([listener(groups=[("blue", 0), ("green", 0)])], GROUPS), packets=[ether(tcp())], expect=[drop("no_target")])
case("weighted-groups", "a listener takes eight groups", packets=[ether(p) for p in FLOWS],
     config=config([listener(groups=[f"g{i}" for i in range(8)])], [group(f"g{i}", [f"10.77.3.{i + 1}"]) for i in range(8)]),
     check=expect_shares({f"10.77.3.{i + 1}:80": 1 / 8 for i in range(8)}))

# ---- the same choice everywhere ----


def same_as_reordered():
    """The order of targets in the file, names of listeners and unrelated groups do not move a flow."""
    plain = trio()
    reordered = config([listener("other-name")], [group("aaa", [T4[3]]), group(targets=T4[2::-1])])
    return plain, reordered


def order_does_not_matter(run):
    before, after = run.targets()[:len(FLOWS)], run.targets()[len(FLOWS):]
    assert before == after, "a flow moved because of the order of the file"


PLAIN, REORDERED = same_as_reordered()
case("same-table", "the order of targets in the file does not move a flow", config=PLAIN, files={"reordered.yaml": REORDERED},
     packets=[(0, ether(p)) for p in FLOWS] + [(2000, ether(p)) for p in FLOWS], events=[{"at": 1999, "apply": "reordered.yaml"}],
     check=order_does_not_matter)


def only_its_own_moves(run):
    before, after = run.targets()[:len(FLOWS)], run.targets()[len(FLOWS):]
    stayed = [(b, a) for b, a in zip(before, after) if b != at(T4[2])]
    assert all(a != at(T4[2]) for a in after)
    moved = sum(1 for b, a in stayed if b != a)
    assert moved <= 0.03 * len(stayed), f"{moved} of {len(stayed)} flows of other targets moved"


case("same-table", "removing a target moves hardly a flow of the others", config=trio(), files={"less.yaml": config([listener()], [group(targets=T4[:2])])},
     packets=[(0, ether(p)) for p in FLOWS] + [(2000, ether(p)) for p in FLOWS], events=[{"at": 1999, "apply": "less.yaml"}],
     check=only_its_own_moves)

# ---- stickiness ----


def targets_by(key):
    def check(run):
        seen = collections.defaultdict(set)
        for verdict, packet in zip(run.verdicts, STICKY):
            seen[key(packet)].add(verdict["target"])
        assert all(len(targets) == 1 for targets in seen.values()), "a sticky source has more than one target"
        assert len({t for targets in seen.values() for t in targets}) == 3, "all targets are used"
    return check


STICKY = [tcp(sport=20000 + n, source=f"203.0.113.{1 + s}") for s in range(40) for n in range(5)]
STICKY_CONFIG = {kind: trio(**{"stickiness.enabled": True, "stickiness.type": kind})
                 for kind in ("source_ip", "source_ip_dest_ip", "source_ip_dest_ip_proto")}
for kind, sticky in STICKY_CONFIG.items():
    case("stickiness", f"{kind} keeps all flows of a client on one target", config=sticky, packets=[ether(p) for p in STICKY],
         check=targets_by(lambda packet: packet.src))


def same_for_both_vips(run):
    half = len(STICKY)
    assert run.targets()[:half] == run.targets()[half:]


def differs_between_vips(run):
    half = len(STICKY)
    assert run.targets()[:half] != run.targets()[half:]


TWO_VIPS = [{"name": "web", "address": VIP4}, {"name": "api", "address": "192.0.2.11"}]
for kind, check in (("source_ip", same_for_both_vips), ("source_ip_dest_ip", differs_between_vips)):
    both = config([listener(), listener("api-80", "api")],
                  [group(targets=T4[:3], attributes={"stickiness.enabled": True, "stickiness.type": kind})], vips=TWO_VIPS)
    name = "follows the client over VIPs" if kind == "source_ip" else "chooses for each VIP anew"
    case("stickiness", f"{kind} {name}", config=both, check=check,
         packets=[ether(p) for p in STICKY] + [ether(tcp(sport=p.sport, source=p.src, destination="192.0.2.11")) for p in STICKY])


def protocols_differ(run):
    half = len(STICKY)
    assert run.targets()[:half] != run.targets()[half:]


def protocols_agree(run):
    half = len(STICKY)
    assert run.targets()[:half] == run.targets()[half:]


for kind, check in (("source_ip_dest_ip", protocols_agree), ("source_ip_dest_ip_proto", protocols_differ)):
    both = config([listener(protocol="TCP_UDP")], [group(targets=T4[:3], protocol="TCP_UDP",
                  attributes={"stickiness.enabled": True, "stickiness.type": kind})])
    name = "looks at the protocol" if kind.endswith("proto") else "does not look at the protocol"
    case("stickiness", f"{kind} {name}", config=both, check=check,
         packets=[ether(p) for p in STICKY] + [ether(udp(sport=p.sport, source=p.src)) for p in STICKY])

# ---- workers ----

MIXED = FLOWS[:100] + [tcp(sport=20000 + n, destination=VIP6) for n in range(100)] + [udp(sport=20000 + n) for n in range(50)]
WORKERS_CONFIG = config([listener(protocol="TCP_UDP"), listener("web6-80", "web6", protocol="TCP_UDP")],
                        [group(targets=T4[:3], protocol="TCP_UDP")])


def as_rss_says(workers):
    def check(run):
        for verdict, packet in zip(run.verdicts, MIXED):
            assert verdict["worker"] == rss(packet) % 128 % workers, f"packet {verdict['n']}"
        assert {verdict["worker"] for verdict in run.verdicts} == set(range(workers))
    return check


for workers in (2, 3, 8):
    case("workers", f"{workers} workers get flows as receive-side scaling spreads them", config=WORKERS_CONFIG,
         packets=[ether(p) for p in MIXED], args=["--workers", str(workers)], check=as_rss_says(workers))

case("workers", "a flow stays on its worker and hits its entry", config=one(), args=["--workers", "4"],
     packets=[ether(tcp(sport=30000 + n % 8)) for n in range(16)],
     expect=[tx(ipip(tcp(sport=30000 + n % 8)), flow="new" if n < 8 else "hit") for n in range(16)])
case("workers", "frames without addresses go to worker 0", config=one(), args=["--workers", "8"],
     packets=[(0, ether(tcp()), 20), (1, ether(tcp()), 0)], expect=[drop("truncated", worker=0), drop("truncated", worker=0)])

# ---- the same algorithm written a second time ----


def as_the_twin_says(packets, targets, seed, slots):
    def check(run):
        wanted = [at(*target) for target in chosen_targets(packets, seed, "blue", targets, slots)]
        assert run.targets() == wanted
    return check


for slots, targets, seed in ((251, [(T4[0], 80, 1), (T4[1], 80, 1), (T4[2], 80, 1)], 1),
                             (4099, [(T4[0], 80, 5), (T4[1], 80, 1), (T6[0], 80, 3)], 2**63 + 7),
                             (65537, [(T4[0], 80, 1), (T4[1], 80, 65535)], 1)):
    flows = FLOWS[:150] + [tcp(sport=20000 + n, destination=VIP6) for n in range(50)]
    table = config([listener(), listener("web6-80", "web6")],
                   [group(targets=[(address, weight) for address, _, weight in targets], table_size=slots)])
    case("same-table", f"a table of {slots} slots and seed {seed} sends flows where a second implementation does",
         config={**table, "seed": seed}, packets=[ether(p) for p in flows], check=as_the_twin_says(flows, targets, seed, slots))


def dealt_evenly(run):
    """All of 600 flows in equal parts, and the next packet of each goes where its first one went."""
    opened, later = run.targets()[:600], run.targets()[600:]
    assert set(collections.Counter(opened).values()) == {200}
    assert opened == later
    assert {verdict["flow"] for verdict in run.verdicts[600:]} == {"hit"}


LATER = [tcp("A", sport=20000 + 7 * n, source=f"203.0.113.{1 + n % 200}") for n in range(600)]

for algorithm in ("round_robin", "least_connections"):
    case("algorithm", f"{algorithm} deals flows out evenly and the flow table keeps the choice", config=trio(algorithm=algorithm),
         packets=[ether(p) for p in FLOWS + LATER], check=dealt_evenly)


def as_by_maglev(run):
    """What begins no flow goes by Maglev: the same flows, later packets alone."""
    assert max(collections.Counter(run.targets()).values()) > 200
    assert {verdict["flow"] for verdict in run.verdicts} == {"new"}


case("algorithm", "a packet in the middle of an unknown flow goes by maglev whatever the algorithm", config=trio(algorithm="round_robin"),
     packets=[ether(p) for p in LATER], check=as_by_maglev)


# ---- per_packet: datagrams by themselves ----

QUESTIONS = [udp(sport=5353, dport=80, payload=f"question {n}".encode()) for n in range(600)]


def by_themselves(run):
    """600 questions of one client from one port: a third to each target, give or take, and none is remembered."""
    asked = collections.Counter(run.targets()[:600])
    assert len(asked) == 3 and min(asked.values()) > 150, asked
    assert {verdict["flow"] for verdict in run.verdicts[:600]} == {"none"}
    assert run.summary["per_packet"] == 600 and run.summary["flow_new"] == len(run.verdicts[600:]) // 2


for mode in ("l2dsr", "ipip", "gue", "gre"):
    case("algorithm", f"per_packet in {mode}: every datagram of a flow takes a target by itself, and TCP of the group stays where it is",
         config=config([listener(protocol="TCP_UDP")], [group(targets=T4[:3], protocol="TCP_UDP", mode=mode, attributes={"algorithm": "per_packet"})]),
         packets=[*map(ether, QUESTIONS), ether(tcp()), ether(tcp("A", seq=1001, ack=1))], check=by_themselves)
LONG = [IP(raw(part)) for part in fragment(IP(src="203.0.113.5", dst=VIP4, id=9, ttl=64) / UDP(sport=5353, dport=80) / Raw(b"z" * 2400), fragsize=800)]
case("algorithm", "per_packet: the fragments of a datagram stay together", packets=[*map(ether, LONG)], check=lambda run: one_of_them(run),
     config=config([listener(protocol="UDP")], [group(targets=T4[:3], protocol="UDP", attributes={"algorithm": "per_packet"})]))


def one_of_them(run):
    assert len(set(run.targets())) == 1 and None not in run.targets(), run.targets()


def grows(run):
    """One target comes back after 10 s, with a slow start of 30 s: flows of 11 s, then of 45 s."""
    share = [sum(target == at(T4[1]) for target in part) / 300 for part in (run.targets()[:300], run.targets()[300:])]
    assert 0 < share[0] < 0.15 and 0.4 < share[1] < 0.6, share


case("slow-start", "a target that comes back gets its share little by little",
     config=config([listener()], [group(targets=T4[:2], attributes={"slow_start.duration_seconds": 30})]),
     events=[{"at": 0, "unhealthy": at(T4[1])}, {"at": 10, "healthy": at(T4[1])}],
     packets=[(0, ether(tcp("S", sport=19999)))] + [(11 + 34 * (n >= 300), ether(p)) for n, p in enumerate(FLOWS)],
     check=lambda run: grows(type(run)(run.verdicts[1:], run.frames, run.stamps, run.summary)))
