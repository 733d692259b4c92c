"""Golden packets: a sentence, packets in, verdicts and packets out.

A Case says what lb promises; its packets are built with scapy, those expected as well, so that nothing of lb's own code
is in the expectation. Fields lb is free to choose (the id of an outer IPv4 header that may be fragmented, the flow label of an
outer IPv6 header) are taken from what came out and asked to be the same for all packets of a flow where the case says so.

What holds for every run is checked for every case: one line of JSON for each packet, in order, with all its keys; every
frame of --out named by exactly one line, in order; the sums of the counters; and that another --secret changes nothing.
"""
import dataclasses
import json
import os
import re
import subprocess
from typing import Callable, Optional

import yaml
from scapy.all import Ether
from scapy.packet import Packet

from . import pcap

KEYS = ["n", "verdict", "reason", "listener", "target_group", "target", "flow", "worker", "out_len", "out"]
ANY = object()  # a field whose value is not part of the promise


@dataclasses.dataclass
class Expect:
    """Fields of the JSON line, and frames: bytes, packets, or functions from what came out to what is expected."""
    fields: dict
    frames: list


@dataclasses.dataclass
class Case:
    topic: str
    sentence: str
    config: dict
    packets: list                         # frames, or (seconds, frame), or (seconds, frame, bytes captured)
    expect: Optional[list] = None         # one Expect for each packet
    check: Optional[Callable] = None      # check(run): properties instead of exact bytes
    events: Optional[list] = None
    files: dict = dataclasses.field(default_factory=dict)  # name → config, for `apply` events
    args: list = dataclasses.field(default_factory=list)

    @property
    def name(self):
        return self.topic + "-" + re.sub(r"[^a-z0-9]+", "-", self.sentence.lower()).strip("-")


@dataclasses.dataclass
class Run:
    verdicts: list   # dicts, by packet
    frames: list     # bytes, by index
    stamps: list     # of the frames, in ticks of the file
    summary: dict    # counter → value

    def out(self, n):
        return [self.frames[i] for i in self.verdicts[n]["out"]]

    def targets(self):
        return [verdict["target"] for verdict in self.verdicts]


CASES = []


def case(topic, sentence, **kwargs):
    CASES.append(Case(topic, sentence, **kwargs))


def as_bytes(frame):
    return bytes(frame) if isinstance(frame, (bytes, bytearray)) else bytes(frame)


def captured(packets):
    """Case packets → (seconds, captured bytes, wire length)."""
    result = []
    for n, item in enumerate(packets):
        if not isinstance(item, tuple):
            item = (n * 0.001, item)
        seconds, frame = item[0], as_bytes(item[1])
        kept = item[2] if len(item) > 2 else len(frame)
        result.append((seconds, frame[:kept], len(frame)))
    return result


def replay(binary, directory, case, extra=()):
    def write_yaml(name, content):
        path = directory / name
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return str(path)

    for name, content in case.files.items():
        write_yaml(name, content)
    pcap.write(directory / "in.pcap", captured(case.packets))
    command = [binary, "--config", write_yaml("lb.yaml", case.config), "--in", str(directory / "in.pcap"),
               "--out", str(directory / "out.pcap"), "--json", str(directory / "verdicts.jsonl"), "--summary"]
    if case.events is not None:
        command += ["--events", write_yaml("events.yaml", case.events)]
    done = subprocess.run(command + list(case.args) + list(extra), capture_output=True, text=True, timeout=60, check=False,
                          env={**os.environ, "LC_ALL": "C"})
    assert done.returncode == 0, f"lb-replay failed: {done.stderr}"
    lines = (directory / "verdicts.jsonl").read_text().splitlines()
    out = pcap.read(directory / "out.pcap")[1]
    summary = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()}
    return Run([json.loads(line) for line in lines], [frame for _, frame in out], [at for at, _ in out], summary)


def check_invariants(case, run):
    assert len(run.verdicts) == len(case.packets), "one line for each packet"
    for n, verdict in enumerate(run.verdicts):
        ruled = ["rule"] if verdict["reason"] == "security_group" else []
        assert list(verdict) == KEYS + ruled, f"keys of line {n}"
        assert verdict["n"] == n
        assert verdict["verdict"] in ("tx", "punt", "drop")
        assert (verdict["reason"] is not None) == (verdict["verdict"] == "drop"), f"line {n}: reason"
        assert verdict["flow"] in ("hit", "new", "none")
        if verdict["verdict"] == "tx":
            assert verdict["out"] and verdict["out_len"] == len(run.out(n)[-1]), f"line {n}: out_len"
            assert verdict["listener"] and verdict["target_group"] and verdict["target"]
        elif not str(verdict["reason"]).startswith("answered_"):
            assert verdict["out"] == [] and verdict["out_len"] is None, f"line {n}: nothing was sent"
    # A packet that was held sends its frame later than those behind it.
    assert sorted(i for verdict in run.verdicts for i in verdict["out"]) == list(range(len(run.frames)))
    counted = run.summary
    drops = {name: value for name, value in counted.items() if name.startswith("drop_")}
    assert counted["rx_packets"] == len(case.packets)
    assert counted["rx_packets"] == counted["forwarded_packets"] + counted["punted_packets"] + sum(drops.values())
    assert counted["tx_packets"] == len(run.frames)
    assert counted["tx_packets"] == counted["forwarded_packets"] + counted["extra_fragments"] + counted["originated_rst"] + counted["originated_icmp"]
    assert counted["extra_fragments"] == sum(len(v["out"]) - 1 for v in run.verdicts if v["verdict"] == "tx")
    for name, value in drops.items():
        assert value == sum(1 for v in run.verdicts if v["reason"] == name[len("drop_"):]), name


def describe(data):
    try:
        text = Ether(data).show(dump=True)
    except Exception as error:  # a frame scapy cannot take apart is shown as bytes
        return f"({error})"
    return "\n".join(line[:120] for line in text.splitlines())


def difference(expected, actual):
    """What scapy sees in both, and the rows of bytes that differ."""
    lines = [] if len(expected) == len(actual) else [f"length: expected {len(expected)}, came {len(actual)}"]
    rows = [at for at in range(0, max(len(expected), len(actual)), 16) if expected[at:at + 16] != actual[at:at + 16]]
    for at in rows[:8]:
        lines += [f"  {at:04x} expected  {expected[at:at + 16].hex(' ')}", f"       came      {actual[at:at + 16].hex(' ')}"]
    if len(rows) > 8:
        lines.append(f"  … and {len(rows) - 8} more rows of 16 bytes")
    return "\n".join(lines) + f"\n--- expected\n{describe(expected)}\n--- came\n{describe(actual)}"


def check_expectations(case, run):
    assert len(case.expect) == len(case.packets), "the case has an expectation for each packet"
    for n, expect in enumerate(case.expect):
        verdict = run.verdicts[n]
        for key, want in expect.fields.items():
            if want is not ANY and verdict[key] != want:
                raise AssertionError(f"packet {n}: {key}: expected {want!r}, came {verdict[key]!r}\n{json.dumps(verdict)}")
        frames = run.out(n)
        if len(frames) != len(expect.frames):
            raise AssertionError(f"packet {n}: expected {len(expect.frames)} frames, came {len(frames)}\n{json.dumps(verdict)}")
        for want, got in zip(expect.frames, frames):
            wanted = as_bytes(want if isinstance(want, (bytes, Packet)) else want(got))
            if wanted != got:
                raise AssertionError(f"packet {n}: frame differs\n{difference(wanted, got)}")


def run_case(binary, directory, case):
    try:
        run = replay(binary, directory, case)
        check_run(case, run)
        # The node secret is the flow table's business: it chooses neither targets nor verdicts.
        again = replay(binary, directory, case, extra=["--secret", "0123456789abcdef0123456789abcdef"])
        check_run(case, again)
        assert again.verdicts == run.verdicts, "another node secret changed a verdict"
    except AssertionError as error:
        raise AssertionError(f"\n{case.sentence}\n\n{error}") from None


def check_run(case, run):
    check_invariants(case, run)
    if case.expect is not None:
        check_expectations(case, run)
    if case.check is not None:
        case.check(run)


# ---- expectations ----

def tx(frame, **fields):
    return Expect({"verdict": "tx", "reason": None, **fields}, [frame])


def drop(reason, **fields):
    return Expect({"verdict": "drop", "reason": reason, "out_len": None, **fields}, [])


def punt(**fields):
    return Expect({"verdict": "punt", "reason": None, "listener": None, "target_group": None, "target": None, "flow": "none",
                   "out_len": None, **fields}, [])


def answered(reason, *frames, **fields):
    return Expect({"verdict": "drop", "reason": reason, **fields}, list(frames))
