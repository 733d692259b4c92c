"""A Geneve appliance for tests: gives every packet back as it came, options and all, and says whose it was.

    appliance.py ADDRESS     one line for each packet: cookie, source, destination of the packet inside
"""
import ipaddress
import socket
import sys

PORT, OPTIONS_CLASS, COOKIE = 6081, 0x0108, 3


def cookie_of(header):
    at = 8
    while at < len(header):
        words = header[at + 3] & 0x1F
        if int.from_bytes(header[at:at + 2], "big") == OPTIONS_CLASS and header[at + 2] == COOKIE:
            return header[at + 4:at + 8].hex()
        at += 4 + 4 * words
    return "none"


def ends_of(packet):
    at, size = (12, 4) if packet[0] >> 4 == 4 else (8, 16)
    return [ipaddress.ip_address(packet[at + n * size:at + (n + 1) * size]) for n in range(2)]


def main(address):
    server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, PORT))
    while True:
        data, (sender, *_) = server.recvfrom(65535)
        length = 8 + (data[0] & 0x3F) * 4
        print(cookie_of(data[:length]), *ends_of(data[length:]), flush=True)
        server.sendto(data, (sender, PORT))


if __name__ == "__main__":
    main(sys.argv[1])
