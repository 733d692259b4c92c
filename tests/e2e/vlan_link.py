"""A tagged link for a kernel that has none: NAME MAC TAG…: what the interface NAME sends leaves by eth0 with these tags, outermost first; frames
to MAC that come in by eth0 are given to it without theirs. Prints each other combination of tags that frames came with, once."""

import fcntl
import os
import select
import socket
import struct
import sys

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
ETH_P_ALL, SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 3, 263, 8, 0x10
VLAN_TYPES = (0x8100, 0x88A8)


def untagged(frame, auxiliary):
    """(frame, tags): the kernel takes the outermost tag off and tells it beside the frame."""
    tags = []
    for level, kind, data in auxiliary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tag, _ = struct.unpack("IIIHHHH", data)
            tags += [tag & 0xFFF] if status & TP_STATUS_VLAN_VALID else []
    while struct.unpack_from("!H", frame, 12)[0] in VLAN_TYPES:
        tags.append(struct.unpack_from("!H", frame, 14)[0] & 0xFFF)
        frame = frame[:12] + frame[16:]
    return frame, tags


def main(name, mac, wanted):
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.bind(("eth0", 0))
    wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    own = bytes.fromhex(mac.replace(":", ""))
    seen = {tuple(wanted)}
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([tap, wire], [], [])
        if tap in readable:
            frame = os.read(tap, 2048)
            wire.send(frame[:12] + b"".join(struct.pack("!HH", 0x8100, tag) for tag in wanted) + frame[12:])
        if wire in readable:
            frame, auxiliary, _, _ = wire.recvmsg(4096, 256)
            if frame[:6] != own:
                continue
            frame, tags = untagged(frame, auxiliary)
            if tags == wanted:
                os.write(tap, frame)
            elif tuple(tags) not in seen:
                seen.add(tuple(tags))
                print("came with", tags, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], [int(tag) for tag in sys.argv[3:]])
