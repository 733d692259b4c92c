"""Idle timeouts, the states of a TCP flow, and clocks that run oddly."""
from ..frames import T4, at, config, ether, group, ipip, listener, one, reset_to_client, reset_to_target, tcp, udp
from ..harness import answered, case, drop, tx

BLUE, GREEN = T4[0], T4[1]
SYN, ACK = tcp("S", seq=1000), tcp("A", seq=1001, ack=501)
DATA = tcp("PA", seq=1001, ack=501, payload=b"late")
FIN = tcp("FA", seq=1001, ack=501)
IDLE_60 = {"tcp.idle_timeout.seconds": 60}


def timeline(*steps):
    return [(seconds, ether(packet)) for seconds, packet in steps]


def to(target, packet, flow):
    return tx(ipip(packet, target), flow=flow, target=at(target))


def moved(**attributes):
    """BLUE takes the first flows; after 5 s only GREEN takes new ones, BLUE stays healthy with weight 0."""
    def settings(blue, green):
        return config([listener(protocol="TCP_UDP")], [group(targets=[(BLUE, blue), (GREEN, green)], protocol="TCP_UDP",
                                                             attributes=attributes or None)])
    return {"config": settings(1, 0), "files": {"green.yaml": settings(0, 1)}, "events": [{"at": 5, "apply": "green.yaml"}]}


def late(packet):
    return answered("answered_rst", ipip(reset_to_target(packet), BLUE), reset_to_client(packet))


case("idle", "a flow is kept just below its idle timeout", **moved(**IDLE_60),
     packets=timeline((0, SYN), (1, ACK), (60, DATA), (119, DATA)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(BLUE, DATA, "hit"), to(BLUE, DATA, "hit")])
case("idle", "the first packet after the idle timeout is answered with a reset, once", **moved(**IDLE_60),
     packets=timeline((0, SYN), (1, ACK), (62, DATA), (63, DATA)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), late(DATA), to(GREEN, DATA, "new")])
case("idle", "the default idle timeout of TCP is 350 seconds", **moved(),
     packets=timeline((0, SYN), (1, ACK), (350, DATA), (701, DATA)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(BLUE, DATA, "hit"), late(DATA)])
case("idle", "a SYN after the idle timeout starts a new flow", **moved(**IDLE_60),
     packets=timeline((0, SYN), (1, ACK), (62, SYN), (63, ACK)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(GREEN, SYN, "new"), to(GREEN, ACK, "hit")])
case("idle", "a flow forgotten long ago is a new flow", **moved(**IDLE_60),
     packets=timeline((0, SYN), (1, ACK), (7200, DATA)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(GREEN, DATA, "new")])
case("idle", "a year of silence is a long time too", **moved(),
     packets=timeline((0, SYN), (1, ACK), (366 * 86400, DATA)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(GREEN, DATA, "new")])
case("idle", "a UDP flow is kept just below its idle timeout", **moved(**{"udp.idle_timeout.seconds": 30}),
     packets=timeline((0, udp()), (1, udp()), (30, udp()), (59, udp())),
     expect=[to(BLUE, udp(), "new"), to(BLUE, udp(), "hit"), to(BLUE, udp(), "hit"), to(BLUE, udp(), "hit")])
case("idle", "the next packet after the UDP idle timeout is a new flow", **moved(**{"udp.idle_timeout.seconds": 30}),
     packets=timeline((0, udp()), (1, udp()), (32, udp())),
     expect=[to(BLUE, udp(), "new"), to(BLUE, udp(), "hit"), to(GREEN, udp(), "new")])
case("idle", "the default idle timeout of UDP is 120 seconds", **moved(),
     packets=timeline((0, udp()), (1, udp()), (120, udp()), (241, udp())),
     expect=[to(BLUE, udp(), "new"), to(BLUE, udp(), "hit"), to(BLUE, udp(), "hit"), to(GREEN, udp(), "new")])

# ---- states of TCP as the client's side shows them ----

case("tcp-state", "a repeated SYN keeps the target of its entry", **moved(), packets=timeline((0, SYN), (6, SYN)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, SYN, "hit")])
case("tcp-state", "after the client's FIN its packets still reach the target", **moved(),
     packets=timeline((0, SYN), (1, ACK), (2, FIN), (6, ACK), (300, ACK)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(BLUE, FIN, "hit"), to(BLUE, ACK, "hit"), to(BLUE, ACK, "hit")])
case("tcp-state", "a SYN after the client's FIN starts a new flow", **moved(),
     packets=timeline((0, SYN), (1, ACK), (2, FIN), (6, SYN)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(BLUE, FIN, "hit"), to(GREEN, SYN, "new")])
case("tcp-state", "a SYN after the client's reset starts a new flow", **moved(),
     packets=timeline((0, SYN), (1, ACK), (2, tcp("R", seq=1001)), (6, SYN)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(BLUE, tcp("R", seq=1001), "hit"), to(GREEN, SYN, "new")])
case("tcp-state", "a SYN-ACK opens nothing and is forwarded like any packet", **moved(),
     packets=timeline((0, tcp("SA", seq=1, ack=2)), (6, tcp("A", seq=2, ack=3))),
     expect=[to(BLUE, tcp("SA", seq=1, ack=2), "new"), to(BLUE, tcp("A", seq=2, ack=3), "hit")])
case("tcp-state", "odd combinations of flags are forwarded, not answered, where their check is off",
     config=one(packet_hygiene={"tcp_flags": False}),
     packets=[ether(tcp(flags, sport=sport)) for sport, flags in enumerate(("", "SF", "SR", "FSRPAUEC", "U"), 50000)],
     expect=[tx(ipip(tcp(flags, sport=sport))) for sport, flags in enumerate(("", "SF", "SR", "FSRPAUEC", "U"), 50000)])

# ---- clocks ----

case("clock", "a stamp lower than the one before counts as no time passing", **moved(**IDLE_60),
     packets=timeline((100, SYN), (101, ACK), (10, DATA), (101.5, DATA)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(BLUE, DATA, "hit"), to(BLUE, DATA, "hit")])
case("clock", "events count from the first packet whatever its stamp", **moved(),
     packets=timeline((1700000000, SYN), (1700000004.9, tcp(sport=1)), (1700000005, tcp(sport=2))),
     expect=[to(BLUE, SYN, "new"), to(BLUE, tcp(sport=1), "new"), to(GREEN, tcp(sport=2), "new")])
case("clock", "an event comes before a packet of the same moment", **{**moved(), "events": [{"at": 0, "apply": "green.yaml"}]},
     packets=timeline((0, SYN)), expect=[to(GREEN, SYN, "new")])

# ---- changed configurations ----


def changed(before, after, **extra):
    return {"config": before, "files": {"after.yaml": after}, "events": [{"at": 5, "apply": "after.yaml"}], **extra}


case("change", "an added target leaves tracked flows where they are",
     **changed(config(groups=[group(targets=[BLUE])]), config(groups=[group(targets=[BLUE, *T4[1:]])])),
     packets=timeline(*((n / 100, tcp(sport=20000 + n)) for n in range(50)), *((6 + n / 100, tcp("A", sport=20000 + n)) for n in range(50))),
     expect=[to(BLUE, tcp(sport=20000 + n), "new") for n in range(50)] + [to(BLUE, tcp("A", sport=20000 + n), "hit") for n in range(50)])
case("change", "a weight of 0 leaves tracked flows where they are", **moved(), packets=timeline((0, SYN), (6, ACK), (7, tcp(sport=9))),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(GREEN, tcp(sport=9), "new")])
BLUE_GREEN = [group("blue", [BLUE]), group("green", [GREEN])]
case("change", "a listener given to another group keeps its tracked flows",
     **changed(config([listener(groups=["blue"])], BLUE_GREEN), config([listener(groups=["green"])], BLUE_GREEN)),
     packets=timeline((0, SYN), (6, ACK), (7, tcp(sport=9))),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(GREEN, tcp(sport=9), "new")])
case("change", "weights of a listener's groups are switched from blue to green and no tracked flow moves",
     **changed(config([listener(groups=[("blue", 1), ("green", 0)])], BLUE_GREEN), config([listener(groups=[("blue", 0), ("green", 1)])], BLUE_GREEN)),
     packets=timeline(*((n / 100, tcp(sport=20000 + n)) for n in range(20)), *((6 + n / 100, tcp("A", sport=20000 + n)) for n in range(20)),
                      (7, tcp(sport=9))),
     expect=[to(BLUE, tcp(sport=20000 + n), "new") for n in range(20)] + [to(BLUE, tcp("A", sport=20000 + n), "hit") for n in range(20)] +
     [to(GREEN, tcp(sport=9), "new")])
CHECKED_ON_80 = [group(health_check={"port": 80})]
TWO = config([listener(), listener("web-81", port=81)], CHECKED_ON_80)
case("change", "a removed listener serves its tracked flows and no others",
     **changed(TWO, config([listener("web-81", port=81)], CHECKED_ON_80)),
     packets=timeline((0, SYN), (6, ACK), (7, tcp(sport=9)), (8, tcp(sport=9, dport=81))),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), drop("listener_draining", listener="web-80", flow="none"),
             tx(ipip(tcp(sport=9, dport=81), BLUE), flow="new", target=at(BLUE, 81))])
case("change", "a listener moved to another port drains at the old one", **changed(one(), config([listener(port=81)])),
     packets=timeline((0, SYN), (6, ACK), (7, tcp(sport=9)), (8, tcp(sport=9, dport=81)), (306, ACK)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), drop("listener_draining"),
             tx(ipip(tcp(sport=9, dport=81), BLUE), flow="new", target=at(BLUE, 81)),
             drop("no_listener")])
case("change", "the same configuration again changes nothing", **changed(one(), one()), packets=timeline((0, SYN), (6, ACK)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit")])
case("change", "a changed tunnel source applies to tracked flows at once",
     **changed(one(), one(tunnel_source={"ipv4": "10.5.5.5"})), packets=timeline((0, SYN), (6, ACK)),
     expect=[to(BLUE, SYN, "new"), tx(ipip(ACK, BLUE, source="10.5.5.5"), flow="hit")])
