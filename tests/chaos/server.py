"""Serves the chaos clients on one target: server.py NAME TCP_PORT UDP_PORT HEALTH_PORT SICK_FILE

A TCP message is HEADER (its size, the wanted size of the answer, a number) and padding; the answer is ANSWER (this target's
name, the number) and padding. A datagram is answered by the same rule, from the address it was sent to. The health port
answers HTTP 200, and 503 while SICK_FILE exists: a target can be unhealthy and yet hold its connections.
"""

import os
import selectors
import socket
import struct
import sys

HEADER = struct.Struct("!IIQ")
ANSWER = struct.Struct("!8sQ")
MAX_MESSAGE = 1 << 20


def listening(port):
    made = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.bind(("::", port))
    made.listen(4096)
    made.setblocking(False)
    return made


def datagrams(port):
    made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    made.bind(("::", port))
    made.setblocking(False)
    return made


class Client:
    def __init__(self, made):
        self.socket, self.into, self.out = made, bytearray(), bytearray()


class Server:
    def __init__(self, name, tcp_port, udp_port, health_port, sick_file):
        self.name, self.sick_file = name.encode(), sick_file
        self.selector = selectors.EpollSelector()
        for made, work in ((listening(tcp_port), self.accept), (datagrams(udp_port), self.echo), (listening(health_port), self.health)):
            self.selector.register(made, selectors.EVENT_READ, (work, made))

    def run(self):
        while True:
            for key, events in self.selector.select():
                work, subject = key.data
                work(subject, events)

    def answer(self, data):
        """The answers to all whole messages in `data`, which are taken out."""
        out = bytearray()
        while len(data) >= HEADER.size:
            size, wanted, number = HEADER.unpack_from(data)
            if size < HEADER.size or size > MAX_MESSAGE or wanted > MAX_MESSAGE:
                raise ConnectionError("not a message of ours")
            if len(data) < size:
                break
            del data[:size]
            out += ANSWER.pack(self.name, number) + bytes(max(0, wanted - ANSWER.size))
        return out

    def accept(self, listener, _):
        for _ in range(64):
            try:
                made, _ = listener.accept()
            except OSError:
                return
            made.setblocking(False)
            self.selector.register(made, selectors.EVENT_READ, (self.serve, Client(made)))

    def serve(self, client, events):
        try:
            if events & selectors.EVENT_READ:
                data = client.socket.recv(1 << 16)
                if not data:
                    raise ConnectionError("ended")
                client.into += data
                client.out += self.answer(client.into)
            if client.out:
                del client.out[:client.socket.send(client.out)]
        except BlockingIOError:
            pass
        except OSError:
            self.selector.unregister(client.socket)
            client.socket.close()
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.out else 0)
        if events & selectors.EVENT_WRITE or client.out:
            self.selector.modify(client.socket, wanted, (self.serve, client))

    def echo(self, made, _):
        for _ in range(64):
            try:
                data, extra, _, sender = made.recvmsg(2048, 128)
                made.sendmsg([self.answer(bytearray(data))], extra, 0, sender)
            except OSError:
                return

    def health(self, listener, _):
        try:
            made, _ = listener.accept()
        except OSError:
            return
        with made:
            made.settimeout(2)
            status = "503 Service Unavailable" if os.path.exists(self.sick_file) else "200 OK"
            try:
                made.recv(4096)
                made.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            except OSError:
                pass


if __name__ == "__main__":
    Server(sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]).run()
