"""serve ADDRESS PORT NAME: answers each datagram with NAME. ask ADDRESS PORT FLOWS DATAGRAMS: prints who answered, by flow."""

import json
import socket
import sys


def udp(address):
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)


def serve(address, port, name):
    with udp(address) as listening:
        listening.bind((address, port))  # the answer's source is the VIP
        while True:
            _, client = listening.recvfrom(2048)
            listening.sendto(name.encode(), client)


def ask(address, port, flows, datagrams):
    answers = []
    for _ in range(flows):
        with udp(address) as asking:
            asking.settimeout(5)
            asking.connect((address, port))
            flow = []
            for number in range(datagrams):
                asking.send(f"{number}".encode() * 100)
                flow.append(asking.recv(2048).decode())
            answers.append(flow)
    print(json.dumps(answers))


if __name__ == "__main__":
    what, where, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if what == "serve":
        serve(where, number, sys.argv[4])
    else:
        ask(where, number, int(sys.argv[4]), int(sys.argv[5]))
