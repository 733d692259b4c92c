"""Health checks against servers that speak the protocol, or do not: what a target becomes, and what is said of it."""

import pytest

from tests.e2e import world
from tests.lib.balancer import ROOT
from tests.lib.lab import run, wait_until

SERVER = ROOT / "tests/e2e/health_server.py"


def configuration(case, name, protocol, check, attributes="{}"):
    """A target group of its own for each test: what probes said of another one is not this one's."""
    targets = ", ".join(f"{{address: {case.bare_target(t)}}}" for t in ("t1", "t2"))
    return f"""version: 1
vips: [{{name: web, address: {case.vip}}}]
listeners: [{{name: {name}, vip: web, protocol: {protocol}, port: 8443, target_groups: [{{name: {name}}}]}}]
target_groups:
  - name: {name}
    protocol: {protocol}
    table_size: 4093
    attributes: {attributes}
    health_check: {{interval: 1, {check}}}
    targets: [{targets}]
"""


def apply(up, text):
    path = up.lab.folder / "checked.yaml"
    path.write_text(text)
    up.balancer.apply(path)


def state(up, case, name, target):
    return up.balancer.targets(name)[case.target(target, 8443)]


def wait_reason(up, case, name, target, reason, words):
    wait_until(f"{target} to be unhealthy: {reason}", lambda: (row := state(up, case, name, target))["state"] == "unhealthy" and
               row["reason"] == reason and words in row["detail"], 20)


def https(up, case, target):
    certificate, key = up.lab.folder / "certificate.pem", up.lab.folder / "key.pem"
    if not key.exists():
        run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=lb.test", "-keyout", key, "-out", certificate])
    up.helper(target, f"https-{target}", "/usr/bin/python3", SERVER, "https", case.bare_target(target), "8443", certificate, key)


@pytest.mark.cases(world.PLAIN)
def test_https_check(up, case):
    """The check speaks TLS, asks for the host as server name, and takes a certificate that nobody has signed."""
    https(up, case, "t1")
    apply(up, configuration(case, "https", "TCP", "protocol: HTTPS, path: /up, host: lb.test, matcher: '200,204'"))
    up.balancer.wait_state("https", case.target("t1", 8443), "healthy")
    assert state(up, case, "https", "t1")["detail"] == "HTTP 200"
    wait_reason(up, case, "https", "t2", "FailedHealthChecks", "Connection refused")
    apply(up, configuration(case, "https", "TCP", "protocol: HTTPS, path: /up, host: other.test, matcher: '200,204'"))
    wait_reason(up, case, "https", "t1", "ResponseCodeMismatch", "HTTP 404 not in 200,204")


@pytest.mark.cases(world.PLAIN)
def test_https_check_that_verifies(up, case):
    """With tls_verify a certificate that nobody has signed makes its target unhealthy."""
    https(up, case, "t1")
    apply(up, configuration(case, "verified", "TCP", "protocol: HTTPS, path: /up, host: lb.test, tls_verify: true"))
    wait_reason(up, case, "verified", "t1", "FailedHealthChecks", "certificate")


@pytest.mark.cases(world.PLAIN)
def test_udp_check(up, case):
    """A datagram is sent, and its answer must begin as expected; silence is a timeout."""
    up.helper("t1", "udp-t1", "/usr/bin/python3", SERVER, "udp", case.bare_target("t1"), "8443")
    apply(up, configuration(case, "udp", "UDP", "timeout: 1, protocol: UDP, send: ping, expect: pon"))
    up.balancer.wait_state("udp", case.target("t1", 8443), "healthy")
    wait_reason(up, case, "udp", "t2", "FailedHealthChecks", "Connection refused")
    apply(up, configuration(case, "udp", "UDP", "timeout: 1, protocol: UDP, send: hello"))
    wait_reason(up, case, "udp", "t1", "Timeout", "no answer within 1000 ms")


@pytest.mark.cases(world.PLAIN)
def test_icmp_check(up, case):
    """A target that answers echo requests is healthy, whatever it listens on; one that does not is not."""
    up.lab.run("t2", "sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=1")
    try:
        apply(up, configuration(case, "icmp", "TCP", "timeout: 1, protocol: ICMP"))
        up.balancer.wait_state("icmp", case.target("t1", 8443), "healthy")
        wait_reason(up, case, "icmp", "t2", "Timeout", "no answer")
    finally:
        up.lab.run("t2", "sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=0")


@pytest.mark.cases(world.PLAIN)
def test_slow_start(up, case):
    """A target that comes back gets its share little by little; the first ones of a target group had theirs at once."""
    up.helper("t1", "listen-t1", "/usr/bin/python3", "-m", "http.server", "8443", "--bind", case.bare_target("t1"))
    back = up.helper("t2", "listen-t2", "/usr/bin/python3", "-m", "http.server", "8443", "--bind", case.bare_target("t2"))
    for target in ("t1", "t2"):  # a first check in vain, and the target comes late
        wait_until(f"the server on {target}", lambda: ":8443" in up.lab.run(target, "ss", "-Hltn").stdout)
    apply(up, configuration(case, "slow", "TCP", "protocol: HTTP, healthy_threshold: 2", "{slow_start.duration_seconds: 30}"))
    for target in ("t1", "t2"):
        up.balancer.wait_state("slow", case.target(target, 8443), "healthy")
        assert float(state(up, case, "slow", target)["share"]) > 0.49
    back.stop()
    up.balancer.wait_state("slow", case.target("t2", 8443), "unhealthy")
    up.helper("t2", "listen-t2", "/usr/bin/python3", "-m", "http.server", "8443", "--bind", case.bare_target("t2"))
    up.balancer.wait_state("slow", case.target("t2", 8443), "healthy")
    first = float(state(up, case, "slow", "t2")["share"])
    assert 0 < first < 0.3
    wait_until("its share to grow", lambda: float(state(up, case, "slow", "t2")["share"]) > first + 0.05, 20)


@pytest.mark.cases(world.PLAIN)
@pytest.mark.parametrize("algorithm", ["round_robin", "least_connections"])
def test_algorithm(up, case, algorithm):
    """New flows are dealt out evenly to the last one: in turn, or to whom has fewest."""
    text = up.config.read_text().replace(f"- name: web-{case.name}\n    protocol: TCP\n    port: 80\n    forwarding_mode: {case.mode}\n"
                                         "    table_size: 4093\n    attributes: {", f"- name: web-{case.name}\n    protocol: TCP\n    port: 80\n"
                                         f"    forwarding_mode: {case.mode}\n    table_size: 4093\n    attributes: {{algorithm: {algorithm}, ")
    path = up.lab.folder / "dealt.yaml"
    path.write_text(text)
    up.balancer.apply(path)
    before = {name: int(row["flows"]) for name, row in up.balancer.targets(case.web_group).items()}
    up.answers(case, 30)
    flows = {name: int(row["flows"]) for name, row in up.balancer.targets(case.web_group).items()}
    assert sum(flows.values()) == sum(before.values()) + 30
    added = [flows[name] - before[name] for name in flows]
    if algorithm == "round_robin":  # each worker takes turns of its own, and ends within one
        assert max(added) - min(added) <= 2 * (case.workers - 1)
    else:
        assert max(flows.values()) - min(flows.values()) <= max(1, max(before.values()) - min(before.values()) - min(added))
