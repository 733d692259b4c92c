"""./run bench --control: how long the control plane takes, with the real lb-cp and lb-dp (AF_XDP on a veth).

    lbcb-net 10.77.2.2 ── eth0 ═ eth0 ── 10.77.2.1 lbcb-lb    1,000 listeners, 1,000 target groups of 100 targets (ipip), behind
    sends, receives                      lb-dp, lb-cp         one router; and one group of two targets that packets flow to

  apply-1000x100           lbctl apply until every worker forwards by it, lb-cp having had no configuration
  change-to-first-packet   lbctl drain or undrain (its start included) until the first packet of a new flow goes the new way
  cp-restart-ready         start of lb-cp after a kill -9 until it answers and every worker forwards by a generation of its epoch
  dp-restart-gap           lb-dp killed and started again: the longest time without a forwarded packet
  changes-per-second       drains and undrains, one target each, that 16 operators at once get answered (stored, and on their way
                           to the workers); each lbctl has eight targets to do one after the other
  probes-10000-cpu         of one core, what lb-cp uses to probe 10,000 targets every 10 s
  storm-api-latency        lbctl while half of 10,000 targets fail and return every 2 s
  syn-vs-established       SYNs, each of another connection, that lb-dp forwards, in percent of segments of 100,000 established
                           ones (one worker, memif, lb-gen; established-rate and syn-rate are the two)
  …-cpu                    what lb-cp and lb-dp used of the CPUs meanwhile: on shared machines the better number

Every packet is a flow of its own, so the time between packets limits what is seen: --rate per second.
"""

import argparse
import concurrent.futures
import ctypes
import itertools
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time

from tests.lib.balancer import BIN, rows
from tests.lib.lab import LabError, Process, end_processes, run, wait_until
from tests.run import linerate, probe_bench

PREFIX, FOLDER = "lbcb", pathlib.Path("/run/lb-control-bench")
LB, NET = f"{PREFIX}-lb", f"{PREFIX}-net"
LB_MAC, NET_MAC = "02:00:00:77:02:01", "02:00:00:77:02:02"
VIP, VIP_PORT = "198.18.0.1", 60000
DRAINED, OTHER = "10.99.0.1", "10.99.0.2"
CLONE_NEWNET, SO_TIMESTAMPNS, ETH_P_IP = 0x40000000, 35, 0x0800
MEASURED = "measured"
OPERATORS, TARGETS_AT_ONCE = 16, 8
STEPS = ("apply", "changes", "changes_per_second", "restart_cp", "restart_dp", "probes", "storm", "syn_flood")


def inside(namespace, *command):
    return ["nsenter", f"--net=/run/netns/{namespace}", "--", *map(str, command)]


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def packet_socket(namespace):
    """On eth0 of a namespace. A socket stays in the namespace it was made in."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(path):
        with open(path, "rb") as handle:
            if libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"setns {path}")

    with open("/proc/self/ns/net", "rb") as home:
        enter(f"/run/netns/{namespace}")
        try:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
            made.bind(("eth0", ETH_P_IP))
        finally:
            if libc.setns(home.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns home")
    return made


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frames(count):
    """UDP packets to the measured listener, each from another client."""
    ethernet = bytes.fromhex((LB_MAC + NET_MAC).replace(":", "")) + struct.pack("!H", ETH_P_IP)
    generator = random.Random(1)
    for _ in range(count):
        source = 0x0AC80000 | generator.getrandbits(16)
        ports = generator.randrange(1024, 65536)
        head = struct.pack("!BBHHHBBHI4s", 0x45, 0, 46, 0, 0x4000, 64, 17, 0, source, socket.inet_aton(VIP))
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        yield ethernet + head + struct.pack("!HHHH", ports, VIP_PORT, 26, 0) + bytes(18)


class Traffic:
    """Sends new flows and notes where lb-dp sends them: (kernel's time of arrival, target), newest last."""

    def __init__(self, rate):
        self.rate, self.seen = rate, []
        self.frames = list(frames(1 << 17))
        self.out, self.back = packet_socket(NET), packet_socket(NET)
        self.back.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.back.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.back.settimeout(0.1)
        self.running = True
        self.threads = [threading.Thread(target=self._send, daemon=True), threading.Thread(target=self._receive, daemon=True)]
        for thread in self.threads:
            thread.start()

    def _send(self):
        start, sent = time.monotonic(), 0
        while self.running:
            due = int((time.monotonic() - start) * self.rate)
            for i in range(sent, due):
                self.out.send(self.frames[i % len(self.frames)])
            sent = due
            time.sleep(0.0005)

    def _receive(self):
        while self.running:
            try:
                data, extra, _, address = self.back.recvmsg(64, 64)
            except TimeoutError:
                continue
            if address[2] == socket.PACKET_OUTGOING or data[23] != 4:  # only what lb-dp has put into a tunnel
                continue
            seconds, nanoseconds = struct.unpack("qq", extra[0][2])
            self.seen.append((seconds + nanoseconds * 1e-9, socket.inet_ntoa(data[30:34])))

    def first(self, since, target):
        """Seconds from `since` to the first packet to that target; None: none yet."""
        return next((at - since for at, to in list(self.seen) if at > since and to == target), None)

    def last(self, since, target):
        return max((at - since for at, to in list(self.seen) if at > since and to == target), default=0.0)

    def longest_gap(self):
        times = [at for at, _ in list(self.seen)]
        return max(b - a for a, b in zip(times, times[1:]))

    def stop(self):
        self.running = False
        for thread in self.threads:
            thread.join()
        self.out.close()
        self.back.close()


class Bench:
    def __init__(self, options):
        self.options = options
        self.dp = self.cp = None
        self.traffic = None
        self.found = []

    # Set-up and clean-up: whatever runs in the two namespaces is ours.

    def up(self):
        self.down()
        (FOLDER / "bpf").mkdir(parents=True)
        run(["mount", "-t", "bpf", "bpf", FOLDER / "bpf"])
        for name in (LB, NET):
            run(["ip", "netns", "add", name])
            run(inside(name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"))
            run(["ip", "-n", name, "link", "set", "lo", "up"])
        run(["ip", "-n", LB, "link", "add", "eth0", "mtu", "1600", "type", "veth", "peer", "name", "eth0", "netns", NET])
        for name, mac, address, other, other_mac in ((LB, LB_MAC, "10.77.2.1", "10.77.2.2", NET_MAC), (NET, NET_MAC, "10.77.2.2", "10.77.2.1", LB_MAC)):
            run(["ip", "-n", name, "link", "set", "eth0", "address", mac, "mtu", "1600", "up"])
            run(["ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0"])
            run(["ip", "-n", name, "neigh", "replace", other, "lladdr", other_mac, "nud", "permanent", "dev", "eth0"])
        run(inside(NET, "ethtool", "-K", "eth0", "tx", "off"))
        way = ["dev", "eth0"] if self.options.on_link else ["via", "10.77.2.2"]
        run(["ip", "-n", LB, "route", "add", "10.99.0.0/24", "via", "10.77.2.2"])
        run(["ip", "-n", LB, "route", "add", "10.100.0.0/14", *way])
        self._write_configuration()

    def _write_configuration(self):
        cpu = sorted(os.sched_getaffinity(0))[-1]
        (FOLDER / "dp.yaml").write_text(f"""name: {PREFIX}
control_socket: {FOLDER}/dp.sock
state_dir: {FOLDER}/state-dp
bpf_dir: {FOLDER}/bpf/lb-dp
workers: [{{lcore: {cpu}}}]
ports: [{{name: eth0, driver: af_xdp}}]
memory: {{mode: no_huge, size_mb: 128}}
idle: {{after_empty_polls: 300, sleep_us: 50}}
flow_table: {{flows_per_worker: 65536, path: {FOLDER}/flows}}
punt: {{tap: none}}
""")
        groups, targets = self.options.groups, self.options.targets
        lines = ["version: 1", "vips:", f"  - {{name: web, address: {VIP}}}", "listeners:",
                 f"  - {{name: {MEASURED}, vip: web, protocol: UDP, port: {VIP_PORT}, target_groups: [{{name: {MEASURED}}}]}}"]
        lines += [f"  - {{name: l{g}, vip: web, protocol: TCP, port: {1000 + g}, target_groups: [{{name: g{g}}}]}}" for g in range(groups)]
        lines += ["target_groups:"]
        for name, protocol, addresses in ((MEASURED, "UDP", [DRAINED, OTHER]), *(
                (f"g{g}", "TCP", [f"10.{100 + g // 250}.{g % 250}.{t + 1}" for t in range(targets)]) for g in range(groups))):
            lines += [f"  - name: {name}", f"    protocol: {protocol}", "    health_check: {protocol: NONE}", "    targets:"]
            lines += [f"      - {{address: {address}}}" for address in addresses]
        (FOLDER / "lb.yaml").write_text("\n".join(lines) + "\n")

    def down(self):
        if self.traffic:
            self.traffic.stop()
            self.traffic = None
        for process in (self.cp, self.dp):
            if process:
                process.stop()
        for name in (LB, NET):
            if pathlib.Path(f"/run/netns/{name}").exists():
                end_processes([int(p) for p in run(["ip", "netns", "pids", name], check=False).stdout.split()])
                run(["ip", "netns", "del", name], check=False)
        while run(["umount", FOLDER / "bpf"], check=False).returncode == 0:
            pass
        shutil.rmtree(FOLDER, ignore_errors=True)

    # Daemons.

    def start(self, name, *command):
        return Process(name, inside(LB, *command), FOLDER / f"{name}.log", True)

    def start_dp(self):
        (FOLDER / "dp.sock").unlink(missing_ok=True)
        self.dp = self.start("lb-dp", BIN / "lb-dp", "--config", FOLDER / "dp.yaml")

    def start_cp(self):
        self.cp = self.start("lb-cp", BIN / "lb-cp", "--socket", FOLDER / "cp.sock", "--dp-socket", FOLDER / "dp.sock", "--state-dir",
                             FOLDER / "state-cp", "--metrics", "off")

    def lbctl(self, *arguments):
        return run([BIN / "lbctl", "--socket", FOLDER / "cp.sock", *arguments], timeout=120)

    def workers(self):
        self.cp.require_running()
        self.dp.require_running()
        return rows(json.loads(self.lbctl("get", "workers", "-o", "json").stdout))

    def cpu(self):
        return cpu_seconds(self.cp.pid) + cpu_seconds(self.dp.pid)

    # Rows.

    def row(self, name, values, unit, goal=None, p99_goal=None, more_is_better=False):
        values = sorted(values)
        value, p99 = statistics.median(values), values[min(len(values) - 1, len(values) * 99 // 100)]
        met = None if goal is None else value >= goal if more_is_better else value <= goal and (p99_goal is None or p99 <= p99_goal)
        self.found.append({"name": name, "value": round(value, 3), "p99": round(p99, 3), "unit": unit, "goal": goal, "met": met})
        goals = "" if goal is None else f"goal {goal:g} {unit}" + (f", p99 {p99_goal:g} {unit}" if p99_goal else "") + (": met" if met else ": missed")
        print(f"{name:<26} {value:>9.3f} {unit:<5} p99 {p99:>9.3f}  of {len(values):<4} {goals}", flush=True)

    def apply(self):
        walls, cpus = [], []
        for _ in range(self.options.repeats):
            for process in (self.cp, self.dp):
                if process:
                    process.kill()
            for name in ("state-cp", "state-dp"):
                shutil.rmtree(FOLDER / name, ignore_errors=True)
            self.start_dp()
            wait_until("lb-dp", lambda: self.dp.require_running() and (FOLDER / "dp.sock").exists(), 30)
            self.start_cp()
            wait_until("lb-cp to meet lb-dp", lambda: len(self.workers()) == 1, 30)
            cpu, ours, start = self.cpu(), resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            self.lbctl("apply", "--force", "-f", FOLDER / "lb.yaml")
            walls.append(time.monotonic() - start)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpus.append(self.cpu() - cpu + after.ru_utime + after.ru_stime - ours.ru_utime - ours.ru_stime)
        self.row("apply-1000x100", walls, "s", 2)
        self.row("apply-1000x100-cpu", cpus, "s")

    def wait_for(self, what, value, seconds=20):
        return wait_until(what, value, seconds, every=0.002)

    def start_traffic(self):
        if self.traffic:
            return
        self.traffic = Traffic(self.options.rate)
        wait_until("packets to both targets", lambda: {DRAINED, OTHER} <= {to for _, to in list(self.traffic.seen)}, 20)

    def changes(self):
        self.start_traffic()
        times, cpus = [], []
        for i in range(self.options.changes):
            time.sleep(random.uniform(0.2, 0.3))
            self.traffic.seen.clear()
            cpu, start = self.cpu(), time.time()
            self.lbctl("undrain" if i % 2 else "drain", f"{DRAINED}:{VIP_PORT}")
            if i % 2:
                times.append(1000 * self.wait_for("packets to the undrained target", lambda: self.traffic.first(start, DRAINED)))
            else:
                # Half of the new flows went there: none for as long as forty take means that it is over.
                quiet = 40 / self.options.rate
                self.wait_for("packets to go elsewhere", lambda: time.time() - start - self.traffic.last(start, DRAINED) > max(0.1, quiet))
                times.append(1000 * self.traffic.last(start, DRAINED))
            cpus.append(1000 * (self.cpu() - cpu))
        self.row("change-to-first-packet", times, "ms", 50, 250)
        self.row("change-cpu", cpus, "ms")

    def changes_per_second(self):
        """Operators drain and undrain targets of their own, as fast as lb-cp answers them."""
        start, cpu = time.monotonic(), self.cpu()

        def change(number):
            targets = [f"10.100.{number}.{t + 1}:{1000 + number}" for t in range(TARGETS_AT_ONCE)]
            for count, verb in enumerate(itertools.cycle(("drain", "undrain"))):
                if time.monotonic() > start + 5:
                    return count * TARGETS_AT_ONCE
                self.lbctl(verb, *targets, "--timeout", "60")

        with concurrent.futures.ThreadPoolExecutor(OPERATORS) as operators:
            done = sum(operators.map(change, range(OPERATORS)))
        seconds, cpu = time.monotonic() - start, self.cpu() - cpu
        self.row("changes-per-second", [done / seconds], "1/s", 100, more_is_better=True)
        self.row("changes-cpu", [1000 * cpu / done], "ms")

    def probes(self):
        probe_bench.measure(self, lambda *command: inside(NET, *command), __file__, cpu_seconds, FOLDER, VIP)

    def storm(self):
        """Every second of 10,000 targets fails and returns every 2 s; meanwhile the API is asked."""
        path = FOLDER / "storm.yaml"
        lines = ["version: 1", "vips:", f"  - {{name: web, address: {VIP}}}", "listeners:"]
        lines += [f"  - {{name: l{g}, vip: web, protocol: TCP, port: {1000 + g}, target_groups: [{{name: g{g}}}]}}" for g in range(100)]
        lines += ["target_groups:"]
        for g in range(100):
            targets = ", ".join(f"{{address: 10.100.{g}.{t + 1}}}" for t in range(100))
            lines.append(f"  - {{name: g{g}, protocol: TCP, table_size: 4093, health_check: {{port: {8001 + g % 2}, interval: 2, timeout: 1, "
                         f"healthy_threshold: 2, flap_damping: false}}, targets: [{targets}]}}")
        path.write_text("\n".join(lines) + "\n")
        run(inside(NET, "ip", "route", "replace", "local", "10.100.0.0/14", "dev", "lo"))
        server = Process("storm", inside(NET, sys.executable, __file__, "--serve-storm"), FOLDER / "storm.log", True)
        try:
            self.lbctl("apply", "--force", "-f", path)
            wait_until("all targets to have been probed", lambda: not any(
                row["state"] == "initial" for row in rows(json.loads(self.lbctl("get", "targets", "-o", "json").stdout))), 60)
            times = []
            end = time.monotonic() + 12
            while time.monotonic() < end:
                start = time.monotonic()
                self.lbctl("get", "workers")
                times.append(1000 * (time.monotonic() - start))
                time.sleep(0.05)
            events = rows(json.loads(self.lbctl("get", "targets", "-o", "json").stdout))
            if len({row["state"] for row in events}) < 2:
                raise LabError("no target failed: this was no storm")
            self.row("storm-api-latency", times, "ms", 100, 100)
        finally:
            server.stop(signal.SIGKILL)

    def restart_cp(self):
        times = []
        for _ in range(self.options.repeats):
            epoch = max(worker["epoch"] for worker in self.workers())
            self.cp.kill()
            start = time.monotonic()
            self.start_cp()
            wait_until("workers to forward by lb-cp's new epoch", lambda: all(w["epoch"] > epoch for w in self.workers() or [{"epoch": 0}]), 60,
                       every=0.1)
            times.append(time.monotonic() - start)
        self.row("cp-restart-ready", times, "s", 2)

    def restart_dp(self):
        self.start_traffic()
        times = []
        for _ in range(self.options.repeats):
            time.sleep(0.5)
            self.traffic.seen.clear()
            wait_until("packets", lambda: len(self.traffic.seen) > 10)
            self.dp.stop(signal.SIGKILL)
            count = len(self.traffic.seen)
            self.start_dp()
            wait_until("packets again", lambda: self.dp.require_running() and len(self.traffic.seen) > count + 100, 30)
            times.append(1000 * self.traffic.longest_gap())
            wait_until("lb-cp to meet lb-dp", lambda: len(self.workers()) == 1, 30)
        self.row("dp-restart-gap", times, "ms")


    def syn_flood(self):
        """Over a port that costs little (memif): SYNs, each of another connection, against segments of established ones."""
        options = argparse.Namespace(flows=100_000, seconds=2, repeats=3)
        rates = {"ack": [], "syn": []}
        for _ in range(options.repeats):
            for protocol, found in rates.items():
                line = linerate.Bench(options)
                line.memory = "no_huge"
                try:
                    line.up()
                    common = f"id=0,socket={line.sockets()},socket-abstract=no,bsize=2048,rsize=10"
                    line.start_lb("memif", f"role=server,{common}", 1, "ipip", options.flows,
                                  f"net_memif0,role=client,{common},mac={linerate.GEN_MAC}", protocol=protocol)
                    line.generate(0)  # every flow has its entry, and a second packet
                    found.append(line.generate(0)["received_mpps"])
                finally:
                    line.down()
        self.row("established-rate", rates["ack"], "Mpps")
        self.row("syn-rate", rates["syn"], "Mpps")
        established = statistics.median(rates["ack"])
        if not established:
            raise LabError("no segment of an established connection came back")
        self.row("syn-vs-established", [100 * statistics.median(rates["syn"]) / established], "%", 83, more_is_better=True)


def serve_storm():
    """Port 8001 is open, port 8002 every other 2 s, on every address."""
    def listen(port):
        listening = socket.create_server(("0.0.0.0", port), backlog=4096)
        listening.settimeout(0.05)
        return listening

    steady, flapping = listen(8001), None
    while True:
        if (int(time.monotonic()) // 2 % 2 == 0) != (flapping is not None):
            flapping = flapping.close() if flapping else listen(8002)
        for listening in filter(None, (steady, flapping)):
            try:
                while True:
                    listening.accept()[0].close()
            except TimeoutError:
                pass


def main():
    parser = argparse.ArgumentParser(prog="./run bench --control", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the rows there as well")
    parser.add_argument("--groups", type=int, default=1000)
    parser.add_argument("--targets", type=int, default=100, help="of each group, at most 254")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--rate", type=int, default=5000, help="packets a second")
    parser.add_argument("--on-link", action="store_true", help="targets without a router before them: one neighbour each")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=STEPS, help="of these measurements (default: all); apply comes before any")
    parser.add_argument("--serve-storm", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_storm:
        return serve_storm()
    bench = Bench(options)
    try:
        bench.up()
        for step in STEPS:
            if step in options.only or step == "apply":  # the others need its configuration
                getattr(bench, step)()
    except (LabError, subprocess.TimeoutExpired) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        bench.down()
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({"rows": bench.found}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
