"""./run demo: curl, lb and nginx on one machine, in network namespaces of their own."""

import argparse
import collections
import contextlib
import pathlib
import shlex
import signal
import subprocess
import sys

import yaml

from tests.lib import lab as labs
from tests.lib.balancer import BIN, ROOT, Balancer
from tests.lib.lab import CLIENT, Lab, LabError, wait_until

CONFIG = ROOT / "configs/demo.yaml"
FOLDER = pathlib.Path("/run/lb-demo")
PREFIX = "lbdemo"


def say(text=""):
    print(text, flush=True)


def require(condition, text):
    if not condition:
        raise LabError(text)


class Demo:
    def __init__(self, keep):
        config = yaml.safe_load(CONFIG.read_text())
        listener = next(item for item in config["listeners"] if item["protocol"] == "TCP")
        self.vip = next(item["address"] for item in config["vips"] if item["name"] == listener["vip"])
        self.group = listener["target_groups"][0]["name"]
        self.listener = listener["name"]
        self.lab = Lab(PREFIX, FOLDER, vips=[item["address"] for item in config["vips"]], die_with_us=not keep)
        self.balancer = None

    # Showing.

    def step(self, title):
        say()
        say(f"── {title}")

    def show(self, command, output, lines=70):
        say(f"$ {command}")
        for line in output.rstrip().splitlines()[:lines]:
            say(f"  {line}")

    def lbctl(self, *arguments):
        self.show("lbctl " + shlex.join(map(str, arguments)), self.balancer.lbctl(*arguments).stdout)

    def answers(self, count):
        return self.lab.curl("-H", "Connection: close", f"http://{self.vip}/?[1-{count}]").split()

    def spread(self, count):
        found = collections.Counter(self.answers(count))
        self.show(f"curl http://{self.vip}/   # {count} times", "\n".join(f"{name}  {'█' * n} {n}" for name, n in sorted(found.items())))
        return found

    def address(self, target):
        return f"{Lab.target_address(target)}:80"

    # The acts.

    def set_up(self):
        say(f"one client, one balancer host, three targets with nginx; VIP {self.vip}; configuration {CONFIG.relative_to(ROOT)}")
        self.lab.up()
        for target in self.lab.targets:
            self.lab.start_nginx(target)
        self.balancer = Balancer(self.lab)
        self.balancer.attach_targets()
        self.balancer.start_dp()
        self.balancer.start_cp()
        self.balancer.wait_connected()
        wrapper = FOLDER / "lbctl"
        wrapper.write_text(f"#!/bin/sh\nexec {shlex.join(map(str, self.balancer.lbctl_command()))} \"$@\"\n")
        wrapper.chmod(0o755)
        (FOLDER / "env").write_text(f"LBCTL={wrapper}\n")
        self.lbctl("apply", "-f", CONFIG)
        self.balancer.wait_all_healthy(self.group)
        self.lbctl("get", "targets", self.group)

    def show_spread(self):
        self.step("New flows are spread over the targets")
        found = self.spread(60)
        require(set(found) == set(self.lab.targets), f"not all targets answered: {dict(found)}")

    def show_stickiness(self):
        self.step("A flow stays on its target")
        url = f"http://{self.vip}/?[1-100]"
        words = self.lab.curl("-w", "%{num_connects}\n", url).split()
        require(len(set(words[0::2])) == 1 and sum(map(int, words[1::2])) == 1, "one connection was answered by more than one target")
        self.show("curl with 100 requests on one connection", f"all from {words[0]}")
        seen = [self.lab.curl("--local-port", "40001", "-H", "Connection: close", f"http://{self.vip}/").strip() for _ in range(5)]
        require(len(set(seen)) == 1, f"the same addresses and ports went to different targets: {seen}")
        self.show("curl --local-port 40001, five times", " ".join(seen))

    def show_health(self):
        self.step("A target that dies leaves the rotation and comes back")
        say("$ kill nginx on t2")
        self.lab.nginx["t2"].kill()
        self.balancer.wait_state(self.group, self.address("t2"), "unhealthy")
        self.lbctl("get", "targets", self.group)
        wait_until("only t1 and t3 to answer", lambda: set(self.answers(24)) == {"t1", "t3"}, 20)
        found = self.spread(40)
        require(set(found) == {"t1", "t3"}, f"a dead target got requests: {dict(found)}")
        say("$ start nginx on t2")
        self.lab.start_nginx("t2")
        self.balancer.wait_state(self.group, self.address("t2"), "healthy")
        wait_until("t2 to answer again", lambda: "t2" in self.answers(24), 20)
        found = self.spread(60)
        require(set(found) == set(self.lab.targets), f"not all targets answered: {dict(found)}")

    def show_drain(self):
        self.step("A drained target finishes what it has begun; new requests go elsewhere")
        command = ["curl", "-sS", "--local-port", "40002", "--max-time", "60", "-o", "/dev/null", "-D", FOLDER / "headers", "-w",
                   "%{size_download}", f"http://{self.vip}/slow"]
        download = self.lab.start(CLIENT, "download", *command)
        headers = FOLDER / "headers"
        wait_until("the download to begin", lambda: download.require_running() and "X-Target" in headers.read_text())
        target = next(line.split()[1] for line in headers.read_text().splitlines() if line.startswith("X-Target"))
        self.show(f"curl http://{self.vip}/slow &   # 4 MiB at 512 KiB/s", f"comes from {target}")
        self.lbctl("drain", self.address(target), "--target-group", self.group)
        others = set(self.lab.targets) - {target}
        wait_until("new requests to go elsewhere", lambda: set(self.answers(24)) == others, 20)
        found = self.spread(40)
        require(set(found) == others, f"a draining target got new flows: {dict(found)}")
        require(download.running(), "the download was over before this could be shown")
        self.step("What lb says about it")
        self.lbctl("get", "targets", self.group)
        self.lbctl("describe", "target-group", self.group)
        self.lbctl("why", "tcp", labs.CLIENT_V4, "40002", self.vip, "80")
        why = self.balancer.why("tcp", labs.CLIENT_V4, 40002, self.vip, 80)
        require(why["flow"] == "hit" and why["target"] == self.address(target), f"why does not see the download: {why}")
        require(why["pinned_elsewhere"], f"why does not say that the download is pinned: {why}")
        require(download.popen.wait(60) == 0, f"the download broke: {download.tail()}")
        require(download.tail().strip() == str(4 << 20), f"the download is not complete: {download.tail()} bytes")
        self.show("wait for the download", f"complete: {4 << 20} bytes, all from {target}")
        self.lbctl("undrain", self.address(target), "--target-group", self.group)
        wait_until(f"{target} to answer again", lambda: target in self.answers(24), 20)

    def show_counters(self):
        self.step("What went through")
        for kind in ("vips", "listeners", "target-groups", "workers"):
            self.lbctl("get", kind)
        self.lbctl("drops")

    def run(self):
        self.set_up()
        self.show_spread()
        self.show_stickiness()
        self.show_health()
        self.show_drain()
        self.show_counters()

    def explain_keep(self):
        namespace = f"ip netns exec {self.lab.namespace(CLIENT)}"
        kill = f"kill {self.lab.nginx['t2'].pid}"
        say(f"""
It is still running. Try:
  . {FOLDER}/env
  {namespace} curl http://{self.vip}/
  $LBCTL get targets {self.group} --watch
  $LBCTL drain {self.address('t1')}
  $LBCTL why tcp {labs.CLIENT_V4} 40001 {self.vip} 80
  $LBCTL describe listener {self.listener}
  {kill}   # nginx on t2
Logs: {FOLDER}/*.log   Take it down: ./run demo --stop
""")

    def failure_logs(self):
        for name in ("lb-dp", "lb-cp"):
            log = FOLDER / f"{name}.log"
            if log.exists():
                print(f"--- {log}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-20:]), file=sys.stderr)


def interrupted(*_):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(prog="./run demo")
    parser.add_argument("--keep", action="store_true", help="leave it running and say what to try")
    parser.add_argument("--stop", action="store_true", help="take down what --keep left")
    options = parser.parse_args()
    if options.stop:
        Lab(PREFIX, FOLDER).down()
        say("demo: stopped")
        return 0
    if not BIN.is_dir():
        sys.exit("demo: nothing is built")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    demo = Demo(options.keep)
    done = False
    try:
        demo.run()
        if options.keep:
            demo.explain_keep()
        done = True
    except KeyboardInterrupt:
        error = "interrupted"
    except (LabError, OSError, subprocess.SubprocessError, LookupError, ValueError) as problem:
        with contextlib.suppress(OSError):
            demo.failure_logs()
        error = str(problem) or repr(problem)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if not (done and options.keep):
            demo.lab.down()
    if not done:
        say(f"demo: {error}")
        return 1
    say("demo: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
