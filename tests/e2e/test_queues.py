"""Replies on any queue: nat and fullnat with four workers, while the wire spreads packets over two, four and one of their queues. A
lab of its own."""

import json

import pytest

from tests.e2e.connection import Script, fresh_port
from tests.lib import lab as labs
from tests.lib.balancer import ROOT, Balancer
from tests.lib.lab import LB, Lab, wait_until

WORKERS = 4
VIPS = {"v4": "192.0.2.60", "v6": "2001:db8::60"}
CLIENTS = {"v4": labs.FAR_V4, "v6": labs.FAR_V6}
SNAT = {"v4": "10.77.2.210", "v6": "fd77:2::210"}
# Listener's port → (mode, protocol, clients' family, targets', target's port)
SERVICES = {8000: ("nat", "TCP", "v4", "v4", 80), 8001: ("nat", "TCP", "v6", "v6", 80), 8002: ("nat", "UDP", "v4", "v4", 7001),
            8010: ("fullnat", "TCP", "v4", "v4", 8080), 8011: ("fullnat", "TCP", "v6", "v6", 8080), 8012: ("fullnat", "TCP", "v4", "v6", 8080),
            8013: ("fullnat", "TCP", "v6", "v4", 8080), 8014: ("fullnat", "UDP", "v4", "v6", 7001)}
FLOWS = 4  # of each

# Flows that are held open: a line on stdin asks on each of them, a line on stdout is the list of answers.
HOLDER = """
import http.client, json, socket, sys
def ask_udp(flow):
    for _ in range(10):  # the wire is down for a moment when its queues change
        flow.send(b"q")
        try:
            return flow.recv(2048).decode()
        except TimeoutError:
            pass
def ask_http(flow):
    flow.request("GET", "/")
    return flow.getresponse().read().decode().strip()
flows = []
for protocol, address, port, source, source_port in json.loads(sys.argv[1]):
    if protocol == "TCP":
        flows.append((ask_http, http.client.HTTPConnection(address, port, timeout=20, source_address=(source, source_port))))
    else:
        flow = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        flow.settimeout(1)
        flow.bind((source, source_port))
        flow.connect((address, port))
        flows.append((ask_udp, flow))
for _ in sys.stdin:
    print(json.dumps([ask(flow) for ask, flow in flows]), flush=True)
"""


def config():
    listeners, groups = [], []
    for port, (mode, protocol, client, target, target_port) in SERVICES.items():
        listeners.append(f"  - {{name: s{port}, vip: {client}, protocol: {protocol}, port: {port}, target_groups: [{{name: s{port}}}]}}")
        attributes = f'snat.addresses: "{SNAT[target]}"' if mode == "fullnat" else ""
        targets = ", ".join(f'{{address: "{Lab.target_address(t, target)}"}}' for t in ("t1", "t2", "t3"))
        groups.append(f"  - {{name: s{port}, protocol: {protocol}, port: {target_port}, forwarding_mode: {mode}, attributes: {{{attributes}}}, "
                      f"health_check: {{protocol: NONE}}, targets: [{targets}]}}")
    vips = [f'  - {{name: {family}, address: "{address}"}}' for family, address in VIPS.items()]
    return "version: 1\nseed: 1\nvips:\n{}\nlisteners:\n{}\ntarget_groups:\n{}\n".format(*map("\n".join, (vips, listeners, groups)))


@pytest.fixture(scope="module")
def balancer():
    lab = Lab("lbqueues", "/run/lb-queues", queues=WORKERS, nat_vips=VIPS.values())
    lab.up()
    balancer = Balancer(lab, WORKERS)
    for address in SNAT.values():
        v6 = ":" in address
        lab.run(LB, "ip", "addr", "add", f"{address}/{128 if v6 else 32}", "dev", "eth0", *(["nodad", "preferred_lft", "0"] if v6 else []))
    for target in lab.targets:
        lab.start_nginx(target)
        for family in ("v4", "v6"):
            lab.start(target, f"echo-{target}-{family}", "/usr/bin/python3", ROOT / "tests/e2e/udp_echo.py", "serve", lab.target_address(target, family),
                      "7001", target)
    for target in lab.targets:
        wait_until(f"both echoes on {target}", lambda: len(lab.run(target, "ss", "-Hlun", "sport = :7001").stdout.split("\n")) > 2)
    balancer.start_dp()
    balancer.start_cp()
    balancer.wait_connected()
    (lab.folder / "lb.yaml").write_text(config())
    balancer.apply(lab.folder / "lb.yaml")
    wait_until("next hops", lambda: all(row["next_hop"] != "unresolved" for port in SERVICES for row in balancer.targets(f"s{port}").values()))
    yield balancer
    balancer.stop()
    lab.down()


def received(balancer):
    """Packets that came to each worker."""
    return [row["rx_packets"] for row in balancer.rows("workers")]


def test_flows_stay_on_any_number_of_queues(balancer):
    """Four workers; what comes, from clients and from targets, is spread over two of their queues, then over four, then all on one. Each flow
    goes on with its target, and no reply is lost on a worker that does not have its flow."""
    lab = balancer.lab
    flows = [(protocol, VIPS[client], port, CLIENTS[client], fresh_port())
             for port, (_, protocol, client, _, _) in SERVICES.items() for _ in range(FLOWS)]
    lab.use_queues(2)
    idle = received(balancer)
    with Script(lab, HOLDER, json.dumps(flows)) as held:
        answers = json.loads(held.ask("on two queues"))
        assert len(answers) == len(flows) and set(answers) <= set(lab.targets)
        on_two = received(balancer)
        assert on_two[2:] == idle[2:] and on_two[0] > idle[0] and on_two[1] > idle[1]
        for queues in (4, 1, 2):
            lab.use_queues(queues)
            assert json.loads(held.ask(f"on {queues}")) == answers, f"{queues} queues"
            if queues == 4:
                wait_until("packets on every worker", lambda: all(count > before for count, before in zip(received(balancer), on_two)))
