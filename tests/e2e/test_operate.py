"""What operators ask for while traffic flows: drains with a deadline of their own, frozen health, captures explained."""

import fcntl
import json
import os
import pty
import random
import re
import select
import struct
import subprocess
import termios

import pytest
from scapy.all import ICMP, IP, TCP, UDP, Ether, Raw, rdpcap, wrpcap

from tests.e2e import world
from tests.e2e.connection import Connection
from tests.lib.balancer import BIN
from tests.lib.lab import CLIENT, LabError, wait_until


def broke_by(connection):
    """What broke the kept connection, asked once more; None: it answers. The workers take a generation up when they can."""
    try:
        connection.ask()
    except LabError as error:
        return str(error).rsplit(" ", 1)[-1]
    return None


@pytest.mark.cases(world.PLAIN[:1])
def test_drain_ends_as_it_was_asked_to(up, case):
    """The drain's own deadline and end hold, not the group's, and outlive lb-cp: the kept flow is reset, and --wait says so."""
    with Connection(up.lab, case) as kept:
        target = kept.ask()
        address = case.target(target)
        wait = subprocess.Popen(list(map(str, up.balancer.lbctl_command(
            "drain", address, "--group", case.web_group, "--deadline", "4s", "--then", "reset", "--wait"))), stdout=subprocess.PIPE, text=True)
        try:
            wait_until("the drain to begin", lambda: up.balancer.targets(case.web_group)[address]["state"] == "draining")
            assert up.balancer.targets(case.web_group)[address]["drain_then"] == "reset"
            up.balancer.kill_cp()
            up.balancer.start_cp()
            up.balancer.wait_connected()
            up.balancer.wait_state(case.web_group, address, "unused")
            wait_until("the kept flow to be reset", lambda: broke_by(kept) == "ConnectionResetError")
            text, _ = wait.communicate(timeout=20)
            assert "flows are reset with their next packet" in text or "flows have ended" in text, text
        finally:
            wait.kill()
            wait.wait()
            up.balancer.lbctl("undrain", address, "--group", case.web_group)


@pytest.mark.cases(world.PLAIN[:1])
def test_frozen_health_changes_no_weight(up, case):
    """A target that dies while health is frozen keeps its share, also across a restart of lb-cp, and loses it after the thaw."""
    address = case.target("t2")
    share = up.balancer.targets(case.web_group)[address]["share"]
    up.balancer.lbctl("freeze", "--note", "switch replaced")
    try:
        up.balancer.kill_cp()
        up.balancer.start_cp()
        up.balancer.wait_connected()
        up.lab.nginx["t2"].kill()
        wait_until("what the probe says to be shown", lambda: "refused" in up.balancer.targets(case.web_group)[address]["detail"])
        row = up.balancer.targets(case.web_group)[address]
        assert row["state"] == "healthy" and row["share"] == share
        assert "switch replaced" in up.balancer.lbctl("get", "targets").stdout
    finally:
        up.balancer.lbctl("unfreeze")
    up.balancer.wait_state(case.web_group, address, "unhealthy")
    assert up.balancer.targets(case.web_group)[address]["share"] == 0


def random_packets(case, count):
    """Mostly for the case's listeners, some for nobody, some of no flow, some broken."""
    dice = random.Random(5)
    packets = []
    for n in range(count):
        head = Ether(src="02:00:00:00:00:c1", dst="02:00:00:00:00:1b") / IP(
            src=f"198.51.100.{1 + n % 200}", dst=dice.choice([case.vip] * 6 + ["203.0.113.9"]), ttl=dice.choice([64] * 20 + [1]))
        port = dice.choice([80, 80, 5201, 7000, 9, 443])
        kind = dice.randrange(12)
        if kind == 0:
            packet = head / ICMP() / Raw(b"ping")
        elif kind < 4:
            packet = head / UDP(sport=20000 + n, dport=port) / Raw(b"x" * dice.randrange(40))
        else:
            packet = head / TCP(sport=20000 + n, dport=port, flags=dice.choice(["S", "S", "A", "PA", "FA", "R", "SF"]))
        data = bytes(packet)
        if kind == 11:
            data = data[:dice.randrange(14, len(data))]
        packets.append(Raw(data))
    return packets


@pytest.mark.cases(world.PLAIN[:1])
def test_why_of_a_capture_agrees_with_lb_replay(up, case):
    """Asked of the live system, every packet of a capture goes where lb-replay sends it with the same configuration."""
    pcap, out, verdicts = (up.lab.folder / name for name in ("asked.pcap", "replayed.pcap", "replayed.jsonl"))
    wrpcap(str(pcap), random_packets(case, 800), linktype=1)
    subprocess.run([BIN / "lb-replay", "--config", up.config, "--in", pcap, "--out", out, "--json", verdicts], check=True)
    replayed = [json.loads(line) for line in verdicts.read_text().splitlines()]
    said = [json.loads(line) for line in up.balancer.lbctl("why", "--pcap", pcap, "-o", "json").stdout.splitlines()]
    keys = ("n", "verdict", "reason", "listener", "target_group", "target", "flow", "out_len")
    assert [{key: row[key] for key in keys} for row in said] == [{key: row[key] for key in keys} for row in replayed]
    assert {row["verdict"] for row in said} == {"tx", "drop", "punt"}
    text = up.balancer.lbctl("why", "--pcap", pcap).stdout
    assert "\n800 packets: " in text
    assert max(map(len, text.splitlines())) <= 80


def while_asking(up, case, *arguments):
    """Runs lbctl with these arguments while a client asks for the page again and again; what it wrote."""
    process = subprocess.Popen(list(map(str, up.balancer.lbctl_command(*arguments))), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        def ended():
            up.lab.curl("-H", "Connection: close", case.url(), check=False)
            return process.poll() is not None

        wait_until(f"lbctl {arguments[0]} to have seen enough", ended, 20, every=0.05)
        out, err = process.communicate(timeout=10)
        assert process.returncode == 0, err
        return out
    finally:
        process.kill()
        process.wait()


@pytest.mark.cases([case for case in world.ONE_OF_EACH_MODE if case.workers == 1])
def test_packets_are_traced_and_captured_on_both_sides(up, case):
    """A trace names each packet's way; a capture has it as it came and, paired with that, as it left."""
    lines = while_asking(up, case, "trace", "--vip", case.vip, "--port", "80", "--verdict", "tx", "-n", "5", "-o", "json").splitlines()
    records = [json.loads(line) for line in lines]
    assert len(records) == 5
    for record in records:
        assert record["listener"] == f"web-{case.name}" and record["destination"] == f"{case.host}:80"
        assert record["target"] in {case.target(target) for target in up.lab.targets}
        assert record["path"].startswith(f"listener web-{case.name} → ") and record["path"].endswith("sent")
    assert [record["number"] for record in records] == sorted(record["number"] for record in records)

    file = up.lab.folder / "captured.pcapng"
    while_asking(up, case, "capture", "-w", file, "--vip", case.vip, "--port", "80", "--protocol", "tcp", "-n", "6")
    frames = list(rdpcap(str(file)))
    assert len(frames) == 12
    read = subprocess.run(["tcpdump", "-nnr", str(file)], capture_output=True, text=True, timeout=10, check=True)
    assert len([line for line in read.stdout.splitlines() if re.match(r"[0-9:.]+ ", line)]) == 12, read.stdout + read.stderr
    for came, left in zip(frames[::2], frames[1::2]):
        assert came[IP].dst == case.vip and came[TCP].dport == 80
        assert (left[TCP].sport, left[TCP].seq, bytes(left[TCP].payload)) == (came[TCP].sport, came[TCP].seq, bytes(came[TCP].payload))
        assert left[Ether].dst != came[Ether].dst


@pytest.mark.cases(world.PLAIN[:1])
def test_dropped_packets_are_traced_by_reason_one_trace_at_a_time(up, case):
    first = subprocess.Popen(list(map(str, up.balancer.lbctl_command("trace", "--reason", "no_listener", "-n", "3"))),
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert first.stderr.readline().startswith("the workers write packets down")
        refused = up.balancer.lbctl("trace", "-n", "1", check=False)
        assert refused.returncode == 1 and "another trace is going on" in refused.stderr
        while first.poll() is None:
            up.lab.run(CLIENT, "bash", "-c", f"echo x > /dev/udp/{case.vip}/9")
        text = first.stdout.read()
        assert text.count("dropped as no_listener") == 3 and f"{case.vip}:9" in text
        assert max(map(len, text.splitlines())) <= 80
    finally:
        first.kill()
        first.wait()


@pytest.mark.cases(world.PLAIN[:1])
def test_flows_are_shown_by_client_and_traffic(up, case):
    """The flows of one client, seen on packets, each with its target and what the flow table says of it; none of another client."""
    def talkers(*arguments):
        return json.loads(while_asking(up, case, "flows", "--sample", "0.3", "--vip", case.vip, "-o", "json", *arguments))

    flows = talkers("--top", "--client", case.client)
    assert flows["talkers"] and flows["packets_read"] == flows["packets"] > 0
    for row in flows["talkers"]:
        assert row["client"].startswith(f"{case.client}:") and row["destination"] == f"{case.host}:80"
        assert row["target"] in {case.target(target) for target in up.lab.targets} and row["target_group"] == case.web_group
        assert row["packets"] > 0 and row["bytes"] >= 54 * row["packets"]
    assert {row["state"] for row in flows["talkers"]} & {"assumed", "closing"}
    assert flows["talkers"] == sorted(flows["talkers"], key=lambda row: -row["bytes"])
    clients = talkers("--by-client")["talkers"]
    assert [row["client"] for row in clients] == [case.client] and clients[0]["flows"] > 1
    assert talkers("--client", "203.0.113.0/24")["talkers"] == []
    refused = up.balancer.lbctl("flows", "--top", "--client", "nobody", check=False)
    assert refused.returncode == 1 and "client: `nobody` is not an address or prefix" in refused.stderr


@pytest.mark.cases(world.PLAIN[:1])
def test_top_takes_a_terminal_and_sorts_as_keys_say(up, case):
    """On a terminal `top` is a screen with all three lists; keys sort and stop it, and q gives the terminal back."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 100, 0, 0))
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(list(map(str, up.balancer.lbctl_command("top", "--watch", "0.2"))), stdin=theirs, stdout=theirs, stderr=subprocess.PIPE,
                               env={**os.environ, "TERM": "xterm"})
    seen = b""

    def shows(*words):
        nonlocal seen
        while select.select([ours], [], [], 0)[0]:
            seen += os.read(ours, 65536)
        return all(word.encode() in seen for word in words)

    try:
        wait_until("the lists", lambda: shows("PACKETS/S↓", "FLOWS↓", "WORKER  RX/S↓", "10.77.2.", "q end"), 10)
        assert seen.count("↑".encode()) == 1  # that of the line that tells the keys
        os.write(ours, b"r")
        wait_until("the other order", lambda: shows() and seen.count("↑".encode()) == 2, 10)
        os.write(ours, b" ")
        wait_until("the stand-still", lambda: shows("stands"), 10)
        os.write(ours, b"q")
        assert process.wait(timeout=10) == 0, process.stderr.read()
        assert shows("\x1b[?1049l") and termios.tcgetattr(theirs) == before
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
