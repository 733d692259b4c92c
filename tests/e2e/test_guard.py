"""What the guard keeps away from targets, with real clients."""

import pytest

from tests.e2e import world
from tests.e2e.connection import Connection
from tests.lib.lab import CLIENT, wait_until


def with_field(up, case, field, rest="", kind="web"):
    """A file of the usual configuration in which a listener of the case has one field more."""
    begin = f"- {{name: {kind}-{case.name}, "
    text = world.config()
    assert begin in text
    path = up.lab.folder / "guarded.yaml"
    path.write_text(text.replace(begin, begin + field + ", ", 1) + rest)
    return path


def guarded(up, case, *rules):
    """… a security group of these rules."""
    return with_field(up, case, "security_group: office",
                      "security_groups:\n  - name: office\n    rules:\n" + "".join(f"      - {rule}\n" for rule in rules))


@pytest.mark.cases(world.ONE_OF_EACH_MODE)
def test_security_group_decides_who_is_served(up, case):
    """A rule that denies a client lets it open nothing and ends what it has open; taken back, the client is served again."""
    prefix = f'"{case.client}/{128 if ":" in case.client else 32}"'
    allow, deny = '{action: allow, source: any, protocol: TCP}', f'{{action: deny, source: {prefix}}}'
    up.balancer.apply(guarded(up, case, allow))
    up.wait_answers(case, up.lab.targets, "an allowed client is served")
    with Connection(up.lab, case) as kept:
        kept.ask()
        up.balancer.apply(guarded(up, case, allow, deny))
        before = up.balancer.drops().get("security_group", 0)
        refused = up.lab.curl("--connect-timeout", "1", "--max-time", "1", case.url(), check=False)
        assert refused == ""
        wait_until("the drops to be counted", lambda: up.balancer.drops()["security_group"] > before)
        answer = up.balancer.why("tcp", case.client, 50123, case.vip, world.WEB)
        assert answer["reason"] == "security_group" and "rule 1, deny" in answer["explanation"]
        before = up.balancer.drops()["security_group"]
        with pytest.raises(Exception):
            kept.ask()
        wait_until("the open connection's packets to be dropped", lambda: up.balancer.drops()["security_group"] > before)
    up.balancer.apply(up.config)
    up.wait_answers(case, up.lab.targets, "a client without rules against it is served")


@pytest.mark.cases(world.ONE_OF_EACH_MODE)
def test_a_source_has_as_many_flows_at_once_as_it_may(up, case):
    """With two connections open the client opens no third, on whichever worker, until it closes one; and lb says who and why."""
    def ask():
        return up.lab.run(CLIENT, "curl", "-sS", "--max-time", "5", case.url(), check=False).returncode

    up.balancer.apply(with_field(up, case, "rate_limits: {per_source.concurrent_flows: 2, action: reset}"))
    listener = f"web-{case.name}"
    with Connection(up.lab, case) as first, Connection(up.lab, case) as second:
        first.ask()
        second.ask()
        assert ask() == 7, "no reset: 28 is a timeout"
        answer = up.balancer.why("tcp", case.client, 50124, case.vip, world.WEB)
        assert answer["reason"] == "source_rate_limit" and "over concurrent_flows" in answer["explanation"]
        offender, = up.balancer.json("offenders", "--listener", listener)["offenders"]
        assert offender["source"].split("/")[0] in case.client and offender["over"] == ["concurrent_flows"]
        assert int(offender["refused"]) >= 1 and int(offender["concurrent_flows"]) == 2
        assert case.client in up.balancer.lbctl("offenders").stdout
        first.ask()
    # Both are closed now, and that is noticed within a second or so.
    wait_until("the client to be served again", lambda: ask() == 0)
    up.balancer.apply(up.config)


SEND = """
import socket, sys
sending = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(int(sys.argv[3])): sending.sendto(b"x" * 1000, (sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.cases(world.ONE_OF_EACH_MODE)
def test_bytes_over_a_rate_are_dropped_by_name(up, case):
    """Of sixty datagrams of a kilobyte a bucket of 18 kB that takes twelve seconds to fill lets a few pass; every other one is counted."""
    def drops():
        return up.balancer.drops().get("source_rate_limit", 0)

    up.balancer.apply(with_field(up, case, "rate_limits: {per_source.bytes_per_second: 1500}", kind="echo"))
    before = drops()
    up.lab.run(CLIENT, "/usr/bin/python3", "-c", SEND, case.vip, str(world.ECHO), "60")
    wait_until("most of the datagrams to be counted as drops", lambda: drops() - before >= 30)
    assert drops() - before <= 60 - 17
    up.balancer.apply(with_field(up, case, "rate_limits: {per_source.bytes_per_second: 1500, action: mark, dscp: 8}", kind="echo"))
    before, marked = drops(), up.balancer.metric("lb_rate_marked")
    up.lab.run(CLIENT, "/usr/bin/python3", "-c", SEND, case.vip, str(world.ECHO), "60")
    wait_until("most of the datagrams to be counted as marked", lambda: up.balancer.metric("lb_rate_marked") - marked >= 30)
    assert drops() == before
    up.balancer.apply(up.config)
    before = drops()
    up.lab.run(CLIENT, "/usr/bin/python3", "-c", SEND, case.vip, str(world.ECHO), "60")
    up.wait_answers(case, up.lab.targets, "lb is there")
    assert drops() == before
