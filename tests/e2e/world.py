"""What the end-to-end tests run in: cases, the configuration that serves them all, and the one lab that is up.

A case is a forwarding mode, the family of the client's packets (inner), the family of the targets' addresses (outer) and
the number of workers. Each has a VIP and target groups of its own in one configuration, so that all cases with the same
number of workers share a lab.
"""

import dataclasses
import shutil
import signal

from tests.lib import lab as labs
from tests.lib.balancer import ROOT, Balancer
from tests.lib.lab import Lab, wait_until

FORWARDING = [("ipip", "v4", "v4"), ("ipip", "v4", "v6"), ("ipip", "v6", "v4"), ("ipip", "v6", "v6"), ("l2dsr", "v4", "v4"), ("l2dsr", "v6", "v6"),
              ("gue", "v4", "v4"), ("gue", "v4", "v6"), ("gue", "v6", "v4"), ("gue", "v6", "v6"),
              ("gre", "v4", "v4"), ("gre", "v4", "v6"), ("gre", "v6", "v4"), ("gre", "v6", "v6"),
              ("nat", "v4", "v4"), ("nat", "v6", "v6")]
TARGET_PORTS = {"nat": {80: 8080, 5201: 5202, 7000: 7001}}  # where they are not the listeners'
TUNNEL_ATTRIBUTES = {("gue", "v4", "v6"): ["gue.ipv6_zero_checksum.enabled: true"], ("gre", "v4", "v4"): ["gre.key: 4711"],
                     ("gre", "v4", "v6"): ["gre.key: 4711"]}
WEB, IPERF, ECHO, EMPTY = 80, 5201, 7000, 81
LOGS = ROOT / "build/reports/e2e-logs"


@dataclasses.dataclass(frozen=True)
class Case:
    mode: str
    inner: str
    outer: str
    workers: int

    def __str__(self):
        return f"{self.mode}-{self.inner}-{self.outer}-w{self.workers}"

    @property
    def name(self):
        return f"{self.mode}-{self.inner}-{self.outer}"

    @property
    def vip(self):
        number = 10 + FORWARDING.index((self.mode, self.inner, self.outer))
        return f"192.0.2.{number}" if self.inner == "v4" else f"2001:db8::{number}"

    @property
    def web_group(self):
        return f"web-{self.name}"

    @property
    def client(self):
        if self.through_lb:
            return labs.FAR_V4 if self.inner == "v4" else labs.FAR_V6
        return labs.CLIENT_V4 if self.inner == "v4" else labs.CLIENT_V6

    @property
    def through_lb(self):
        """Whether replies go through lb, and targets know nothing of the VIP."""
        return self.mode in TARGET_PORTS

    def target_port(self, port):
        return TARGET_PORTS.get(self.mode, {}).get(port, port)

    def served_address(self, target):
        """The address that programs on a target are asked on."""
        return self.bare_target(target) if self.through_lb else self.vip

    @property
    def host(self):
        """The VIP as it stands in URLs."""
        return f"[{self.vip}]" if self.inner == "v6" else self.vip

    def url(self, path="/"):
        return f"http://{self.host}{path}"

    def target(self, target, port=WEB):
        """As lbctl writes it."""
        address = Lab.target_address(target, self.outer)
        return f"[{address}]:{self.target_port(port)}" if self.outer == "v6" else f"{address}:{self.target_port(port)}"

    def bare_target(self, target):
        return Lab.target_address(target, self.outer)


ALL = [Case(*forwarding, workers) for workers in (1, 2) for forwarding in FORWARDING]
# Every forwarding with one worker or with two, in turn: what slow builds (ASan) run in place of ALL.
IN_TURN = [case for case in ALL if FORWARDING.index((case.mode, case.inner, case.outer)) % 2 == case.workers - 1]
# Each mode over IPv4 with one worker and over IPv6 with two: for what hardly depends on the tunnel.
EACH_MODE_AND_FAMILY = [case for case in ALL if case.inner == case.outer == ("v4" if case.workers == 1 else "v6")]
PLAIN = [case for case in ALL if case.name == "ipip-v4-v4"]
ONE_OF_EACH_MODE = [case for case in ALL if case.name in ("ipip-v4-v6", "l2dsr-v4-v4", "nat-v4-v4")]


def config(cases=FORWARDING, target_names=("t1", "t2", "t3")):
    vips, listeners, groups = [], [], []
    for case in (Case(*forwarding, 1) for forwarding in cases):
        def targets(port):
            return ", ".join(f'{{address: "{case.bare_target(t)}", port: {case.target_port(port)}}}' for t in target_names)

        vips.append(f'  - {{name: {case.name}, address: "{case.vip}"}}')
        for kind, protocol, port in (("web", "TCP", WEB), ("iperf", "TCP", IPERF), ("echo", "UDP", ECHO)):
            listeners.append(f"  - {{name: {kind}-{case.name}, vip: {case.name}, protocol: {protocol}, port: {port}, "
                             f"target_groups: [{{name: {kind}-{case.name}}}]}}")
            check = "{protocol: HTTP, path: /, interval: 1, healthy_threshold: 2, unhealthy_threshold: 2}" if kind == "web" else "{protocol: NONE}"
            attributes = ["stickiness.enabled: true", "stickiness.type: source_ip"] if kind == "iperf" else ["deregistration_delay.timeout_seconds: 60"]
            attributes += TUNNEL_ATTRIBUTES.get((case.mode, case.inner, case.outer), [])
            groups.append(f"  - name: {kind}-{case.name}\n    protocol: {protocol}\n    port: {case.target_port(port)}\n    forwarding_mode: {case.mode}\n"
                          f"    table_size: 4093\n    attributes: {{{', '.join(attributes)}}}\n    health_check: {check}\n    targets: [{targets(port)}]")
    return "version: 1\nseed: 7\nvips:\n{}\nlisteners:\n{}\ntarget_groups:\n{}\n".format(*map("\n".join, (vips, listeners, groups)))


class World:
    """A lab with everything running. `settle` brings it back to where each test may start from."""

    def __init__(self, workers):
        self.workers = workers
        cases = [case for case in ALL if case.workers == 1]
        self.lab = Lab("lbe2e", "/run/lb-e2e", vips=[case.vip for case in cases if not case.through_lb], queues=workers,
                       nat_vips=[case.vip for case in cases if case.through_lb])
        self.lab.up()
        self.balancer = Balancer(self.lab, workers)
        self.config = self.lab.folder / "lb.yaml"
        self.config.write_text(config())
        self.helpers = {}
        for target in self.lab.targets:
            self.lab.start_nginx(target)
        self.balancer.attach_targets()
        self.balancer.start_dp()
        self.balancer.start_cp()

    def helper(self, where, name, *command):
        """A program of a test; ended when the test is over."""
        process = self.lab.start(where, name, *command)
        self.helpers[name] = process
        return process

    def end_helpers(self):
        for process in self.helpers.values():
            process.stop(signal.SIGKILL)
        self.helpers = {}

    def settle(self):
        self.end_helpers()
        for target in self.lab.targets:
            if not self.lab.nginx[target].running():
                self.lab.start_nginx(target)
        if not self.balancer.dp.running():
            self.balancer.start_dp()
        if not self.balancer.cp.running():
            self.balancer.start_cp()
        self.balancer.wait_connected()
        self.balancer.apply(self.config)
        groups = {case.web_group for case in ALL}
        for row in self.balancer.rows("targets"):
            if row["target_group"] in groups and row["state"] in ("draining", "unused"):
                self.balancer.lbctl("undrain", row["address"], "--target-group", row["target_group"])
        # All in one question: a start of lbctl for each group took longer than most tests.
        wait_until("all web targets to be healthy", lambda: all(row["state"] == "healthy" for row in self.balancer.rows("targets")
                                                                if row["target_group"] in groups), 20)

    def close(self):
        LOGS.mkdir(parents=True, exist_ok=True)
        for log in self.lab.folder.glob("*.log"):
            shutil.copy(log, LOGS / f"{self.lab.prefix}-w{self.workers}-{log.name}")
        self.lab.down()

    def logs(self):
        return "\n".join(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-25:])
                         for log in sorted(self.lab.folder.glob("lb-*.log")))

    # What tests ask again and again.

    def answers(self, case, count, *arguments):
        """The names of the targets that answer `count` requests, each on a connection of its own."""
        text = self.lab.curl("-H", "Connection: close", *arguments, case.url(f"/?[1-{count}]"))
        return text.split()

    def wait_answers(self, case, expected, what):
        """Until 24 requests are answered by exactly the expected targets, all of them."""
        wait_until(what, lambda: set(self.answers(case, 24)) == set(expected), 20, every=0.2)
