"""Listeners for port ranges, any port, both protocols and whole prefixes: which of them takes a flow, seen by real clients. And
targets behind a link with no room for an outer header. A lab of its own."""

import json

import pytest

from tests.e2e.world import ECHO
from tests.lib.balancer import BIN, METRICS, ROOT, Balancer
from tests.lib.lab import CLIENT, LB, Lab, wait_until

VIP4, VIP6 = "192.0.2.40", "2001:db8::40"
PREFIX4, PREFIX6 = "198.51.100.0/24", "2001:db8:40::/64"
INNER4, INNER6 = "198.51.100.128/28", "2001:db8:40::80/124"

# Three targets, one for each listener, so that the answer says who took the flow.
LISTENERS = f"""version: 1
seed: 1
vips:
  - {{name: host4, address: {VIP4}}}
  - {{name: host6, address: "{VIP6}"}}
  - {{name: wide4, address: {PREFIX4}}}
  - {{name: wide6, address: "{PREFIX6}"}}
  - {{name: narrow4, address: {INNER4}}}
  - {{name: narrow6, address: "{INNER6}"}}
  - {{name: one4, address: 198.51.100.130}}
listeners:
  - {{name: any4, vip: host4, protocol: TCP_UDP, port: any, target_groups: [{{name: t1}}]}}
  - {{name: range4, vip: host4, protocol: TCP_UDP, port: 7000-7999, target_groups: [{{name: t2}}]}}
  - {{name: port4, vip: host4, protocol: TCP_UDP, port: 7010, target_groups: [{{name: t3}}]}}
  - {{name: any6, vip: host6, protocol: TCP_UDP, port: any, target_groups: [{{name: t1}}]}}
  - {{name: range6, vip: host6, protocol: TCP_UDP, port: 7000-7999, target_groups: [{{name: t2}}]}}
  - {{name: port6, vip: host6, protocol: TCP_UDP, port: 7010, target_groups: [{{name: t3}}]}}
  - {{name: wide4, vip: wide4, protocol: TCP_UDP, port: any, target_groups: [{{name: t1}}]}}
  - {{name: wide4-7010, vip: wide4, protocol: TCP_UDP, port: 7010, target_groups: [{{name: t3}}]}}
  - {{name: wide6, vip: wide6, protocol: TCP_UDP, port: any, target_groups: [{{name: t1}}]}}
  - {{name: narrow4, vip: narrow4, protocol: TCP_UDP, port: any, target_groups: [{{name: t2}}]}}
  - {{name: narrow6, vip: narrow6, protocol: TCP_UDP, port: any, target_groups: [{{name: t2}}]}}
  - {{name: one4, vip: one4, protocol: TCP_UDP, port: 7000, target_groups: [{{name: t3}}]}}
target_groups:
""" + "".join(f"  - {{name: t{n}, protocol: TCP_UDP, forwarding_mode: ipip, health_check: {{protocol: NONE}}, targets: [{{address: 10.77.2.{n + 1}}}]}}\n"
              for n in (1, 2, 3))

WHO_TAKES = [
    (VIP4, 6000, "t1"), (VIP4, 7000, "t2"), (VIP4, 7999, "t2"), (VIP4, 7010, "t3"), (VIP4, 8000, "t1"),
    (VIP6, 6000, "t1"), (VIP6, 7999, "t2"), (VIP6, 7010, "t3"),
    ("198.51.100.1", 7000, "t1"), ("198.51.100.255", 6000, "t1"), ("198.51.100.1", 7010, "t3"),
    ("198.51.100.128", 7010, "t2"), ("198.51.100.143", 6000, "t2"), ("198.51.100.144", 6000, "t1"),
    ("198.51.100.130", 7000, "t3"),
    ("2001:db8:40::7f", 7000, "t1"), ("2001:db8:40::80", 7000, "t2"), ("2001:db8:40::8f", 6000, "t2"), ("2001:db8:40::90", 6000, "t1"),
]
PORTS = sorted({port for _, port, _ in WHO_TAKES})


@pytest.fixture(scope="module", params=[1, 2], ids=["w1", "w2"])
def lab(request):
    lab = Lab("lblisten", "/run/lb-listen", vips=[VIP4, VIP6], queues=request.param)
    lab.up()
    balancer = Balancer(lab, request.param)
    for prefix, via in ((PREFIX4, "10.77.2.1"), (PREFIX6, "fd77:2::1")):
        lab.run(CLIENT, "ip", "route", "add", prefix, "via", via)
        for target in lab.targets:
            lab.run(target, "ip", "route", "add", "local", prefix, "dev", "lo")
    lab.balancer = balancer
    balancer.attach_targets()
    balancer.start_dp()
    balancer.start_cp()
    balancer.wait_connected()
    yield lab
    balancer.stop()
    lab.down()


def apply(lab, text):
    path = lab.folder / "lb.yaml"
    path.write_text(text)
    lab.balancer.lbctl("apply", "--force", "-f", path)
    wait_until("next hops", lambda: all(row["next_hop"] != "unresolved" for group in lab.balancer.rows("target-groups")
                                        for row in lab.balancer.targets(group["name"]).values()))


@pytest.fixture(scope="module")
def answering(lab):
    """Every target answers TCP and UDP on every port of the table, from the address it was asked at."""
    apply(lab, LISTENERS)
    servers = [lab.start(target, f"who-{target}", "/usr/bin/python3", ROOT / "tests/e2e/who.py", "serve", target, *map(str, PORTS)) for target in lab.targets]
    for target in lab.targets:
        wait_until(f"the servers on {target}", lambda: "ready" in (lab.folder / f"who-{target}.log").read_text())
    yield lab
    for server in servers:
        server.kill()


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_the_most_specific_listener_takes_the_flow(answering, protocol):
    """A longer prefix before a shorter one, a port before a range, a range before any port."""
    asked = [f"{address},{port}" for address, port, _ in WHO_TAKES]
    done = answering.run(CLIENT, "/usr/bin/python3", ROOT / "tests/e2e/who.py", "ask", protocol, *asked, timeout=120)
    assert json.loads(done.stdout) == [target for _, _, target in WHO_TAKES]


def test_the_longest_prefix_decides_alone(answering):
    """A VIP without a listener for the port does not fall back to a wider one: the packet is dropped by name, and why says it."""
    before = answering.balancer.drops().get("no_listener", 0)
    done = answering.run(CLIENT, "curl", "-sS", "--max-time", "2", "http://198.51.100.130:6000/", check=False)
    assert done.returncode == 28
    assert answering.balancer.drops()["no_listener"] > before
    why = answering.balancer.why("tcp", "10.77.2.100", 40000, "198.51.100.130", 6000)
    assert (why["verdict"], why["reason"]) == ("drop", "no_listener")
    why = answering.balancer.why("udp", "10.77.2.100", 40000, "198.51.100.7", 6000)
    assert (why["verdict"], why["listener"], why["target_group"]) == ("tx", "wide4", "t1")


# ---- datagrams by themselves ----

PER_PACKET = f"""version: 1
seed: 1
vips: [{{name: v, address: {VIP4}}}]
listeners: [{{name: dns, vip: v, protocol: UDP, port: {ECHO}, target_groups: [{{name: g}}]}}]
target_groups:
  - name: g
    protocol: UDP
    forwarding_mode: ipip
    attributes: {{algorithm: per_packet}}
    health_check: {{protocol: NONE}}
    targets: [{{address: 10.77.2.2}}, {{address: 10.77.2.3}}, {{address: 10.77.2.4}}]
"""


def test_per_packet_deals_out_the_datagrams_of_one_flow(lab):
    """As for DNS: one socket's questions are answered by every target, and no flow is kept of it."""
    echoes = [lab.start(target, f"per-packet-{target}", "/usr/bin/python3", ROOT / "tests/e2e/udp_echo.py", "serve", VIP4, str(ECHO), target)
              for target in lab.targets]
    try:
        for target in lab.targets:
            wait_until(f"the echo on {target}", lambda: lab.run(target, "ss", "-Hlun", f"sport = :{ECHO}").stdout.strip())
        apply(lab, PER_PACKET)
        done = lab.run(CLIENT, "/usr/bin/python3", ROOT / "tests/e2e/udp_echo.py", "ask", VIP4, str(ECHO), "1", "60", timeout=60)
        (answers,) = json.loads(done.stdout)
        assert len(answers) == 60 and set(answers) == set(lab.targets)  # fewer than all: a probability below 1e-10
        assert lab.balancer.why("udp", "10.77.2.100", 40000, VIP4, ECHO)["flow"] != "hit"
    finally:
        for echo in echoes:
            echo.kill()


# ---- outer fragments ----

MODES = [("ipip", "v4", "v4"), ("ipip", "v6", "v6"), ("gue", "v4", "v6"), ("gue", "v6", "v4"), ("gre", "v4", "v4"), ("gre", "v6", "v6")]


def one_target(mode, inner, outer, fragment=True):
    vip = VIP4 if inner == "v4" else VIP6
    target = Lab.target_address("t1", outer)
    attributes = "outer_fragmentation.enabled: true" if fragment else ""
    return f"""version: 1
seed: 1
vips: [{{name: v, address: "{vip}"}}]
listeners: [{{name: all, vip: v, protocol: TCP_UDP, port: any, target_groups: [{{name: g}}]}}]
target_groups:
  - name: g
    protocol: TCP_UDP
    forwarding_mode: {mode}
    attributes: {{{attributes}}}
    health_check: {{protocol: NONE}}
    targets: [{{address: "{target}"}}]
"""


# An upload whose end both sides know. serve ADDRESS PORT: reads a connection to its end and says how many bytes came.
# send ADDRESS PORT SIZE: prints what the server said.
UPLOAD = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
address = (sys.argv[2], int(sys.argv[3]))
with socket.socket(family, socket.SOCK_STREAM) as ours:
    if sys.argv[1] == "serve":
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ours.bind(address)
        ours.listen()
        print("ready", flush=True)
        while True:
            with ours.accept()[0] as connection:
                connection.sendall(str(sum(map(len, iter(lambda: connection.recv(65536), b"")))).encode())
    else:
        ours.settimeout(60)
        ours.connect(address)
        ours.sendall(bytes(int(sys.argv[4])))
        ours.shutdown(socket.SHUT_WR)
        print(ours.recv(64).decode())
"""


def extra_fragments(lab):
    """Summed over the workers, as lb-cp's metrics have it."""
    text = lab.run(LB, "curl", "-sS", "--max-time", "5", f"http://{METRICS}/metrics").stdout
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("lb_extra_fragments"))


@pytest.mark.parametrize("mode,inner,outer", MODES, ids=["-".join(m) for m in MODES])
def test_what_does_not_fit_is_fragmented(lab, mode, inner, outer):
    """Full-size segments of an upload cross a link of 1500 bytes in their tunnel; the target's kernel puts them together."""
    target, address, vip, size = "t1", Lab.target_address("t1", outer), VIP4 if inner == "v4" else VIP6, 1_000_000
    route = ["ip", "-6" if outer == "v6" else "-4", "route"]
    lab.run(LB, *route, "replace", address, "dev", "eth0", "mtu", "1500")
    lab.run(target, BIN / "lb-target", "detach", "eth0")
    name = f"{mode}-{inner}-{outer}-w{lab.queues}"
    helpers = [lab.start(target, f"tunnel-{name}", "/usr/bin/python3", ROOT / "tests/e2e/kernel_tunnel.py", "tun0", "6080"),
               lab.start(target, f"upload-{name}", "/usr/bin/python3", "-c", UPLOAD, "serve", vip, "5201"),
               lab.start(target, f"echo-{name}", "/usr/bin/python3", ROOT / "tests/e2e/udp_echo.py", "serve", vip, str(ECHO), target)]
    try:
        for what, helper in (("the tunnel's end", helpers[0]), ("the upload's server", helpers[1])):
            wait_until(what, lambda: helper.require_running() and "ready" in helper.log.read_text())
        apply(lab, one_target(mode, inner, outer))
        before = extra_fragments(lab)
        assert int(lab.run(CLIENT, "/usr/bin/python3", "-c", UPLOAD, "send", vip, "5201", str(size), timeout=90).stdout) == size
        # Nearly all of it in full-size segments, two fragments each: one more than without a tunnel.
        assert extra_fragments(lab) - before >= size // 1500 // 2
        echo = lab.run(CLIENT, "/usr/bin/python3", ROOT / "tests/e2e/udp_echo.py", "ask", vip, str(ECHO), "3", "3", timeout=60)
        assert json.loads(echo.stdout) == [[target] * 3] * 3
    finally:
        for helper in helpers:
            helper.kill()
        lab.run(LB, *route, "del", address, "dev", "eth0")
        lab.run(target, BIN / "lb-target", "attach", "eth0")


@pytest.mark.parametrize("mode,inner,outer", MODES[:3], ids=["-".join(m) for m in MODES[:3]])
def test_what_does_not_fit_is_told_to_the_sender(lab, mode, inner, outer):
    """An upload in segments that do not fit the link with their outer header: lb says what does, the client's kernel believes it, and all of
    it comes."""
    target, address, vip, size = "t1", Lab.target_address("t1", outer), VIP4 if inner == "v4" else VIP6, 1_000_000
    route = ["ip", "-6" if outer == "v6" else "-4", "route"]
    for family in ("-4", "-6"):  # what an earlier test has taught it
        lab.run(CLIENT, "ip", family, "route", "flush", "cache")
    lab.run(LB, *route, "replace", address, "dev", "eth0", "mtu", "1500")
    server = lab.start(target, f"told-{mode}-{inner}-{outer}", "/usr/bin/python3", "-c", UPLOAD, "serve", vip, "5201")
    try:
        wait_until("the upload's server", lambda: server.require_running() and "ready" in server.log.read_text())
        apply(lab, one_target(mode, inner, outer, fragment=False))
        before = lab.balancer.drops().get("answered_icmp", 0)
        assert int(lab.run(CLIENT, "/usr/bin/python3", "-c", UPLOAD, "send", vip, "5201", str(size), timeout=90).stdout) == size
        assert lab.balancer.drops().get("answered_icmp", 0) > before
        assert "mtu 14" in lab.run(CLIENT, "ip", "route", "get", vip).stdout
    finally:
        server.kill()
        lab.run(LB, *route, "del", address, "dev", "eth0")
