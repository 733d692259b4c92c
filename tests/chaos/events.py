"""The rows of "What becomes of a flow": what happens in each, and what it promises to tracked and to new flows.

An event is a generator: what stands before its first yield prepares it, between the yields it happens, after the second one
things are put back. The first yield gives its Promise.
"""

import dataclasses
import os
import signal
import time

from tests.chaos import setup
from tests.chaos.flood import Flood
from tests.lib.lab import wait_until


@dataclasses.dataclass
class Promise:
    ended: tuple = ()  # targets whose tracked flows are to be reset; all others stay
    off_hash: str = ""  # a drained target: where its flows go stands in the flow table and nowhere else


HOLD = 3  # seconds in which clients go on after what happened


def target_added(world):
    yield Promise()
    world.apply(targets=(*setup.TARGETS, setup.SPARE))
    world.wait_state(setup.SPARE, "healthy")
    time.sleep(HOLD)
    yield
    world.apply()


def weight_changed(world):
    yield Promise()
    world.apply(weights={"t1": 5, "t2": 1, "t3": 0})
    world.clients.ask("avoid t3")
    time.sleep(HOLD)
    yield
    world.apply()


def target_drained(world):
    yield Promise()
    world.drain("t2")
    world.clients.ask("avoid t2")
    time.sleep(HOLD)
    yield
    world.undrain("t2")


def drain_ended(world):
    world.apply(attributes={"deregistration_delay.timeout_seconds": 2, "deregistration_delay.connection_termination.enabled": True})
    yield Promise(ended=("t2",))
    world.drain("t2")
    world.clients.ask("avoid t2")
    time.sleep(2 + HOLD)
    yield
    world.undrain("t2")
    world.apply()


def target_removed(world):
    yield Promise()
    world.apply(targets=("t1", "t3"))
    world.clients.ask("avoid t2")
    time.sleep(HOLD)
    yield
    world.apply()
    world.wait_healthy()


def target_unhealthy(world):
    yield Promise(ended=("t3",))
    world.sick_file("t3").touch()
    world.wait_state("t3", "unhealthy")
    world.clients.ask("avoid t3")
    time.sleep(HOLD)
    yield
    world.sick_file("t3").unlink()
    world.wait_healthy()


def target_unhealthy_kept(world):
    world.apply(attributes={"target_health_state.unhealthy.connection_termination.enabled": False,
                            "target_health_state.unhealthy.draining_interval_seconds": 300})
    yield Promise()
    world.sick_file("t3").touch()
    world.wait_state("t3", "unhealthy.draining")
    world.clients.ask("avoid t3")
    time.sleep(HOLD)
    yield
    world.sick_file("t3").unlink()
    world.wait_healthy()
    world.apply()


def all_unhealthy(world):
    yield Promise()
    for target in setup.TARGETS:
        world.sick_file(target).touch()
    for target in setup.TARGETS:
        world.wait_state(target, "unhealthy")
    time.sleep(HOLD)
    yield
    for target in setup.TARGETS:
        world.sick_file(target).unlink()
    world.wait_healthy()


def cp_killed(world):
    world.drain("t1")
    yield Promise(off_hash="t1")
    world.clients.ask("avoid t1")
    world.balancer.kill_cp()
    time.sleep(HOLD)
    world.balancer.start_cp()
    world.balancer.wait_connected()
    time.sleep(HOLD)
    yield
    world.undrain("t1")


def cp_killed_often(world):
    kills = min(100, world.options[0] // 8)  # a hundred with the connections of ./run chaos, fewer in the test tier
    population = setup.POPULATIONS[0]
    world.drain("t1")
    yield Promise(off_hash="t1")
    world.clients.ask("avoid t1")
    world.balancer.kill_cp()
    world.balancer.kill_cp_often(kills, population.target("t2"), f"tcp-{population.name}")
    time.sleep(HOLD)
    yield
    world.undrain("t1")


def dp_ended(world, number):
    world.drain("t1")
    yield Promise(off_hash="t1")
    world.clients.ask("avoid t1")
    world.balancer.dp.stop(number)
    world.balancer.start_dp()
    world.balancer.wait_connected()
    time.sleep(HOLD)
    yield
    world.undrain("t1")


def dp_killed(world):
    return dp_ended(world, signal.SIGKILL)


def dp_crashed(world):
    return dp_ended(world, signal.SIGSEGV)


def dp_restarted(world):
    return dp_ended(world, signal.SIGTERM)


def dp_upgraded(world):
    """`lb-dp upgrade`, twice: from the one that was started, and from the one that has taken over."""
    world.drain("t1")
    yield Promise(off_hash="t1")
    world.clients.ask("avoid t1")
    for _ in range(2):
        gap_ms, dropped = world.balancer.upgrade_dp()
        print(f"    lb-dp upgrade: no worker ran for {gap_ms} ms, {dropped} packets were dropped meanwhile", flush=True)
        world.balancer.wait_connected()
        time.sleep(HOLD)
    yield
    world.balancer.dp.stop()
    world.balancer.start_dp()
    world.balancer.wait_connected()
    world.undrain("t1")


def dp_away(world):
    """lb-dp is away for two seconds: nothing may reach the host's own stack meanwhile."""
    world.drain("t1")
    yield Promise(off_hash="t1")
    world.clients.ask("avoid t1")
    world.balancer.dp.stop(signal.SIGKILL)
    time.sleep(2)
    world.balancer.start_dp()
    world.balancer.wait_connected()
    time.sleep(HOLD)
    yield
    world.undrain("t1")


def dp_stopped(world):
    """SIGSTOP: no sign of life for WatchdogSec, so the shipped unit's rules kill lb-dp and start another."""
    world.drain("t1")
    world.balancer.dp.stop()
    world.balancer.start_supervised_dp()
    world.balancer.wait_connected()
    yield Promise(off_hash="t1")
    world.clients.ask("avoid t1")
    stopped = world.balancer.supervised_pid()
    os.kill(stopped, signal.SIGSTOP)
    wait_until("another lb-dp", lambda: world.balancer.supervised_pid() != stopped, 20)
    world.balancer.wait_connected()
    time.sleep(HOLD)
    yield
    world.balancer.dp.stop()
    world.balancer.start_dp()
    world.balancer.wait_connected()
    world.undrain("t1")


def both_killed(world):
    """lb-dp starts before lb-cp does: by the snapshot it stored."""
    world.drain("t1")
    yield Promise(off_hash="t1")
    world.clients.ask("avoid t1")
    world.balancer.kill_cp()
    world.balancer.dp.stop(signal.SIGKILL)
    world.balancer.start_dp()
    time.sleep(HOLD)
    world.balancer.start_cp()
    world.balancer.wait_connected()
    time.sleep(1)
    yield
    world.undrain("t1")


def workers_changed(world, count):
    world.drain("t1")
    yield Promise(off_hash="t1")
    world.clients.ask("avoid t1")
    world.balancer.dp.stop()
    world.lab.set_queues(count)
    world.balancer.set_workers(count)
    world.balancer.start_dp()
    world.lab.use_queues()
    world.balancer.wait_connected()
    time.sleep(HOLD)
    yield
    world.undrain("t1")


def workers_more(world):
    return workers_changed(world, 2)


def workers_fewer(world):
    return workers_changed(world, 1)


def syn_flood(world):
    """SYNs from everywhere until the flow table is full, and on."""
    world.drain("t1")
    yield Promise(off_hash="t1")
    world.clients.ask("avoid t1")
    with Flood(world.lab, [[p.vip, setup.TCP_PORT] for p in setup.POPULATIONS]) as flood:
        wait_until("the flow table to be full", lambda: world.table_load() > 0.9, 60, every=0.5)
        wait_until("the event that says so", lambda: world.told("flow-table worker 0", "nearly full"), 20, every=0.5)
        time.sleep(HOLD)
        flood.require_running()
    yield
    world.undrain("t1")


def other_floods(world):
    """Datagrams to any port, fragments without an end, ICMP errors about nothing, tuples that ask to collide: each is seen for what
    it is, and nobody else is."""
    floods = {"udp": ("no_listener",), "fragment": ("fragment_table_full", "fragment_timeout"), "icmp": ("icmp_no_flow",), "collide": ()}

    def counted(reasons, before):
        now = world.balancer.drops()
        return all(now.get(reason, 0) - before.get(reason, 0) >= 100 for reason in reasons)

    world.drain("t1")
    yield Promise(off_hash="t1")
    world.clients.ask("avoid t1")
    for kind, reasons in floods.items():
        before = world.balancer.drops()
        with Flood(world.lab, [[p.vip, setup.TCP_PORT] for p in setup.POPULATIONS], 10000, kind) as flood:
            time.sleep(HOLD / 2)
            wait_until(f"the {kind} flood to be counted as {reasons}", lambda reasons=reasons, before=before: counted(reasons, before), 30)
            if kind == "fragment":
                wait_until("the event that says so", lambda: world.told("fragments", "exhausted"), 20, every=0.5)
            flood.require_running()
    yield
    world.undrain("t1")


def vip_flooded(world):
    """All on one VIP; the others' connections are as good as before, and so are its own."""
    world.drain("t1")
    yield Promise(off_hash="t1")
    world.clients.ask("avoid t1")
    with Flood(world.lab, [[setup.POPULATIONS[0].vip, setup.TCP_PORT]]) as flood:
        time.sleep(HOLD)
        flood.require_running()
    yield
    world.undrain("t1")


EVENTS = {event.__name__.replace("_", "-"): event for event in (
    target_added, weight_changed, target_drained, drain_ended, target_removed, target_unhealthy, target_unhealthy_kept, all_unhealthy,
    cp_killed, cp_killed_often, dp_killed, dp_crashed, dp_restarted, dp_upgraded, dp_away, dp_stopped, both_killed, workers_more, workers_fewer,
    syn_flood, other_floods, vip_flooded)}
