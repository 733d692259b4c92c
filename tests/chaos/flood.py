"""A SYN flood from the client's namespace: every frame is a flow of its own, from addresses that nobody answers.

As a program: flood.py OPTIONS_JSON, with {"destination_mac", "vips": [[address, port]…], "per_second"}.
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


def frame(mac, vip, port, generator):
    ethernet = bytes.fromhex(mac.replace(":", "")) + bytes.fromhex("0200007702fe")
    source_port, sequence = generator.randrange(1024, 65536), generator.getrandbits(32)
    tcp = struct.pack("!HHIIBBHHH", source_port, port, sequence, 0, 0x50, 2, 65535, 0, 0)
    if ":" in vip:
        source = socket.inet_pton(socket.AF_INET6, "2001:db8:f00d::")[:8] + generator.randbytes(8)
        ends = source + socket.inet_pton(socket.AF_INET6, vip)
        tcp = tcp[:16] + struct.pack("!H", checksum(ends + struct.pack("!II", 20, 6) + tcp)) + tcp[18:]
        return ethernet + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, 20, 6, 64) + ends + tcp
    source = bytes([198, 18 + generator.getrandbits(1), generator.getrandbits(8), generator.getrandbits(8)])
    ends = source + socket.inet_pton(socket.AF_INET, vip)
    tcp = tcp[:16] + struct.pack("!H", checksum(ends + struct.pack("!HH", 6, 20) + tcp)) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, generator.getrandbits(16), 0x4000, 64, 6, 0) + ends
    return ethernet + b"\x08\x00" + ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + tcp


def main(options):
    generator = random.Random(1)
    sending = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sending.bind(("eth0", 0))
    started, sent = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - started) * options["per_second"])
        for _ in range(min(due - sent, 256)):
            sending.send(frame(options["destination_mac"], *options["vips"][sent % len(options["vips"])], generator))
            sent += 1
        time.sleep(0.001)


class Flood:
    def __init__(self, lab, vips, per_second=20000):
        options = {"destination_mac": LB_MAC, "vips": vips, "per_second": per_second}
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
