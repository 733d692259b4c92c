"""Forwarding mode geneve: a client and a server that know nothing of the appliances that everything between them goes through.

    client 10.77.9.100 ─▶ lb ═▶ t2 or t3 ═▶ lb ─▶ t1 10.77.8.1, and back by the same appliance
"""
import collections
import contextlib

import pytest

from tests.e2e import world
from tests.lib.balancer import ROOT
from tests.lib.lab import CLIENT, CLIENT_V4, CLIENT_V6, FAR_V4, FAR_V6, LB, LB_V4, LB_V6, socket_inside, wait_until

pytestmark = pytest.mark.cases(world.PLAIN)

SERVER, APPLIANCES = "t1", ("t2", "t3")
SERVER_V4, SERVER_V6 = "10.77.8.1", "fd77:8::1"
OF_VIPS = [("servers", "10.77.8.0/24"), ("clients", "10.77.9.0/24"), ("servers6", "fd77:8::/64"), ("clients6", "fd77:9::/64")]


def config(up, whole_port, failover="no_rebalance"):
    if whole_port:
        vips, listeners = "[]", ["  - {name: inside, interface: eth0, protocol: GENEVE, target_groups: [{name: firewalls}]}"]
    else:
        vips = "[" + ", ".join(f'{{name: {name}, address: "{prefix}"}}' for name, prefix in OF_VIPS) + "]"
        listeners = [f"  - {{name: to-{name}, vip: {name}, protocol: GENEVE, target_groups: [{{name: firewalls}}]}}" for name, _ in OF_VIPS]
    targets = ", ".join(f"{{address: {up.lab.target_address(t)}}}" for t in APPLIANCES)
    path = up.lab.folder / "gateway.yaml"
    path.write_text(f"""version: 1
seed: 7
vips: {vips}
listeners:
{chr(10).join(listeners)}
target_groups:
  - name: firewalls
    protocol: GENEVE
    attributes:
      geneve: {{vpce_id: 81985529216486895, attachment_id: 7}}
      target_failover: {{on_deregistration: {failover}, on_unhealthy: {failover}}}
      deregistration_delay.timeout_seconds: 0
      tcp.mss_clamp.enabled: true
    health_check: {{protocol: HTTP, port: 80, interval: 1, healthy_threshold: 2, unhealthy_threshold: 2}}
    targets: [{targets}]
""")
    return path


@contextlib.contextmanager
def between(up, **how):
    """The server's network behind lb, its appliances running, and the configuration in force."""
    undo = []

    def route(name, *words):
        up.lab.run(name, "ip", *words)
        undo.append((name, ["ip", *("del" if word == "add" else word for word in words)]))

    try:
        route(SERVER, "addr", "add", f"{SERVER_V4}/32", "dev", "eth0")
        route(SERVER, "addr", "add", f"{SERVER_V6}/128", "dev", "eth0", "nodad")
        route(SERVER, "route", "add", "10.77.9.0/24", "via", LB_V4, "mtu", "1500")  # the way to the appliances has no more
        route(SERVER, "route", "add", "fd77:9::/64", "via", LB_V6, "mtu", "1500")
        route(CLIENT, "route", "add", "10.77.8.0/24", "via", LB_V4, "src", FAR_V4)
        route(CLIENT, "route", "add", "fd77:8::/64", "via", LB_V6, "src", FAR_V6)
        route(LB, "route", "add", "10.77.8.0/24", "via", up.lab.target_address(SERVER))
        route(LB, "route", "add", "10.77.9.0/24", "via", CLIENT_V4)
        route(LB, "route", "add", "fd77:8::/64", "via", up.lab.target_address(SERVER, "v6"))
        route(LB, "route", "add", "fd77:9::/64", "via", CLIENT_V6)
        for name in APPLIANCES:
            up.helper(name, f"appliance-{name}", "/usr/bin/python3", ROOT / "tests/e2e/appliance.py", up.lab.target_address(name))
            wait_until(f"the appliance on {name}", lambda: up.lab.run(name, "ss", "-Hlun", "sport = :6081").stdout.strip())
        up.balancer.apply(config(up, **how))
        up.balancer.wait_all_healthy("firewalls")
        wait_until("a way to client and server", lambda: "hello" in up.lab.run(
            CLIENT, "bash", "-c", f"ping -c1 -W1 -I {FAR_V4} {SERVER_V4} >/dev/null && ping -c1 -W1 -I {FAR_V6} {SERVER_V6} >/dev/null && echo hello",
            check=False).stdout)
        yield
    finally:
        for name, words in reversed(undo):
            up.lab.run(name, *words, check=False)


def seen(up):
    """Cookie → the appliances that saw it, and the directions."""
    flows = collections.defaultdict(set)
    for name in APPLIANCES:
        for line in (up.lab.folder / f"appliance-{name}.log").read_text().splitlines():
            cookie, source, _ = line.split()
            flows[cookie].add((name, source))
    return flows


@pytest.mark.parametrize("whole_port", [False, True], ids=["vips", "port"])
def test_gateway(up, case, whole_port):
    """Everything between client and server goes through an appliance, each flow's both directions through one."""
    with between(up, whole_port=whole_port):
        for server, source in ((SERVER_V4, FAR_V4), (f"[{SERVER_V6}]", FAR_V6)):
            answers = up.lab.curl("--interface", source, "-H", "Connection: close", f"http://{server}/?[1-12]")
            assert answers.split() == [SERVER] * 12
        # Fragments of a protocol without ports, and a packet larger than any MTU on the way.
        assert " 0% packet loss" in up.lab.run(CLIENT, "ping", "-c2", "-s", "3000", "-I", FAR_V4, SERVER_V4).stdout
        flows = seen(up)
        both = {cookie: ends for cookie, ends in flows.items() if len({source for _, source in ends}) == 2}
        assert len(both) >= 24 and all(len({name for name, _ in ends}) == 1 for ends in both.values()), flows
        assert {name for ends in both.values() for name, _ in ends} == set(APPLIANCES)
        asked = up.balancer.why("tcp", FAR_V4, 45678, SERVER_V4, 80)
        assert asked["verdict"] == "tx" and "geneve" in " ".join(asked["steps"]), asked


@pytest.mark.cases(world.PLAIN[:1])
def test_gateway_failover(up, case):
    """With target_failover rebalance, a connection outlives its appliance."""
    with between(up, whole_port=False, failover="rebalance"), socket_inside(up.lab, CLIENT) as connection:
        connection.settimeout(15)
        connection.bind((FAR_V4, 0))
        connection.connect((SERVER_V4, 80))

        def ask():
            connection.sendall(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n")
            got = b""
            while not got.endswith(b"t1\n"):
                got += connection.recv(65536)
            return got

        assert b"200 OK" in ask()
        asked = up.balancer.why("tcp", FAR_V4, connection.getsockname()[1], SERVER_V4, 80)
        used = asked["target"]
        up.balancer.lbctl("drain", used)
        up.balancer.wait_state("firewalls", used, "unused")
        assert b"200 OK" in ask()
        asked = up.balancer.why("tcp", FAR_V4, connection.getsockname()[1], SERVER_V4, 80)
        assert asked["target"] != used, asked
