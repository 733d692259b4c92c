"""What systemd does with a unit, as far as lb's units need it, for machines without systemd: reads ExecStart, Restart,
RestartSec, WatchdogSec, WatchdogSignal, Type=notify, ExecReload from the shipped file, and follows MAINPID.

supervisor.py UNIT_FILE [PROGRAM ARGUMENT…]: the rest replaces ExecStart's command, and the program and file of ExecReload's. Ends
with SIGTERM, and ends its program; SIGHUP is `systemctl reload`.
"""

import configparser
import ctypes
import os
import pathlib
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time

PR_SET_CHILD_SUBREAPER = 36
UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "": 1.0}


def seconds(text):
    number, unit = re.fullmatch(r"([\d.]+)\s*(ms|s|min|)", text.strip()).groups()
    return float(number) * UNITS[unit]


class Unit:
    def __init__(self, path):
        parser = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",), comment_prefixes=("#", ";"))
        parser.optionxform = str
        parser.read_string(pathlib.Path(path).read_text())
        service = parser["Service"]
        self.command = shlex.split(service["ExecStart"])
        self.user = service.get("User")
        self.capabilities = service.get("AmbientCapabilities", "").split()
        self.reload = shlex.split(service.get("ExecReload", ""))
        self.notify = service.get("Type") == "notify"
        self.restart = service.get("Restart", "no")
        self.pause = seconds(service.get("RestartSec", "100ms"))
        self.watchdog = seconds(service.get("WatchdogSec", "0"))
        self.watchdog_signal = getattr(signal, service.get("WatchdogSignal", "SIGABRT"))

    def as_user(self, user):
        """The command that gives a program the unit's rights, as this user: systemd's User=, AmbientCapabilities=, NoNewPrivileges=."""
        kept = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in self.capabilities)])
        return ["setpriv", "--reuid", user, "--regid", "nogroup", "--clear-groups", "--inh-caps", kept, "--ambient-caps", kept,
                "--bounding-set", kept, "--no-new-privs", "--"]

    def restarts(self, code, hung):
        return {"always": True, "on-failure": hung or code != 0, "on-abnormal": hung or code < 0, "on-watchdog": hung, "no": False}[self.restart]


class Adopted:
    """A process that our own has left its work to; with it we are whoever has no parent any more finds."""

    def __init__(self, pid):
        self.pid, self.returncode = pid, None

    def poll(self):
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # whoever has started it is still its parent
                return None
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self):
        while self.poll() is None:
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)


class Supervisor:
    def __init__(self, unit, command):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.unit, self.command = unit, command or unit.command
        self.folder = tempfile.TemporaryDirectory(prefix="lb-notify-")
        self.path = f"{self.folder.name}/notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        os.chmod(self.folder.name, 0o711)  # as systemd's: a daemon reports under another user than it was started as
        os.chmod(self.path, 0o666)
        self.stopping = False
        self.process = None
        self.reloading = None
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGHUP, self.start_reload)

    def stop(self, *_):
        self.stopping = True
        if self.process and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGCONT)
            self.process.terminate()

    def start_reload(self, *_):
        self.reloading = subprocess.Popen([self.command[0], *self.unit.reload[1:-1], self.command[-1]])

    def follow(self, pid):
        if self.process.poll() is None:
            self.process.wait()
        print(f"supervisor: {self.process.pid} has left its work to {pid}", flush=True)
        self.process = Adopted(pid)

    def run_once(self):
        """(exit code, whether it was killed for want of a sign of life)."""
        environment = {**os.environ, "NOTIFY_SOCKET": self.path}
        if self.unit.watchdog:
            environment["WATCHDOG_USEC"] = str(int(self.unit.watchdog * 1e6))
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *self.command], env=environment)
        ready, hung, alive_at, patience = not self.unit.notify, False, time.monotonic(), self.unit.watchdog
        while True:
            ended = self.process.poll() is not None
            if self.reloading and self.reloading.poll() is not None:
                self.reloading = None
            if select.select([self.socket], [], [], 0 if ended else 0.02)[0]:  # before an end: whom it has left its work to
                lines = self.socket.recv(4096).decode(errors="replace").splitlines()
                for line in lines:
                    if line.startswith("MAINPID="):
                        self.follow(int(line.removeprefix("MAINPID=")))
                    if line.startswith("WATCHDOG_USEC="):
                        patience = int(line.removeprefix("WATCHDOG_USEC=")) / 1e6
                if "READY=1" in lines or "WATCHDOG=1" in lines:
                    ready, alive_at = ready or "READY=1" in lines, time.monotonic()
                continue
            if ended:
                break
            if ready and not self.stopping and patience and time.monotonic() - alive_at > patience:
                print(f"supervisor: {self.command[0]} gave no sign of life for {patience:g} s", flush=True)
                hung = True
                self.process.send_signal(self.unit.watchdog_signal)
                self.process.wait()
        return self.process.returncode, hung

    def run(self):
        while True:
            code, hung = self.run_once()
            if self.stopping or not self.unit.restarts(code, hung):
                return max(code, 0)
            print(f"supervisor: {self.command[0]} ended with {code}, starts again in {self.unit.pause:g} s", flush=True)
            time.sleep(self.unit.pause)


if __name__ == "__main__":
    sys.exit(Supervisor(Unit(sys.argv[1]), sys.argv[2:]).run())
