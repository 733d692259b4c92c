"""Floods from the client's namespace: every frame is a flow of its own, from addresses that nobody answers.

As a program: flood.py OPTIONS_JSON, with {"kind", "destination_mac", "vips": [[address, port]…], "per_second"}. Kinds:

  syn        SYNs to the port
  udp        datagrams to any port
  fragment   fragments of datagrams whose first one never comes
  icmp       ICMP errors about packets that nobody has sent
  collide    SYNs whose words sum up and XOR to the same, as those who know no key would choose them to share one place
"""

import json
import os
import random
import socket
import struct
import subprocess
import sys
import time

from tests.lib.lab import CLIENT, LabError

LB_MAC = "02:00:00:77:02:01"


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def source_of(vip, generator):
    if ":" in vip:
        return socket.inet_pton(socket.AF_INET6, "2001:db8:f00d::")[:8] + generator.randbytes(8)
    return bytes([198, 18 + generator.getrandbits(1), generator.getrandbits(8), generator.getrandbits(8)])


def ip_packet(source, vip, protocol, payload, identification=0, fragment=0x4000):
    """`fragment`: the IPv4 field; of IPv6 an offset or more-fragments bit makes a fragment header."""
    if ":" in vip:
        header = b""
        if fragment & 0x3FFF:
            header = struct.pack("!BBHI", protocol, 0, (fragment & 0x1FFF) << 3 | fragment >> 13 & 1, identification)
            protocol = 44
        return struct.pack("!IHBB", 6 << 28, len(header) + len(payload), protocol, 64) + source + socket.inet_pton(
            socket.AF_INET6, vip) + header + payload
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), identification & 0xFFFF, fragment, 64, protocol, 0) + source + socket.inet_pton(
        socket.AF_INET, vip)
    return ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + payload


def pseudo_header(source, vip, protocol, length):
    ends = source + socket.inet_pton(socket.AF_INET6 if ":" in vip else socket.AF_INET, vip)
    return ends + (struct.pack("!II", length, protocol) if ":" in vip else struct.pack("!HH", protocol, length))


def syn(vip, port, generator, source=None, source_port=None):
    source, source_port = source or source_of(vip, generator), source_port or generator.randrange(1024, 65536)
    tcp = struct.pack("!HHIIBBHHH", source_port, port, generator.getrandbits(32), 0, 0x50, 2, 65535, 0, 0)
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo_header(source, vip, 6, 20) + tcp)) + tcp[18:]
    return ip_packet(source, vip, 6, tcp, generator.getrandbits(16))


def udp(vip, _, generator):
    source = source_of(vip, generator)
    data = struct.pack("!HHHH", generator.randrange(1024, 65536), generator.randrange(1, 65536), 24, 0) + bytes(16)
    data = data[:6] + struct.pack("!H", checksum(pseudo_header(source, vip, 17, 24) + data) or 0xFFFF) + data[8:]
    return ip_packet(source, vip, 17, data)


def fragment_packet(vip, _, generator):
    return ip_packet(source_of(vip, generator), vip, 17, bytes(64), generator.getrandbits(32), 0x2000 | generator.randrange(8, 100))


def icmp(vip, port, generator):
    source = source_of(vip, generator)
    quoted = ip_packet(socket.inet_pton(socket.AF_INET6 if ":" in vip else socket.AF_INET, vip), vip, 6,
                       struct.pack("!HHI", port, generator.randrange(1024, 65536), generator.getrandbits(32)))
    quoted = quoted[:24] + source + quoted[40:] if ":" in vip else quoted[:16] + source + quoted[20:]
    message = struct.pack("!BBHI", 1 if ":" in vip else 3, 4 if ":" in vip else 1, 0, 0) + quoted
    covered = (pseudo_header(source, vip, 58, len(message)) if ":" in vip else b"") + message
    return ip_packet(source, vip, 58 if ":" in vip else 1, message[:2] + struct.pack("!H", checksum(covered)) + message[4:])


def collide(vip, port, generator):
    """Last half of the address and source port: one grows by what the other loses, and their XOR keeps its high bits."""
    source, number = source_of(vip, generator), generator.randrange(1024, 0x7FFF)
    return syn(vip, port, generator, source[:-2] + struct.pack("!H", 0x8000 - number), 0x8000 + number)


KINDS = {"syn": syn, "udp": udp, "fragment": fragment_packet, "icmp": icmp, "collide": collide}


def frame(kind, mac, vip, port, generator):
    ethernet = bytes.fromhex(mac.replace(":", "")) + bytes.fromhex("0200007702fe") + (b"\x86\xdd" if ":" in vip else b"\x08\x00")
    return ethernet + KINDS[kind](vip, port, generator)


def main(options):
    generator = random.Random(1)
    sending = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sending.bind(("eth0", 0))
    started, sent = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - started) * options["per_second"])
        for _ in range(min(due - sent, 256)):
            sending.send(frame(options["kind"], options["destination_mac"], *options["vips"][sent % len(options["vips"])], generator))
            sent += 1
        time.sleep(0.001)


class Flood:
    def __init__(self, lab, vips, per_second=20000, kind="syn"):
        options = {"kind": kind, "destination_mac": LB_MAC, "vips": vips, "per_second": per_second}
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *lab.inside(CLIENT, "/usr/bin/python3", os.path.abspath(__file__), json.dumps(options))],
            stdin=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def require_running(self):
        if self.process.poll() is not None:
            raise LabError("the flood has ended by itself")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
