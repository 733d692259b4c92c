"""What an operator sees of targets: every state with every reason there is, side by side."""

import re

import pytest

from tests.e2e import world
from tests.e2e.test_health_checks import SERVER, apply
from tests.lib import lab as labs
from tests.lib.balancer import ROOT
from tests.lib.lab import LabError, wait_until

# Group: its check and attributes, its targets, and what these come to.
REFUSED = "protocol: TCP, port: '8497'"
SILENT = "protocol: UDP, port: '8443', send: hello"
DRAINING = ("target_health_state.unhealthy.connection_termination.enabled: false, "
            "target_health_state.unhealthy.draining_interval_seconds: 600")
GROUPS = {
    "registering": (f"{SILENT}, interval: 100, timeout: 100", "", {"t1": ("initial", "RegistrationInProgress")}),
    "checking": (f"{REFUSED}, interval: 20, unhealthy_threshold: 10", "", {"t1": ("initial", "InitialHealthChecking")}),
    "healthy": ("protocol: HTTP, port: '8498', interval: 1", "", {"t1": ("healthy", "")}),
    "failed": (f"{REFUSED}, interval: 1", "", {"t1": ("unhealthy", "FailedHealthChecks")}),
    "timeout": (f"{SILENT}, interval: 1, timeout: 1", "", {"t1": ("unhealthy", "Timeout")}),
    "mismatch": ("protocol: HTTP, port: '8498', matcher: '404', interval: 1", "", {"t1": ("unhealthy", "ResponseCodeMismatch")}),
    "leaving": ("protocol: HTTP, port: '8498', interval: 1", DRAINING, {"t1": ("healthy", ""), "t2": ("unhealthy.draining", "FailedHealthChecks")}),
    "drained": ("protocol: NONE", "", {"t1": ("unavailable", "HealthCheckDisabled"), "t2": ("draining", "DeregistrationInProgress")}),
    "gone": ("protocol: NONE", "", {"t1": ("unavailable", "HealthCheckDisabled"), "t2": ("unused", "NotRegistered")}),
    "forbidden": ("protocol: UDP, port: '8496', send: ping, interval: 1", "", {"t1": ("unavailable", "InternalError")}),
    "nobody": ("protocol: NONE", "", {"t1": ("unused", "NotInUse")}),
    "invalid": ("protocol: NONE", "", {"t1": ("unavailable", "HealthCheckDisabled"), "lb": ("unused", "InvalidTarget")}),
}


def configuration(case, address):
    lines = ["version: 1", f"vips: [{{name: web, address: {case.vip}}}]", "listeners:"]
    for number, name in enumerate(name for name in GROUPS if name != "nobody"):
        lines.append(f"  - {{name: {name}, vip: web, protocol: TCP, port: {8500 + number}, target_groups: [{{name: {name}}}]}}")
    lines.append("target_groups:")
    for name, (check, attributes, targets) in GROUPS.items():
        addresses = ", ".join(f"{{address: {address(target)}, port: 80}}" for target in targets)
        lines.append(f"  - {{name: {name}, protocol: TCP, port: 80, forwarding_mode: nat, table_size: 251, attributes: {{{attributes}}}, "
                     f"health_check: {{{check}}}, targets: [{addresses}]}}")
    return "\n".join(lines) + "\n"


@pytest.mark.cases(world.PLAIN[:1])
def test_every_state_and_reason_is_seen(up, case):
    def address(target):
        return labs.LB_V4 if target == "lb" else case.bare_target(target)

    up.helper("t1", "states-http", "/usr/bin/python3", SERVER, "http", address("t1"), "8498")
    up.helper("t1", "states-udp", "/usr/bin/python3", SERVER, "udp", address("t1"), "8443")
    wait_until("the servers", lambda: ":8498" in up.lab.run("t1", "ss", "-Hltn").stdout and ":8443" in up.lab.run("t1", "ss", "-Hlun").stdout)
    up.lab.run("lb", "ip", "rule", "add", "pref", "5", "ipproto", "udp", "dport", "8496", "prohibit")
    try:
        apply(up, configuration(case, address))
        up.balancer.lbctl("drain", f"{address('t2')}:80", "--target-group", "drained")
        up.balancer.lbctl("drain", f"{address('t2')}:80", "--target-group", "gone", "--deadline", "0s")
        wanted = {(name, f"{address(target)}:80"): seen for name, (_, _, targets) in GROUPS.items() for target, seen in targets.items()}

        def settled():
            rows = [row for row in up.balancer.rows("targets") if row["target_group"] in GROUPS]
            found = {(row["target_group"], row["address"]): (row["state"], row["reason"]) for row in rows}
            if found != wanted:
                raise LabError(f"found {sorted(set(found.items()) - set(wanted.items()))}")
            return True

        wait_until("every state and reason", settled, 20)
        # The list is whole: it is that of the documentation.
        table = (ROOT / "docs/attributes.md").read_text().split("## States and reasons")[1]
        documented = {(state, reason) for state, reason in re.findall(r"^\| `([a-z.]+)` \| (\w*)[^|]*\|", table, re.M)}
        assert set(wanted.values()) - {("unhealthy.draining", "FailedHealthChecks")} <= documented
        assert {state for state, _ in documented} == {state for state, _ in wanted.values()}
        assert {reason for _, reason in documented} - {"of"} == {reason for _, reason in wanted.values()}
        text = up.balancer.lbctl("get", "targets", "-o", "wide").stdout
        assert all(re.search(rf"{state}\b.*{reason}", text) for state, reason in wanted.values())
        events = [row for row in up.balancer.json("events")["events"] if row["object"] == f"target timeout {address('t1')}:80"]
        assert (events[-1]["old_state"], events[-1]["new_state"], events[-1]["reason"]) == ("initial", "unhealthy", "Timeout")
        assert "no answer within 1000 ms" in events[-1]["detail"]
    finally:
        up.lab.run("lb", "ip", "rule", "del", "pref", "5")
