"""./run chaos [--json FILE] [EVENT…]: the table "What becomes of a flow", measured with real TCP connections.

  tracked    connections that were open when it happened (resting and transferring) and those opened meanwhile
  lost       of them: reset, unanswered for 30 s, or on another target, although the row promises to keep them; or not reset
             where the row promises that; or new ones on a target that may take none
  moved      ended as the row promises; the client's next connection goes elsewhere
  gap_ms     the longest time without an answer to one of 200 datagrams a second
  by dp      packets that lb-dp took for these VIPs;  by XDP: packets to them that reached the kernel beside lb-dp
"""

import argparse
import json
import os
import pathlib
import sys
import time
import traceback

from tests.chaos import events, setup
from tests.lib.lab import LabError
from tests.run import junit

COLUMNS = "{:<22} {:<8} {:<4} {:>8} {:>6} {:>6} {:>8} {:>11} {:>8}"


def judge(promise, population, found):
    """(lost, moved, what went wrong)."""
    broken_as_promised, wrong = 0, []
    for broken in found["broken"]:
        if broken["target"] in promise.ended and broken["why"] == "reset":
            broken_as_promised += 1
        else:
            wrong.append(f"{broken['kind']} on {broken['target']}: {broken['why']}")
    promised = sum(found["tracked_by_target"].get(target, 0) for target in promise.ended)
    kept = max(0, promised - broken_as_promised)
    wrong += ["kept although it should have been reset"] * kept
    wrong += ["new on a target that takes none"] * found["avoided"]
    return len(wrong), broken_as_promised, wrong


def fill(world):
    filled = world.clients.ask("fill")
    if filled["unanswered"] or filled["broken"]:
        raise LabError(f"the clients could not connect: {filled}")


def forwarded_between(before, seen, after):
    """lb-cp adds up what several lb-dp have counted, but a new lb-cp starts at 0."""
    return after - before if after >= seen else seen - before + after


def measure(world, name, event):
    """The rows of one event, one for each population."""
    fill(world)
    happening = event(world)
    promise = next(happening)
    fill(world)
    before, passed = world.forwarded(), world.taps.counts.copy()
    world.clients.ask("begin")
    time.sleep(1)
    seen = world.forwarded()
    next(happening)
    found = world.clients.ask("end")
    after = world.forwarded()
    for _ in happening:
        pass
    made = []
    for population in setup.POPULATIONS:
        own = found[population.name]
        lost, moved, wrong = judge(promise, population, own)
        if promise.off_hash and not own["tracked_by_target"].get(promise.off_hash):
            lost, wrong = lost + 1, [*wrong, f"no flow on {promise.off_hash}: nothing shows that the flow table was used"]
        made.append({"event": name, "mode": population.mode, "ip": population.family, "tracked": sum(own["tracked_by_target"].values()) + own["new"],
                     "lost": lost, "moved": moved, "gap_ms": own["gap_ms"],
                     "forwarded_by_dp": forwarded_between(*(counted[population.name] for counted in (before, seen, after))),
                     "passed_by_xdp": world.taps.counts[population.name] - passed[population.name], "wrong": wrong})
    return made


def show(row):
    print(COLUMNS.format(row["event"], row["mode"], row["ip"], row["tracked"], row["lost"], row["moved"], row["gap_ms"], row["forwarded_by_dp"],
                         row["passed_by_xdp"]), flush=True)
    for text in sorted(set(row["wrong"])):
        print(f"    {row['wrong'].count(text)} × {text}", flush=True)


def failed(row):
    """A row without a loss is still no good if lb-dp did not do the work, or somebody else did."""
    return row["lost"] > 0 or row["passed_by_xdp"] > 0 or row["forwarded_by_dp"] == 0


def run(wanted, idle, busy, new_per_second):
    world, found = setup.World(idle, busy, new_per_second), []
    try:
        world.up()
        print(COLUMNS.format("event", "mode", "ip", "tracked", "lost", "moved", "gap ms", "by dp", "by XDP"), flush=True)
        for name in wanted:
            for row in measure(world, name, events.EVENTS[name]):
                found.append(row)
                show(row)
    except (LabError, OSError, KeyError) as error:
        traceback.print_exc()
        found.append({"event": "the run itself", "lost": 1, "wrong": [str(error)], "passed_by_xdp": 0, "forwarded_by_dp": 1})
        for log in sorted(world.lab.folder.glob("lb-*.log")):
            print(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-25:]), file=sys.stderr)
    finally:
        world.down()
    return found


def main():
    parser = argparse.ArgumentParser(prog="./run chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("events", nargs="*", metavar="EVENT", help="only these: " + " ".join(events.EVENTS))
    parser.add_argument("-k", dest="expression", default="", help="only events with this in their name")
    parser.add_argument("--json", help="write the rows there as well")
    parser.add_argument("--junit", help=argparse.SUPPRESS)
    parser.add_argument("--idle", type=int, default=900, help="resting connections of each mode and family (default 900)")
    parser.add_argument("--busy", type=int, default=100, help="transferring ones (default 100)")
    parser.add_argument("--new", type=int, default=20, help="new connections a second (default 20)")
    options = parser.parse_args()
    for name in options.events:
        if name not in events.EVENTS:
            parser.error(f"unknown event {name}; there are: {' '.join(events.EVENTS)}")
    if os.geteuid() != 0:
        parser.error("it makes network namespaces: run it as root")
    rows = run([name for name in options.events or events.EVENTS if options.expression in name], options.idle, options.busy, options.new)
    if options.json:
        whole = [{key: value for key, value in row.items() if key != "wrong"} for row in rows if "mode" in row]
        pathlib.Path(options.json).write_text(json.dumps(whole, indent=1) + "\n")
    if options.junit:
        junit.write(options.junit, "chaos", [(f"{row['event']}[{row.get('mode', '')}-{row.get('ip', '')}]", 0.0,
                                              "\n".join(row["wrong"]) or str(row) if failed(row) else None) for row in rows])
    lost = sum(max(row["lost"], int(failed(row))) for row in rows)
    print(f"chaos: {len(rows)} rows, {lost} lost", flush=True)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
