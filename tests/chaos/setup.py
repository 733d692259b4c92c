"""The lab of the chaos runs: one VIP, listener and target group for each forwarding mode and address family."""

import collections
import dataclasses
import json
import os
import socket
import subprocess
import threading

from tests.lib import lab as labs
from tests.lib.balancer import ROOT, Balancer
from tests.lib.lab import CLIENT, LB, Lab, LabError, run

TCP_PORT, UDP_PORT, HEALTH_PORT = 9000, 9001, 9002
TARGETS = ("t1", "t2", "t3")
SPARE = "t4"
MODES = ("ipip", "nat", "fullnat")
THROUGH_LB = ("nat", "fullnat")  # modes whose replies go through lb: no target has the VIP
SNAT = {"v4": "10.77.2.200", "v6": "fd77:2::200"}  # of fullnat: on the balancer's interface, whose kernel answers for them
FLOOD_SOURCES = "198.18.0.0/15", "2001:db8:f00d::/48"


@dataclasses.dataclass(frozen=True)
class Population:
    """The connections of one mode and family."""
    mode: str
    family: str

    @property
    def name(self):
        return f"{self.mode}-{self.family}"

    @property
    def vip(self):
        number = 10 + MODES.index(self.mode)
        return f"192.0.2.{number}" if self.family == "v4" else f"2001:db8::{number}"

    @property
    def replies_to(self):
        """Where targets send replies that lb has to translate; None: they bypass lb."""
        if self.mode == "fullnat":
            return SNAT[self.family]
        return {"v4": labs.FAR_V4, "v6": labs.FAR_V6}[self.family] if self.mode == "nat" else None

    def target(self, target):
        """As lbctl writes it."""
        address = Lab.target_address(target, self.family)
        return f"[{address}]:{TCP_PORT}" if self.family == "v6" else f"{address}:{TCP_PORT}"


POPULATIONS = [Population(mode, family) for mode in MODES for family in ("v4", "v6")]


def config(targets=TARGETS, weights=None, attributes=None, spoiled=False):
    vips, listeners, groups = [], [], []
    wanted = {"deregistration_delay.timeout_seconds": 300, **(attributes or {})}
    for population in POPULATIONS:
        name = population.name
        vips.append(f'  - {{name: {name}, address: "{population.vip}"}}')
        for protocol, port, check, extra in (
                ("TCP", TCP_PORT, f'{{protocol: HTTP, port: "{HEALTH_PORT}", interval: 1, healthy_threshold: 2, unhealthy_threshold: 2}}', wanted),
                ("UDP", UDP_PORT, "{protocol: NONE}", {})):
            own = f"{protocol.lower()}-{name}"
            listeners.append(f"  - {{name: {own}, vip: {name}, protocol: {protocol}, port: {port}, target_groups: [{{name: {own}}}]}}")
            lines = [f"  - name: {own}", f"    protocol: {protocol}", f"    port: {port}", f"    forwarding_mode: {population.mode}",
                     "    table_size: 4093", f"    health_check: {check}"]
            extra = {**extra, "snat.addresses": f'"{SNAT[population.family]}"'} if population.mode == "fullnat" else extra
            if extra:
                lines.append("    attributes: {" + ", ".join(f"{key}: {str(value).lower()}" for key, value in extra.items()) + "}")
            lines.append("    targets:")
            lines += [f'      - {{address: "{Lab.target_address(t, population.family)}", weight: {(weights or {}).get(t, 1)}}}' for t in targets]
            groups.append("\n".join(lines))
    version = 2 if spoiled else 1
    return f"version: {version}\nseed: 11\nvips:\n{{}}\nlisteners:\n{{}}\ntarget_groups:\n{{}}\n".format(
        *map("\n".join, (vips, listeners, groups)))


def packed(address):
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


class Taps:
    """Counts packets to VIPs, and replies that lb has to translate, that reach the kernel of lb's namespace: those that XDP has passed."""

    def __init__(self, lab):
        self.counts = collections.Counter()
        self.vips = {packed(address): p.name for p in POPULATIONS for address in (p.vip, p.replies_to) if address}
        self.socket = labs.socket_inside(lab, LB, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.bind(("eth0", 3))
        self.socket.settimeout(0.2)
        self.running = True
        self.thread = threading.Thread(target=self._count, daemon=True)
        self.thread.start()

    @staticmethod
    def destination(frame):
        """Of IP; None for ARP and neighbour discovery, which are the kernel's, also where they ask for a SNAT address."""
        if frame[12:14] == b"\x08\x00":
            return frame[30:34]
        if frame[12:14] != b"\x86\xdd" or (frame[20] == 58 and 133 <= frame[54] <= 137):
            return None
        return frame[38:54]

    def _count(self):
        while self.running:
            try:
                data, address = self.socket.recvfrom(128)
            except TimeoutError:
                continue
            destination = self.destination(data)
            if address[2] != socket.PACKET_OUTGOING and destination in self.vips:
                self.counts[self.vips[destination]] += 1

    def stop(self):
        self.running = False
        self.thread.join()
        self.socket.close()


class Clients:
    """tests/chaos/client.py in the client's namespace."""

    def __init__(self, lab, idle, busy, new_per_second):
        options = {"idle": idle, "busy": busy, "new_per_second": new_per_second, "populations": {
            p.name: {"address": p.vip, "tcp_port": TCP_PORT, "udp_port": UDP_PORT} for p in POPULATIONS}}
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *lab.inside(CLIENT, "/usr/bin/python3", ROOT / "tests/chaos/client.py", json.dumps(options))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})

    def ask(self, command, seconds=90):
        watchdog = threading.Timer(seconds, self.process.kill)
        watchdog.start()
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise LabError(f"the clients gave no answer to: {command}")
        return json.loads(line)

    def stop(self):
        self.process.kill()
        self.process.wait()


class World:
    def __init__(self, idle, busy, new_per_second, flows_per_worker=65536):
        self.lab = Lab("lbchaos", "/run/lb-chaos", vips=[p.vip for p in POPULATIONS if p.mode not in THROUGH_LB], targets=4, queues=2,
                       nat_vips=[p.vip for p in POPULATIONS if p.mode in THROUGH_LB])
        self.flows_per_worker = flows_per_worker
        self.balancer = self.taps = self.clients = None
        self.options = (idle, busy, new_per_second)
        self.servers = {}

    def up(self):
        self.lab.up()
        self.lab.set_queues(1)
        for address in SNAT.values():
            v6 = ":" in address  # else its kernel would send health checks from there
            self.lab.run(LB, "ip", "addr", "replace", f"{address}/{128 if v6 else 32}", "dev", "eth0", *(["nodad", "preferred_lft", "0"] if v6 else []))
        # Fewer translations than a flood fills in a second.
        self.balancer = Balancer(self.lab, workers=1, flows_per_worker=self.flows_per_worker, translations_per_worker=16384)
        for target in self.lab.targets:
            self.start_server(target)
        self.balancer.attach_targets()
        self.balancer.start_dp()
        self.balancer.start_cp()
        self.balancer.wait_connected()
        self.apply()
        self.wait_healthy()
        self.taps = Taps(self.lab)
        self.clients = Clients(self.lab, *self.options)

    def start_server(self, target):
        for prefix in FLOOD_SOURCES:  # what floods come from: the targets answer nobody there
            run(["ip", "-n", self.lab.namespace(target), "-6" if ":" in prefix else "-4", "route", "replace", "blackhole", prefix])
        self.servers[target] = self.lab.start(target, f"server-{target}", "/usr/bin/python3", ROOT / "tests/chaos/server.py", target, TCP_PORT,
                                              UDP_PORT, HEALTH_PORT, self.sick_file(target))

    def sick_file(self, target):
        return self.lab.folder / f"sick-{target}"

    def apply(self, **change):
        path = self.lab.folder / "lb.yaml"
        path.write_text(config(**change))
        self.balancer.apply(path)

    def wait_state(self, target, state, seconds=20):
        for population in POPULATIONS:
            self.balancer.wait_state(f"tcp-{population.name}", population.target(target), state, seconds)

    def wait_healthy(self):
        for target in TARGETS:
            self.wait_state(target, "healthy")

    def drain(self, target):
        for population in POPULATIONS:
            self.balancer.lbctl("drain", population.target(target), "--target-group", f"tcp-{population.name}")

    def undrain(self, target):
        for population in POPULATIONS:
            self.balancer.lbctl("undrain", population.target(target), "--target-group", f"tcp-{population.name}")

    def told(self, thing, state):
        """Whether an event has said that it has come into that state."""
        return any((row["object"], row["new_state"]) == (thing, state) for row in self.balancer.json("events")["events"])

    def table_load(self):
        """Of the fullest worker's flow table."""
        return max(int(row["flows"]) / int(row["flow_capacity"]) for row in self.balancer.rows("workers"))

    def forwarded(self):
        """Packets that lb-dp has taken for each population's listeners since it started."""
        packets = collections.Counter()
        for row in self.balancer.rows("listeners"):
            protocol, _, name = row["name"].partition("-")
            if protocol in ("tcp", "udp"):
                packets[name] += int(row["packets"])
        return packets

    def down(self):
        if self.clients:
            self.clients.stop()
        if self.taps:
            self.taps.stop()
        self.lab.down()
