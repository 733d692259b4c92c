"""Of ./run bench --control: what lb-cp uses of one core while it probes 10,000 targets every 10 s."""

import json
import signal
import sys
import time

from tests.lib.balancer import rows
from tests.lib.lab import LabError, Process, run, wait_until

GROUPS, SECONDS = 100, 20


def configuration(vip):
    lines = ["version: 1", "vips:", f"  - {{name: web, address: {vip}}}", "listeners:"]
    lines += [f"  - {{name: l{g}, vip: web, protocol: TCP, port: {1000 + g}, target_groups: [{{name: g{g}}}]}}" for g in range(GROUPS)]
    lines += ["target_groups:"]
    for group in range(GROUPS):
        targets = ", ".join(f"{{address: 10.100.{group}.{t + 1}}}" for t in range(100))
        lines.append(f"  - {{name: g{group}, protocol: TCP, table_size: 4093, health_check: {{port: 8001, interval: 10}}, targets: [{targets}]}}")
    return "\n".join(lines) + "\n"


def states(bench):
    return [row["state"] for row in rows(json.loads(bench.lbctl("get", "targets", "-o", "json").stdout))]


def measure(bench, inside, server, cpu_seconds, folder, vip):
    """`inside`: a command, in the targets' namespace. `server`: the file that serves port 8001 on every address."""
    path = folder / "probes.yaml"
    path.write_text(configuration(vip))
    run(inside("ip", "route", "replace", "local", "10.100.0.0/14", "dev", "lo"))
    listening = Process("probed", inside(sys.executable, server, "--serve-storm"), folder / "probed.log", True)
    try:
        bench.lbctl("apply", "--force", "-f", path)
        wait_until("all targets to be healthy", lambda: states(bench).count("healthy") == 100 * GROUPS, 60, every=0.5)
        cpu, start = cpu_seconds(bench.cp.pid), time.monotonic()
        time.sleep(SECONDS)
        used = 100 * (cpu_seconds(bench.cp.pid) - cpu) / (time.monotonic() - start)
        if states(bench).count("healthy") != 100 * GROUPS:
            raise LabError("not all targets stayed healthy")
        bench.row("probes-10000-cpu", [used], "%", 100)
    finally:
        listening.stop(signal.SIGKILL)
