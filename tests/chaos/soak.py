"""./run soak [--hours H]: real clients for hours, while a target is drained or returns each second, the configuration changes
each minute, a bad one is sent each minute, and lb-cp is killed each hour (at least three times in a run).

It ends with `soak: … ok`, exit 0, if no connection was lost, lb-dp's memory grew by less than 1 % between the first third and
the end, lb-cp's too (compared at the same age of the process where it was killed), and per worker, once traffic rests,
rx = forwarded + punted + Σ drops.
"""

import argparse
import os
import pathlib
import re
import sys
import time

from tests.chaos import setup
from tests.lib.lab import LabError, wait_until

ROUND = 10  # seconds between two looks at the clients
GROWTH = 1.01


def resident_kib(pid):
    return int(re.search(r"^VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.MULTILINE).group(1))


class Soak:
    def __init__(self, world, seconds):
        self.world, self.seconds = world, seconds
        self.problems, self.connections, self.kills, self.applies, self.refused, self.changes = [], 0, 0, 0, 0, 0
        self.dp_memory, self.cp_memory = [], []

    def change_a_target(self):
        """t1 leaves and comes back in turn."""
        if self.changes % 2:
            self.world.undrain("t1")
        else:
            self.world.drain("t1")
        self.changes += 1

    def change_config(self):
        self.applies += 1
        self.world.apply(weights={"t2": 1 + self.applies % 5})
        bad = self.world.lab.folder / "bad.yaml"
        bad.write_text(setup.config(spoiled=True))
        if self.world.balancer.lbctl("apply", "-f", bad, check=False).returncode == 0:
            self.problems.append("a bad configuration was taken")
        self.refused += 1

    def kill_cp(self):
        self.kills += 1
        self.world.balancer.kill_cp()
        self.world.balancer.start_cp()
        self.world.balancer.wait_connected()
        self.cp_memory = [resident_kib(self.world.balancer.cp.pid)]

    def one_round(self, number):
        filled = self.world.clients.ask("fill")
        if filled["unanswered"] or filled["broken"]:
            self.problems.append(f"clients could not connect: {filled}")
        self.world.clients.ask("begin")
        end = time.monotonic() + ROUND
        while time.monotonic() < end:
            self.change_a_target()
            time.sleep(max(0.0, min(1.0, end - time.monotonic())))
        if number % (60 // ROUND) == 1:
            self.change_config()
        for name, found in self.world.clients.ask("end").items():
            self.connections += found["new"]
            self.problems += [f"{name}: {broken['kind']} on {broken['target']}: {broken['why']}" for broken in found["broken"]]
        self.dp_memory.append(resident_kib(self.world.balancer.dp.pid))
        self.cp_memory.append(resident_kib(self.world.balancer.cp.pid))

    def accounts(self):
        """Exact once traffic rests: the clients are stopped first."""
        self.world.clients.stop()
        last = None

        def at_rest():
            nonlocal last
            now = self.world.balancer.rows("workers")
            still = last is not None and [row["rx_packets"] for row in now] == [row["rx_packets"] for row in last]
            last = now
            return still

        wait_until("traffic to rest", at_rest, 30, every=1.5)
        for row in last:
            rx, ends = int(row["rx_packets"]), sum(int(row[key]) for key in ("forwarded_packets", "punted_packets", "dropped_packets"))
            print(f"worker {row['worker']}: rx {rx} = forwarded + punted + dropped {ends}", flush=True)
            if rx != ends:
                self.problems.append(f"worker {row['worker']}: {rx} packets came, {ends} are accounted for")

    def growth(self, name, samples):
        third = samples[len(samples) // 3:]
        if len(third) < 3:
            return
        print(f"{name}: {third[0]} KiB after a third of the time, {third[-1]} KiB at the end", flush=True)
        if third[-1] > third[0] * GROWTH + 256:  # 256 KiB: a page cache of an allocator, not a leak
            self.problems.append(f"{name} grew from {third[0]} to {third[-1]} KiB")

    def run(self):
        started, number = time.monotonic(), 0
        kill_every = min(3600.0, self.seconds / 4)
        while time.monotonic() < started + self.seconds:
            number += 1
            self.one_round(number)
            if time.monotonic() > started + kill_every * (self.kills + 1) and time.monotonic() < started + self.seconds * 0.8:
                self.kill_cp()
            if number % (60 // ROUND) == 0:
                print(f"{(time.monotonic() - started) / 60:.0f} min: {self.connections} new connections, {self.changes} target changes, "
                      f"{self.applies} configurations, {self.refused} refused, lb-cp killed {self.kills} times, {len(self.problems)} problems, "
                      f"lb-dp {self.dp_memory[-1]} KiB, lb-cp {self.cp_memory[-1]} KiB", flush=True)
        self.accounts()
        self.growth("lb-dp", self.dp_memory)
        self.growth("lb-cp", self.cp_memory)


def main():
    parser = argparse.ArgumentParser(prog="./run soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0)
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("it makes network namespaces: run it as root")
    world = setup.World(idle=200, busy=100, new_per_second=40)
    soak = Soak(world, options.hours * 3600)
    try:
        world.up()
        soak.run()
    except (LabError, OSError, KeyError) as error:
        soak.problems.append(str(error))
    finally:
        world.down()
    for problem in sorted(set(soak.problems)):
        print(f"{soak.problems.count(problem)} × {problem}")
    print(f"soak: {options.hours:g} hours, {soak.connections} connections, {len(soak.problems)} problems: {'failed' if soak.problems else 'ok'}")
    return 1 if soak.problems else 0


if __name__ == "__main__":
    sys.exit(main())
