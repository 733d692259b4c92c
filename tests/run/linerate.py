"""./run linerate: lb-dp itself, over DPDK ports, beside testpmd on the same ports.

  memif, virtio_user   lb-gen (tests/linerate) sends from CPU 0 and takes back what comes home; the device under test is
                       pinned to CPU 1 (with two workers: to both). Throughput at full speed, then latency at half of it.
  pcap                 the port plays a file for ever (infinite_rx): no generator, the workers' own counters
  ring                 what is sent comes back: 1,024 packets go round for ever, the worker's own counters
               (one worker: packets stay in their queue)
  idle                 memif at 1,000 packets a second, with a worker that always polls and with one that rests (dp.yaml's
                       idle): what resting adds to the round trip, and what a worker without packets costs

testpmd forwards with macswap: it parses nothing and looks nothing up, so it is what the port alone costs. Everything runs in
one network namespace; rates on shared machines are noisy, so each row is the median of --repeats runs.
"""

import argparse
import csv
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

from tests.lib.balancer import BIN, ROOT, rows
from tests.lib.lab import LabError, Process, end_processes, run, wait_until

NAMESPACE, FOLDER = "lblr-lb", pathlib.Path("/run/lb-linerate")
VIP, DUT_MAC, GEN_MAC = "198.18.0.1", "02:00:00:00:00:02", "02:00:00:00:00:01"
PORTS = ["memif", "virtio_user", "pcap", "ring", "idle"]
COLUMNS = ["port", "dut", "workers", "flows", "offered_mpps", "mpps", "loss_pct", "p50_us", "p99_us", "p999_us", "load_mpps", "idle_cpu_pct"]


def inside(*command):
    return ["nsenter", f"--net=/run/netns/{NAMESPACE}", "--", *map(str, command)]


class Bench:
    def __init__(self, options):
        self.options = options
        self.cpus = sorted(os.sched_getaffinity(0))
        self.processes = []
        self.generator = self.testpmd = None
        self.sequence = 0
        self.memory = "hugepages"

    # Set-up and clean-up: whatever runs in the namespace is ours.

    def up(self):
        self.down()
        FOLDER.mkdir(parents=True)
        run(["ip", "netns", "add", NAMESPACE])
        run(inside("ip", "link", "set", "lo", "up"))
        free = int(pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text())
        if free < 400 and self.memory == "hugepages":
            raise LabError(f"linerate needs 400 free hugepages of 2 MiB, {free} are free: "
                           "echo 1024 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")

    def down(self):
        if FOLDER.exists():
            self.stop_all()
        if pathlib.Path(f"/run/netns/{NAMESPACE}").exists():
            end_processes([int(p) for p in run(["ip", "netns", "pids", NAMESPACE], check=False).stdout.split()])
            run(["ip", "netns", "del", NAMESPACE], check=False)
        shutil.rmtree(FOLDER, ignore_errors=True)

    def start(self, name, *command):
        process = Process(name, inside(*command), FOLDER / f"{name}.log", True)
        self.processes.append(process)
        return process

    def stop_all(self):
        self.stop_generator()
        if self.testpmd:
            self.testpmd.kill()
            self.testpmd.wait()
            self.testpmd = None
        for process in reversed(self.processes):
            process.stop()
        self.processes = []
        for path in FOLDER.iterdir():
            if path.suffix in (".sock", ".flows"):
                path.unlink()

    # CPUs: the generator is alone on the first; workers take the last ones.
    def worker_cpus(self, workers):
        return [self.cpus[-1 - i] for i in range(workers)]

    def sockets(self):
        self.sequence += 1
        return FOLDER / f"port{self.sequence}.sock"

    # Devices under test.

    # A virtio_user port that is the server waits for its peer while it starts, so the generator is started before the wait;
    # a memif client looks for its server once.
    def start_lb(self, driver, devargs, workers, mode, flows, generator=None, idle_polls=0, protocol="udp"):
        name = f"lr{self.sequence}"
        arguments = f', devargs: "{devargs}"' if devargs else ""
        worker_list = ", ".join(f"{{lcore: {cpu}}}" for cpu in self.worker_cpus(workers))
        (FOLDER / "dp.yaml").write_text(f"""name: {name}
control_socket: {FOLDER}/dp.sock
state_dir: {FOLDER}/{name}-dp
bpf_dir: {FOLDER}/bpf
workers: [{worker_list}]
ports: [{{name: lr0, driver: "{driver}", kernel_twin: tap{arguments}}}]
memory: {{mode: {self.memory}, size_mb: 256}}
idle: {{after_empty_polls: {idle_polls}, sleep_us: 50}}
flow_table: {{flows_per_worker: {max(1 << 16, 2 * flows)}, path: {FOLDER}/{name}.flows}}
capacity: {{targets: 4096, listeners: 64}}
punt: {{tap: none}}
""")
        targets = [f"10.99.0.{i + 2}" for i in range(16)]
        ip_protocol = "UDP" if protocol == "udp" else "TCP"
        (FOLDER / "lb.yaml").write_text(json.dumps({
            "version": 1, "seed": 1, "vips": [{"name": "lr", "address": VIP}],
            "listeners": [{"name": "lr-80", "vip": "lr", "protocol": ip_protocol, "port": 80, "target_groups": [{"name": "lr"}]}],
            "target_groups": [{"name": "lr", "protocol": ip_protocol, "port": 80, "forwarding_mode": mode, "health_check": {"protocol": "NONE"},
                               "targets": [{"address": address} for address in targets]}],
            "static_neighbours": [{"address": address, "mac": GEN_MAC, "interface": "lr0"} for address in targets]}))
        dp = self.start("lb-dp", BIN / "lb-dp", "--config", FOLDER / "dp.yaml")
        if driver == "virtio_user":
            self.start_generator(generator, workers, protocol)
        wait_until("lb-dp", lambda: dp.require_running() and (FOLDER / "dp.sock").exists(), 30)
        if driver == "memif":
            self.start_generator(generator, workers, protocol)
        run(inside("ip", "addr", "add", "10.99.0.1/24", "dev", "lr0"))
        cp = self.start("lb-cp", BIN / "lb-cp", "--config", FOLDER / "lb.yaml", "--socket", FOLDER / "cp.sock", "--dp-socket",
                        FOLDER / "dp.sock", "--state-dir", FOLDER / f"{name}-cp", "--metrics", "off")
        wait_until("workers to forward", lambda: cp.require_running() and all(w["generation"] > 0 for w in self.workers_of_lb())
                   and len(self.workers_of_lb()) == workers, 30)

    def lbctl(self, *arguments):
        return json.loads(run([BIN / "lbctl", "--socket", FOLDER / "cp.sock", *arguments, "-o", "json"]).stdout)

    def workers_of_lb(self):
        return rows(self.lbctl("get", "workers"))

    def start_testpmd(self, vdev, workers, generator):
        cpus = self.worker_cpus(workers)
        lcores = ",".join(f"{i}@{cpu}" for i, cpu in enumerate([cpus[0], *cpus]))
        # testpmd runs until its input ends: a pipe that stays open.
        log = open(FOLDER / "testpmd.log", "ab")
        self.testpmd = subprocess.Popen(inside("setpriv", "--pdeathsig", "KILL", "--", "dpdk-testpmd", "--lcores", lcores, "--in-memory",
                                        "--single-file-segments", "-m", 256, "--file-prefix", f"lrt{self.sequence}", "--no-pci",
                                        "--no-telemetry", "--vdev", vdev, "--", f"--nb-cores={workers}", f"--rxq={workers}",
                                        f"--txq={workers}", "--forward-mode=macswap", "--total-num-mbufs=32768", "--auto-start"),
                                 stdin=subprocess.PIPE, stdout=log, stderr=log)
        log.close()
        time.sleep(0 if "virtio_user" in vdev else 2)
        self.start_generator(generator, workers)
        time.sleep(2)
        if self.testpmd.poll() is not None:
            raise LabError("testpmd ended: " + (FOLDER / "testpmd.log").read_text()[-800:])

    # Measuring.

    def start_generator(self, vdev, workers, protocol="udp"):
        log = open(FOLDER / "lb-gen.log", "wb")
        memory = ("--in-memory", "--single-file-segments") if self.memory == "hugepages" else ("--no-huge",)
        self.generator = subprocess.Popen(
            inside("setpriv", "--pdeathsig", "KILL", "--", BIN.parent / "tests/linerate/lb-gen", "--lcores", f"0@{self.cpus[0]}", *memory,
                   "-m", 256, "--file-prefix", f"lrg{self.sequence}", "--no-pci", "--no-telemetry", "--vdev", vdev, "--",
                   "--dst", VIP, "--dst-mac", DUT_MAC, "--flows", self.options.flows, "--queues", workers, "--protocol", protocol),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        log.close()

    def stop_generator(self):
        if self.generator:
            self.generator.kill()
            self.generator.wait()
            self.generator = None

    def generate(self, rate):
        self.generator.stdin.write(f"{int(rate)} {self.options.seconds}\n")
        self.generator.stdin.flush()
        for line in self.generator.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise LabError("the generator ended: " + (FOLDER / "lb-gen.log").read_text()[-800:])

    def throughput_and_latency(self, port, dut, workers):
        self.generate(0)  # fills tables and caches
        full = [self.generate(0) for _ in range(self.options.repeats)]
        mpps = statistics.median(r["received_mpps"] for r in full)
        half = [self.generate(mpps * 5e5) for _ in range(self.options.repeats)]

        def median(results, key):
            return statistics.median(r[key] for r in results)

        return {"port": port, "dut": dut, "workers": workers, "flows": self.options.flows, "offered_mpps": median(full, "sent_mpps"),
                "mpps": mpps, "loss_pct": statistics.median(100 * r["lost"] / max(1, r["sent"]) for r in full),
                "p50_us": median(half, "p50_us"), "p99_us": median(half, "p99_us"), "p999_us": median(half, "p999_us"),
                "load_mpps": median(half, "sent_mpps")}

    def own_counters(self, port, workers, flows):
        """Forwarding rate by lb-dp's own counters; what it lost is what it dropped."""
        rates, losses = [], []
        for _ in range(self.options.repeats):
            before, start = self.workers_of_lb(), time.monotonic()
            time.sleep(self.options.seconds)
            after, seconds = self.workers_of_lb(), time.monotonic() - start

            def total(key):
                return sum(w[key] for w in after) - sum(w[key] for w in before)

            rates.append(total("forwarded_packets") / seconds / 1e6)
            losses.append(100 * total("dropped_packets") / max(1, total("rx_packets")))
        return {"port": port, "dut": "lb-dp", "workers": workers, "flows": flows, "mpps": statistics.median(rates),
                "loss_pct": statistics.median(losses)}

    # Rows.

    def through_generator(self, port, workers):
        for dut in ("lb-dp", "testpmd"):
            socket = self.sockets()
            if port == "memif":
                common = f"id=0,socket={socket},socket-abstract=no,bsize=2048,rsize=10"
                ours, generator = f"role=server,{common}", f"net_memif0,role=client,{common},mac={GEN_MAC}"
            else:
                ours = f"path={socket},server=1,queue_size=1024,queues={workers}"
                generator = f"net_vhost0,iface={socket},queues={workers},client=1"
            try:
                if dut == "lb-dp":
                    self.start_lb(port, ours, workers, "ipip", self.options.flows, generator)
                else:
                    self.start_testpmd(f"net_{port}0,{ours}", workers, generator)
                yield self.throughput_and_latency(port, dut, workers)
            finally:
                self.stop_all()

    def resting(self, packets_a_second=1000):
        for dut, polls in (("lb-dp polls", 0), ("lb-dp rests", 300)):
            common = f"id=0,socket={self.sockets()},socket-abstract=no,bsize=2048,rsize=10"
            self.start_lb("memif", f"role=server,{common}", 1, "ipip", self.options.flows, f"net_memif0,role=client,{common},mac={GEN_MAC}", polls)
            before = self.cpu_seconds()
            time.sleep(self.options.seconds)
            idle = 100 * (self.cpu_seconds() - before) / self.options.seconds
            runs = [self.generate(packets_a_second) for _ in range(self.options.repeats)]
            row = {key: statistics.median(r[key] for r in runs) for key in ("p50_us", "p99_us", "p999_us")}
            yield {"port": "idle", "dut": dut, "workers": 1, "flows": self.options.flows, "idle_cpu_pct": idle, **row,
                   "load_mpps": packets_a_second / 1e6, "loss_pct": statistics.median(100 * r["lost"] / max(1, r["sent"]) for r in runs)}
            self.stop_all()

    def cpu_seconds(self):
        """CPU time of lb-dp so far."""
        stat = pathlib.Path(f"/proc/{self.processes[0].pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def replayed(self, workers, flows=4096):
        self.sockets()
        capture = FOLDER / "in.pcap"
        run(["/usr/bin/python3", ROOT / "pktgen-scripts/make_pcap.py", "flows", "--count", flows, "--vip", VIP, "--dmac", DUT_MAC, "--out", capture])
        queues = ",".join([f"rx_pcap={capture}"] * workers + ["tx_pcap=/dev/null"] * workers)
        self.start_lb("pcap", f"{queues},infinite_rx=1", workers, "ipip", flows)
        yield self.own_counters("pcap", workers, flows)
        self.stop_all()

    def going_round(self, workers, packets=1024):
        self.sockets()
        self.start_lb("ring", "", workers, "l2dsr", packets)
        capture = FOLDER / "seed.pcap"
        run(["/usr/bin/python3", ROOT / "pktgen-scripts/make_pcap.py", "flows", "--count", packets, "--vip", VIP, "--dmac", DUT_MAC, "--out", capture])
        seed = ("import socket; from scapy.utils import RawPcapReader; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); "
                f"s.bind(('lr0', 0)); [s.send(bytes(d)) for d, _ in RawPcapReader('{capture}')]")
        run(inside("/usr/bin/python3", "-c", seed))
        yield self.own_counters("ring", workers, packets)
        self.stop_all()

    def measure(self):
        for workers in self.options.workers:
            if workers > len(self.cpus):
                print(f"linerate: {workers} workers need {workers} CPUs, there are {len(self.cpus)}: left out", file=sys.stderr)
                continue
            for port in self.options.ports:
                if port in ("memif", "virtio_user"):
                    yield from self.through_generator(port, workers)
                elif port == "pcap":
                    yield from self.replayed(workers)
                elif port == "idle" and workers == 1:
                    yield from self.resting()
                elif port == "ring" and workers == 1:  # the packets that go round stay in the queue they came by
                    yield from self.going_round(workers)


def text_of(row):
    def cell(column):
        value = row.get(column)
        return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)

    return "  ".join(f"{cell(column):>12}" for column in COLUMNS)


def main():
    parser = argparse.ArgumentParser(prog="./run linerate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ports", nargs="+", choices=PORTS, default=PORTS)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--flows", type=int, default=65536)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--csv", help="write the rows there as well")
    options = parser.parse_args()
    bench = Bench(options)
    found = []
    try:
        bench.up()
        print("  ".join(f"{column:>12}" for column in COLUMNS), flush=True)
        for row in bench.measure():
            found.append(row)
            print(text_of(row), flush=True)
    except (LabError, subprocess.TimeoutExpired) as error:
        print(f"linerate: {error}", file=sys.stderr)
        return 1
    finally:
        bench.down()
    if options.csv:
        with open(options.csv, "w", newline="") as out:
            writer = csv.DictWriter(out, COLUMNS)
            writer.writeheader()
            writer.writerows(found)
    print(f"linerate: {len(found)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
