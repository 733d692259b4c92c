"""Feeds random events to the specification (balancer.py) and to lb-replay, and compares what both say of every packet.

  python3 -m tests.spec.differ [--events N] [--seed S] [--jobs J]    N events (default 100,000) in runs of about 2,000

An event is a packet, a configuration, a change of health, a drain, or time that passes. Run R of seed S is always the same run; a mismatch names
it, and `--only R` repeats it alone and keeps its files. Ends with `spec: N events in R runs, M mismatches`; exit 0 only if M is 0.
"""
import argparse
import concurrent.futures
import ipaddress
import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile

from tests.golden import pcap
from tests.spec.balancer import ACK, FIN, PSH, RST, SYN, URG, Balancer, Packet

ROOT = pathlib.Path(__file__).resolve().parents[2]
REPLAY = pathlib.Path(os.environ.get("LB_BUILD", ROOT / "build")).resolve() / "bin/lb-replay"
RUN_EVENTS = 2000
PACKETS_AT_ONCE = 50  # below what lb answers in a burst: its rate limits are no part of the specification

VIPS = [{"name": "web", "address": "192.0.2.10"}, {"name": "web6", "address": "2001:db8:ff::10"}, {"name": "wide", "address": "198.51.100.0/24"},
        {"name": "inner", "address": "198.51.100.64/26"}, {"name": "one", "address": "198.51.100.70"}, {"name": "wide6", "address": "2001:db8:fe::/48"}]
WITHIN = {"web": ["192.0.2.10"], "web6": ["2001:db8:ff::10"], "wide": ["198.51.100.9", "198.51.100.200"], "inner": ["198.51.100.65"],
          "one": ["198.51.100.70"], "wide6": ["2001:db8:fe:1::5"]}
TARGETS_V4 = [f"10.77.2.{i}" for i in range(2, 8)]
TARGETS_V6 = [f"2001:db8:2::{i:x}" for i in range(2, 8)]
# Where a listener may be, and which groups it may use: all targets are on port 80, which only nat translates to.
PLACES = [("web", "80"), ("web", "443"), ("web", "70-90"), ("web", "1-1000"), ("web6", "80"), ("web6", "8080"), ("web6", "60-100"), ("wide", "80"),
          ("wide", "1-200"), ("inner", "80"), ("one", "80"), ("one", "79-81"), ("wide6", "80")]

SECURITY_GROUPS = ["office", "world"]
SOURCES = ["any", "203.0.113.0/24", "203.0.113.0/30", "203.0.113.2/31", "203.0.113.1", "203.0.113.4", "2001:db8::/32", "2001:db8:c::/126",
           "2001:db8:c::2", "2001:db8:c::4"]


class Script:
    """One run: its configurations, and its events in order."""

    def __init__(self, seed, events):
        self.random = random.Random(seed)
        self.replies = self.random.random() < 0.6  # with one worker: what a reply on another queue tells, it tells later
        self.workers = 1 if self.replies else self.random.randint(1, 4)
        self.fleet_seed = self.random.getrandbits(63)
        self.groups = {name: self.kind_of_group(name) for name in ("red", "blue", "green", "gold", "grey", "pink")}
        self.recent, self.late, self.datagrams = [], [], 0
        self.unhealthy = [target for target in TARGETS_V4 + TARGETS_V6 if self.random.random() < 0.1]
        self.configs = [self.config()]
        self.moments = [(0, [], self.packets())]
        count, now = len(self.moments[0][2]), 0
        while count < events:
            now += self.step()
            happenings = [self.happening() for _ in range(self.pick([0, 0, 0, 1, 2]))]
            packets = self.packets() if self.random.random() < 0.85 else []
            self.moments.append((now, [each for each in happenings if each], packets))
            count += 1 + len(happenings) + len(packets)
        self.moments.append((now + 1, [], [self.packet()]))
        self.count = count

    def chance(self, probability):
        return self.random.random() < probability

    def pick(self, values):
        return self.random.choice(values)

    def step(self):
        """Seconds: mostly few, at times as long as a timeout, now and then for ever."""
        if self.chance(0.85):
            return self.pick([1, 1, 1, 2, 3, 5])
        return self.pick([9, 10, 11, 20, 29, 30, 31, 59, 60, 61, 75, 90, 120, 121]) if self.chance(0.95) else self.random.randint(100, 15000)

    # ---- configurations

    def kind_of_group(self, name):
        """What a group is for good."""
        mode = self.pick(["ipip", "ipip", "l2dsr", "gue", "gre", "nat", "nat"])
        return {"name": name, "mode": mode, "v6": self.chance(0.3), "tcp_udp": self.pick(["TCP", "TCP", "UDP", "TCP_UDP", "TCP_UDP"])}

    def attributes(self, protocol):
        found = {}

        def maybe(name, *values):
            if self.chance(0.5):
                found[name] = self.pick(values)
                return True
            return False

        maybe("deregistration_delay.timeout_seconds", 0, 1, 5, 30, 90)
        if maybe("deregistration_delay.then", "leave", "reset", "rehash") is False:
            maybe("deregistration_delay.connection_termination.enabled", True, False)
        if maybe("target_health_state.unhealthy.connection_termination.enabled", False, False, True) and \
                not found["target_health_state.unhealthy.connection_termination.enabled"]:
            maybe("target_health_state.unhealthy.draining_interval_seconds", 0, 3, 20, 100)
        maybe("tcp.idle_timeout.seconds", 60, 61, 90, 200, 6000)
        maybe("udp.idle_timeout.seconds", 10, 11, 30, 600)
        maybe("target_group_health.unhealthy_state_routing.minimum_healthy_targets.count", 1, 2, 3)
        maybe("target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage", "off", "30", "50", "100")
        if self.chance(0.3):
            found["slow_start.duration_seconds"] = self.pick([0, 30, 31, 64, 100, 900])
        if self.chance(0.3):
            found["stickiness.enabled"] = True
            maybe("stickiness.type", "source_ip", "source_ip_dest_ip", "source_ip_dest_ip_proto")
        return found

    def group(self, kind):
        addresses = TARGETS_V6 if kind["v6"] else TARGETS_V4
        if kind["mode"] in ("ipip", "gue", "gre"):
            addresses = TARGETS_V4[:3] + TARGETS_V6[:3]
        chosen = self.random.sample(addresses, self.random.randint(0 if self.chance(0.1) else 1, len(addresses)))
        targets = [{"address": address, **({"weight": self.pick([0, 1, 1, 2, 5])} if self.chance(0.4) else {})} for address in chosen]
        return {"name": kind["name"], "protocol": kind["tcp_udp"], "port": 80, "forwarding_mode": kind["mode"], "table_size": self.pick([251, 509]),
                "attributes": self.attributes(kind["tcp_udp"]), "targets": targets,
                "health_check": {"protocol": self.pick(["TCP", "TCP", "TCP", "NONE"]), "port": "80", "interval": self.pick([1, 2, 7])}}

    def fits(self, kind, vip, port, protocol):
        family_v6, exact = vip.endswith("6"), vip in ("web", "web6", "one")
        if kind["tcp_udp"] not in (protocol, "TCP_UDP"):
            return False
        if kind["mode"] == "nat":
            return exact and "-" not in port and kind["v6"] == family_v6
        if kind["mode"] == "l2dsr" and kind["v6"] != family_v6:
            return False
        first, last = (int(part) for part in (port.split("-") * 2)[:2])
        return first <= 80 <= last

    def config(self):
        groups = {name: self.group(kind) for name, kind in self.groups.items() if self.chance(0.85)}
        listeners, taken = [], set()
        for vip, port in self.random.sample(PLACES, self.random.randint(5, 12)):
            protocol = self.pick(["TCP", "TCP", "UDP", "TCP_UDP"])
            usable = [name for name in groups if self.fits(self.groups[name], vip, port, protocol)]
            if not usable or any((vip, port, each) in taken for each in protocol.split("_")):
                continue
            taken |= {(vip, port, each) for each in protocol.split("_")}
            used = self.random.sample(usable, min(len(usable), self.pick([1, 1, 1, 2, 3])))
            listeners.append({"name": f"{vip}-{port}-{protocol.lower()}".replace("_", "-"), "vip": vip, "protocol": protocol, "port": port,
                              **({"security_group": self.pick(SECURITY_GROUPS)} if self.chance(0.25) else {}),
                              "target_groups": [{"name": name, **({"weight": self.pick([0, 1, 3, 999])} if self.chance(0.4) else {})} for name in used]})
        return {"version": 1, "seed": self.fleet_seed, "vips": VIPS, "listeners": listeners, "target_groups": list(groups.values()),
                "security_groups": [self.security_group(name) for name in SECURITY_GROUPS]}

    def security_group(self, name):
        rules = {}
        for _ in range(self.random.randint(1, 8)):
            matched = {"source": self.pick(SOURCES), **({"protocol": self.pick(["TCP", "UDP"])} if self.chance(0.3) else {}),
                       **({"port": self.pick(["80", "1-100", "80-443", "any"])} if self.chance(0.4) else {})}
            rules[tuple({"protocol": "", "port": "any", **matched}.items())] = {"action": self.pick(["allow", "allow", "deny"]), **matched}
        return {"name": name, "default": self.pick(["allow", "deny"]), "rules": list(rules.values())}

    # ---- events

    def happening(self):
        if self.chance(0.1):
            changed = self.config()
            if self.chance(0.5):  # only some of it
                kept = {group["name"]: group for group in self.configs[-1]["target_groups"]}
                changed = {**self.configs[-1], "target_groups": [group if self.chance(0.5) else self.group(self.groups[name]) for name, group in kept.items()]}
            self.configs.append(changed)
            return "apply", len(self.configs) - 1
        known = [target["address"] for group in self.configs[-1]["target_groups"] for target in group["targets"]]
        return (self.pick(["drain", "undrain", "undrain", "healthy", "healthy", "unhealthy"]), (self.pick(known), 80)) if known else None

    def packets(self):
        made = [each for _ in range(self.pick([1, 1, 2, 3, 8, PACKETS_AT_ONCE // 2])) for each in self.pieces(self.packet())]
        if self.late and self.chance(0.3):
            made.append(self.late.pop())
        return made

    def pieces(self, p):
        """The packet, or its fragments, of which the last may come later. One worker: else a NIC may bring them in another order."""
        if p.kind != "UDP" or p.part is not None or p.ttl <= 1 or p.sport < 40000 or self.workers > 1 or self.chance(0.8):
            return [p]
        self.datagrams += 1
        parts = [p._replace(part=number, ident=self.datagrams % 65536) for number in range(3)]
        if self.chance(0.2):
            self.late.append(parts.pop())
        return parts[1:] if self.chance(0.05) else parts

    def new_flow(self):
        kind, (vip, port), listeners = self.pick(["TCP", "TCP", "UDP"]), self.pick(PLACES), self.configs[-1]["listeners"]
        if listeners and self.chance(0.9):
            listener = self.pick(listeners)
            kind, vip, port = self.pick(listener["protocol"].split("_")), listener["vip"], listener["port"]
        v6, first, last = vip.endswith("6"), *(int(part) for part in (port.split("-") * 2)[:2])
        source = f"2001:db8:c::{self.random.randint(1, 4):x}" if v6 else f"203.0.113.{self.random.randint(1, 4)}"
        address = self.pick(WITHIN[vip]) if self.chance(0.95) else "2001:db8:ffff::1" if v6 else "192.0.2.77"
        return kind, source, self.random.randint(40000, 40400), address, self.pick([80 if first <= 80 <= last else first, first, last])

    def packet(self):
        if not self.recent or self.chance(0.12):
            self.recent = self.recent[-24:] + [self.new_flow()]
            kind, *rest = self.recent[-1]
            flags = self.pick([SYN, SYN, SYN, ACK]) if kind == "TCP" else 0
        else:
            kind, *rest = self.pick(self.recent)
            ordinary = self.random.choices([ACK, ACK | PSH, SYN, FIN | ACK, RST | ACK], [12, 6, 2, 2, 1])[0]
            flags = 0 if kind == "UDP" else ordinary if self.chance(0.96) else self.pick([SYN | ACK, RST, SYN | FIN, SYN | RST, 0, URG | FIN | PSH])
        made = Packet(kind, *rest, flags, 1 if self.chance(0.01) else 64)
        turn = self.random.random()
        if turn < 0.01:
            return made._replace(kind="echo", flags=0, ttl=64)
        if turn < 0.04 and not made.dst.endswith((".77", "ffff::1")):
            return made._replace(kind="error", flags=0, quoted=kind)
        if turn < 0.2 and self.replies:
            answering = self.pick(TARGETS_V6 if ":" in made.src else TARGETS_V4)
            return Packet(kind, answering, 80, made.src, made.sport, self.pick([ACK, SYN | ACK, ACK, RST]) if kind == "TCP" else 0, made.ttl)
        return made


# ---- frames

def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def segment(kind, sport, dport, flags):
    return struct.pack(">HHIIBBHHH", sport, dport, 1000, 2000 if flags & ACK else 0, 0x50, flags, 8192, 0, 0) if kind == "TCP" else \
        struct.pack(">HHHH", sport, dport, 12, 0) + b"data"


def ip(source, destination, protocol, payload, ttl, ident=0, field=0x4000):
    source, destination = (ipaddress.ip_address(each).packed for each in (source, destination))
    if len(source) == 16:
        return struct.pack(">IHBB", 6 << 28, len(payload), protocol, ttl) + source + destination + payload
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), ident, field, ttl, protocol, 0) + source + destination
    return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + payload


def icmp(p, body):
    v6 = ":" in p.src
    if v6:
        pseudo = ipaddress.ip_address(p.src).packed + ipaddress.ip_address(p.dst).packed + struct.pack(">II", len(body), 58)
        total = checksum(pseudo + body + b"\0" * (len(body) % 2))
    else:
        total = checksum(body + b"\0" * (len(body) % 2))
    return ip(p.src, p.dst, 58 if v6 else 1, body[:2] + struct.pack(">H", total) + body[4:], p.ttl)


def fragment(p):
    """Sixteen bytes of 48."""
    whole, field = struct.pack(">HHHH", p.sport, p.dport, 48, 0) + bytes(40), p.part * 2
    part, more = whole[16 * p.part:16 * p.part + 16], p.part < 2
    if ":" in p.src:
        return ip(p.src, p.dst, 44, struct.pack(">BBHI", 17, 0, field << 3 | more, p.ident) + part, p.ttl)
    return ip(p.src, p.dst, 17, part, p.ttl, p.ident, more << 13 | field)


def frame(p):
    v6, numbers = ":" in p.src, {"TCP": 6, "UDP": 17}
    if p.kind == "echo":
        packet = icmp(p, struct.pack(">BBHHH", 128 if v6 else 8, 0, 0, 7, 1) + b"ping")
    elif p.kind == "error":
        quote = ip(p.dst, p.src, numbers[p.quoted], segment(p.quoted, p.dport, p.sport, ACK), 60)
        router = p._replace(src="2001:db8:a::1" if v6 else "203.0.113.254")
        packet = icmp(router, (struct.pack(">BBHI", 2, 0, 0, 1400) if v6 else struct.pack(">BBHHH", 3, 4, 0, 0, 1400)) + quote)
    elif p.part is not None:
        packet = fragment(p)
    else:
        packet = ip(p.src, p.dst, numbers[p.kind], segment(p.kind, p.sport, p.dport, p.flags), p.ttl)
    return bytes.fromhex("029900000099") + bytes.fromhex("02c100000001") + (b"\x86\xdd" if v6 else b"\x08\x00") + packet


# ---- both sides

def expected(script):
    balancer = Balancer(script.configs[0], {(address, 80) for address in script.unhealthy})
    acts = {"apply": lambda index: balancer.apply(script.configs[index]), "drain": lambda key: balancer.drain(key, True),
            "undrain": lambda key: balancer.drain(key, False), "healthy": lambda key: balancer.set_health(key, True),
            "unhealthy": lambda key: balancer.set_health(key, False)}
    for at, happenings, packets in script.moments:
        balancer.advance(at, [lambda name=name, what=what: acts[name](what) for name, what in happenings])
        yield from (balancer.packet(packet) for packet in packets)


def replayed(script, folder):
    for number, config in enumerate(script.configs):
        (folder / f"{number}.yaml").write_text(json.dumps(config))  # JSON is YAML, and written faster
    events = [{"at": at, name: f"{what}.yaml" if name == "apply" else Balancer.text(what)} for at, happenings, _ in script.moments for name, what in happenings]
    (folder / "events.yaml").write_text(json.dumps(events))
    pcap.write(folder / "in.pcap", [(at, data, len(data)) for at, _, packets in script.moments for data in map(frame, packets)])
    command = [REPLAY, "--config", folder / "0.yaml", "--in", folder / "in.pcap", "--out", folder / "out.pcap", "--json", folder / "verdicts.jsonl",
               "--events", folder / "events.yaml", "--workers", str(script.workers), "--flows", "20000"]
    for address in script.unhealthy:
        if any(target["address"] == address for config in script.configs for group in config["target_groups"] for target in group["targets"]):
            command += ["--unhealthy", Balancer.text((address, 80))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    with open(folder / "verdicts.jsonl", encoding="utf-8") as lines:
        for line in lines:
            verdict = json.loads(line)
            yield tuple(verdict[key] for key in ("verdict", "reason", "listener", "target_group", "target", "flow"))


def compare(seed, run, events=RUN_EVENTS, keep=None):
    """(events, mismatches as text) of one run; the first mismatch ends it, for nothing behind it means anything."""
    script = Script(f"{seed}/{run}", events)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lb-spec-"))
    try:
        packets = [(at, packet) for at, _, packets in script.moments for packet in packets]
        pairs = zip(packets, expected(script), replayed(script, folder), strict=True)
        for number, ((at, packet), want, came) in enumerate(pairs):
            if want != came:
                return script.count, [f"run {run}, packet {number} at {at} s: {packet}\n  specification {want}\n  lb-replay     {came}"]
        return script.count, []
    except (RuntimeError, ValueError) as error:
        return script.count, [f"run {run}: {error}"]
    finally:
        if keep:
            shutil.copytree(folder, keep, dirs_exist_ok=True)
        shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser(prog="./run spec", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", type=int, help="this run alone, its files kept in ./spec-run")
    options = parser.parse_args()
    runs = [options.only] if options.only is not None else range(max(1, options.events // RUN_EVENTS))
    keep = "spec-run" if options.only is not None else None
    total, wrong, done = 0, [], 0
    with concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
        for found in concurrent.futures.as_completed([pool.submit(compare, options.seed, run, RUN_EVENTS, keep) for run in runs]):
            events, mismatches = found.result()
            total, done = total + events, done + 1
            wrong += mismatches
            for text in mismatches:
                print(text, flush=True)
    print(f"spec: {total} events in {done} runs, {len(wrong)} mismatches")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
