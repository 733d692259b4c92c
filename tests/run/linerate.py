"""./run linerate: lb-dp itself, over DPDK ports, beside testpmd on the same ports.

  memif, virtio_user   lb-gen (tests/linerate) sends from CPU 0 and takes back what comes home; the device under test is
                       pinned to CPU 1 (with two workers: to both). Throughput at full speed, then latency at half of it.
  pcap                 the port plays a file for ever (infinite_rx): no generator, the workers' own counters
  ring                 what is sent comes back: 1,024 packets go round for ever, the workers' own counters

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
COLUMNS = ["port", "dut", "workers", "flows", "offered_mpps", "mpps", "loss_pct", "p50_us", "p99_us", "p999_us", "load_mpps"]


def inside(*command):
    return ["nsenter", f"--net=/run/netns/{NAMESPACE}", "--", *map(str, command)]


class Bench:
    def __init__(self, options):
        self.options = options
        self.cpus = sorted(os.sched_getaffinity(0))
        self.processes = []
        self.sequence = 0

    # Set-up and clean-up: whatever runs in the namespace is ours.

    def up(self):
        self.down()
        FOLDER.mkdir(parents=True)
        run(["ip", "netns", "add", NAMESPACE])
        run(inside("ip", "link", "set", "lo", "up"))
        free = int(pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text())
        if free < 400:
            raise LabError(f"linerate needs 400 free hugepages of 2 MiB, {free} are free: "
                           "echo 1024 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")

    def down(self):
        for process in self.processes:
            process.stop()
        self.processes = []
        if pathlib.Path(f"/run/netns/{NAMESPACE}").exists():
            end_processes([int(p) for p in run(["ip", "netns", "pids", NAMESPACE], check=False).stdout.split()])
            run(["ip", "netns", "del", NAMESPACE], check=False)
        shutil.rmtree(FOLDER, ignore_errors=True)

    def start(self, name, *command):
        process = Process(name, inside(*command), FOLDER / f"{name}.log", True)
        self.processes.append(process)
        return process

    def stop_all(self):
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

    def start_lb(self, driver, devargs, workers, mode, flows):
        name = f"lr{self.sequence}"
        worker_list = ", ".join(f"{{lcore: {cpu}}}" for cpu in self.worker_cpus(workers))
        (FOLDER / "dp.yaml").write_text(f"""name: {name}
control_socket: {FOLDER}/dp.sock
state_dir: {FOLDER}/{name}-dp
bpf_dir: {FOLDER}/bpf
workers: [{worker_list}]
ports: [{{name: lr0, driver: "{driver}", kernel_twin: tap, devargs: "{devargs}"}}]
memory: {{mode: hugepages, size_mb: 256}}
flow_table: {{flows_per_worker: {max(1 << 16, 2 * flows)}, path: {FOLDER}/{name}.flows}}
capacity: {{targets: 4096, listeners: 64}}
punt: {{tap: none}}
""")
        targets = [f"10.99.0.{i + 2}" for i in range(16)]
        (FOLDER / "lb.yaml").write_text(json.dumps({
            "version": 1, "seed": 1, "vips": [{"name": "lr", "address": VIP}],
            "listeners": [{"name": "lr-80", "vip": "lr", "protocol": "UDP", "port": 80, "target_groups": [{"name": "lr"}]}],
            "target_groups": [{"name": "lr", "protocol": "UDP", "port": 80, "forwarding_mode": mode, "health_check": {"protocol": "NONE"},
                               "targets": [{"address": address} for address in targets]}],
            "static_neighbours": [{"address": address, "mac": GEN_MAC, "interface": "lr0"} for address in targets]}))
        dp = self.start("lb-dp", BIN / "lb-dp", "--config", FOLDER / "dp.yaml")
        wait_until("lb-dp", lambda: dp.require_running() and (FOLDER / "dp.sock").exists(), 30)
        run(inside("ip", "addr", "add", "10.99.0.1/24", "dev", "lr0"))
        cp = self.start("lb-cp", BIN / "lb-cp", "--config", FOLDER / "lb.yaml", "--socket", FOLDER / "cp.sock", "--dp-socket",
                        FOLDER / "dp.sock", "--state-dir", FOLDER / f"{name}-cp", "--metrics", "off")
        wait_until("workers to forward", lambda: cp.require_running() and all(w["generation"] > 0 for w in self.workers_of_lb())
                   and len(self.workers_of_lb()) == workers, 30)

    def lbctl(self, *arguments):
        return json.loads(run([BIN / "lbctl", "--socket", FOLDER / "cp.sock", *arguments, "-o", "json"]).stdout)

    def workers_of_lb(self):
        return rows(self.lbctl("get", "workers"))

    def start_testpmd(self, vdev, workers, *extra):
        cpus = self.worker_cpus(workers)
        lcores = ",".join(f"{i}@{cpu}" for i, cpu in enumerate([cpus[0], *cpus]))
        # testpmd runs until its input ends: a pipe that stays open.
        log = open(FOLDER / "testpmd.log", "ab")
        popen = subprocess.Popen(inside("setpriv", "--pdeathsig", "KILL", "--", "dpdk-testpmd", "--lcores", lcores, "--in-memory",
                                        "--single-file-segments", "-m", 256, "--file-prefix", f"lrt{self.sequence}", "--no-pci",
                                        "--no-telemetry", "--vdev", vdev, "--", f"--nb-cores={workers}", f"--rxq={workers}",
                                        f"--txq={workers}", "--forward-mode=macswap", "--total-num-mbufs=32768", "--auto-start", *extra),
                                 stdin=subprocess.PIPE, stdout=log, stderr=log)
        log.close()
        time.sleep(2)
        if popen.poll() is not None:
            raise LabError("testpmd ended: " + (FOLDER / "testpmd.log").read_text()[-800:])
        return popen

    # Measuring.

    def generate(self, vdev, workers, rate):
        done = run(inside(BIN.parent / "tests/linerate/lb-gen", "--lcores", f"0@{self.cpus[0]}", "--in-memory", "--single-file-segments",
                          "-m", 256, "--file-prefix", f"lrg{self.sequence}", "--no-pci", "--no-telemetry", "--vdev", vdev, "--", "--dst", VIP,
                          "--dst-mac", DUT_MAC, "--flows", self.options.flows, "--seconds", self.options.seconds, "--queues", workers,
                          "--rate", int(rate)), timeout=120)
        return json.loads(done.stdout.strip().splitlines()[-1])

    def throughput_and_latency(self, port, dut, workers, vdev):
        full = [self.generate(vdev, workers, 0) for _ in range(self.options.repeats)]
        mpps = statistics.median(r["received_mpps"] for r in full)
        half = [self.generate(vdev, workers, mpps * 5e5) for _ in range(self.options.repeats)]

        def median(results, key):
            return statistics.median(r[key] for r in results)

        return {"port": port, "dut": dut, "workers": workers, "flows": self.options.flows, "offered_mpps": median(full, "sent_mpps"), "mpps": mpps,
                "loss_pct": statistics.median(100 * r["lost"] / max(1, r["sent"]) for r in full), "p50_us": median(half, "p50_us"),
                "p99_us": median(half, "p99_us"), "p999_us": median(half, "p999_us"), "load_mpps": median(half, "sent_mpps")}

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
        socket = self.sockets()
        queues = f"queues={workers}"
        if port == "memif":
            common = f"id=0,socket={socket},socket-abstract=no,bsize=2048,rsize=10"
            dut, gen, testpmd = f"role=server,{common}", f"net_memif0,role=client,{common},mac={GEN_MAC}", f"net_memif0,role=server,{common}"
        else:
            dut = f"path={socket},server=1,queue_size=1024,{queues}"
            gen, testpmd = f"net_vhost0,iface={socket},{queues},client=1", f"net_virtio_user0,{dut}"
        self.start_lb(port, dut, workers, "ipip", self.options.flows)
        yield self.throughput_and_latency(port, "lb-dp", workers, gen)
        self.stop_all()
        popen = self.start_testpmd(testpmd, workers)
        try:
            yield self.throughput_and_latency(port, "testpmd", workers, gen)
        finally:
            popen.kill()
            popen.wait()
            self.stop_all()

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
                else:
                    yield from self.going_round(workers)


def text_of(row):
    def cell(column):
        value = row.get(column)
        return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)

    return "  ".join(f"{cell(column):>12}" for column in COLUMNS)


def main():
    parser = argparse.ArgumentParser(prog="./run linerate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ports", nargs="+", choices=["memif", "virtio_user", "pcap", "ring"], default=["memif", "virtio_user", "pcap", "ring"])
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
