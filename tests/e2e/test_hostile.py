"""Packets and snapshots that nobody should send."""

import struct

import pytest

from tests.e2e import world
from tests.lib import control
from tests.lib.lab import CLIENT, wait_until

# Runs in the client's namespace. Each frame goes to the balancer's MAC; argument: the VIP.
GARBAGE = """
import random, sys
from scapy.all import ARP, Ether, ICMP, IP, IPOption_LSRR, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, Raw, TCP, UDP, conf, fragment
vip4, vip6 = sys.argv[1], sys.argv[2]
ether = Ether(dst="02:00:00:77:02:01", src="02:00:00:77:02:fe")
ip, ip6 = IP(src="10.77.2.100", dst=vip4), IPv6(src="fd77:2::100", dst=vip6)
tcp = TCP(sport=50000, dport=80, flags="S")
frames = {
  "no_listener": [ether/ip/TCP(sport=50000, dport=9, flags="S"), ether/ip6/UDP(sport=1, dport=9)],
  "ttl_expired": [ether/IP(src="10.77.2.100", dst=vip4, ttl=1)/tcp, ether/IPv6(src="fd77:2::100", dst=vip6, hlim=1)/tcp],
  "bad_ip_checksum": [ether/IP(src="10.77.2.100", dst=vip4, chksum=0x1234)/tcp],
  "bad_ip_header": [ether/IP(src="10.77.2.100", dst=vip4, ihl=4)/tcp],
  "truncated": [ether/IP(src="10.77.2.100", dst=vip4, len=400)/tcp],
  "bad_l4_header": [ether/ip/TCP(sport=50000, dport=80, dataofs=4)],
  "bad_source": [ether/IP(src="127.0.0.1", dst=vip4)/tcp, ether/IP(src="224.0.0.1", dst=vip4)/tcp],
  "land": [ether/IP(src=vip4, dst=vip4)/tcp],
  "bad_tcp_flags": [ether/ip/TCP(sport=50000, dport=80, flags="SF"), ether/ip6/TCP(sport=50000, dport=80, flags=0)],
  "source_route": [ether/IP(src="10.77.2.100", dst=vip4, options=IPOption_LSRR(routers=["10.77.2.1"]))/tcp],
  "tiny_fragment": [ether/IP(src="10.77.2.100", dst=vip4, flags="MF", proto=6)/Raw(b"\\0" * 8)],
}
socket = conf.L2socket(iface="eth0")
for reason, items in frames.items():
    for frame in items:
        for _ in range(5):
            socket.send(bytes(frame).ljust(60, b"\\0"))
random.seed(1)
for _ in range(2000):
    frame = bytearray(bytes(ether/random.choice([ip, ip6])/random.choice([tcp, UDP(sport=5, dport=7000)])/Raw(random.randbytes(random.randrange(80)))))
    for _ in range(random.randrange(1, 4)):
        frame[random.randrange(18, len(frame))] = random.randrange(256)
    socket.send(bytes(frame if random.random() < 0.7 else frame[:random.randrange(34, len(frame) + 1)]))
print(" ".join(f"{reason}={5 * len(items)}" for reason, items in frames.items()))
"""


def totals(balancer):
    workers = balancer.rows("workers")
    return tuple(sum(int(w[f"{name}_packets"]) for w in workers) for name in ("rx", "forwarded", "punted", "dropped"))


def quiet(balancer):
    """The totals, once they have stood still for longer than lb-cp takes to look at them again."""
    seen = []

    def still():
        seen.append(totals(balancer))
        return len(seen) >= 10 and len(set(seen[-10:])) == 1
    wait_until("the counters to stand still", still, 30, every=0.3)
    return seen[-1]


@pytest.mark.cases(world.PLAIN)
def test_garbage_is_dropped_by_name_and_accounted(up, case):
    """Every wrong frame ends in its named drop, every frame in exactly one verdict, and clients are served all the same."""
    before, base = up.balancer.drops(), quiet(up.balancer)
    vip6 = next(other.vip for other in world.ALL if other.inner == "v6")
    said = up.lab.run(CLIENT, "/usr/bin/python3", "-c", GARBAGE, case.vip, vip6, timeout=60).stdout
    rx, forwarded, punted, dropped = quiet(up.balancer)
    assert rx == forwarded + punted + dropped
    after = up.balancer.drops()
    assert dropped == sum(after.values())
    assert rx > base[0] + 1000
    for reason, count in (item.split("=") for item in said.split()):
        assert after[reason] >= before.get(reason, 0) + int(count), reason
    assert len(up.answers(case, 20)) == 20


def stored(balancer):
    """(root, segments by id) that lb-dp keeps for its next start."""
    root, segments = None, {}
    for path in balancer.dp_state.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        if len(data) < control.SEGMENT_HEADER.size:
            continue
        magic, _, kind, _, size, number, _ = control.SEGMENT_HEADER.unpack_from(data)
        if size == len(data) and kind == 1:
            root = data
        elif size == len(data) and kind == 2:
            segments[number] = data
    assert root is not None
    return root, segments


def altered(data, offset, form, value):
    changed = bytearray(data)
    struct.pack_into(form, changed, offset, value)
    return bytes(changed)


@pytest.mark.cases(world.PLAIN)
def test_wrong_snapshots_are_refused_by_name(up, case):
    """Truncated, corrupt, foreign, unsealed and old snapshots: refused by name; the last good one stays in force."""
    up.balancer.kill_cp()
    wait_until("lb-dp to have stored its snapshot", lambda: stored(up.balancer))
    root, segments = stored(up.balancer)
    epoch, number = control.ROOT_GENERATION.unpack_from(root, control.SEGMENT_HEADER.size)
    newer = altered(root, control.SEGMENT_HEADER.size + 8, "<Q", number + 1)
    wrong = {
        "magic": altered(newer, 0, "<Q", 0x1234),
        "version": altered(newer, 8, "<I", 999),
        "fingerprint": altered(newer, 16, "<Q", 1),
        "size": newer[:-64],
        "checksum": altered(newer, len(newer) - 16, "<B", newer[-16] ^ 0xFF),
    }
    with control.Control(up.balancer.dp_socket) as client:
        assert client.generation == (epoch, number)
        client.segments(segments)
        for name, data in wrong.items():
            verdict = client.publish(data, (epoch, number + 1))
            assert verdict.refusal == name and verdict.text, (name, verdict)
        assert client.publish(root).refusal == "stale"
        for missing in range(4):
            verdict = client.publish(newer, (epoch, number + 1), control.SEALS & ~(1 << missing))
            assert verdict.refusal == "not_sealed", (missing, verdict)
        assert client.publish(b"", (epoch, number + 1)).refusal == "size"
        with control.Control(up.balancer.dp_socket) as second:
            assert second.greeting == control.BUSY
    assert up.balancer.dp.running()
    up.wait_answers(case, up.lab.targets, "the last good snapshot stays in force")


@pytest.mark.cases(world.PLAIN)
def test_a_corrupt_stored_snapshot_is_not_used(up, case):
    """lb-dp starts without its stored snapshot if the bytes are wrong, says so, and takes the next one from lb-cp."""
    up.balancer.kill_cp()
    wait_until("lb-dp to have stored its snapshot", lambda: stored(up.balancer))
    up.balancer.kill_dp()
    for path in up.balancer.dp_state.rglob("*"):
        if path.is_file() and path.stat().st_size >= 64:
            path.write_bytes(altered(path.read_bytes(), path.stat().st_size - 8, "<Q", 0x5555))
    up.balancer.start_dp()
    with control.Control(up.balancer.dp_socket) as client:
        assert client.generation == (0, 0)
    up.balancer.start_cp()
    up.balancer.wait_connected()
    up.wait_answers(case, up.lab.targets, "the snapshot of lb-cp is in force")
