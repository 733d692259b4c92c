"""Clients behind VLAN tags, one and two. The tags are put on and taken off by a program (vlan_link.py), for any kernel to run this."""

import contextlib

import pytest

from tests.e2e import world
from tests.lib.balancer import ROOT
from tests.lib.lab import CLIENT, wait_until

LINK, LINK_MAC, ADDRESS = "v0", "02:00:00:77:08:01", "10.77.2.108"
LB_MAC, CLIENT_MAC = "02:00:00:77:02:01", "02:00:00:77:02:fe"


@contextlib.contextmanager
def tagged_link(up, case, tags):
    """The client has one more interface, whose frames have these tags, and goes to the VIP by it when it asks from ADDRESS."""
    lab = up.lab
    # A veth keeps tags beside the frame, where XDP does not see them, unless it is told not to.
    lab.run("sw", "ethtool", "-K", "p-lb", "txvlan", "off", "tx-vlan-stag-hw-insert", "off", check=False)
    link = up.helper(CLIENT, f"vlan-{case.name}-{'-'.join(map(str, tags))}", "/usr/bin/python3", ROOT / "tests/e2e/vlan_link.py", LINK, LINK_MAC,
                     *map(str, tags))
    wait_until("the link", lambda: link.require_running() and "ready" in link.log.read_text())
    lab.ip(CLIENT, f"link set {LINK} address {LINK_MAC} mtu 1400 up", f"addr add {ADDRESS}/32 dev {LINK}", f"rule add from {ADDRESS} lookup 108",
            f"route add {case.vip} dev {LINK} src {ADDRESS} table 108", f"neigh add {case.vip} lladdr {LB_MAC} dev {LINK} nud permanent")
    for target in lab.targets:  # where they answer by themselves, their way to the client has no tags
        lab.ip(target, f"neigh replace {ADDRESS} lladdr {LB_MAC if case.through_lb else CLIENT_MAC} dev eth0 nud permanent")
    try:
        yield
    finally:
        lab.ip(CLIENT, f"rule del from {ADDRESS} lookup 108")
        for target in lab.targets:
            lab.ip(target, f"neigh del {ADDRESS} dev eth0")
        link.stop()
        lab.run("sw", "ethtool", "-K", "p-lb", "txvlan", "on", "tx-vlan-stag-hw-insert", "on", check=False)


@pytest.mark.cases([case for case in world.ALL if case.workers == 1 and case.name in ("ipip-v4-v4", "gue-v4-v6", "l2dsr-v4-v4", "nat-v4-v4")])
def test_clients_behind_tags_are_served(up, case):
    """New connections are spread over all targets, and one carries a whole file. Replies of nat come back with the client's tag, one
    (docs/nat.md); other modes take two as well."""
    for tags in [[100]] if case.through_lb else [[100], [200, 300]]:
        with tagged_link(up, case, tags):
            answers = up.lab.curl("--interface", ADDRESS, "-H", "Connection: close", case.url("/?[1-60]")).split()
            assert len(answers) == 60 and set(answers) == set(up.lab.targets), tags  # by chance not: below 1e-9
            assert up.lab.curl("--interface", ADDRESS, "-o", "/dev/null", "-w", "%{size_download}", case.url("/big")) == str(4 << 20), tags
