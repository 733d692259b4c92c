"""A server and a client that speak as much of QUIC as a load balancer sees: headers (RFC 8999) and connection IDs that name the server
(draft-ietf-quic-load-balancers). serve ADDRESS PORT NAME CONFIGS: JSON, [{id, server_id, nonce_length, key}]; each connection is given two
connection IDs by each of them. ask ADDRESS PORT CONNECTIONS SOURCES: each connection moves to another source address and port with
every datagram; prints for each who answered: a list of [NAME, the server's number of the connection, how many of its datagrams came].
A datagram whose connection ID a server has not given out is answered as number -1."""

import itertools
import json
import os
import pathlib
import socket
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tests.lib.quic_lb import long_header, make_cid, short_header  # noqa: E402

CLIENT_CID = b"client00"


def udp(address):
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)


def destination_cid(datagram, lengths):
    """Of a short header the length is the server's to know: its configs differ in the first octet."""
    if datagram[0] & 0x80:
        return datagram[6:6 + datagram[5]]
    return datagram[1:1 + lengths.get(datagram[1] >> 5, 0)]


def source_cid(datagram):
    at = 6 + datagram[5]
    return datagram[at + 1:at + 1 + datagram[at]]


class Server:
    def __init__(self, name, configs):
        self.name, self.configs = name, configs
        self.lengths = {c["id"]: 1 + len(c["server_id"]) // 2 + c["nonce_length"] for c in configs}
        self.connections = {}  # connection ID: number
        self.counts = []       # datagrams by connection

    def new_cids(self, number):
        for config in self.configs * 2:
            key = bytes.fromhex(config["key"]) if config.get("key") else None
            cid = make_cid(config["id"], bytes.fromhex(config["server_id"]), os.urandom(config["nonce_length"]), key)
            self.connections[cid] = number
            yield cid.hex()

    def answer(self, datagram):
        number = self.connections.get(destination_cid(datagram, self.lengths), -1)
        if number < 0 and datagram[0] & 0x80:  # a client's first packet: its connection ID is the client's own
            number = len(self.counts)
            self.counts.append(0)
            cids = list(self.new_cids(number))
            self.connections[destination_cid(datagram, self.lengths)] = number
        else:
            cids = []
        if number >= 0:
            self.counts[number] += 1
        told = json.dumps([self.name, number, self.counts[number] if number >= 0 else 0, cids]).encode()
        return long_header(source_cid(datagram), bytes.fromhex(cids[0]) if cids else b"", told) if datagram[0] & 0x80 else short_header(CLIENT_CID, told)


def serve(address, port, name, configs):
    server = Server(name, configs)
    with udp(address) as listening:
        listening.bind((address, port))  # the answer's source is the VIP
        while True:
            datagram, client = listening.recvfrom(2048)
            listening.sendto(server.answer(datagram), client)


class Path:
    """A source address and port."""

    def __init__(self, source, where):
        self.socket = udp(source)
        self.socket.settimeout(5)
        self.socket.bind((source, 0))
        self.socket.connect(where)

    def send(self, datagram):
        self.socket.send(datagram)
        answer = self.socket.recv(2048)
        long = answer[0] & 0x80
        return json.loads(answer[7 + answer[5] + len(source_cid(answer)):] if long else answer[1 + len(CLIENT_CID):])


def ask(address, port, connections, sources):
    where, results, kept = (address, port), [], []
    turn = itertools.cycle(sources)
    for _ in range(connections):
        path = Path(next(turn), where)
        first = path.send(long_header(os.urandom(8), CLIENT_CID))
        story, cids = [first[:3]], [bytes.fromhex(cid) for cid in first[3]]
        for cid in cids:  # a new connection ID on a new path
            kept.append(Path(next(turn), where))
            story.append(kept[-1].send(short_header(cid))[:3])
        results.append((story, path, cids[-1]))
    # Everybody's connection ID from everybody's first address and port.
    for number, (story, _, cid) in enumerate(results):
        _, path, _ = results[(number + 1) % len(results)]
        story.append(path.send(short_header(cid))[:3])
    print(json.dumps([story for story, _, _ in results]))


if __name__ == "__main__":
    what, where, port_number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if what == "serve":
        serve(where, port_number, sys.argv[4], json.loads(sys.argv[5]))
    else:
        ask(where, port_number, int(sys.argv[4]), sys.argv[5].split(","))
