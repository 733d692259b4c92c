"""What becomes of a flow: drains, failures, idle time, changed configurations. Time is the capture's."""
from ..frames import (T4, T6, VIP6, at, config, ether, group, ipip, l2dsr, listener, one, reset_to_client,
                      reset_to_target, tcp, udp)
from ..harness import ANY, answered, case, drop, tx

BLUE, GREEN = T4[0], T4[1]
SYN, ACK = tcp("S", seq=1000), tcp("A", seq=1001, ack=501)
DATA = tcp("PA", seq=1001, ack=501, payload=b"hello")
FIN = tcp("FA", seq=1006, ack=501)
RST = tcp("R", seq=1006)


def timeline(*steps):
    """(seconds, packet) → frames."""
    return [(seconds, ether(packet)) for seconds, packet in steps]


def to(target, packet, flow, **fields):
    return tx(ipip(packet, target), flow=flow, target=at(target), **fields)


def reset(target, packet, **fields):
    """To the target, in the client's name, and back to the client."""
    return answered("answered_rst", ipip(reset_to_target(packet), target), reset_to_client(packet), **fields)


# BLUE alone takes new flows; GREEN joins by an event or a second configuration. So every choice is known beforehand.
def pair(blue=1, green=0, protocol="TCP", mode="ipip", health_check=None, **attributes):
    extra = {"health_check": health_check} if health_check else {}
    return config([listener(protocol=protocol)], [group(targets=[(BLUE, blue), (GREEN, green)], protocol=protocol, mode=mode,
                                                        attributes=attributes or None, **extra)])


def drained(after, **attributes):
    """BLUE has the flow, then GREEN gets weight and BLUE is drained."""
    return {"config": pair(**attributes), "files": {"green.yaml": pair(green=1, **attributes)},
            "events": [{"at": after, "apply": "green.yaml"}, {"at": after, "drain": at(BLUE)}]}


DELAY = {"deregistration_delay.timeout_seconds": 60}
TERMINATE = {**DELAY, "deregistration_delay.connection_termination.enabled": True}
NEW = tcp("S", sport=41000)

case("drain", "a tracked flow stays on a drained target and a new flow goes elsewhere", **drained(5, **DELAY),
     packets=timeline((0, SYN), (1, ACK), (6, DATA), (6, NEW), (64, DATA)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(BLUE, DATA, "hit"), to(GREEN, NEW, "new"), to(BLUE, DATA, "hit")])
case("drain", "after the delay a tracked flow is left alone where termination is off", **drained(5, **DELAY),
     packets=timeline((0, SYN), (1, ACK), (66, DATA)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(BLUE, DATA, "hit")])
case("drain", "after the delay a tracked flow is reset at both ends where termination is on", **drained(5, **TERMINATE),
     packets=timeline((0, SYN), (1, ACK), (64.9, DATA), (65, DATA)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(BLUE, DATA, "hit"), reset(BLUE, DATA, flow="hit")])
case("drain", "after the delay a tracked flow moves where it is to be re-hashed",
     **drained(5, **DELAY, **{"deregistration_delay.then": "rehash"}),
     packets=timeline((0, SYN), (1, ACK), (64.9, DATA), (66, DATA)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(BLUE, DATA, "hit"), to(GREEN, DATA, "new")])
case("drain", "a new flow is not reset after the delay", **drained(5, **TERMINATE),
     packets=timeline((0, SYN), (1, ACK), (66, NEW)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(GREEN, NEW, "new")])
case("drain", "a SYN on a live entry keeps its draining target", **drained(5, **DELAY),
     packets=timeline((0, SYN), (6, SYN)), expect=[to(BLUE, SYN, "new"), to(BLUE, SYN, "hit")])
case("drain", "a reused port of a closed flow does not go back to a draining target", **drained(5, **DELAY),
     packets=timeline((0, SYN), (1, ACK), (2, FIN), (6, SYN)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(BLUE, FIN, "hit"), to(GREEN, SYN, "new")])
UDP_PAIR = drained(5, protocol="UDP", **DELAY)
case("drain", "a UDP flow stays until the delay ends and then moves", **UDP_PAIR,
     packets=timeline((0, udp()), (1, udp()), (6, udp()), (66, udp())),
     expect=[to(BLUE, udp(), "new"), to(BLUE, udp(), "hit"), to(BLUE, udp(), "hit"), to(GREEN, udp(), ANY)])
case("drain", "an undrained target takes new flows again", config=pair(),
     events=[{"at": 1, "drain": at(BLUE)}, {"at": 2, "undrain": at(BLUE)}],
     packets=timeline((0, SYN), (1.5, NEW), (3, NEW)),
     expect=[to(BLUE, SYN, "new"), drop("no_target", flow="none"), to(BLUE, NEW, "new")])
case("drain", "a target removed from the configuration drains like any other", config=pair(**DELAY),
     files={"green.yaml": config([listener()], [group(targets=[GREEN], attributes=DELAY)])}, events=[{"at": 5, "apply": "green.yaml"}],
     packets=timeline((0, SYN), (1, ACK), (6, DATA), (6, NEW)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(BLUE, DATA, "hit"), to(GREEN, NEW, "new")])

REMOVED = {"config": pair(**TERMINATE), "files": {"green.yaml": config([listener()], [group(targets=[GREEN], attributes=TERMINATE)])},
           "events": [{"at": 5, "apply": "green.yaml"}]}
case("drain", "a source port used again never reaches a removed target, whether its old flow was closed or not", **REMOVED,
     packets=timeline((0, SYN), (1, ACK), (0, NEW), (2, tcp("FA", sport=41000, seq=1006, ack=501)), (6, NEW), (66, SYN), (67, ACK)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(BLUE, NEW, "new"), to(BLUE, tcp("FA", sport=41000, seq=1006, ack=501), "hit"),
             to(GREEN, NEW, "new"), to(GREEN, SYN, "new"), to(GREEN, ACK, "hit")])
STICKY = {"stickiness.enabled": True, "stickiness.type": "source_ip"}
case("drain", "a sticky client's new flows leave its draining target together, and its tracked ones stay", **drained(5, **DELAY, **STICKY),
     packets=timeline((0, SYN), (1, ACK), (6, NEW), (6, tcp("S", sport=42000)), (7, DATA)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(GREEN, NEW, "new"), to(GREEN, tcp("S", sport=42000), "new"), to(BLUE, DATA, "hit")])

# ---- unhealthy targets ----

EVERY_10 = {"health_check": {"protocol": "TCP", "interval": 10}}


def failing(after, **settings):
    return {"config": pair(**settings), "files": {"green.yaml": pair(green=1, **settings)},
            "events": [{"at": after, "apply": "green.yaml"}, {"at": after, "unhealthy": at(BLUE)}]}


case("unhealthy", "flows of an unhealthy target are reset at both ends one interval later", **failing(5, **EVERY_10),
     packets=timeline((0, SYN), (1, ACK), (6, NEW), (14, DATA), (15, DATA)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(GREEN, NEW, "new"), to(BLUE, DATA, "hit"), reset(BLUE, DATA, flow="hit")])
case("unhealthy", "a reset flow is reset again when the client goes on", **failing(5, **EVERY_10),
     packets=timeline((0, SYN), (1, ACK), (16, DATA), (17, DATA)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), reset(BLUE, DATA), reset(BLUE, DATA)])
case("unhealthy", "a client that was reset may connect again at once", **failing(5, **EVERY_10),
     packets=timeline((0, SYN), (1, ACK), (16, DATA), (17, SYN), (18, ACK)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), reset(BLUE, DATA), to(GREEN, SYN, "new"), to(GREEN, ACK, "hit")])
case("unhealthy", "a reset from the client is forwarded and not answered", **failing(5, **EVERY_10),
     packets=timeline((0, SYN), (1, ACK), (16, RST)), expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(BLUE, RST, "hit")])
case("unhealthy", "a target that recovers in time keeps its flows",
     **{**failing(5, **EVERY_10), "events": failing(5)["events"] + [{"at": 12, "healthy": at(BLUE)}]},
     packets=timeline((0, SYN), (1, ACK), (20, DATA)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(BLUE, DATA, "hit")])
NO_TERMINATION = {**EVERY_10, "target_health_state.unhealthy.connection_termination.enabled": False}
case("unhealthy", "without termination flows move to another target at once", **failing(5, **NO_TERMINATION),
     packets=timeline((0, SYN), (1, ACK), (6, DATA), (7, DATA)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(GREEN, DATA, ANY), to(GREEN, DATA, "hit")])
case("unhealthy", "a draining interval keeps flows until it is over",
     **failing(5, **NO_TERMINATION, **{"target_health_state.unhealthy.draining_interval_seconds": 30}),
     packets=timeline((0, SYN), (1, ACK), (34, DATA), (36, DATA)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(BLUE, DATA, "hit"), to(GREEN, DATA, ANY)])
case("unhealthy", "UDP flows move at once", **failing(5, protocol="UDP", **EVERY_10),
     packets=timeline((0, udp()), (1, udp()), (6, udp())),
     expect=[to(BLUE, udp(), "new"), to(BLUE, udp(), "hit"), to(GREEN, udp(), ANY)])
case("unhealthy", "a SYN on a live entry leaves an unhealthy target", **failing(5, **NO_TERMINATION),
     packets=timeline((0, SYN), (6, SYN)), expect=[to(BLUE, SYN, "new"), to(GREEN, SYN, "new")])
case("unhealthy", "a target that is unhealthy from the start gets no flow", config=pair(green=1), args=["--unhealthy", at(BLUE)],
     packets=timeline(*((n / 100, tcp(sport=20000 + n)) for n in range(40))),
     expect=[to(GREEN, tcp(sport=20000 + n), "new") for n in range(40)])
case("unhealthy", "a reset answers a segment without ACK by its sequence", **failing(5, **EVERY_10),
     packets=timeline((0, SYN), (1, ACK), (16, tcp("P", seq=1001, payload=b"12345"))),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), reset(BLUE, tcp("P", seq=1001, payload=b"12345"))])
case("unhealthy", "resets go back with the tag the packet came with", **failing(5, **EVERY_10),
     packets=[(0, ether(SYN)), (1, ether(ACK)), (16, ether(DATA, vlan=(9,)))],
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"),
             answered("answered_rst", ipip(reset_to_target(DATA), BLUE), reset_to_client(DATA, vlan=(9,)))])
case("unhealthy", "l2dsr resets reach the target by its MAC", **failing(5, mode="l2dsr", **EVERY_10),
     packets=timeline((0, SYN), (1, ACK), (16, DATA)),
     expect=[tx(l2dsr(SYN)), tx(l2dsr(ACK)), answered("answered_rst", l2dsr(reset_to_target(DATA)), reset_to_client(DATA))])

SYN6, ACK6, DATA6 = (tcp(f, destination=VIP6, seq=1001, ack=501, payload=p) for f, p in (("S", b""), ("A", b""), ("PA", b"x")))


def v6_pair(green):
    return config([listener(vip="web6")], [group(targets=[(T6[0], 1), (T6[1], green)], **EVERY_10)])


case("unhealthy", "IPv6 flows are reset at both ends too", config=v6_pair(0), files={"green.yaml": v6_pair(1)},
     events=[{"at": 5, "apply": "green.yaml"}, {"at": 5, "unhealthy": at(T6[0])}],
     packets=timeline((0, SYN6), (1, ACK6), (16, DATA6)),
     expect=[to(T6[0], SYN6, "new"), to(T6[0], ACK6, "hit"),
             answered("answered_rst", ipip(reset_to_target(DATA6), T6[0]), reset_to_client(DATA6))])

# ---- fail-open ----

case("fail-open", "an unhealthy target that is the only one gets all flows", config=one(), args=["--unhealthy", at(T4[0])],
     packets=timeline((0, SYN), (1, ACK)), expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit")])
case("fail-open", "nothing is reset while every target is unhealthy", config=one(of_group=EVERY_10), events=[{"at": 5, "unhealthy": at(BLUE)}],
     packets=timeline((0, SYN), (1, ACK), (30, DATA), (31, NEW)),
     expect=[to(BLUE, SYN, "new"), to(BLUE, ACK, "hit"), to(BLUE, DATA, "hit"), to(BLUE, NEW, "new")])


def both_used(run):
    assert set(run.targets()) == {at(BLUE), at(GREEN)}


case("fail-open", "all unhealthy means all targets take new flows", config=pair(green=1), check=both_used,
     args=["--unhealthy", at(BLUE), "--unhealthy", at(GREEN)],
     packets=timeline(*((n / 100, tcp(sport=20000 + n)) for n in range(64))))
case("fail-open", "fewer healthy targets than the minimum means all targets take new flows", check=both_used,
     config=pair(green=1, **{"target_group_health.unhealthy_state_routing.minimum_healthy_targets.count": 2}),
     args=["--unhealthy", at(BLUE)], packets=timeline(*((n / 100, tcp(sport=20000 + n)) for n in range(64))))
case("fail-open", "a draining target is not opened to", config=pair(green=1),
     events=[{"at": 0, "drain": at(GREEN)}, {"at": 0, "unhealthy": at(BLUE)}],
     packets=timeline(*((n / 100, tcp(sport=20000 + n)) for n in range(32))),
     expect=[to(BLUE, tcp(sport=20000 + n), "new") for n in range(32)])
