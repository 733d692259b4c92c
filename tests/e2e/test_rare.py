"""Packets that do not carry their flow where it is looked for: ICMP errors, echo, packets on another queue."""

import json
import re
import subprocess

import pytest

from tests.e2e import world
from tests.e2e.connection import Connection, asked_nobody
from tests.lib.lab import CLIENT, wait_until

TUNNELS_AND_NAT = [case for case in world.ALL if case.mode in ("ipip", "nat")]
TWO_WORKERS = [case for case in world.ALL if case.workers == 2 and case.name in ("ipip-v4-v4", "ipip-v6-v6")]

# Runs in the client's namespace, as a router on the way there: takes the last segment the VIP sent to the client's port, and
# tells the VIP that 1300 bytes are as much as can pass. The quote is cut after eight bytes of TCP.
# Arguments: VIP, client address, client port, router address.
ROUTER = """
import socket, sys, time
from scapy.all import *
vip, client, port, router = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
seen = []
def mine(frame):
    return TCP in frame and frame[TCP].dport == port and frame.payload.src == vip
def end(frame):
    return frame[TCP].seq + (len(frame[TCP].payload) if Raw in frame else 0)
sniffer = AsyncSniffer(iface="eth0", lfilter=mine, prn=seen.append, store=False, started_callback=lambda: print("ready", flush=True))
sniffer.start()
sys.stdin.readline()
count = -1
while count != len(seen) or not seen:  # until all that was sent has been seen
    count = len(seen)
    time.sleep(0.3)
frame = max(seen, key=end)
inner = frame.payload.copy()
inner[TCP].seq = end(frame)  # what the target has yet to send: in its window
six = IPv6 in frame
quote = raw(inner)[:(40 if six else 20) + 8]
head = IPv6(src=router, dst=vip) / ICMPv6PacketTooBig(mtu=1300) if six else IP(src=router, dst=vip) / ICMP(type=3, code=4, nexthopmtu=1300)
sendp(Ether(src="02:00:00:77:02:fa", dst="02:00:00:77:02:01") / head / Raw(quote), iface="eth0", verbose=False)
print("sent", flush=True)
"""


class Router:
    def __init__(self, up, case, port):
        router = "10.77.2.250" if case.inner == "v4" else "fd77:2::250"
        self.process = subprocess.Popen(up.lab.inside(CLIENT, "/usr/bin/python3", "-c", ROUTER, case.vip, case.client, str(port), router),
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def tell(self):
        out, _ = self.process.communicate("\n", timeout=30)
        assert out == "sent\n"


def use_queue(up, number):
    """From now on every frame to the balancer comes on this queue, and so to this worker; None: each flow on its own."""
    if up.workers == 1:
        return
    for queue in range(up.workers):
        cpus = "0" if number is None else "3" if queue == number else "0"
        up.lab.run("sw", "ip", "netns", "exec", up.lab.namespace("sw"), "sh", "-c", f"echo {cpus} > /sys/class/net/p-lb/queues/tx-{queue}/xps_cpus")


@pytest.fixture
def queues(up):
    yield lambda number: use_queue(up, number)
    use_queue(up, None)


def path_mtu(up, target, case, port):
    """What the target's kernel believes of the connection's path."""
    shown = up.lab.run(target, "ss", "-Htin", f"sport = :{case.target_port(80)} and dport = :{port}").stdout
    found = re.search(r"pmtu:(\d+)", shown)
    return int(found.group(1)) if found else None


@pytest.mark.cases(TUNNELS_AND_NAT)
def test_packet_too_big_reaches_its_flows_target(up, case, queues):
    """A router says what fits; the target that has the connection, and no other, believes it. With two workers the message comes
    to the one that does not have the flow."""
    queues(0)
    for target in up.lab.targets:  # what an earlier case has taught it
        for family in ("-4", "-6"):
            up.lab.run(target, "ip", family, "route", "flush", "cache")
    with Connection(up.lab, case) as connection:
        target = connection.ask()
        assert path_mtu(up, target, case, connection.port) > 1300
        router = Router(up, case, connection.port)
        assert connection.ask() == target
        queues(case.workers - 1)
        router.tell()
        wait_until("the lower path MTU", lambda: path_mtu(up, target, case, connection.port) == 1300)
        assert connection.ask() == target


@pytest.mark.cases([case for case in world.ALL if case.mode == "nat"])
def test_a_targets_icmp_error_reaches_the_client(up, case):
    """Nobody listens on the targets: their "port unreachable" comes back as the VIP's, on whichever worker it lands."""
    assert asked_nobody(up.lab, case.vip, world.ECHO, case.client, 12) == ["ConnectionRefusedError"] * 12


@pytest.mark.cases(TWO_WORKERS)
def test_flow_that_moves_to_another_queue_keeps_its_target(up, case, queues):
    """Mid-flow packets that come to the other worker find their flow in the first one's table; when the targets in rotation are
    others by then, the hash alone would break most of the connections."""
    queues(0)
    connections = [Connection(up.lab, case) for _ in range(8)]
    try:
        targets = [connection.ask() for connection in connections]
        for target in up.lab.targets[:2]:  # drained targets keep their flows; the hash now gives everything to the third
            up.balancer.lbctl("drain", case.target(target), "--target-group", case.web_group)
        wait_until("the drain", lambda: set(up.answers(case, 8)) == {up.lab.targets[2]})
        queues(1)
        assert [connection.ask() for connection in connections] == targets
        queues(0)
        assert [connection.ask() for connection in connections] == targets
    finally:
        for connection in connections:
            connection.__exit__()


@pytest.mark.cases(world.EACH_MODE_AND_FAMILY)
def test_ping_of_a_vip(up, case):
    """lb answers, whole payloads up to what fits one packet."""
    for size in (0, 56, 1400):
        done = up.lab.run(CLIENT, "ping", "-c", "3", "-i", "0.2", "-W", "5", "-s", str(size), case.vip)
        assert "3 received" in done.stdout, done.stdout


# Datagrams that no frame holds. serve ADDRESS PORT NAME: answers with its name, and the length and checksum of what came.
# ask ADDRESS PORT FLOWS SIZE: three datagrams on each flow, one small; prints the answers.
BIG_ECHO = """
import json, os, socket, sys, zlib
what, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
def udp():
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
if what == "serve":
    with udp() as listening:
        listening.bind((address, port))
        while True:
            data, client = listening.recvfrom(65535)
            listening.sendto(f"{sys.argv[4]} {len(data)} {zlib.crc32(data)}".encode(), client)
answers = []
for flow in range(int(sys.argv[4])):
    with udp() as asking:
        asking.settimeout(5)
        asking.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: may be fragmented
        asking.connect((address, port))
        for size in (100, int(sys.argv[5]), int(sys.argv[5]) + 777):
            data = os.urandom(size)
            asking.send(data)
            name, length, checksum = asking.recv(2048).decode().split()
            answers.append((flow, name, int(length) == size and int(checksum) == zlib.crc32(data)))
print(json.dumps(answers))
"""


# Not nat: fragments of its replies stay with the kernel (docs/nat.md).
@pytest.mark.cases([case for case in world.EACH_MODE_AND_FAMILY if case.mode != "nat"])
def test_datagrams_in_fragments_reach_their_flows_target(up, case):
    """Datagrams larger than the MTU come whole to the target that has their flow, also when fragments and whole packets come to
    different workers."""
    for target in up.lab.targets:
        up.helper(target, f"big-{target}", "/usr/bin/python3", "-c", BIG_ECHO, "serve", case.vip, str(world.ECHO), target)
    for target in up.lab.targets:
        wait_until(f"the echo on {target}", lambda: up.lab.run(target, "ss", "-Hlun", f"sport = :{world.ECHO}").stdout.strip())
    flows = 50  # none of them to one of three targets: a probability below 1e-8
    done = up.lab.run(CLIENT, "/usr/bin/python3", "-c", BIG_ECHO, "ask", case.vip, str(world.ECHO), str(flows), "4000", timeout=60)
    answers = json.loads(done.stdout)
    assert len(answers) == 3 * flows and all(intact for _, _, intact in answers)
    for flow in range(flows):
        assert len({name for number, name, _ in answers if number == flow}) == 1
    assert {name for _, name, _ in answers} == set(up.lab.targets)
