"""The shipped units, and the supervisor that stands in for systemd where there is none."""

import ctypes
import os
import pathlib
import pwd
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from tests.lib.balancer import BIN
from tests.lib.supervisor import Unit

ROOT = pathlib.Path(__file__).resolve().parents[2]
SUPERVISOR = [sys.executable, ROOT / "tests/lib/supervisor.py"]
# Says that it is ready, feeds the watchdog for as long as the file it is given exists, and writes its pid there.
DAEMON = """
import os, pathlib, socket, sys, time
own = pathlib.Path(sys.argv[1])
with own.open("a") as log: log.write(f"{os.getpid()}\\n")
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); manager.connect(os.environ["NOTIFY_SOCKET"])
manager.send(b"READY=1")
while True:
    manager.send(b"WATCHDOG=1")
    time.sleep(float(os.environ["WATCHDOG_USEC"]) / 4e6)
"""


def pids(path):
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def wait(condition, seconds=15):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_neither_unit_binds_to_the_others_life():
    for name in ("lb-dp", "lb-cp"):
        text = (ROOT / f"configs/{name}.service").read_text()
        assert not any(word in text for word in ("Requires=", "BindsTo=", "PartOf=", "Requisite="))


def test_both_units_are_watched_restarted_and_sandboxed():
    for name in ("lb-dp", "lb-cp"):
        text = (ROOT / f"configs/{name}.service").read_text()
        unit = Unit(ROOT / f"configs/{name}.service")
        assert unit.notify and unit.watchdog > 0 and unit.restart == "always" and unit.command[0] == f"/usr/bin/{name}"
        for setting in ("NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=CAP", "SystemCallFilter=@system-service",
                        "RestrictAddressFamilies=", "MemoryDenyWriteExecute=yes", "ProtectHome=yes"):
            assert setting in text, f"{name}: {setting}"
    assert Unit(ROOT / "configs/lb-dp.service").watchdog <= 1


def test_a_killed_and_a_stopped_daemon_are_started_again(tmp_path):
    seen, script = tmp_path / "pids", tmp_path / "daemon.py"
    script.write_text(DAEMON)
    supervisor = subprocess.Popen([*SUPERVISOR, ROOT / "configs/lb-dp.service", sys.executable, script, seen], cwd=ROOT)
    try:
        for number, sent in enumerate((signal.SIGKILL, signal.SIGSTOP), start=1):
            wait(lambda number=number: len(pids(seen)) == number)
            subprocess.run(["kill", f"-{sent.name[3:]}", str(pids(seen)[-1])], check=True)
        wait(lambda: len(pids(seen)) == 3)
        assert not pathlib.Path(f"/proc/{pids(seen)[1]}").exists()
    finally:
        supervisor.terminate()
        supervisor.wait(15)
    assert not pathlib.Path(f"/proc/{pids(seen)[-1]}").exists()


PTRACE_INTERRUPT, PTRACE_SEIZE, WAIT_FOR_THREADS = 0x4207, 0x4206, 0x40000000


def hold_thread(pid, name):
    """One thread stands still and the others go on: as if it looped without an end. Returns it, for bury_thread()."""
    libc = ctypes.CDLL(None, use_errno=True)
    thread = next(int(task.name) for task in pathlib.Path(f"/proc/{pid}/task").iterdir() if name in (task / "comm").read_text())
    for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
        assert libc.ptrace(request, thread, None, None) == 0, os.strerror(ctypes.get_errno())
    return thread


def bury_thread(thread):
    """Waits for the end of a thread that is held: until we have seen it, its process cannot go."""
    while os.WIFSTOPPED(os.waitpid(thread, WAIT_FOR_THREADS)[1]):
        pass


def status_of_threads(pid):
    """Of each thread: field → text."""
    texts = [(task / "status").read_text() for task in pathlib.Path(f"/proc/{pid}/task").iterdir()]
    return [dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line) for text in texts]


@pytest.fixture
def open_folder():
    """One that other users can reach: pytest's are root's alone, and lb-dp keeps its state as the user it has become."""
    with tempfile.TemporaryDirectory(prefix="lb-watched-", dir="/run") as folder:
        os.chmod(folder, 0o711)
        yield pathlib.Path(folder)


def test_lb_dp_itself_is_confined_and_started_again_when_it_or_one_worker_stands_still(open_folder):
    """READY comes, signs of life go on coming, and end with SIGSTOP: the shipped unit's rules replace the process. So they do when a
    worker alone moves no more. In every thread root, capabilities and the system calls of a break-in are gone."""
    config = open_folder / "dp.yaml"
    config.write_text(f"""name: lb-watched
control_socket: {open_folder}/dp.sock
state_dir: {open_folder}/state
workers: [{{lcore: {sorted(os.sched_getaffinity(0))[-1]}}}]
ports: [{{name: null0, driver: "null", kernel_twin: none}}]
memory: {{mode: no_huge, size_mb: 64}}
idle: {{after_empty_polls: 100, sleep_us: 1000}}
flow_table: {{flows_per_worker: 1024, path: {open_folder}/flows}}
capacity: {{targets: 64, listeners: 64}}
punt: {{tap: none}}
sandbox: {{user: nobody}}
""")
    with open(open_folder / "log", "wb") as log:
        supervisor = subprocess.Popen([*SUPERVISOR, ROOT / "configs/lb-dp.service", BIN / "lb-dp", "--config", config], cwd=ROOT, stdout=log,
                                      stderr=log)

    def said(text):
        return (open_folder / "log").read_text(errors="replace").count(text)

    def child():
        children = pathlib.Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()
        return int(children[0]) if len(children) == 1 else None

    try:
        wait(lambda: said("is ready") == 1, 60)
        first = child()
        nobody = str(pwd.getpwnam("nobody").pw_uid)
        for status in status_of_threads(first):
            assert status["Uid"].split() == [nobody] * 4 and int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
            assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
        time.sleep(3)  # three times WatchdogSec: it feeds
        assert child() == first, (open_folder / "log").read_text()
        supervisor.send_signal(signal.SIGHUP)  # as `systemctl reload`: another lb-dp takes over, and is the one that is watched
        wait(lambda: said("is ready") == 2 and child() not in (None, first), 60)
        assert said("has left its work to") == 1 and said("gave no sign of life") == 0
        first = child()
        assert all(status["Uid"].split() == [nobody] * 4 for status in status_of_threads(first))
        os.kill(first, signal.SIGSTOP)
        wait(lambda: said("is ready") == 3, 60)
        second = child()
        assert second not in (None, first) and said("gave no sign of life") == 1
        bury_thread(hold_thread(second, "worker"))
        wait(lambda: said("is ready") == 4, 60)
        assert child() not in (None, second) and said("gave no sign of life") == 2
    finally:
        supervisor.terminate()
        supervisor.wait(15)
