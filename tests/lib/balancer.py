"""lb-dp, lb-cp, lbctl and lb-target in a lab, as an operator would run them."""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import time

from tests.lib.lab import LB, Adopted, LabError, Process, run, wait_until
from tests.lib.supervisor import Unit

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("LB_BUILD", ROOT / "build")).resolve() / "bin"
METRICS = "127.0.0.1:9464"


class Balancer:
    """Files stand in the lab's folder: dp.yaml, dp.sock, cp.sock, state/."""

    def __init__(self, lab, workers=1, flows_per_worker=65536, translations_per_worker=65536):
        self.lab, self.flows_per_worker, self.translations_per_worker = lab, flows_per_worker, translations_per_worker
        self.dp = self.cp = None
        self.dp_socket, self.cp_socket = lab.folder / "dp.sock", lab.folder / "cp.sock"
        self.dp_state, self.cp_state = lab.folder / "state/dp", lab.folder / "state/cp"
        for path in (self.dp_state, self.cp_state):
            path.mkdir(parents=True, exist_ok=True)
        self.dp_config = lab.folder / "dp.yaml"
        self.as_unit = []  # what gives lb-cp the rights that its unit does; the sanitizers write their reports as who they are
        if "ASAN_OPTIONS" not in os.environ:
            self.as_unit = Unit(ROOT / "configs/lb-cp.service").as_user("nobody")
            for path in (lab.folder, self.cp_state):
                shutil.chown(path, "nobody", "nogroup")
        self.set_workers(workers)

    def set_workers(self, workers):
        """As many as the interface has queues. For the next start of lb-dp."""
        self.workers = workers
        self.dp_config.write_text(self._dp_yaml())

    def _dp_yaml(self):
        cpus = sorted(os.sched_getaffinity(0))
        # Workers share these CPUs with clients, targets and other labs: they sleep when nothing comes, are pinned one to a CPU, and
        # begin with another CPU in each process of a test run.
        first = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
        workers = ", ".join(f"{{lcore: {cpus[-1 - (first + i) % len(cpus)]}}}" for i in range(self.workers))
        return f"""name: {self.lab.prefix}
control_socket: {self.dp_socket}
state_dir: {self.dp_state}
bpf_dir: {self.lab.folder}/bpf/lb-dp
workers: [{workers}]
ports:
  - {{name: eth0, driver: af_xdp}}
memory: {{mode: no_huge, size_mb: {128 if self.workers < 3 else 256}}}
idle: {{after_empty_polls: 100, sleep_us: 200}}
flow_table: {{flows_per_worker: {self.flows_per_worker}, translations_per_worker: {self.translations_per_worker}, path: {self.lab.folder}/flows}}
capacity: {{targets: 4096, listeners: 1024}}
sandbox: {{user: {"root" if "ASAN_OPTIONS" in os.environ else "nobody"}}}  # the sanitizers write their reports as who they are
"""

    # Daemons.

    def start_dp(self):
        # A killed lb-dp leaves its socket's file: the new one makes another.
        left = self._socket_identity() if self.dp_socket.exists() else None
        self.dp = self.lab.start(LB, "lb-dp", BIN / "lb-dp", "--config", self.dp_config)
        wait_until("lb-dp's control socket", lambda: self.dp.require_running() and self._socket_identity() != left, 30)

    def start_supervised_dp(self):
        """As its unit does, restarts included; self.dp is then the supervisor."""
        left = self._socket_identity() if self.dp_socket.exists() else None
        self.dp = self.lab.start(LB, "lb-dp", "/usr/bin/python3", ROOT / "tests/lib/supervisor.py", ROOT / "configs/lb-dp.service", BIN / "lb-dp",
                                 "--config", self.dp_config)
        wait_until("lb-dp's control socket", lambda: self.dp.require_running() and self._socket_identity() != left, 30)

    def upgrade_dp(self):
        """`lb-dp upgrade`: another lb-dp goes on with the work. Returns what it says of the gap: (ms, packets dropped)."""
        with open(self.lab.folder / "lb-dp.log", "ab") as log:
            done = subprocess.run(list(map(str, self.lab.inside(LB, BIN / "lb-dp", "upgrade", "--config", self.dp_config))),
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, timeout=30)
        found = re.fullmatch(r"process (\d+) has taken over from (\d+): no worker ran for (\d+) ms, (\d+) packets were dropped meanwhile\n",
                             done.stdout)
        if not found or done.returncode != 0:
            raise LabError(f"lb-dp upgrade: exit {done.returncode}: {done.stdout}")
        pid, old, gap_ms, dropped = map(int, found.groups())
        if old != self.dp.pid:
            raise LabError(f"lb-dp upgrade took over from {old}, not from {self.dp.pid}")
        if isinstance(self.dp, Process) and self.dp.popen.wait(10) != 0:
            raise LabError(f"the old lb-dp ended with {self.dp.popen.returncode}")
        self.dp = Adopted(pid, self.lab.folder / "lb-dp.log")
        return gap_ms, dropped

    def supervised_pid(self):
        """Of the lb-dp below the supervisor; raises while there is none."""
        children = pathlib.Path(f"/proc/{self.dp.pid}/task/{self.dp.pid}/children").read_text().split()
        if not children:
            raise LabError("the supervisor is between two lb-dp")
        return int(children[0])

    def _socket_identity(self):
        status = self.dp_socket.stat()
        return status.st_ino, status.st_ctime_ns

    def launch_cp(self):
        self.cp = self.lab.start(LB, "lb-cp", *self.as_unit, BIN / "lb-cp", "--socket", self.cp_socket, "--dp-socket", self.dp_socket, "--state-dir",
                                 self.cp_state, "--metrics", METRICS)

    def start_cp(self):
        self.launch_cp()
        wait_until("lb-cp's answer", lambda: self.cp.require_running() and self.lbctl("get", "workers").returncode == 0, 30)

    def wait_connected(self):
        wait_until("lb-cp and lb-dp to meet", lambda: len(self.rows("workers")) == self.workers, 30)

    def stop(self):
        for process in (self.cp, self.dp):
            if process:
                process.stop()

    def kill_cp(self):
        self.cp.kill()

    def kill_dp(self):
        self.dp.stop(signal.SIGKILL)

    # lbctl.

    def lbctl_command(self, *arguments):
        return [BIN / "lbctl", "--socket", self.cp_socket, *arguments]

    def lbctl(self, *arguments, check=True):
        return run(self.lbctl_command(*arguments), check=check)

    def kill_cp_often(self, kills, target, group):
        """Kills lb-cp at random moments of its start and of its work, while an operator drains and undrains a target."""
        moments = random.Random(kills)
        for number in range(kills):
            self.launch_cp()
            time.sleep(moments.uniform(0, 0.3))
            with subprocess.Popen(list(map(str, self.lbctl_command("undrain" if number % 2 else "drain", target, "--target-group", group))),
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
                time.sleep(moments.uniform(0, 0.2))
                self.kill_cp()
        self.start_cp()
        self.wait_connected()
        self.lbctl("undrain", target, "--target-group", group)

    def json(self, *arguments):
        return json.loads(self.lbctl(*arguments, "-o", "json").stdout)

    def rows(self, kind, *arguments):
        """The rows of `lbctl get KIND`, as dictionaries."""
        return rows(self.json("get", kind, *arguments))

    def targets(self, group):
        """address:port → row."""
        return {row["address"]: row for row in self.rows("targets", group)}

    def apply(self, path):
        """Whatever it takes away: tests go from one configuration to quite another."""
        return self.lbctl("apply", "--force", "-f", path)

    def why(self, protocol, source, source_port, destination, destination_port):
        return self.json("why", protocol, source, str(source_port), destination, str(destination_port))

    def drops(self):
        return {row["reason"]: int(row["packets"]) for row in rows(self.json("drops"))}

    def metric(self, prefix):
        """Sum of the samples whose names begin so, over all workers."""
        text = self.lab.run(LB, "curl", "-sS", "--max-time", "5", f"http://{METRICS}/metrics").stdout
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(prefix))

    def wait_state(self, group, address, state, seconds=20):
        wait_until(f"{group} {address} to be {state}", lambda: self.targets(group)[address]["state"] == state, seconds)

    def wait_all_healthy(self, group, seconds=20):
        wait_until(f"all targets of {group} to be healthy",
                   lambda: all(row["state"] == "healthy" for row in self.targets(group).values()), seconds)

    # Targets.

    def attach_targets(self):
        for target in self.lab.targets:
            self.lab.run(target, BIN / "lb-target", "attach", "eth0")


def rows(document):
    """lbctl's lists hold their rows under one key."""
    lists = [value for value in document.values() if isinstance(value, list)]
    if len(lists) > 1:
        raise LabError(f"more than one list in {sorted(document)}")
    return lists[0] if lists else []
