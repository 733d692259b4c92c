"""What becomes of flows when targets and daemons come and go: the table in docs/architecture.md, row by row."""

import os
import signal

import pytest

from tests.e2e import world
from tests.e2e.connection import Connection, Load
from tests.lib.lab import CLIENT, wait_until


@pytest.mark.cases(world.EACH_MODE_AND_FAMILY)
def test_health(up, case):
    """A target that dies leaves the rotation, and returns with its health."""
    up.lab.nginx["t2"].kill()
    up.balancer.wait_state(case.web_group, case.target("t2"), "unhealthy")
    row = up.balancer.targets(case.web_group)[case.target("t2")]
    assert row["reason"] and row["detail"]
    up.wait_answers(case, {"t1", "t3"}, "only healthy targets answer")
    up.lab.start_nginx("t2")
    up.balancer.wait_state(case.web_group, case.target("t2"), "healthy")
    up.wait_answers(case, {"t1", "t2", "t3"}, "the target that came back answers again")


@pytest.mark.cases(world.EACH_MODE_AND_FAMILY)
def test_all_unhealthy_is_fail_open(up, case):
    """With no healthy target left, all of them get traffic: a balancer that is wrong about health must not cut the service."""
    for target in up.lab.targets:
        up.lab.nginx[target].kill()
    for target in up.lab.targets:
        up.balancer.wait_state(case.web_group, case.target(target), "unhealthy")
    groups = {row["name"]: row for row in up.balancer.rows("target-groups")}
    assert groups[case.web_group]["fail_open"]
    before = {worker["worker"]: int(worker["forwarded_packets"]) for worker in up.balancer.rows("workers")}
    up.lab.curl(case.url(), check=False)
    wait_until("a request to be forwarded all the same", lambda: sum(
        int(worker["forwarded_packets"]) for worker in up.balancer.rows("workers")) > sum(before.values()))


@pytest.mark.cases(world.EACH_MODE_AND_FAMILY)
def test_drain(up, case):
    """A draining target takes no new flow; a long download that had begun there ends well."""
    with Connection(up.lab, case) as kept:
        target = kept.ask()
        download = up.helper(CLIENT, "download", "curl", "-sS", "--max-time", "40", "-o", "/dev/null", "-w",
                             "%header{X-Target} %{size_download}\n", case.url("/slow"))
        wait_until("the download to have begun", lambda: up.lab.run(
            CLIENT, "ss", "-Htn", "state", "established", "dst", case.host).stdout.count("\n") >= 2)
        up.balancer.lbctl("drain", case.target(target), "--target-group", case.web_group)
        others = set(up.lab.targets) - {target}
        up.wait_answers(case, others, "new flows go elsewhere")
        assert kept.ask() == target
        state = up.balancer.targets(case.web_group)[case.target(target)]
        assert state["state"] == "draining" and int(state["drain_remaining_ms"]) > 0
        assert download.popen.wait(40) == 0
        assert download.tail().split()[1] == str(4 << 20)
        assert kept.ask() == target
    up.balancer.lbctl("undrain", case.target(target), "--target-group", case.web_group)
    up.wait_answers(case, up.lab.targets, "an undrained target takes new flows again")


@pytest.mark.cases(world.ONE_OF_EACH_MODE)
def test_cp_restart_under_load(up, case):
    """lb-cp is killed and started again while clients work: not one request fails, and no flow moves."""
    with Connection(up.lab, case) as kept, Load(up.lab, case) as load:
        target = kept.ask()
        wait_until("the load to run", lambda: load.requests() > 100)
        up.balancer.kill_cp()
        seen = load.requests()
        wait_until("requests without lb-cp", lambda: load.requests() > seen + 100)
        up.balancer.start_cp()
        up.balancer.wait_connected()
        seen = load.requests()
        wait_until("requests with the new lb-cp", lambda: load.requests() > seen + 100)
        assert kept.ask() == target
        result = load.finish()
    assert result["errors"] == []
    up.balancer.wait_all_healthy(case.web_group)


@pytest.mark.cases(world.ONE_OF_EACH_MODE[:1])
def test_cp_killed_at_random_moments(up, case):
    """Killed while it starts, publishes and stores, under load and churn: no request fails, no flow moves, no table changes."""
    def tables():
        return {row["name"]: row["table_hash"] for row in up.balancer.rows("target-groups")}

    before = tables()
    with Connection(up.lab, case) as kept, Load(up.lab, case) as load:
        target = kept.ask()
        wait_until("the load to run", lambda: load.requests() > 100)
        up.balancer.kill_cp()
        other = next(name for name in up.lab.targets if name != target)
        up.balancer.kill_cp_often(8, case.target(other), case.web_group)
        seen = load.requests()
        wait_until("requests with the last lb-cp", lambda: load.requests() > seen + 100)
        assert kept.ask() == target
        result = load.finish()
    assert result["errors"] == []
    up.balancer.wait_all_healthy(case.web_group)
    wait_until("the tables of before", lambda: tables() == before)


@pytest.mark.cases(world.ONE_OF_EACH_MODE)
def test_drain_outlives_cp(up, case):
    """What the operator asked for is kept: a drained target is still draining after lb-cp was killed."""
    address = case.target("t1")
    up.balancer.lbctl("drain", address, "--target-group", case.web_group)
    up.balancer.kill_cp()
    up.balancer.start_cp()
    up.balancer.wait_connected()
    assert up.balancer.targets(case.web_group)[address]["state"] == "draining"
    up.wait_answers(case, {"t2", "t3"}, "the drained target takes no new flow")


@pytest.mark.cases(world.ONE_OF_EACH_MODE)
def test_dp_restart_without_cp(up, case):
    """lb-dp is killed and started while lb-cp is away: it forwards by the snapshot it stored, and flows stay."""
    with Connection(up.lab, case) as kept:
        target = kept.ask()
        # Drained: only the flow table can tell where the kept flow goes.
        up.balancer.lbctl("drain", case.target(target), "--target-group", case.web_group)
        up.wait_answers(case, set(up.lab.targets) - {target}, "new flows go elsewhere")
        up.balancer.kill_cp()
        up.balancer.kill_dp()
        up.balancer.start_dp()
        up.wait_answers(case, set(up.lab.targets) - {target}, "new flows are served from the stored snapshot")
        assert kept.ask() == target
        up.balancer.start_cp()
        up.balancer.wait_connected()
        assert kept.ask() == target


@pytest.mark.cases(world.PLAIN)
def test_dp_clean_restart(up, case):
    """SIGTERM ends lb-dp with exit code 0; the host keeps its own traffic meanwhile; lb-cp finds the new one by itself."""
    assert up.balancer.dp.stop() == 0
    up.lab.run(CLIENT, "ping", "-c", "1", "-W", "5", "10.77.2.1")
    up.balancer.start_dp()
    up.balancer.wait_connected()
    up.wait_answers(case, up.lab.targets, "all targets answer")


@pytest.mark.cases(world.PLAIN)
def test_cp_ends_cleanly(up, case):
    assert up.balancer.cp.stop() == 0
    up.wait_answers(case, up.lab.targets, "packets flow without lb-cp")


@pytest.mark.cases(world.PLAIN)
def test_hung_dp_is_reported(up, case):
    """A stopped lb-dp does not make lb-cp hang: its API answers, and all is well when lb-dp goes on."""
    os.kill(up.balancer.dp.pid, signal.SIGSTOP)
    try:
        up.balancer.lbctl("drain", case.target("t1"), "--target-group", case.web_group)
        assert up.balancer.targets(case.web_group)[case.target("t1")]["state"] == "draining"
    finally:
        os.kill(up.balancer.dp.pid, signal.SIGCONT)
    up.wait_answers(case, {"t2", "t3"}, "the change reaches the workers once lb-dp goes on")
