#!/usr/bin/env python3
"""Writes pcaps for the generator's pcap mode, where range mode's 24,576 packets are too few or too regular.

  make_pcap.py flows   --count 1000000 --out flows.pcap       one packet of each flow
  make_pcap.py syn     --count 1000000 --out syn.pcap         TCP SYNs, each of another flow
  make_pcap.py vips    --count 100000 --vip A --vip B … --out vips.pcap   flows spread evenly over VIPs
  make_pcap.py imix    --count 120000 --out imix.pcap         7:4:1 of 64, 570 and 1518 bytes with FCS

--random draws addresses and ports pseudo-randomly (RFC 4814 §4.5), repeatably by --seed; without it they count upwards.
Sizes are with the 4-byte FCS, which is not written. Checksums are right."""

import argparse
import ipaddress
import random
import struct
import sys

IMIX = (64, 570, 64, 64, 570, 64, 64, 570, 64, 1518, 64, 570)
ETHERNET_BYTES, FCS_BYTES = 14, 4


def ones_complement(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(args, vip, source: int, port: int, size: int) -> bytes:
    """One Ethernet frame without FCS; IPv4 or IPv6 by the VIP's family."""
    l3_bytes = size - FCS_BYTES - ETHERNET_BYTES
    v6 = vip.version == 6
    ip_header = 40 if v6 else 20
    l4_bytes = max(l3_bytes - ip_header, 20 if args.proto == "tcp" else 8)
    src = (int(args.source6) if v6 else int(args.source4)) + source
    src_bytes = src.to_bytes(16 if v6 else 4, "big")
    number = 6 if args.proto == "tcp" else 17
    if args.proto == "tcp":
        flags = 0x02 if args.kind == "syn" else 0x10
        l4 = struct.pack("!HHIIBBHHH", port, args.dport, 1, 0 if flags == 2 else 1, 5 << 4, flags, 65535, 0, 0)
    else:
        l4 = struct.pack("!HHHH", port, args.dport, l4_bytes, 0)
    l4 += bytes(l4_bytes - len(l4))
    pseudo = src_bytes + vip.packed + (struct.pack("!IHBB", l4_bytes, 0, 0, number) if v6 else struct.pack("!BBH", 0, number, l4_bytes))
    offset = 16 if args.proto == "tcp" else 6
    checksum = ones_complement(pseudo + l4)
    if args.proto == "udp" and checksum == 0:
        checksum = 0xFFFF
    l4 = l4[:offset] + struct.pack("!H", checksum) + l4[offset + 2:]
    if v6:
        header = struct.pack("!IHBB", 6 << 28, l4_bytes, number, 64) + src_bytes + vip.packed
        ether_type = 0x86DD
    else:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + l4_bytes, 0, 0x4000, 64, number, 0) + src_bytes + vip.packed
        header = header[:10] + struct.pack("!H", ones_complement(header)) + header[12:]
        ether_type = 0x0800
    return args.dmac + args.smac + struct.pack("!H", ether_type) + header + l4


def mac(text: str) -> bytes:
    value = bytes.fromhex(text.replace(":", ""))
    if len(value) != 6:
        raise argparse.ArgumentTypeError(f"{text} is not a MAC address")
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["flows", "syn", "vips", "imix"])
    parser.add_argument("--count", type=int, required=True, help="packets, 1 to 50,000,000")
    parser.add_argument("--out", required=True)
    parser.add_argument("--vip", type=ipaddress.ip_address, action="append", help="default 198.18.0.1; several spread evenly")
    parser.add_argument("--dport", type=int, default=80)
    parser.add_argument("--proto", choices=["udp", "tcp"], default="udp", help="syn is always tcp")
    parser.add_argument("--size", type=int, default=64, help="bytes with FCS, 64 to 9018")
    parser.add_argument("--source4", type=ipaddress.IPv4Address, default=ipaddress.IPv4Address("10.0.0.0"))
    parser.add_argument("--source6", type=ipaddress.IPv6Address, default=ipaddress.IPv6Address("2001:db8:1::"))
    parser.add_argument("--dmac", type=mac, default=mac("02:00:00:00:00:02"), help="the balancer's port")
    parser.add_argument("--smac", type=mac, default=mac("02:00:00:00:00:01"))
    parser.add_argument("--random", action="store_true", help="pseudo-random addresses and ports (RFC 4814)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if not 1 <= args.count <= 50_000_000:
        parser.error("--count: 1 to 50,000,000")
    if not 64 <= args.size <= 9018:
        parser.error("--size: 64 to 9018")
    if args.kind == "syn":
        args.proto = "tcp"
    vips = args.vip or [ipaddress.ip_address("198.18.0.1")]
    draw = random.Random(args.seed)
    ports = 65535 - 1024 + 1
    with open(args.out, "wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for n in range(args.count):
            # Counting up, neighbours differ in the address and the pair (address, port) repeats only after 2^16 × ports.
            if args.random:
                source, port = draw.randrange(1, 1 << 22), draw.randrange(1024, 65536)
            else:
                source, port = 1 + n % 65536, 1024 + n // 65536 % ports
            size = IMIX[n % len(IMIX)] if args.kind == "imix" else args.size
            data = frame(args, vips[n % len(vips)], source, port, size)
            out.write(struct.pack("<IIII", n // 1_000_000, n % 1_000_000, len(data), len(data)) + data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
