"""The chaos clients: real TCP connections to several VIPs, watched one by one. client.py OPTIONS_JSON

OPTIONS: {"populations": {NAME: {"address", "tcp_port", "udp_port"}}, "idle", "busy", "new_per_second"}. Each population has
`idle` connections that rest until they are asked, `busy` ones that send and fetch 4 KB five times a second (every
twentieth fetches 256 KB, so that there is always something on its way to the client), and new ones that are opened all the time,
exchange three messages and end. Datagrams every 5 ms show how long nothing was answered.

A line on stdin is a command, a line on stdout its answer (JSON):
  fill           connections that broke are made anew; done when all have spoken with their target
  begin          from now on things are counted
  avoid TARGET   from now on no new connection may reach this target
  end            the idle ones speak, all answers are waited for; what has become of each population
"""

import heapq
import json
import selectors
import socket
import sys
import time

from tests.chaos.server import ANSWER, HEADER

PATIENCE = 30  # seconds for an answer: several retransmissions of TCP
PACE = 0.2  # seconds between two messages of a busy connection
BUSY_BYTES, SMALL_BYTES, LONG_BYTES = 4096, 64, 256 << 10
LONG_EVERY = 20  # of the busy connections
DATAGRAM_PACE, DATAGRAM_FLOWS = 0.005, 4
NEW_MESSAGES = 3
IDLE, BUSY, NEW = "idle", "busy", "new"


class Broken(Exception):
    pass


class Connection:
    def __init__(self, population, kind, now, long=False):
        self.population, self.kind, self.opened = population, kind, now
        self.target, self.asked_at, self.number, self.ended, self.long = None, now, 0, False, long
        self.into, self.out = bytearray(), bytearray()
        family = socket.AF_INET6 if ":" in population.address else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex((population.address, population.tcp_port))
        self.ask(now)

    def ask(self, now):
        size = BUSY_BYTES if self.kind == BUSY and self.number > 0 else SMALL_BYTES
        self.number += 1
        wanted = LONG_BYTES if self.long and self.number > 1 else size
        self.asked_at, self.wanted = now, max(wanted, ANSWER.size)
        self.out += HEADER.pack(size, wanted, self.number) + bytes(size - HEADER.size)

    def write(self):
        while self.out:
            try:
                del self.out[:self.socket.send(self.out)]
            except BlockingIOError:
                return
            except OSError as error:
                raise Broken("reset" if isinstance(error, ConnectionError) else error.strerror) from error

    def read(self):
        """True when the answer to the last message is complete."""
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return False
        except OSError as error:
            raise Broken("reset" if isinstance(error, ConnectionError) else error.strerror) from error
        if not data:
            raise Broken("ended by the target")
        self.into += data
        if len(self.into) < self.wanted:
            return False
        name, number = ANSWER.unpack_from(self.into)
        name = name.rstrip(b"\0").decode()
        if number != self.number or self.target not in (None, name):
            raise Broken("changed target")
        self.target, self.asked_at = name, None
        del self.into[:self.wanted]
        return True


class Population:
    def __init__(self, name, address, tcp_port, udp_port):
        self.name, self.address, self.tcp_port, self.udp_port = name, address, tcp_port, udp_port
        self.connections = {IDLE: set(), BUSY: set(), NEW: set()}
        self.datagrams, self.next_datagram, self.opened = [], 0, 0
        for _ in range(DATAGRAM_FLOWS):
            made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
            made.setblocking(False)
            made.connect((address, udp_port))
            self.datagrams.append(made)
        self.begin(time.monotonic())

    def begin(self, now):
        self.broken, self.new_targets, self.avoided, self.new_opened = [], {}, 0, 0
        self.tracked = {}
        for kind in (IDLE, BUSY):
            for connection in self.connections[kind]:
                self.tracked[connection.target] = self.tracked.get(connection.target, 0) + 1
        self.last_datagram, self.gap = now, 0.0
        self.messages = 0


class Clients:
    def __init__(self, options):
        self.options = options
        self.populations = [Population(name, **where) for name, where in options["populations"].items()]
        self.selector = selectors.EpollSelector()
        self.selector.register(sys.stdin, selectors.EVENT_READ, None)
        for population in self.populations:
            for made in population.datagrams:
                self.selector.register(made, selectors.EVENT_READ, population)
        self.timers, self.order = [], 0
        self.opening, self.avoid = False, {}
        self.commands = b""
        now = time.monotonic()
        for population in self.populations:
            self.at(now, self.send_datagram, population)
            self.at(now, self.open_new, population)

    def at(self, when, work, subject):
        self.order += 1
        heapq.heappush(self.timers, (when, self.order, work, subject))

    # Connections.

    def open(self, population, kind, now):
        population.opened += kind == BUSY
        connection = Connection(population, kind, now, kind == BUSY and population.opened % LONG_EVERY == 1)
        population.connections[kind].add(connection)
        self.selector.register(connection.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)

    def drop(self, connection, why=None):
        if connection.ended:
            return
        connection.ended = True
        self.selector.unregister(connection.socket)
        connection.socket.close()
        population = connection.population
        population.connections[connection.kind].discard(connection)
        if why:
            population.broken.append({"kind": connection.kind, "target": connection.target, "why": why})

    def ready(self, connection, events, now):
        try:
            if events & selectors.EVENT_READ and connection.read():
                self.answered(connection, now)
            if events & selectors.EVENT_WRITE and not connection.ended:
                connection.write()
                if not connection.out:
                    self.selector.modify(connection.socket, selectors.EVENT_READ, connection)
        except Broken as broken:
            self.drop(connection, str(broken))

    def answered(self, connection, now):
        population = connection.population
        population.messages += 1
        if connection.kind == NEW:
            if connection.number == 1:
                population.new_targets[connection.target] = population.new_targets.get(connection.target, 0) + 1
                if connection.opened > self.avoid.get(connection.target, now):
                    population.avoided += 1
            if connection.number == NEW_MESSAGES:
                return self.drop(connection)
        if connection.kind != IDLE:
            self.at(now + PACE, self.speak, connection)

    def speak(self, connection, now):
        if connection.ended or connection.asked_at is not None:
            return
        connection.ask(now)
        try:
            connection.write()
        except Broken as broken:
            return self.drop(connection, str(broken))
        if connection.out:
            self.selector.modify(connection.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)

    def open_new(self, population, now):
        self.at(now + 1 / self.options["new_per_second"], self.open_new, population)
        if self.opening:
            population.new_opened += 1
            self.open(population, NEW, now)

    # Datagrams.

    def send_datagram(self, population, now):
        self.at(now + DATAGRAM_PACE, self.send_datagram, population)
        population.next_datagram = (population.next_datagram + 1) % DATAGRAM_FLOWS
        try:
            population.datagrams[population.next_datagram].send(HEADER.pack(64, 64, 0) + bytes(64 - HEADER.size))
        except OSError:
            pass  # an ICMP error of an earlier one

    def receive_datagram(self, population, made, now):
        try:
            made.recv(2048)
        except OSError:
            return
        population.gap = max(population.gap, now - population.last_datagram)
        population.last_datagram = now

    # Commands: generators that are gone on with until they return their answer.

    def waiting(self, kinds=(IDLE, BUSY, NEW)):
        return [c for p in self.populations for kind in kinds for c in p.connections[kind] if c.asked_at is not None]

    def do_fill(self):
        end = time.monotonic() + PATIENCE
        for population in self.populations:
            population.broken = []
            for kind in (IDLE, BUSY):
                for number in range(self.options[kind] - len(population.connections[kind])):
                    self.open(population, kind, time.monotonic())
                    if number % 50 == 49:
                        yield
        while [c for c in self.waiting((IDLE, BUSY)) if c.kind == IDLE or c.target is None] and time.monotonic() < end:
            yield
        late = self.waiting((IDLE,))
        short = sum(self.options[kind] - len(p.connections[kind]) for p in self.populations for kind in (IDLE, BUSY))
        return {"unanswered": len(late), "broken": short}

    def do_begin(self):
        self.avoid, self.opening = {}, True
        for population in self.populations:
            population.begin(time.monotonic())
        return {}
        yield

    def do_avoid(self, target):
        self.avoid[target] = time.monotonic()
        return {}
        yield

    def do_end(self):
        now = time.monotonic()
        self.opening = False
        for population in self.populations:
            population.gap = max(population.gap, now - population.last_datagram)
            for connection in list(population.connections[IDLE]):
                self.speak(connection, now)
        while time.monotonic() < now + PATIENCE and (self.waiting((IDLE, NEW)) or any(
                p.connections[NEW] for p in self.populations) or [c for c in self.waiting((BUSY,)) if c.asked_at < now + 2]):
            yield
        for connection in self.waiting():
            if connection.kind != BUSY or connection.asked_at < now + 2:
                self.drop(connection, "no answer")
        return {p.name: {"tracked_by_target": p.tracked, "new": p.new_opened, "new_by_target": p.new_targets, "avoided": p.avoided,
                         "broken": p.broken, "gap_ms": round(1000 * p.gap), "messages": p.messages} for p in self.populations}

    def run(self):
        command = None
        while True:
            now = time.monotonic()
            while self.timers and self.timers[0][0] <= now:
                _, _, work, subject = heapq.heappop(self.timers)
                work(subject, now)
            if command is not None:
                try:
                    next(command)
                except StopIteration as done:
                    print(json.dumps(done.value), flush=True)
                    command = None
            pause = max(0.0, self.timers[0][0] - time.monotonic()) if self.timers else 0.1
            for key, events in self.selector.select(pause):
                if key.fileobj is sys.stdin:
                    line = sys.stdin.readline()
                    if not line:
                        return
                    name, *arguments = line.split()
                    command = getattr(self, f"do_{name}")(*arguments)
                elif isinstance(key.data, Connection):
                    if not key.data.ended:
                        self.ready(key.data, events, time.monotonic())
                else:
                    self.receive_datagram(key.data, key.fileobj, time.monotonic())


if __name__ == "__main__":
    Clients(json.loads(sys.argv[1])).run()
