"""Health checks against servers that speak the protocol, or do not: what a target becomes, and what is said of it."""

import json

import pytest
import yaml

from tests.e2e import world
from tests.lib.balancer import BIN, ROOT
from tests.lib.lab import run, wait_until

SERVER = ROOT / "tests/e2e/health_server.py"


def configuration(case, name, protocol, check, attributes="{}", names=("t1", "t2")):
    """A target group of its own for each test: what probes said of another one is not this one's."""
    targets = ", ".join(f"{{address: {case.bare_target(t)}}}" for t in names)
    return f"""version: 1
vips: [{{name: web, address: {case.vip}}}]
listeners: [{{name: {name}, vip: web, protocol: {protocol}, port: 8443, target_groups: [{{name: {name}}}]}}]
target_groups:
  - name: {name}
    protocol: {protocol}
    forwarding_mode: {case.mode}
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


@pytest.mark.cases(world.PLAIN[:1])
def test_http2_check(up, case):
    """A check by HTTP/2 is answered by nginx, over TLS and without, and not by a server that speaks HTTP/1.1 alone."""
    https(up, case, "t2")  # certificate and key as well
    certificate, key = up.lab.folder / "certificate.pem", up.lab.folder / "key.pem"
    conf = up.lab.folder / "http2.conf"
    conf.write_text(f"""daemon off; master_process off; pid {conf}.pid; error_log {conf}.log; user root; events {{}}
http {{
  access_log off; ssl_certificate {certificate}; ssl_certificate_key {key};
  server {{ listen {case.bare_target("t1")}:8443 ssl http2 default_server; return 404; }}
  server {{ listen {case.bare_target("t1")}:8443 ssl http2; server_name lb.test; location /up {{ return 204; }} }}
  server {{ listen {case.bare_target("t1")}:8081 http2; location /up {{ return 204; }} }}
}}
""")
    up.helper("t1", "http2-t1", "nginx", "-c", conf, "-e", f"{conf}.log")
    apply(up, configuration(case, "http2", "TCP", "protocol: HTTPS, http_version: '2', path: /up, host: lb.test, matcher: '204'"))
    up.balancer.wait_state("http2", case.target("t1", 8443), "healthy")
    wait_reason(up, case, "http2", "t2", "FailedHealthChecks", "the answer is not HTTP/2")
    clear = "protocol: HTTP, http_version: '2', port: '8081', path: /up, host: lb.test, matcher: '204'"
    apply(up, configuration(case, "clear", "TCP", clear, names=("t1",)))
    up.balancer.wait_state("clear", case.target("t1", 8443), "healthy")


@pytest.mark.cases(world.PLAIN[:1])
def test_probe_that_the_host_forbids(up, case):
    """What keeps lb-cp from asking is not held against the target: it is unavailable, and takes part as before."""
    up.helper("t1", "udp-t1", "/usr/bin/python3", SERVER, "udp", case.bare_target("t1"), "8443")
    apply(up, configuration(case, "forbidden", "UDP", "timeout: 1, protocol: UDP, send: ping, expect: pong", names=("t1",)))
    up.balancer.wait_state("forbidden", case.target("t1", 8443), "healthy")
    up.lab.run("lb", "ip", "rule", "add", "pref", "5", "ipproto", "udp", "dport", "8443", "prohibit")
    try:
        up.balancer.wait_state("forbidden", case.target("t1", 8443), "unavailable")
        row = state(up, case, "forbidden", "t1")
        assert (row["reason"], row["detail"], float(row["share"])) == ("InternalError", "connect: Permission denied", 1)
    finally:
        up.lab.run("lb", "ip", "rule", "del", "pref", "5")
    up.balancer.wait_state("forbidden", case.target("t1", 8443), "healthy")


@pytest.mark.cases(world.PLAIN[:1])
def test_checks_through_the_tunnel(up, case):
    """A check reaches the VIP on its target as clients' packets do, in every mode and pair of families, with the VIP on lb's own
    loopback as well; a target without the VIP fails it, though its own address answers."""
    cases = [world.Case(*forwarding, 1) for forwarding in world.FORWARDING if forwarding[0] in ("l2dsr", "ipip", "gue", "gre")]
    text = yaml.safe_load(world.config([(each.mode, each.inner, each.outer) for each in cases], ("t1", "t2")))
    text["listeners"] = [each for each in text["listeners"] if each["name"].startswith("web-")]
    text["target_groups"] = [each | {"name": each["name"].replace("web-", "through-")} for each in text["target_groups"] if each["name"].startswith("web-")]
    for listener in text["listeners"]:
        listener["target_groups"] = [{"name": listener["name"].replace("web-", "through-")}]
    for group in text["target_groups"]:
        group["health_check"] |= {"through": "tunnel", "timeout": 1}

    def addresses(where, verb):
        up.lab.run(where, "ip", "-batch", "-", input="".join(f"addr {verb} {each.vip}/{128 if each.inner == 'v6' else 32} dev lo\n" for each in cases))

    def states(target):
        return {each.name: up.balancer.targets(f"through-{each.name}")[each.target(target)] for each in cases}

    def decapsulated():
        return json.loads(up.lab.run("t1", BIN / "lb-target", "stats", "eth0", "-o", "json").stdout)["counters"]

    before = decapsulated()
    addresses("lb", "add")
    try:
        apply(up, yaml.safe_dump(text))
        wait_until("all to be healthy", lambda: {row["state"] for target in ("t1", "t2") for row in states(target).values()} == {"healthy"}, 20)
        assert {row["detail"] for row in states("t1").values()} == {"HTTP 200"}
        assert not [name for name, count in decapsulated().items() if count == before[name] and "in" in name]
        addresses("t2", "del")
        try:
            wait_until("t2 to be unhealthy", lambda: {(row["state"], row["reason"]) for row in states("t2").values()} == {("unhealthy", "Timeout")}, 20)
            assert {row["state"] for row in states("t1").values()} == {"healthy"}
        finally:
            addresses("t2", "add")
    finally:
        addresses("lb", "del")


@pytest.mark.cases([case for case in world.ONE_OF_EACH_MODE if str(case) == "nat-v4-v4-w1"])
def test_passive_signals(up, case):
    """Where replies come through lb, a target that refuses clients is probed at once, though its next check is minutes away."""
    server = up.helper("t1", "web-t1", "/usr/bin/python3", SERVER, "http", case.bare_target("t1"), "8443")
    wait_until("the server on t1", lambda: ":8443" in up.lab.run("t1", "ss", "-Hltn").stdout)
    text = configuration(case, "passive", "TCP", "protocol: TCP", names=("t1",)).replace("interval: 1,", "interval: 30,")
    apply(up, text)
    up.balancer.wait_state("passive", f"{case.bare_target('t1')}:8443", "healthy")
    server.stop()
    wait_until("the group's listener to be served", lambda: up.balancer.why("tcp", case.client, 1234, case.vip, 8443)["target"])

    def refused():
        up.lab.curl(f"http://{case.host}:8443/", check=False)
        return up.balancer.targets("passive")[f"{case.bare_target('t1')}:8443"]["state"] == "unhealthy"

    wait_until("two checks within the interval of one", refused, 20, every=0.2)


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
    up.helper("t1", "listen-t1", "/usr/bin/python3", SERVER, "http", case.bare_target("t1"), "8443")
    back = up.helper("t2", "listen-t2", "/usr/bin/python3", SERVER, "http", case.bare_target("t2"), "8443")
    for target in ("t1", "t2"):  # a first check in vain, and the target comes late
        wait_until(f"the server on {target}", lambda: ":8443" in up.lab.run(target, "ss", "-Hltn").stdout)
    apply(up, configuration(case, "slow", "TCP", "protocol: HTTP, healthy_threshold: 2", "{slow_start.duration_seconds: 30}"))
    for target in ("t1", "t2"):
        up.balancer.wait_state("slow", case.target(target, 8443), "healthy")
        assert float(state(up, case, "slow", target)["share"]) > 0.49
    back.stop()
    up.balancer.wait_state("slow", case.target("t2", 8443), "unhealthy")
    up.helper("t2", "listen-t2", "/usr/bin/python3", SERVER, "http", case.bare_target("t2"), "8443")
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
