"""serve NAME PORT…: answers TCP connections and datagrams on every port with NAME, from the address that was asked.
ask tcp|udp ADDRESS,PORT…: prints who answered, in order."""

import json
import select
import socket
import struct
import sys

PKTINFO = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)
IPV6_FREEBIND = 78  # the addresses of a prefix are routed here, but stand on no interface


def listen(kind, port):
    listening = socket.socket(socket.AF_INET6, kind)
    listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    listening.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    listening.bind(("::", port))
    if kind == socket.SOCK_STREAM:
        listening.listen(64)
    return listening


def serve(name, ports):
    sockets = [listen(kind, port) for port in ports for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
    print("ready", flush=True)
    while True:
        for ready in select.select(sockets, [], [])[0]:
            if ready.type == socket.SOCK_STREAM:
                with ready.accept()[0] as connection:
                    connection.sendall(name.encode())
                continue
            _, ancillary, _, client = ready.recvmsg(2048, 256)
            asked = next(data[:16] for level, kind, data in ancillary if (level, kind) == PKTINFO)
            ready.sendmsg([name.encode()], [(*PKTINFO, asked + struct.pack("i", 0))], 0, client)


def ask(kind, address, port):
    for attempt in range(3):  # a datagram may be lost
        asking = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
        with asking:
            asking.settimeout(5)
            try:
                asking.connect((address, port))
                if kind == socket.SOCK_DGRAM:
                    asking.send(b"who")
                return asking.recv(64).decode()
            except socket.timeout:
                if attempt == 2:
                    return "nobody"


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], map(int, sys.argv[3:]))
    else:
        of = socket.SOCK_STREAM if sys.argv[2] == "tcp" else socket.SOCK_DGRAM
        print(json.dumps([ask(of, where.rsplit(",", 1)[0], int(where.rsplit(",", 1)[1])) for where in sys.argv[3:]]))
