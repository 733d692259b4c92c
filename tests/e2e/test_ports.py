"""Ports other than AF_XDP: a lab of their own, with lb-dp on another driver each time."""

import subprocess

import pytest
from scapy.layers.all import IP, UDP, Ether
from scapy.utils import rdpcap, wrpcap

from tests.e2e.test_listeners import UPLOAD
from tests.lib.balancer import Balancer
from tests.lib.lab import CLIENT, LB, Lab, wait_until

VIP, TARGETS = "192.0.2.40", ("10.77.2.2", "10.77.2.3", "10.77.2.4")


@pytest.fixture
def lab():
    lab = Lab("lbports", "/run/lb-ports", vips=[VIP])
    lab.up()
    yield lab
    lab.down()


def balancer_on(lab, port, static=""):
    """A balancer whose lb-dp has one port, written as in dp.yaml."""
    balancer = Balancer(lab)
    text = balancer.dp_config.read_text()
    balancer.dp_config.write_text(text.replace("{name: eth0, driver: af_xdp}", port))
    config = lab.folder / "lb.yaml"
    targets = ", ".join(f"{{address: {address}}}" for address in TARGETS)
    config.write_text(f"""version: 1
seed: 1
vips: [{{name: v, address: {VIP}}}]
listeners:
  - {{name: web, vip: v, protocol: TCP, port: 80, target_groups: [{{name: web}}]}}
  - {{name: dns, vip: v, protocol: UDP, port: 53, target_groups: [{{name: dns}}]}}
target_groups:
  - {{name: web, protocol: TCP, port: 80, forwarding_mode: ipip, health_check: {{protocol: NONE}}, targets: [{targets}]}}
  - {{name: dns, protocol: UDP, port: 53, forwarding_mode: ipip, health_check: {{protocol: NONE}}, targets: [{targets}]}}
{static}""")
    return balancer, config


def start(balancer, config):
    balancer.start_dp()
    balancer.start_cp()
    balancer.wait_connected()
    balancer.apply(config)


def on_port(name):
    """Next hops over a port that has no network behind it."""
    rows = "".join(f'  - {{address: {address}, mac: "02:00:00:00:00:{i + 2:02x}", interface: {name}}}\n' for i, address in enumerate(TARGETS))
    return "static_neighbours:\n" + rows


def test_curl_through_af_packet(lab):
    balancer, config = balancer_on(lab, "{name: eth0, driver: af_packet}")
    for target in lab.targets:
        lab.start_nginx(target)
    balancer.attach_targets()
    start(balancer, config)
    wait_until("next hops", lambda: all(row["next_hop"] != "unresolved" for row in balancer.targets("web").values()))
    answers = lab.curl("-H", "Connection: close", f"http://{VIP}/?[1-60]").split()
    assert len(answers) == 60 and set(answers) == set(lab.targets)


def test_jumbo_frames_through_af_packet(lab):
    """An upload crosses lb in segments of 8,900 bytes and comes whole: buffers and the driver's ring have room for such frames."""
    lab.ip("sw", "link set br0 mtu 9200", *[f"link set p-{name} mtu 9200" for name in (CLIENT, LB, *lab.targets)])
    lab.ip(CLIENT, "link set eth0 mtu 9000")
    for name in (LB, *lab.targets):
        lab.ip(name, "link set eth0 mtu 9100")
    balancer, config = balancer_on(lab, '{name: eth0, driver: af_packet, devargs: "blocksz=36864,framesz=9216,framecnt=512"}')
    text = balancer.dp_config.read_text()
    balancer.dp_config.write_text(text.replace("size_mb: 128}", "size_mb: 256, mbuf_bytes: 9600}"))
    servers = [lab.start(target, f"upload-{target}", "/usr/bin/python3", "-c", UPLOAD, "serve", VIP, "80") for target in lab.targets]
    balancer.attach_targets()
    start(balancer, config)
    wait_until("next hops", lambda: all(row["next_hop"] != "unresolved" for row in balancer.targets("web").values()))
    wait_until("the servers", lambda: all("ready" in server.log.read_text() for server in servers))
    size = 4_000_000
    assert int(lab.run(CLIENT, "/usr/bin/python3", "-c", UPLOAD, "send", VIP, "80", str(size), timeout=60).stdout) == size
    assert balancer.drops().get("segmented", 0) == balancer.drops().get("answered_icmp", 0) == 0
    worker = balancer.rows("workers")[0]
    assert worker["forwarded_packets"] < size / 8000 + 200, "acknowledgments do not come this way, so nearly all of them are full"


def test_pcap_is_forwarded_by_the_stored_snapshot(lab):
    """A ring port takes the configuration; lb-dp starts again on a pcap, alone, and forwards every packet of the file."""
    balancer, config = balancer_on(lab, "{name: p0, driver: ring, kernel_twin: tap}", on_port("p0"))
    start(balancer, config)
    balancer.stop()
    frames = [Ether(dst="02:00:00:00:01:00") / IP(src=f"198.51.100.{n % 200 + 1}", dst=VIP) / UDP(sport=1024 + n, dport=53) / b"q" for n in range(300)]
    wrpcap(str(lab.folder / "in.pcap"), frames)
    out = lab.folder / "out.pcap"
    balancer, _ = balancer_on(lab, f'{{name: p0, driver: pcap, kernel_twin: tap, devargs: "rx_pcap={lab.folder}/in.pcap,tx_pcap={out}"}}')
    balancer.start_dp()
    balancer.start_cp()
    balancer.wait_connected()
    wait_until("the whole file", lambda: balancer.rows("workers")[0]["forwarded_packets"] == len(frames))
    balancer.stop()
    # The kernel speaks through the port's TAP as well (neighbour discovery).
    sent = [packet for packet in rdpcap(str(out)) if IP in packet and packet[IP].proto == 4]
    assert [bytes(packet[IP].payload)[20:] for packet in sent] == [bytes(frame[UDP]) for frame in frames]
    assert {packet[IP].dst for packet in sent} == set(TARGETS)


def test_null_port_counts_every_packet(lab):
    """Endless frames that are no IP, to a port whose kernel end takes none: all of them are dropped by name."""
    balancer, _ = balancer_on(lab, '{name: n0, driver: "null", devargs: "size=64"}')
    balancer.start_dp()
    balancer.start_cp()
    balancer.wait_connected()
    wait_until("packets", lambda: balancer.rows("workers")[0]["rx_packets"] > 1000)
    assert set(name for name, packets in balancer.drops().items() if packets) <= {"not_ip", "no_snapshot", "punt_failed"}


def test_memif_port_meets_its_peer(lab):
    """testpmd sends into a memif port of lb-dp, whose counters follow."""
    socket = lab.folder / "memif.sock"
    balancer, config = balancer_on(
        lab, f'{{name: m0, driver: memif, kernel_twin: tap, devargs: "role=server,id=0,socket={socket},socket-abstract=no"}}', on_port("m0"))
    start(balancer, config)
    peer = subprocess.Popen(
        lab.inside(LB, "setpriv", "--pdeathsig", "KILL", "--", "dpdk-testpmd", "--no-huge", "-m", 128, "--file-prefix", "lbports-peer", "--no-pci",
                   "--no-telemetry", "--vdev", f"net_memif0,role=client,id=0,socket={socket},socket-abstract=no", "--", "--no-mlockall",
                   "--total-num-mbufs=4096", "--forward-mode=txonly", f"--tx-ip=198.51.100.1,{VIP}", "--tx-udp=4000,53", "--auto-start"),
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until("forwarded packets", lambda: balancer.rows("workers")[0]["forwarded_packets"] > 100, 30)
    finally:
        peer.kill()
        peer.wait()
