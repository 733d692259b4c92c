"""Clients and targets that know nothing of the balancer between them."""

import collections
import json

from tests.e2e.connection import fresh_port
from tests.e2e.world import ECHO, IPERF
from tests.lib.balancer import ROOT
from tests.lib.lab import CLIENT, wait_until

REQUESTS = 60
FLOWS = 50  # none of them to one of three targets: a probability below 1e-8


def test_curl(up, case):
    """New flows are spread over all targets; each flow stays where it began."""
    answers = collections.Counter(up.answers(case, REQUESTS))
    assert sum(answers.values()) == REQUESTS
    # Three equal targets: fewer than 3 of 60 has a probability below 1e-7.
    assert set(answers) == set(up.lab.targets) and min(answers.values()) >= 3, answers

    one_connection = up.lab.curl("-w", "%{num_connects}\n", case.url("/?[1-100]")).split()
    assert len(set(one_connection[0::2])) == 1
    assert sum(map(int, one_connection[1::2])) == 1


def test_same_tuple_same_target(up, case):
    """A flow that comes back with the same addresses and ports goes to the same target."""
    for port in [fresh_port() for _ in range(3)]:
        seen = {up.lab.curl("--local-port", str(port), "-H", "Connection: close", case.url()) for _ in range(4)}
        assert len(seen) == 1, seen


def test_iperf3_upload(up, case):
    """Bulk TCP goes through the balancer in full-size segments."""
    size = 20_000_000
    for target in up.lab.targets:
        up.helper(target, f"iperf3-{target}", "iperf3", "-s", "-p", str(case.target_port(IPERF)))
    for target in up.lab.targets:
        wait_until(f"iperf3 on {target}", lambda: up.lab.run(target, "ss", "-Hltn", f"sport = :{case.target_port(IPERF)}").stdout.strip())
    done = up.lab.run(CLIENT, "iperf3", "-c", case.vip, "-p", str(IPERF), "-n", str(size), "-J", "--connect-timeout", "5000", timeout=60)
    result = json.loads(done.stdout)
    # The server stops counting when the client says it is done: what is still on its way then is missing here.
    assert result["end"]["sum_sent"]["bytes"] >= size and result["end"]["sum_received"]["bytes"] >= size / 4


def test_udp_echo(up, case):
    """Datagrams are answered from the VIP, by all targets over many flows and by one within a flow."""
    for target in up.lab.targets:
        up.helper(target, f"echo-{target}", "/usr/bin/python3", ROOT / "tests/e2e/udp_echo.py", "serve", case.served_address(target),
                  str(case.target_port(ECHO)), target)
    for target in up.lab.targets:
        wait_until(f"the echo on {target}", lambda: up.lab.run(target, "ss", "-Hlun", f"sport = :{case.target_port(ECHO)}").stdout.strip())
    done = up.lab.run(CLIENT, "/usr/bin/python3", ROOT / "tests/e2e/udp_echo.py", "ask", case.vip, str(ECHO), str(FLOWS), "4", timeout=60)
    flows = json.loads(done.stdout)
    assert len(flows) == FLOWS and all(len(flow) == 4 for flow in flows)
    assert all(len(set(flow)) == 1 for flow in flows)
    assert {flow[0] for flow in flows} == set(up.lab.targets)
