"""The balancer as a host among others, and what it tells of itself."""

import pytest

from tests.e2e import world
from tests.e2e.connection import Connection, fresh_port
from tests.lib.balancer import METRICS
from tests.lib.lab import CLIENT, LB, LB_V4, LB_V6, wait_until


@pytest.mark.cases(world.PLAIN)
def test_own_traffic_stays_with_the_kernel(up, case):
    """Ping and TCP to the balancer's own addresses reach its kernel, on the very port that the workers poll."""
    up.lab.run(CLIENT, "ping", "-c", "3", "-i", "0.2", "-W", "5", LB_V4)
    up.lab.run(CLIENT, "ping", "-c", "3", "-i", "0.2", "-W", "5", LB_V6)
    up.helper(LB, "own", "/usr/bin/python3", "-m", "http.server", "2222", "--bind", "::", "--directory", up.lab.folder / "nginx-t1")
    wait_until("the server of the balancer's host", lambda: up.lab.run(LB, "ss", "-Hltn", "sport = :2222").stdout.strip())
    assert up.lab.curl(f"http://{LB_V4}:2222/index.html", f"http://[{LB_V6}]:2222/index.html").split() == ["t1", "t1"]
    assert up.lab.curl("-o", "/dev/null", "-w", "%{size_download}", f"http://{LB_V4}:2222/big") == str(4 << 20)


@pytest.mark.cases(world.ALL)
def test_why(up, case):
    """`why` says of a flow that has not begun where it will go, and of one that has where it went."""
    for port in [fresh_port() for _ in range(3)]:
        before = up.balancer.why("tcp", case.client, port, case.vip, world.WEB)
        assert (before["verdict"], before["listener"], before["target_group"]) == ("tx", case.web_group, case.web_group)
        answered = up.lab.curl("--local-port", str(port), "-H", "Connection: close", case.url()).strip()
        assert before["target"] == case.target(answered)
        after = up.balancer.why("tcp", case.client, port, case.vip, world.WEB)
        assert (after["flow"], after["target"]) == ("hit", case.target(answered))


@pytest.mark.cases([case for case in world.ALL if case.mode == "nat"])
def test_why_of_a_reply(up, case):
    """`why` says of a packet from a target's port whose reply it is, and leaves others to the kernel."""
    with Connection(up.lab, case) as kept:
        target = kept.ask()
        said = up.balancer.why("tcp", case.bare_target(target), case.target_port(world.WEB), case.client, kept.port)
        assert (said["verdict"], said["flow"], said["target"]) == ("tx", "hit", case.target(target))
        assert f"leaves from {case.host}:{world.WEB}" in said["explanation"]
        other = up.balancer.why("tcp", case.bare_target(target), case.target_port(world.WEB), case.client, 1)
        assert (other["verdict"], other["flow"]) == ("punt", "none")


@pytest.mark.cases(world.ONE_OF_EACH_MODE)
def test_why_of_a_pinned_flow(up, case):
    """After a drain the table says one target and the flow table another: `why` shows both."""
    with Connection(up.lab, case) as kept:
        target = kept.ask()
        up.balancer.lbctl("drain", case.target(target), "--target-group", case.web_group)
        up.wait_answers(case, set(up.lab.targets) - {target}, "new flows go elsewhere")
        assert kept.ask() == target
        said = up.balancer.why("tcp", case.client, kept.port, case.vip, world.WEB)
        assert said["flow"] == "hit" and said["target"] == case.target(target)
        assert said["pinned_elsewhere"] and said["slot_target"] != said["target"]
        assert said["worker"] is not None and said["explanation"]


@pytest.mark.cases(world.PLAIN)
def test_why_of_what_is_not_forwarded(up, case):
    closed = up.balancer.why("tcp", case.client, 1000, case.vip, world.EMPTY)
    assert (closed["verdict"], closed["reason"]) == ("drop", "no_listener")
    own = up.balancer.why("tcp", case.client, 1000, LB_V4, 22)
    assert own["verdict"] == "punt"


@pytest.mark.cases(world.PLAIN)
def test_metrics(up, case):
    """What Prometheus is told counts what has happened."""
    def metrics():
        text = up.lab.run(LB, "curl", "-sS", "--max-time", "5", f"http://{METRICS}/metrics").stdout
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line and not line.startswith("#")}

    def total(prefix):
        return sum(value for name, value in metrics().items() if name.startswith(prefix))

    forwarded = total("lb_forwarded_packets")
    assert len(up.answers(case, 20)) == 20
    wait_until("the requests to be counted", lambda: total("lb_forwarded_packets") >= forwarded + 20 * 4)
    names = " ".join(metrics())
    for reason in ("no_listener", "truncated", "ttl_expired"):
        assert reason in names


@pytest.mark.cases(world.PLAIN)
def test_wrong_config_changes_nothing(up, case):
    """The violation is named by file, line and field; the configuration in force stays."""
    wrong = up.lab.folder / "wrong.yaml"
    text = world.config(target_names=("t1",)).replace("port: 5201, target_groups", "port: 70000, target_groups", 1)
    line = next(i for i, content in enumerate(text.splitlines(), 1) if "70000" in content)
    wrong.write_text(text)
    before = up.balancer.rows("workers")[0]["generation"], sorted(up.balancer.targets(case.web_group))
    done = up.balancer.lbctl("apply", "-f", wrong, check=False)
    assert done.returncode == 1
    assert f"wrong.yaml:{line}: " in done.stdout + done.stderr and "listeners[1].port" in done.stdout + done.stderr
    assert (up.balancer.rows("workers")[0]["generation"], sorted(up.balancer.targets(case.web_group))) == before
    up.wait_answers(case, up.lab.targets, "all targets answer as before")


@pytest.mark.cases(world.PLAIN)
def test_diff_and_apply(up, case):
    """`diff` says what `apply` would change (exit 2), and nothing (exit 0) once it is done."""
    changed = up.lab.folder / "changed.yaml"
    changed.write_text(world.config(target_names=("t1", "t2")))
    assert up.balancer.lbctl("diff", "-f", up.config).returncode == 0
    done = up.balancer.lbctl("diff", "-f", changed, check=False)
    assert done.returncode == 2 and f"{case.web_group} {case.target('t3')}" in done.stdout
    up.balancer.apply(changed)
    assert up.balancer.lbctl("diff", "-f", changed).returncode == 0
    up.wait_answers(case, {"t1", "t2"}, "a target that was removed takes no new flow")


@pytest.mark.cases(world.PLAIN)
def test_target_check(up, case):
    """`lb-target check` passes on a target that is set up, and names what is missing on one that is not."""
    from tests.lib.balancer import BIN
    command = [BIN / "lb-target", "check", "eth0", "--vip", case.vip]
    assert up.lab.run("t1", *command, check=False).returncode == 0
    up.lab.run("t1", "sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=0")
    try:
        done = up.lab.run("t1", *command, check=False)
        assert done.returncode == 2 and "arp_ignore" in done.stdout + done.stderr
    finally:
        up.lab.run("t1", "sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1")
