"""Changing the configuration: what is refused, what is kept, and that traffic follows."""

import concurrent.futures
import contextlib
import json
import signal
import subprocess

import pytest

from tests.e2e import world
from tests.e2e.connection import Connection
from tests.lib.balancer import BIN
from tests.lib.lab import run, wait_until

pytestmark = pytest.mark.cases(world.PLAIN)


def numbers(up):
    return [row["number"] for row in up.balancer.json("history")["configurations"]]


def in_force(up):
    row = up.balancer.json("history")["configurations"][0]
    return f"{row['epoch']}.{row['generation']}"


def test_single_changes_and_rollback(up, case):
    """A target comes and goes without a file, a rollback brings it back, and a flow that is open all the while stays."""
    before = numbers(up)[0]
    with Connection(up.lab, case) as kept:
        target = kept.ask()
        gone = next(name for name in up.lab.targets if name != target)
        up.balancer.lbctl("target", "remove", case.web_group, case.target(gone))
        up.wait_answers(case, set(up.lab.targets) - {gone}, "the removed target answers no new flow")
        up.balancer.lbctl("target", "set", case.web_group, case.target(target), "--weight", "0")
        up.wait_answers(case, set(up.lab.targets) - {gone, target}, "weight 0 takes no new flow")
        assert numbers(up)[0] == before + 2
        up.balancer.lbctl("rollback", str(before))
        up.balancer.wait_all_healthy(case.web_group)
        up.wait_answers(case, up.lab.targets, "all targets of the earlier configuration answer")
        assert kept.ask() == target
    assert up.balancer.lbctl("diff", "-f", up.config).returncode == 0
    assert up.balancer.lbctl("export").stdout == up.config.read_text()


def test_file_that_is_cut_short_is_refused(up, case):
    """Half of the targets do not go by mistake; nothing is changed, and the answer says how many would have gone."""
    smaller = up.lab.folder / "smaller.yaml"
    smaller.write_text(world.config(target_names=("t1",)))
    done = up.balancer.lbctl("apply", "-f", smaller, check=False)
    assert done.returncode == 1 and "--force" in done.stderr and "more than 10 %" in done.stderr
    assert len(up.balancer.targets(case.web_group)) == 3
    up.wait_answers(case, up.lab.targets, "all targets answer as before")


def test_one_of_two_appliers_wins(up, case):
    """Ten changes on the same sight of the configuration: one comes into force, nine are told what came between."""
    seen = in_force(up)

    def change(weight):
        return up.balancer.lbctl("target", "set", case.web_group, case.target("t1"), "--weight", str(weight), "--if-generation", seen, check=False)

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        done = list(pool.map(change, range(2, 12)))
    assert [one.returncode for one in done].count(0) == 1
    assert all("came into force" in one.stderr for one in done if one.returncode)
    winner = next(weight for weight, one in zip(range(2, 12), done) if one.returncode == 0)
    assert up.balancer.targets(case.web_group)[case.target("t1")]["weight"] == winner


def test_history_survives_a_kill(up, case):
    """lb-cp is killed the moment a change has been told as done: the new one knows it, and every one before it."""
    up.balancer.lbctl("target", "set", case.web_group, case.target("t2"), "--weight", "7")
    up.balancer.kill_cp()
    up.balancer.start_cp()
    up.balancer.wait_connected()
    known = up.balancer.json("history")["configurations"]
    assert known[0]["in_force"] and known[0]["cause"] == f"target set {case.web_group} {case.target('t2')}"
    assert [row["number"] for row in known] == list(range(known[0]["number"], known[0]["number"] - len(known), -1))
    assert up.balancer.targets(case.web_group)[case.target("t2")]["weight"] == 7
    up.balancer.lbctl("rollback", str(known[1]["number"]))
    assert up.balancer.targets(case.web_group)[case.target("t2")]["weight"] == 1


def test_view_socket_changes_nothing(up, case):
    """Who may only look sees what there is, and is told where changes go."""
    def lbctl(*arguments, check=True):
        return run([BIN / "lbctl", "--socket", up.lab.folder / "cp-view.sock", *arguments], check=check)

    assert case.web_group in lbctl("get", "target-groups", "-o", "wide").stdout
    for change in (("apply", "-f", up.config), ("drain", case.target("t1")), ("rollback", str(numbers(up)[0])),
                   ("target", "remove", case.web_group, case.target("t1"))):
        done = lbctl(*change, check=False)
        assert done.returncode == 1 and "admin socket" in done.stderr, change
    assert up.balancer.targets(case.web_group)[case.target("t1")]["state"] == "healthy"


def test_doctor_finds_what_is_wrong(up, case):
    """A healthy balancer has nothing bad; lb-dp's end and a dead group are named."""
    def grades():
        return {row["check"]: row["grade"] for row in json.loads(up.balancer.lbctl("doctor", "-o", "json", check=False).stdout)["findings"]}

    assert "bad" not in grades().values()
    for target in up.lab.targets:
        up.lab.nginx[target].kill()
    for target in up.lab.targets:
        up.balancer.wait_state(case.web_group, case.target(target), "unhealthy")
    assert grades()[f"target group {case.web_group}"] == "bad"
    up.balancer.dp.stop()
    wait_until("lb-dp's end to be noticed", lambda: grades()["lb-dp"] == "bad")


def doctored(program, folder, *changes):
    """A copy of a program with other bytes: of another version, or with a request that its peer has not heard of."""
    code = (BIN / program).read_bytes()
    for old, new in changes:
        assert len(old) == len(new) and old in code
        code = code.replace(old, new)
    path = folder / f"doctored-{program}"
    path.write_bytes(code)
    path.chmod(0o755)
    return path


@pytest.mark.cases(world.PLAIN[:1])
def test_lbctl_of_another_version_works_or_says_which_is_older(up, case):
    """An older lbctl is served; a newer one's verb that lb-cp does not know is refused, and names the older side."""
    def lbctl(*changes):
        path = doctored("lbctl", up.lab.folder, *changes)
        return lambda *arguments: run([path, "--socket", up.balancer.cp_socket, *arguments], check=False)

    older = lbctl((b"0.1.", b"0.0."))
    assert older("--version").stdout == "lbctl 0.0.0\n"
    assert case.web_group in older("get", "target-groups").stdout
    assert older("version").stderr == "lbctl: lbctl 0.0.0 is older than lb-cp 0.1.0\n"
    newer = lbctl((b"0.1.", b"0.9."), (b"LoadBalancer/Freeze", b"LoadBalancer/Thawed"))
    assert newer("get", "vips").returncode == 0
    refused = newer("freeze")
    assert refused.returncode == 1
    assert refused.stderr == "lbctl: lb-cp does not know this request: lbctl 0.9.0 is newer than lb-cp 0.1.0\n"


CONFIG = """version: 1
vips: [{{name: web, address: 192.0.2.10}}]
listeners: [{{name: web-80, vip: web, protocol: TCP, port: 80, target_groups: [{{name: blue}}]}}]
target_groups:
  - {{name: blue, protocol: TCP, port: 80, table_size: 251, health_check: {{protocol: {check}}}, targets: [{targets}]}}
"""


@contextlib.contextmanager
def lb_cp_alone(folder, program=BIN / "lb-cp"):
    """An lb-cp with folder/lb.yaml and no lb-dp; yields its process and an lbctl for it. It has to end well."""
    def lbctl(*arguments, check=True):
        return run([BIN / "lbctl", "--socket", folder / "cp.sock", *arguments], check=check)

    with (folder / "lb-cp.log").open("wb") as log:
        process = subprocess.Popen([program, "--config", folder / "lb.yaml", "--state-dir", folder / "state", "--socket", folder / "cp.sock",
                                    "--dp-socket", folder / "dp.sock", "--metrics", "off"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_until("lb-cp", lambda: lbctl("version", check=False).returncode == 0, 20)
        yield process, lbctl
        process.terminate()
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()


def write(folder, targets, check="NONE"):
    text = CONFIG.format(check=check, targets=", ".join(f"{{address: 198.51.100.{n}}}" for n in range(1, targets + 1)))
    (folder / "lb.yaml").write_text(text)


def test_lb_cp_of_another_version_serves_and_is_named(tmp_path):
    write(tmp_path, 1)
    with lb_cp_alone(tmp_path, doctored("lb-cp", tmp_path, (b"0.1.", b"0.9."))) as (_, lbctl):
        said = lbctl("version")
        assert "0.9.0" in said.stdout and said.stderr == "lbctl: lbctl 0.1.0 is older than lb-cp 0.9.0\n"
        assert "blue" in lbctl("get", "target-groups").stdout


def test_file_of_lb_cp_is_checked_and_read_again_on_sighup(tmp_path):
    """--check judges the file without a daemon; SIGHUP takes a good one over, and leaves what is in force where it is wrong or empties lb."""
    file, log = tmp_path / "lb.yaml", tmp_path / "lb-cp.log"

    def checked():
        done = run([BIN / "lb-cp", "--check", "--config", file], check=False)
        return done.returncode, done.stdout + done.stderr

    write(tmp_path, 3)
    assert checked() == (0, f"{file}: ok\n")
    with lb_cp_alone(tmp_path) as (process, lbctl):
        def targets():
            return len([row for row in json.loads(lbctl("get", "targets", "--json").stdout)["targets"] if row["state"] == "unavailable"])

        assert targets() == 3
        write(tmp_path, 4)
        process.send_signal(signal.SIGHUP)
        wait_until("the new file", lambda: targets() == 4, 10)
        assert json.loads(lbctl("history", "--json").stdout)["configurations"][0]["cause"] == "SIGHUP"

        write(tmp_path, 4, check="MAYBE")
        wrong = f"{file}:5: target_groups[0].health_check.protocol: must be "
        assert checked()[0] == 1 and checked()[1].startswith(wrong)
        process.send_signal(signal.SIGHUP)
        wait_until("the wrong file to be told", lambda: wrong in log.read_text(), 10)
        write(tmp_path, 2)
        process.send_signal(signal.SIGHUP)
        wait_until("the short file to be told", lambda: "removes 2 of 4 targets" in log.read_text(), 10)
        assert targets() == 4
