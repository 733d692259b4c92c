"""Capture files, byte by byte: what lb-replay reads and writes is not checked with the library it uses."""
import struct

ETHERNET = 1


def write(path, packets, nanoseconds=False, link_type=ETHERNET, big_endian=False):
    """packets: (seconds, captured bytes, bytes on the wire)."""
    order = ">" if big_endian else "<"
    unit = 10**9 if nanoseconds else 10**6
    with open(path, "wb") as file:
        magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
        file.write(struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link_type))
        for seconds, captured, wire_length in packets:
            ticks = round(seconds * unit)
            file.write(struct.pack(order + "IIII", ticks // unit, ticks % unit, len(captured), wire_length))
            file.write(captured)


def read(path):
    """Returns (nanoseconds, [(ticks, bytes)])."""
    with open(path, "rb") as file:
        data = file.read()
    magic = struct.unpack_from("<I", data)[0]
    assert magic in (0xA1B2C3D4, 0xA1B23C4D), f"{path} is not a pcap of this machine's byte order"
    nanoseconds = magic == 0xA1B23C4D
    assert struct.unpack_from("<I", data, 20)[0] == ETHERNET
    packets, at = [], 24
    while at < len(data):
        seconds, fraction, captured, length = struct.unpack_from("<IIII", data, at)
        assert captured == length
        packets.append((seconds * (10**9 if nanoseconds else 10**6) + fraction, data[at + 16:at + 16 + captured]))
        at += 16 + captured
    return nanoseconds, packets
