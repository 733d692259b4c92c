"""What `plan` says before a change is what becomes of flows after it; what `flows` and `events` say is what happens."""

import contextlib
import json
import subprocess

import pytest

from tests.e2e import world
from tests.e2e.connection import Connection
from tests.lib.lab import wait_until

FLOWS = 12


def planned_targets(up, case, path):
    plan = up.balancer.json("plan", "-f", path)
    group = next(row for row in plan["target_groups"] if row["name"] == case.web_group)
    return plan, {row["address"]: row for row in group["targets"]}


def without(up, case, gone):
    """The configuration with one target of the case's web group taken out, all others as they are."""
    lines = up.config.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line == f"  - name: {case.web_group}")
    end = next(i for i in range(at, len(lines)) if "targets: [" in lines[i])
    entry = f'{{address: "{case.bare_target(gone)}", port: {case.target_port(world.WEB)}}}'
    lines[end] = lines[end].replace(f"{entry}, ", "").replace(f", {entry}", "")
    path = up.lab.folder / "planned.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.cases(world.ONE_OF_EACH_MODE)
def test_what_a_plan_says_comes_true(up, case):
    """Open flows are counted on the target they are on; those the plan lets stay and drain are where it said, and the new
    shares are those it told."""
    with contextlib.ExitStack() as stack:
        flows = [stack.enter_context(Connection(up.lab, case)) for _ in range(FLOWS)]
        targets = [flow.ask() for flow in flows]
        gone = max(set(targets), key=targets.count)
        path = without(up, case, gone)

        def counted_alike():  # a flow of an earlier test may just have expired
            before = {address: row["flows"] for address, row in up.balancer.targets(case.web_group).items()}
            plan, rows = planned_targets(up, case, path)
            return (plan, rows) if before == {address: row["flows"] for address, row in rows.items()} else None

        plan, rows = wait_until("the plan to count as lb-dp does", counted_alike)
        assert plan["flows_known"] and plan["notes"] == []
        for address, row in rows.items():
            assert row["fate"] == ("drain" if address == case.target(gone) else "stay")
        assert rows[case.target(gone)]["flows"] >= targets.count(gone)
        assert rows[case.target(gone)]["share_after"] == 0
        assert sum(row["slots_gained"] for row in rows.values()) == sum(row["slots_lost"] for row in rows.values())
        assert rows[case.target(gone)]["slots_lost"] == round(rows[case.target(gone)]["share_before"] * 4093)
        assert up.balancer.lbctl("diff", "-f", path, check=False).returncode == 2, "a plan changes nothing"
        up.balancer.apply(path)
        after = up.balancer.targets(case.web_group)
        for address, row in rows.items():
            assert after[address]["share"] == pytest.approx(row["share_after"])
        assert after[case.target(gone)]["state"] == "draining"
        assert [flow.ask() for flow in flows] == targets
        up.wait_answers(case, set(up.lab.targets) - {gone}, "new flows go where the plan said")


@pytest.mark.cases(world.ALL[:1] + world.ALL[6:7])
def test_flows_are_counted_where_they_are(up, case):
    """The census of the live tables agrees with lb-dp's own count per target, and knows the state."""
    with contextlib.ExitStack() as stack:
        flows = [stack.enter_context(Connection(up.lab, case)) for _ in range(FLOWS)]
        targets = [flow.ask() for flow in flows]

        def counted_alike():  # a flow of an earlier test may just have expired
            counted = up.balancer.json("flows", "--target-group", case.web_group)
            assert counted["lines"] == counted["lines_read"]
            sums = {}
            for row in counted["flows"]:
                sums[row["target"]] = sums.get(row["target"], 0) + row["flows"]
            return sums == {address: row["flows"] for address, row in up.balancer.targets(case.web_group).items() if row["flows"]}

        wait_until("the census to count as lb-dp does", counted_alike)
        assumed = up.balancer.json("flows", "--listener", case.web_group, "--state", "assumed")["flows"]
        for target in set(targets):
            row = next(row for row in assumed if row["target"] == case.target(target))
            assert row["flows"] >= targets.count(target) and row["listeners"] == case.web_group
        top = up.balancer.json("top")
        assert {row["worker"] for row in top["workers"]} == set(range(case.workers))


@pytest.mark.cases(world.PLAIN[:1])
def test_events_are_told_as_they_happen(up, case):
    """A watcher hears of a target's death, a drain, an apply and lb-dp's end, each once and in order."""
    watch = subprocess.Popen(list(map(str, up.balancer.lbctl_command("events", "-w", "-o", "json"))), stdout=subprocess.PIPE, text=True)
    try:
        address = case.target("t2")
        seen = []

        def until(what, wanted):
            for line in watch.stdout:
                event = json.loads(line)
                seen.append(event)
                if wanted(event):
                    return event
            raise AssertionError(f"the watch ended before {what}")

        newest = int(up.balancer.json("events")["events"][-1]["sequence"])
        until("what had happened before", lambda event: int(event["sequence"]) >= newest)
        named = f"target {case.web_group} {address}"
        up.lab.nginx["t2"].kill()
        died = until("the target's death", lambda event: event["object"] == named and event["new_state"] == "unhealthy")
        assert died["reason"] and died["detail"]
        up.balancer.lbctl("target", "set", case.web_group, case.target("t1"), "--weight", "3")
        until("the apply", lambda event: event["object"] == "config" and event["reason"].startswith("target set"))
        up.balancer.lbctl("drain", case.target("t3"), "--target-group", case.web_group)
        until("the drain", lambda event: event["object"].endswith(case.target("t3")) and event["new_state"] == "draining")
        up.balancer.dp.stop()
        until("lb-dp's end", lambda event: event["object"] == "data-plane" and event["new_state"] == "disconnected")
        numbers = [int(event["sequence"]) for event in seen]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    finally:
        watch.kill()
        watch.wait()
