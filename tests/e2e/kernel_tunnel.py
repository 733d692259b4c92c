"""A target that takes tunnels apart behind its kernel's reassembly, as a kernel's own tunnel devices do: the kernel puts fragments
of outer packets together (and checks the UDP checksum of GUE), this program takes the header off and gives the inner packet back
through a TUN device. Usage: kernel_tunnel.py NAME GUE_PORT. Ends when it is killed."""

import fcntl
import os
import select
import socket
import struct
import subprocess
import sys

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000


def open_tun(name):
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", "dev", name, "mtu", "9000", "up"], check=True)
    subprocess.run(["sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter=0"], check=True)
    return tun


def behind_ip(packet):
    return packet[(packet[0] & 15) * 4:]


def behind_gre(packet):
    return packet[8 if packet[0] & 0x20 else 4:]


def main(name, gue_port):
    tun = open_tun(name)
    takers = {}  # socket → from what it receives to the inner packet
    for protocol, take in ((4, None), (41, None), (47, behind_gre)):
        for family in (socket.AF_INET, socket.AF_INET6):
            # An IPv4 raw socket gives the IP header as well, an IPv6 one does not.
            takers[socket.socket(family, socket.SOCK_RAW, protocol)] = [step for step in (behind_ip if family == socket.AF_INET else None, take) if step]
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.bind(("::", gue_port))
    takers[udp] = [lambda packet: packet[4:]]
    print("ready", flush=True)
    while True:
        for ready in select.select(list(takers), [], [])[0]:
            packet = ready.recv(65535)
            for step in takers[ready]:
                packet = step(packet)
            os.write(tun, packet)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
