"""Connections of the client that a test holds open and looks at while things change."""

import itertools
import json
import subprocess
import threading

from tests.lib.lab import CLIENT, LabError

# Runs in the client's namespace: one HTTP connection; a line on stdin is a request, a line on stdout its answer.
HOLDER = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], 80, timeout=10, source_address=(sys.argv[2], int(sys.argv[3])))
for line in sys.stdin:
    try:
        connection.request("GET", line.strip())
        print(connection.getresponse().read().decode().strip(), flush=True)
    except Exception as error:
        print("error:", type(error).__name__, flush=True)
"""

# Runs in the client's namespace: requests on new and on kept connections from many threads, until stdin ends.
LOAD = """
import http.client, json, sys, threading
address, errors, counts, stop = sys.argv[1], [], [0] * 8, threading.Event()
def work(i):
    kept = http.client.HTTPConnection(address, 80, timeout=20)
    while not stop.is_set():
        try:
            for connection in (kept, http.client.HTTPConnection(address, 80, timeout=20)):
                connection.request("GET", "/")
                if connection.getresponse().read()[:1] != b"t": errors.append("answer")
                counts[i] += 1
            connection.close()
        except Exception as error:
            errors.append(repr(error))
            kept = http.client.HTTPConnection(address, 80, timeout=20)
        stop.wait(0.01)
threads = [threading.Thread(target=work, args=(i,)) for i in range(len(counts))]
[t.start() for t in threads]
for _ in sys.stdin:
    print(sum(counts), flush=True)
stop.set()
[t.join() for t in threads]
print(json.dumps({"requests": sum(counts), "errors": errors}), flush=True)
"""


# Runs in the client's namespace: a datagram to ADDRESS PORT from SOURCE on each of so many flows; prints what the kernel said of them.
ASK_NOBODY = """
import json, socket, sys
outcomes = []
for _ in range(int(sys.argv[4])):
    with socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM) as flow:
        flow.settimeout(10)
        flow.bind((sys.argv[3], 0))
        flow.connect((sys.argv[1], int(sys.argv[2])))
        flow.send(b"q")
        try:
            outcomes.append(flow.recv(2048).decode())
        except OSError as error:
            outcomes.append(type(error).__name__)
print(json.dumps(outcomes))
"""


def asked_nobody(lab, address, port, source, flows):
    """What becomes of datagrams to a port that nothing listens on, at whatever rate the targets' kernels are asked."""
    for target in lab.targets:
        lab.run(target, "sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
    return json.loads(lab.run(CLIENT, "/usr/bin/python3", "-c", ASK_NOBODY, address, str(port), source, str(flows), timeout=60).stdout)


_ports = itertools.count(40000)


def fresh_port():
    """A source port that no connection of this run has used: an old one may still rest in TIME_WAIT."""
    return next(_ports)


class Script:
    """A program of a test in the client's namespace, asked by lines."""

    def __init__(self, lab, script, *arguments):
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *lab.inside(CLIENT, "/usr/bin/python3", "-c", script, *arguments)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def ask(self, line, seconds=25):
        watchdog = threading.Timer(seconds, self.process.kill)
        watchdog.start()
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline().strip()
        finally:
            watchdog.cancel()
        if not answer:
            raise LabError("the client's connection gave no answer")
        return answer


class Connection(Script):
    """One kept HTTP connection, from `port`."""

    def __init__(self, lab, case):
        self.port = fresh_port()
        super().__init__(lab, HOLDER, case.vip, case.client, str(self.port))

    def ask(self, path="/"):
        answer = super().ask(path)
        if answer.startswith("error:"):
            raise LabError(f"the kept connection broke: {answer}")
        return answer


class Load(Script):
    def __init__(self, lab, case):
        super().__init__(lab, LOAD, case.vip)

    def requests(self):
        return int(self.ask("count"))

    def finish(self):
        """{"requests": N, "errors": [...]}"""
        output, _ = self.process.communicate(timeout=40)
        return json.loads(output.splitlines()[-1])
