"""What the guard keeps away from targets, with real clients."""

import pytest

from tests.e2e import world
from tests.e2e.connection import Connection
from tests.lib.lab import wait_until


def guarded(up, case, *rules):
    """A file of the usual configuration in which the case's web listener has a security group of these rules."""
    begin = f"- {{name: web-{case.name}, "
    text = world.config()
    assert begin in text
    path = up.lab.folder / "guarded.yaml"
    path.write_text(text.replace(begin, begin + "security_group: office, ", 1) +
                    "security_groups:\n  - name: office\n    rules:\n" + "".join(f"      - {rule}\n" for rule in rules))
    return path


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
