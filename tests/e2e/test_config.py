"""Changing the configuration: what is refused, what is kept, and that traffic follows."""

import concurrent.futures
import json

import pytest

from tests.e2e import world
from tests.e2e.connection import Connection
from tests.lib.balancer import BIN
from tests.lib.lab import run, wait_until

pytestmark = pytest.mark.cases(world.PLAIN)


def numbers(up):
    return [row["number"] for row in up.balancer.json("history")["configurations"]]


def in_force(up):
    row = up.balancer.json("history")["configurations"][0]
    return f"{row['epoch']}.{row['generation']}"


def test_single_changes_and_rollback(up, case):
    """A target comes and goes without a file, a rollback brings it back, and a flow that is open all the while stays."""
    before = numbers(up)[0]
    with Connection(up.lab, case) as kept:
        target = kept.ask()
        gone = next(name for name in up.lab.targets if name != target)
        up.balancer.lbctl("target", "remove", case.web_group, case.target(gone))
        up.wait_answers(case, set(up.lab.targets) - {gone}, "the removed target answers no new flow")
        up.balancer.lbctl("target", "set", case.web_group, case.target(target), "--weight", "0")
        up.wait_answers(case, set(up.lab.targets) - {gone, target}, "weight 0 takes no new flow")
        assert numbers(up)[0] == before + 2
        up.balancer.lbctl("rollback", str(before))
        up.balancer.wait_all_healthy(case.web_group)
        up.wait_answers(case, up.lab.targets, "all targets of the earlier configuration answer")
        assert kept.ask() == target
    assert up.balancer.lbctl("diff", "-f", up.config).returncode == 0
    assert up.balancer.lbctl("export").stdout == up.config.read_text()


def test_file_that_is_cut_short_is_refused(up, case):
    """Half of the targets do not go by mistake; nothing is changed, and the answer says how many would have gone."""
    smaller = up.lab.folder / "smaller.yaml"
    smaller.write_text(world.config(target_names=("t1",)))
    done = up.balancer.lbctl("apply", "-f", smaller, check=False)
    assert done.returncode == 1 and "--force" in done.stderr and "more than 10 %" in done.stderr
    assert len(up.balancer.targets(case.web_group)) == 3
    up.wait_answers(case, up.lab.targets, "all targets answer as before")


def test_one_of_two_appliers_wins(up, case):
    """Ten changes on the same sight of the configuration: one comes into force, nine are told what came between."""
    seen = in_force(up)

    def change(weight):
        return up.balancer.lbctl("target", "set", case.web_group, case.target("t1"), "--weight", str(weight), "--if-generation", seen, check=False)

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        done = list(pool.map(change, range(2, 12)))
    assert [one.returncode for one in done].count(0) == 1
    assert all("came into force" in one.stderr for one in done if one.returncode)
    winner = next(weight for weight, one in zip(range(2, 12), done) if one.returncode == 0)
    assert up.balancer.targets(case.web_group)[case.target("t1")]["weight"] == winner


def test_history_survives_a_kill(up, case):
    """lb-cp is killed the moment a change has been told as done: the new one knows it, and every one before it."""
    up.balancer.lbctl("target", "set", case.web_group, case.target("t2"), "--weight", "7")
    up.balancer.kill_cp()
    up.balancer.start_cp()
    up.balancer.wait_connected()
    known = up.balancer.json("history")["configurations"]
    assert known[0]["in_force"] and known[0]["cause"] == f"target set {case.web_group} {case.target('t2')}"
    assert [row["number"] for row in known] == list(range(known[0]["number"], known[0]["number"] - len(known), -1))
    assert up.balancer.targets(case.web_group)[case.target("t2")]["weight"] == 7
    up.balancer.lbctl("rollback", str(known[1]["number"]))
    assert up.balancer.targets(case.web_group)[case.target("t2")]["weight"] == 1


def test_view_socket_changes_nothing(up, case):
    """Who may only look sees what there is, and is told where changes go."""
    def lbctl(*arguments, check=True):
        return run([BIN / "lbctl", "--socket", up.lab.folder / "cp-view.sock", *arguments], check=check)

    assert case.web_group in lbctl("get", "target-groups", "-o", "wide").stdout
    for change in (("apply", "-f", up.config), ("drain", case.target("t1")), ("rollback", str(numbers(up)[0])),
                   ("target", "remove", case.web_group, case.target("t1"))):
        done = lbctl(*change, check=False)
        assert done.returncode == 1 and "admin socket" in done.stderr, change
    assert up.balancer.targets(case.web_group)[case.target("t1")]["state"] == "healthy"


def test_doctor_finds_what_is_wrong(up, case):
    """A healthy balancer has nothing bad; lb-dp's end and a dead group are named."""
    def grades():
        return {row["check"]: row["grade"] for row in json.loads(up.balancer.lbctl("doctor", "-o", "json", check=False).stdout)["findings"]}

    assert "bad" not in grades().values()
    for target in up.lab.targets:
        up.lab.nginx[target].kill()
    for target in up.lab.targets:
        up.balancer.wait_state(case.web_group, case.target(target), "unhealthy")
    assert grades()[f"target group {case.web_group}"] == "bad"
    up.balancer.dp.stop()
    wait_until("lb-dp's end to be noticed", lambda: grades()["lb-dp"] == "bad")
