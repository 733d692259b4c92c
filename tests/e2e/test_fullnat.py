"""Mode fullnat: targets see a SNAT address, in their own family; who the client is they are told, if they want to know."""

import contextlib
import ipaddress
import json

import pytest

from tests.e2e import connection, world
from tests.e2e.connection import fresh_port
from tests.lib import lab as labs
from tests.lib.balancer import METRICS, ROOT
from tests.lib.lab import LB, Lab, wait_until

VIPS = {"v4": world.Case("nat", "v4", "v4", 1).vip, "v6": world.Case("nat", "v6", "v6", 1).vip}
CLIENTS = {"v4": labs.FAR_V4, "v6": labs.FAR_V6}
SNAT = {"v4": ["10.77.2.200", "10.77.2.201"], "v6": ["fd77:2::200", "fd77:2::201"]}
WEB, PROXY, ECHO, IPERF = 8000, 8090, 7100, 5300
ACROSS = 1000  # listeners for targets of the other family are so much higher
PAIRS = [("v4", "v4"), ("v6", "v6"), ("v4", "v6"), ("v6", "v4")]
CARRIERS = world.PLAIN  # one lab with one worker, one with two


def port_of(port, client, target):
    return port if client == target else port + ACROSS


def config():
    """The world's, and listeners of fullnat groups on two of its VIPs."""
    listeners, groups = [], []
    more = {"proxy": ", proxy_protocol_v2.enabled: true", "iperf": ", stickiness.enabled: true, stickiness.type: source_ip"}
    for client, target in PAIRS:
        for kind, protocol, port, target_port in (("web", "TCP", WEB, 8080), ("proxy", "TCP", PROXY, PROXY), ("echo", "UDP", ECHO, 7001),
                                                  ("iperf", "TCP", IPERF, 5202)):
            name = f"{kind}-{client}-{target}"
            listeners.append(f"  - {{name: {name}, vip: nat-{client}-{client}, protocol: {protocol}, port: {port_of(port, client, target)}, "
                             f"target_groups: [{{name: {name}}}]}}")
            addresses = f'snat.addresses: "{",".join(SNAT[target])}"' + more.get(kind, "")
            targets = ", ".join(f'{{address: "{Lab.target_address(t, target)}"}}' for t in ("t1", "t2", "t3"))
            groups.append(f"  - {{name: {name}, protocol: {protocol}, port: {target_port}, forwarding_mode: fullnat, table_size: 4093,\n"
                          f"     attributes: {{{addresses}}}, health_check: {{protocol: NONE}}, targets: [{targets}]}}")
    before, after = world.config().split("target_groups:\n", 1)
    return before + "\n".join(listeners) + "\ntarget_groups:\n" + "\n".join(groups) + "\n" + after


@pytest.fixture
def fullnat(up):
    """The world with fullnat groups; the SNAT addresses stand on the balancer's interface, so that its kernel answers for them."""
    file = up.lab.folder / "fullnat.yaml"
    file.write_text(config())
    for address in SNAT["v4"] + SNAT["v6"]:
        v6 = ":" in address  # else its kernel would send health checks from there
        up.lab.run(LB, "ip", "addr", "replace", f"{address}/{128 if v6 else 32}", "dev", "eth0", *(["nodad", "preferred_lft", "0"] if v6 else []))
    up.balancer.apply(file)
    yield up


def url(client, port, path="/"):
    host = VIPS[client] if client == "v4" else f"[{VIPS[client]}]"
    return f"http://{host}:{port}{path}"


@pytest.mark.cases(CARRIERS)
def test_fullnat_families(fullnat, case):
    """All targets answer clients of either family, and see SNAT addresses of their own."""
    for client, target in PAIRS:
        port = port_of(WEB, client, target)
        answers = fullnat.lab.curl("-H", "Connection: close", url(client, port, "/?[1-60]")).split()
        assert len(answers) == 60 and set(answers) == set(fullnat.lab.targets), (client, target, answers)
        peer = fullnat.lab.curl(url(client, port, "/peer")).split()[0]
        assert ipaddress.ip_address(peer) in map(ipaddress.ip_address, SNAT[target])
        size = fullnat.lab.curl("-o", "/dev/null", "-w", "%{size_download}", url(client, port, "/big"))
        assert size == str(4 << 20), (client, target)


@pytest.mark.cases(CARRIERS)
def test_fullnat_client_address(fullnat, case):
    """nginx is told the client's address and port by the PROXY header, and streams are whole in both directions."""
    for client, target in PAIRS:
        port, source = port_of(PROXY, client, target), fresh_port()
        told = fullnat.lab.curl("--local-port", str(source), url(client, port, "/client")).split()
        assert told == [CLIENTS[client], str(source)]
        answers = fullnat.lab.curl("-w", "%{num_connects}\n", url(client, port, "/?[1-50]")).split()
        assert len(set(answers[0::2])) == 1 and sum(map(int, answers[1::2])) == 1
        assert fullnat.lab.curl("-o", "/dev/null", "-w", "%{size_download}", url(client, port, "/big")) == str(4 << 20)


@pytest.mark.cases(CARRIERS[:1])
def test_fullnat_checks_begin_with_a_proxy_header(fullnat, case):
    """nginx, which wants a PROXY header first, finds healthy whom the group tells to send one, and no one else."""
    text = config().replace("{protocol: NONE}", f"{{protocol: HTTP, port: {PROXY}, path: /client, interval: 1, timeout: 1}}")
    file = fullnat.lab.folder / "fullnat-checked.yaml"
    file.write_text(text)
    fullnat.balancer.apply(file)

    def states(kind):
        return {row["state"] for client, target in PAIRS for row in fullnat.balancer.targets(f"{kind}-{client}-{target}").values()}

    wait_until("PROXY headers to be taken", lambda: states("proxy") == {"healthy"}, 20)
    wait_until("checks without one to fail", lambda: states("web") == {"unhealthy"}, 20)
    assert states("proxy") == {"healthy"}


@pytest.mark.cases(CARRIERS)
def test_fullnat_udp(fullnat, case):
    """Datagrams are answered from the VIP, a flow's all by one target."""
    for client, target in PAIRS:
        for name in fullnat.lab.targets:
            fullnat.helper(name, f"echo-{name}-{client}-{target}", "/usr/bin/python3", ROOT / "tests/e2e/udp_echo.py", "serve",
                           Lab.target_address(name, target), "7001", name)
        for name in fullnat.lab.targets:
            wait_until(f"the echo on {name}", lambda: fullnat.lab.run(name, "ss", "-Hlun", "sport = :7001").stdout.strip())
        done = fullnat.lab.run(labs.CLIENT, "/usr/bin/python3", ROOT / "tests/e2e/udp_echo.py", "ask", VIPS[client],
                               str(port_of(ECHO, client, target)), "12", "3", timeout=60)
        flows = json.loads(done.stdout)
        assert len(flows) == 12 and all(len(flow) == 3 and len(set(flow)) == 1 for flow in flows)
        fullnat.end_helpers()


@pytest.mark.cases(CARRIERS)
def test_fullnat_icmp_errors(fullnat, case):
    """Nobody listens on the targets: their "port unreachable" reaches the client as the VIP's, in the client's own family."""
    for client, target in PAIRS:
        refused = connection.asked_nobody(fullnat.lab, VIPS[client], port_of(ECHO, client, target), CLIENTS[client], 6)
        assert refused == ["ConnectionRefusedError"] * 6, (client, target)


@pytest.mark.cases(CARRIERS[1:])
def test_fullnat_bulk(fullnat, case):
    """iperf3's two connections, in full-size segments up and down, within a family and across."""
    size = 16_000_000
    for client, target in PAIRS:
        port = port_of(IPERF, client, target)
        chosen = fullnat.balancer.why("tcp", CLIENTS[client], 40000, VIPS[client], port)["target"]
        name = next(t for t in fullnat.lab.targets if chosen.rpartition(":")[0].strip("[]") == Lab.target_address(t, target))
        for way in ([], ["--reverse"]):
            server = fullnat.helper(name, f"iperf3-{client}-{target}{len(way)}", "iperf3", "-s", "-1", "-p", "5202")
            wait_until(f"iperf3 on {name}", lambda: fullnat.lab.run(name, "ss", "-Hltn", "sport = :5202").stdout.strip())
            done = fullnat.lab.run(labs.CLIENT, "iperf3", "-c", VIPS[client], "-B", CLIENTS[client], "-p", str(port), "-n", str(size), *way, "-J",
                                   "--connect-timeout", "5000", timeout=60)
            server.stop()
            end = json.loads(done.stdout)["end"]
            # The receiver stops counting when the sender says it is done: what is still on its way then is missing here.
            assert end["sum_sent"]["bytes"] >= size and end["sum_received"]["bytes"] >= size / 8, (client, target, way)


KEPT = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=20, source_address=(sys.argv[3], int(sys.argv[4])))
for line in sys.stdin:
    connection.request("GET", line.strip())
    print(connection.getresponse().read().decode().strip(), flush=True)
"""


class Kept(connection.Script):
    def __init__(self, lab, client, target):
        self.port = fresh_port()
        self.question = "tcp", CLIENTS[client], self.port, VIPS[client], port_of(PROXY, client, target)
        super().__init__(lab, KEPT, VIPS[client], str(self.question[4]), CLIENTS[client], str(self.port))


@pytest.mark.cases(CARRIERS)
def test_fullnat_survives_restart(fullnat, case):
    """Connections through SNAT, with a PROXY header and across families, go on after lb-dp was killed and started again."""
    def translation(said):
        return [text for text in said["steps"] if text.startswith("translation")]

    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(Kept(fullnat.lab, client, target)) for client, target in PAIRS]
        before = [(one.ask("/client"), fullnat.balancer.why(*one.question)) for one in kept]
        fullnat.balancer.kill_dp()
        fullnat.balancer.start_dp()
        for one, (told, said) in zip(kept, before):
            assert one.ask("/client") == told
            wait_until("lb-cp to see the new lb-dp's flows", lambda: fullnat.balancer.why(*one.question)["flow"] == "hit")
            again = fullnat.balancer.why(*one.question)
            assert again["target"] == said["target"]
            assert translation(again) and translation(again)[0].rpartition(",")[0] == translation(said)[0].rpartition(",")[0]


# Connections to ADDRESS PORT until no more can be had, each spoken on; then what becomes of one more, by TCP and, to UDP_PORT, of a datagram; then
# the first ones again. A line on stdin ends it.
EXHAUST = """
import json, resource, socket, sys
address, port, udp_port, wanted = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
def ask(connection):
    connection.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    answer = b""
    while not answer.partition(b"\\r\\n\\r\\n")[2]:
        answer += connection.recv(4096) or b"HTTP/1.1 end\\r\\n\\r\\n."
    return answer[9:12].decode()
def outcome(action):
    try:
        return action()
    except OSError as error:
        return type(error).__name__
def one_more():
    with socket.create_connection((address, port), timeout=10) as connection:
        return ask(connection)
def datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
        flow.settimeout(10)
        flow.connect((address, udp_port))
        flow.send(b"q")
        return flow.recv(2048).decode()
held = []
for _ in range(wanted):
    connection = socket.create_connection((address, port), timeout=10)
    connection.settimeout(10)
    held.append((connection, ask(connection)))
print(json.dumps({"held": sorted({answer for _, answer in held}), "tcp": outcome(one_more), "udp": outcome(datagram),
                  "kept": sorted({outcome(lambda: ask(connection)) for connection, _ in held[::64]})}), flush=True)
sys.stdin.readline()
"""
FEW = 1024  # translations: as few as dp.yaml takes


@pytest.fixture
def few_translations(fullnat):
    """lb-dp with room for few flows, started anew before and after."""
    balancer, usual = fullnat.balancer, fullnat.balancer.translations_per_worker
    for count in (FEW, usual):
        balancer.dp.stop()
        balancer.translations_per_worker = count
        balancer.set_workers(balancer.workers)
        balancer.start_dp()
        balancer.wait_connected()
        if count == FEW:
            yield fullnat


def metric(lab, name):
    text = lab.run(LB, "curl", "-sS", "--max-time", "5", f"http://{METRICS}/metrics").stdout
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


@pytest.mark.cases(CARRIERS[:1])
def test_fullnat_exhaustion_is_answered_and_told(few_translations, case):
    """When every port is in use by a flow that both ends speak on, one more is refused at once, by reset and by "port unreachable"; counter,
    metrics and an event say so, and the flows that are there go on."""
    up = few_translations
    refused = metric(up.lab, "lb_snat_refused")
    with connection.Script(up.lab, EXHAUST, VIPS["v4"], str(port_of(WEB, "v4", "v4")), str(port_of(ECHO, "v4", "v4")), str(FEW)) as client:
        told = json.loads(client.process.stdout.readline())
        assert told == {"held": ["200"], "tcp": "ConnectionRefusedError", "udp": "ConnectionRefusedError", "kept": ["200"]}
        assert metric(up.lab, "lb_worker_snat_capacity") == FEW
        wait_until("all ports in use", lambda: metric(up.lab, "lb_worker_snat_ports") == FEW)
        wait_until("the counter", lambda: metric(up.lab, "lb_snat_refused") >= refused + 2)
        wait_until("the event", lambda: any(event["object"] == "snat" and event["new_state"] == "exhausted" for event in up.balancer.json("events")["events"]))
