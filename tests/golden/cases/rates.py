"""Rate limits: how much a listener takes in all and from each source, and what becomes of the rest."""
from ..frames import T6, VIP6, config, ether, group, ipip, listener, reset_to_client, tcp, udp
from ..harness import Run, answered, case, drop, tx

OTHER = "198.51.100.9"


def limited(per_source=None, per_listener=None, **extra):
    limits = {**({"per_source": per_source} if per_source else {}), **({"per_listener": per_listener} if per_listener else {}), **extra}
    return config([{**listener(protocol="TCP_UDP"), "rate_limits": limits},
                   {**listener("web6-80", "web6", protocol="TCP_UDP", groups=["blue6"]), "rate_limits": limits},
                   listener("free-81", port=81)],
                  [group(protocol="TCP_UDP", health_check={"port": 80}), group("blue6", [T6[0]], protocol="TCP_UDP")])


def syns(count, first=1, at=0.0, **fields):
    return [(at + n * 0.001, ether(tcp(sport=first + n, **fields))) for n in range(count)]


def opened(packet):
    return tx(ipip(packet), flow="new")


def hit(packet):
    return tx(ipip(packet), flow="hit")


over = drop("source_rate_limit", flow="none", target=None, listener="web-80")
over_hit = drop("source_rate_limit", listener="web-80")
over_all = drop("listener_rate_limit", flow="none", target=None, listener="web-80")

FLOWS = limited({"new_flows_per_second": 2})
case("rate-limit", "a source opens as many flows a second as it may and the rest is dropped by name", config=FLOWS,
     packets=syns(4) + [(0.501, ether(tcp(sport=9))), (0.502, ether(tcp(sport=10)))],
     expect=[opened(tcp(sport=1)), opened(tcp(sport=2)), over, over, opened(tcp(sport=9)), over])
case("rate-limit", "a limit of new flows costs packets of tracked flows nothing", config=FLOWS,
     packets=syns(3) + [(0.01 + n * 0.001, ether(tcp("A", sport=1))) for n in range(5)],
     expect=[opened(tcp(sport=1)), opened(tcp(sport=2)), over] + [hit(tcp("A", sport=1))] * 5)
case("rate-limit", "sources have a limit each", config=FLOWS, packets=syns(3) + syns(3, at=0.01, source=OTHER),
     expect=[opened(tcp(sport=1)), opened(tcp(sport=2)), over,
             opened(tcp(sport=1, source=OTHER)), opened(tcp(sport=2, source=OTHER)), over])
case("rate-limit", "listeners without limits have none", config=FLOWS, packets=syns(2) + syns(6, dport=81),
     expect=[opened(tcp(sport=n + 1)) for n in range(2)] + [opened(tcp(sport=n + 1, dport=81)) for n in range(6)])
case("rate-limit", "a source may be a prefix", config=limited({"new_flows_per_second": 2}, prefix_length_v4=24),
     packets=[ether(tcp(source=f"203.0.113.{n}")) for n in (1, 2, 3)] + [ether(tcp(source="203.0.114.1"))],
     expect=[opened(tcp(source="203.0.113.1")), opened(tcp(source="203.0.113.2")), over, opened(tcp(source="203.0.114.1"))])
V6 = [tcp(source=f"2001:db8:c::{n}", destination=VIP6) for n in (1, 2, 3)] + [tcp(source="2001:db8:c:1::1", destination=VIP6)]
case("rate-limit", "an IPv6 source is a /64 where nothing else is said", config=FLOWS, packets=[ether(p) for p in V6],
     expect=[tx(ipip(V6[0], T6[0])), tx(ipip(V6[1], T6[0])), drop("source_rate_limit", listener="web6-80"), tx(ipip(V6[3], T6[0]))])
case("rate-limit", "datagrams of a flow count as packets, whatever their flow", config=limited({"packets_per_second": 2}),
     packets=[(n * 0.001, ether(udp())) for n in range(4)] + [(0.502, ether(udp()))],
     expect=[opened(udp()), hit(udp()), over_hit, over_hit, hit(udp())])
BIG = udp(b"x" * 1400)
case("rate-limit", "bytes are counted by frames' lengths", config=limited({"bytes_per_second": 1500}),  # a bucket holds 18,432
     packets=[(n * 0.001, ether(BIG)) for n in range(14)] + [(0.02, ether(udp(b"")))],
     expect=[opened(BIG)] + [hit(BIG)] * 11 + [over_hit] * 2 + [hit(udp(b""))])
case("rate-limit", "what was refused does not count against the next second", config=FLOWS,
     packets=syns(2) + syns(100, first=100, at=0.1) + [(1.3, ether(tcp(sport=7))), (1.301, ether(tcp(sport=8)))],
     expect=[opened(tcp(sport=1)), opened(tcp(sport=2))] + [over] * 100 + [opened(tcp(sport=7)), opened(tcp(sport=8))])
case("rate-limit", "a new flow over the limit is reset where the action says so", config=limited({"new_flows_per_second": 2}, action="reset"),
     packets=syns(3), expect=[opened(tcp(sport=1)), opened(tcp(sport=2)),
                              answered("answered_rst", reset_to_client(tcp(sport=3)), flow="none", listener="web-80")])
case("rate-limit", "packets of flows that exist are dropped and not reset", config=limited({"packets_per_second": 2}, action="reset"),
     packets=[(0, ether(tcp())), (0.001, ether(tcp("A"))), (0.002, ether(tcp("A")))], expect=[opened(tcp()), hit(tcp("A")), over_hit])


def marked(packet):
    packet = packet.copy()
    if packet.version == 6:
        packet.tc = 8 << 2 | packet.tc & 3
    else:
        packet.tos = 8 << 2 | packet.tos & 3
    return packet


def two_marked(run: Run):
    assert run.summary["rate_marked"] == 2


MARK = limited({"packets_per_second": 2}, action="mark", dscp=8)
case("rate-limit", "packets over the limit are marked and sent on where the action says so, and ECN stays", config=MARK,
     packets=[ether(tcp(tos=1)), ether(tcp("A", tos=1)), ether(tcp("A", tos=1)), ether(tcp("A", tos=46 << 2 | 2))],
     expect=[opened(tcp(tos=1)), hit(tcp("A", tos=1)), hit(marked(tcp("A", tos=1))), hit(marked(tcp("A", tos=46 << 2 | 2)))], check=two_marked)
U6 = udp(destination=VIP6, tos=3)
case("rate-limit", "IPv6 packets are marked in their traffic class", config=MARK, packets=[ether(U6)] * 4,
     expect=[tx(ipip(U6, T6[0])), tx(ipip(U6, T6[0])), tx(ipip(marked(U6), T6[0])), tx(ipip(marked(U6), T6[0]))])

LIVE = limited({"concurrent_flows": 2})
case("rate-limit", "a source has as many flows at once as it may and a FIN makes room", config=LIVE,
     packets=syns(3) + [(0.1, ether(tcp("FA", sport=1))), (3, ether(tcp(sport=4))), (3.001, ether(tcp(sport=5)))],
     expect=[opened(tcp(sport=1)), opened(tcp(sport=2)), over, hit(tcp("FA", sport=1)), opened(tcp(sport=4)), over])
case("rate-limit", "flows that are idle for too long make room", config=LIVE,
     packets=[(0, ether(udp(sport=1))), (0.1, ether(udp(sport=2))), (0.2, ether(udp(sport=3))), (125, ether(udp(sport=4)))],
     expect=[opened(udp(sport=1)), opened(udp(sport=2)), over, opened(udp(sport=4))])

ALL = limited(None, {"new_flows_per_second": 4})
case("rate-limit", "what a listener takes in all is another limit and another name", config=ALL,
     packets=[(n * 0.001, ether(tcp(source=f"198.51.100.{n + 1}"))) for n in range(6)],
     expect=[opened(tcp(source=f"198.51.100.{n + 1}")) for n in range(2)] + [over_all] * 4)


def known_first(run: Run):
    """Of the second part: the known client's flows all pass, of the strangers' some and not all."""
    verdicts = run.verdicts[24:]
    assert [v["verdict"] for v in verdicts[::20]] == ["tx"] * len(verdicts[::20])
    others = [v for n, v in enumerate(verdicts) if n % 20]
    assert {v["reason"] for v in others} == {None, "listener_rate_limit"}
    assert sum(v["verdict"] == "tx" for v in others) < len(others) / 2


HOME = [(n * 0.5, ether(tcp(sport=n + 1))) for n in range(24)]
FLOOD = [(12 + n * 0.005, ether(tcp(sport=n + 100) if n % 20 == 0 else tcp(source=f"198.51.{n // 250}.{n % 250}"))) for n in range(1000)]
case("rate-limit", "a client that the listener knows is served while strangers without number fill the limit",
     config=limited(None, {"new_flows_per_second": 40}), packets=HOME + FLOOD, check=known_first)
EASED = limited({"new_flows_per_second": 1000})
case("rate-limit", "a limit that is lifted holds no longer", config=FLOWS, files={"eased.yaml": EASED}, events=[{"at": 0.1, "apply": "eased.yaml"}],
     packets=syns(3) + syns(5, first=10, at=0.2), expect=[opened(tcp(sport=1)), opened(tcp(sport=2)), over] + [opened(tcp(sport=n)) for n in range(10, 15)])
