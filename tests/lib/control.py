"""A client of lb-dp's control socket (dp/abi/control.h), for handing it snapshots that no lb-cp would make."""

import dataclasses
import fcntl
import os
import pathlib
import re
import socket
import struct

MAGIC, VERSION = 0x6C62636D, 1
HELLO, SEGMENTS, PUBLISH, VERDICT, ACTIVE, BUSY = range(1, 7)
HEADER = struct.Struct("<IIII")
GENERATION = struct.Struct("<QQ")
MAX_FDS = 200
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
# SegmentHeader of dp/abi/snapshot.h: magic, version, kind, fingerprint, size, id, checksum.
SEGMENT_HEADER = struct.Struct("<QIIQQQQ16x")
ROOT_GENERATION = struct.Struct("<QQ")  # right behind the header

SOURCE = pathlib.Path(__file__).resolve().parents[2] / "dp/abi/control.h"
# Names of refusals, in order, from the one list.
REFUSALS = ["none", *re.findall(r"^  X\((\w+), ", SOURCE.read_text(), re.MULTILINE)]


def memfd(data, seals=SEALS):
    fd = os.memfd_create("lb-test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]
    if seals:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


@dataclasses.dataclass
class Reply:
    kind: int
    generation: tuple = (0, 0)
    refusal: str = "none"
    text: str = ""


class Control:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        data, self.fds, _, _ = socket.recv_fds(self.socket, 65536, 4)
        self.greeting = HEADER.unpack_from(data)[2]
        self.hello = data

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for fd in self.fds:
            os.close(fd)
        self.socket.close()

    @property
    def generation(self):
        """In force when we connected."""
        return GENERATION.unpack_from(self.hello, HEADER.size + 16)

    def _send(self, kind, body, fds):
        message = HEADER.pack(MAGIC, VERSION, kind, HEADER.size + len(body)) + body
        socket.send_fds(self.socket, [message], fds)
        for fd in fds:
            os.close(fd)

    def segments(self, by_id):
        items = list(by_id.items())
        for first in range(0, len(items), MAX_FDS):
            part = items[first:first + MAX_FDS]
            ids = [i for i, _ in part] + [0] * (MAX_FDS - len(part))
            self._send(SEGMENTS, struct.pack("<II200Q", len(part), 0, *ids), [memfd(data) for _, data in part])

    def publish(self, root, generation=None, seals=SEALS):
        """Hands a root over and returns the verdict on it."""
        if generation is None:
            generation = ROOT_GENERATION.unpack_from(root, SEGMENT_HEADER.size) if len(root) >= 80 else (0, 0)
        self._send(PUBLISH, GENERATION.pack(*generation), [memfd(root, seals)])
        while True:
            reply = self.receive()
            if reply.kind == VERDICT:
                return reply

    def receive(self):
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("lb-dp closed the control socket")
        kind = HEADER.unpack_from(data)[2]
        reply = Reply(kind)
        if kind in (VERDICT, ACTIVE):
            reply.generation = GENERATION.unpack_from(data, HEADER.size)
        if kind == VERDICT:
            (number,) = struct.unpack_from("<I", data, HEADER.size + 16)
            reply.refusal = REFUSALS[number]
            reply.text = data[HEADER.size + 20:].split(b"\0")[0].decode()
        return reply
