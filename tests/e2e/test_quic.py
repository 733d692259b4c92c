"""QUIC: connections stay on their target while clients change their addresses and ports, and servers their configs."""

import contextlib
import json

import pytest

from tests.e2e import world
from tests.lib import lab as labs
from tests.lib.balancer import ROOT
from tests.lib.lab import CLIENT, wait_until

PORT, TARGET_PORT = 4433, 4434
OTHER_V4, OTHER_V6 = "10.77.2.101", "fd77:2::101"  # the client's as well
KEY = "8f95f09245765f80256934e50c66207f"
OLD = {"id": 2, "server_id_length": 3, "nonce_length": 4, "key": KEY}        # four passes of AES
NEW = {"id": 5, "server_id_length": 4, "nonce_length": 12, "key": KEY[::-1]}  # one
PLAIN = {"id": 0, "server_id_length": 3, "nonce_length": 5}
SERVER_IDS = {t: {3: f"c4605{n}", 4: f"0000000{n}"} for n, t in enumerate(("t1", "t2", "t3"))}
CASES = [case for case in world.ALL if case.name in ("ipip-v4-v4", "nat-v4-v4") or (case.name == "gue-v6-v6" and case.workers == 2)]


def apply(up, case, configs):
    """The world's configuration, and a QUIC listener whose targets have a server ID for each config."""
    lengths = sorted({config["server_id_length"] for config in configs})
    targets = ", ".join(f'{{address: "{case.bare_target(t)}", server_id: "{",".join(SERVER_IDS[t][length] for length in lengths)}"}}'
                        for t in up.lab.targets)
    listener = f"  - {{name: quic, vip: {case.name}, protocol: UDP, port: {PORT}, target_groups: [{{name: quic}}]}}\n"
    port = TARGET_PORT if case.through_lb else PORT
    group = (f"  - {{name: quic, protocol: UDP, port: {port}, forwarding_mode: {case.mode}, health_check: {{protocol: NONE}}, "
             f"quic: {{configs: {json.dumps(configs)}}}, attributes: {{deregistration_delay.timeout_seconds: 60}}, targets: [{targets}]}}\n")
    before, after = world.config().split("target_groups:\n", 1)
    file = up.lab.folder / "quic.yaml"
    file.write_text(before + listener + "target_groups:\n" + group + after)
    up.balancer.apply(file)


@contextlib.contextmanager
def servers(up, case, configs):
    """One on each target."""
    port = TARGET_PORT if case.through_lb else PORT
    for name in up.lab.targets:
        own = [{"id": c["id"], "server_id": SERVER_IDS[name][c["server_id_length"]], "nonce_length": c["nonce_length"], "key": c.get("key")}
               for c in configs]
        up.helper(name, f"quic-{name}", "/usr/bin/python3", ROOT / "tests/e2e/quic_echo.py", "serve", case.served_address(name), str(port), name,
                  json.dumps(own))
    for name in up.lab.targets:
        wait_until(f"the server on {name}", lambda: up.lab.run(name, "ss", "-Hlun", f"sport = :{port}").stdout.strip())
    yield
    up.end_helpers()


def connect(up, case, connections=16):
    """What became of so many connections."""
    if case.through_lb:  # those that targets reach by lb
        sources = [case.client, case.client]
    else:
        sources = [labs.CLIENT_V4, OTHER_V4] if case.inner == "v4" else [labs.CLIENT_V6, OTHER_V6]
        address = [f"{OTHER_V4}/32"] if case.inner == "v4" else [f"{OTHER_V6}/128", "nodad", "preferred_lft", "0"]
        up.lab.run(CLIENT, "ip", "addr", "replace", *address, "dev", "eth0")
    done = up.lab.run(CLIENT, "/usr/bin/python3", ROOT / "tests/e2e/quic_echo.py", "ask", case.vip, str(PORT), str(connections), ",".join(sources), timeout=60)
    return json.loads(done.stdout)


def counted(up, name):
    """Summed over the workers, as lb-cp's metrics have it."""
    return up.balancer.metric(f"lb_{name}")


def assert_kept(stories, datagrams):
    """Every datagram of a connection came to the one server that has it."""
    for story in stories:
        assert len(story) == datagrams and len({(name, number) for name, number, _ in story}) == 1, story
        assert story[0][1] >= 0 and [count for _, _, count in story] == list(range(1, datagrams + 1)), story
    assert len({story[0][0] for story in stories}) > 1, "all connections are on one target"  # by chance: below 1e-6


@pytest.mark.cases(CASES)
def test_connections_stay_while_clients_move(up, case):
    """A new address and port with each datagram, connection IDs of three configs at once, addresses that other connections had before."""
    configs = [OLD, NEW, PLAIN]
    apply(up, case, configs)
    with servers(up, case, configs):
        routed, unroutable = counted(up, "quic_routed"), counted(up, "quic_unroutable")
        assert_kept(connect(up, case), 1 + 2 * len(configs) + 1)
        wait_until("the workers' counts", lambda: counted(up, "quic_routed") + counted(up, "quic_unroutable") >= routed + unroutable + 16 * 8)
    assert counted(up, "quic_routed") == routed + 16 * 7
    assert counted(up, "quic_unroutable") == unroutable + 16, "the clients' first packets"


@pytest.mark.cases(world.PLAIN)
def test_servers_change_over_to_another_config(up, case):
    """Both configs are read while servers use one and then the other; at last the old one is taken away."""
    apply(up, case, [OLD])
    with servers(up, case, [OLD]):
        assert_kept(connect(up, case), 4)
        apply(up, case, [OLD, NEW])
        assert_kept(connect(up, case), 4)
    with servers(up, case, [NEW]):
        assert_kept(connect(up, case), 4)
        apply(up, case, [NEW])
        assert_kept(connect(up, case), 4)


@pytest.mark.cases(world.PLAIN[:1])
def test_keys_are_told_to_nobody_and_why_reads_connection_ids(up, case):
    """`why --cid` names the target; describe, diff and logs hide keys, and export gives the file back as it is."""
    apply(up, case, [OLD, PLAIN])
    lbctl = up.balancer.lbctl
    cid = "08c460511234567890"
    answer = up.balancer.json("why", "udp", "203.0.113.7", "40000", case.vip, str(PORT), "--cid", cid)
    assert answer["target"] == f"{case.bare_target('t2')}:{PORT}" and answer["verdict"] == "tx"
    assert answer["quic"] == f"config 0 (not encrypted), server ID c46051 → {case.bare_target('t2')}:{PORT}"
    for wrong, said in (("e8c4605112345678", "config 7 stands for none"), ("28c4605112345678", "config 1, which no target group"),
                        ("08c46051", "needs 9 bytes, and there are 4"), ("08ffffff1234567890", "server ID ffffff, which no target has")):
        answer = up.balancer.json("why", "udp", "203.0.113.7", "40000", case.vip, str(PORT), "--cid", wrong)
        assert said in answer["quic"] and "unroutable" in answer["quic"] and answer["verdict"] == "tx", answer
    text = lbctl("describe", "target-group", "quic").stdout
    assert "key: hidden" in text and "server_id: c46051" in text
    file = up.lab.folder / "quic.yaml"
    file.write_text(file.read_text().replace(KEY, KEY[:-1] + "0"))
    assert "quic-config quic 2 key: hidden" in " ".join(lbctl("diff", "-f", file, check=False).stdout.split())
    bad = up.lab.folder / "bad.yaml"
    bad.write_text(file.read_text().replace(KEY[:-1], KEY[:-2]))
    refused = lbctl("apply", "-f", bad, check=False)
    assert refused.returncode != 0 and "must be 32 hex digits" in refused.stderr + refused.stdout
    assert KEY in lbctl("export").stdout
    told = text + lbctl("diff", "-f", file, check=False).stdout + refused.stdout + refused.stderr + lbctl("events").stdout + lbctl("history").stdout
    told += "".join(log.read_text(errors="replace") for log in up.lab.folder.glob("*.log"))
    assert KEY[:16] not in told
