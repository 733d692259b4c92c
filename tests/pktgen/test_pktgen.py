"""The Pktgen scripts against a recording stand-in of the generator's Lua API (standin.lua), which refuses unknown names and
wrong arguments and simulates a link and a device, so that searches have a known answer."""

import csv
import os
import pathlib
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent
SCRIPTS = HERE.parent.parent / "pktgen-scripts"
ALL = sorted(p.name for p in SCRIPTS.glob("*.lua") if p.name not in ("lbgen.lua", "search.lua"))
TRAFFIC = [name for name in ALL if name not in ("ndr.lua", "new_flows.lua", "latency.lua", "churn.lua")]


def run(script, tmp_path, **env):
    """Runs one script; returns (stderr, rows of out.csv, recorded calls)."""
    environment = {"PATH": os.environ["PATH"], "PG_OUT": str(tmp_path / "out"), "SIM_CALLS": str(tmp_path / "calls")}
    environment.update({key: str(value) for key, value in env.items()})
    done = subprocess.run(["lua5.4", str(HERE / "standin.lua"), str(script)], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out.csv"
    rows = list(csv.DictReader(out.open())) if out.exists() else []
    return done.stderr, rows, (tmp_path / "calls").read_text().splitlines()


def sent(calls):
    return [line for line in calls if line.startswith("sent ")]


def lbctl_stub(tmp_path):
    stub = tmp_path / "lbctl"
    stub.write_text('#!/bin/sh\necho "$@" >> ' + str(tmp_path / "lbctl.log") + "\n")
    stub.chmod(0o755)
    return stub


@pytest.mark.parametrize("script", ALL)
def test_every_script_runs_and_leaves_results(script, tmp_path):
    stderr, rows, calls = run(SCRIPTS / script, tmp_path, PG_REPEATS=1, PG_RUNS=2, PG_SIZES="64", PG_MS=1000, PG_TARGET="10.0.0.1:80",
                              PG_LBCTL=lbctl_stub(tmp_path))
    assert stderr == ""
    assert rows, "no row in the CSV"
    svg = (tmp_path / "out.svg").read_text()
    assert svg.startswith("<svg ") and svg.rstrip().endswith("</svg>")
    assert calls[-1] == "quit()"
    assert sent(calls)


@pytest.mark.parametrize("script", TRAFFIC)
def test_received_is_what_the_device_lets_through(script, tmp_path):
    _, rows, _ = run(SCRIPTS / script, tmp_path, PG_RUNS=3, SIM_DUT_PPS=1e6)
    for row in rows[:-1]:
        assert float(row["rx_pps"]) == pytest.approx(1e6, rel=0.01)
        assert int(row["lost"]) == int(row["tx"]) - int(row["rx"]) > 0
    assert rows[-1]["run"] == "median"


@pytest.mark.parametrize("search", ["mlr", "binary"])
def test_search_finds_the_rates_of_a_dropping_device(search, tmp_path):
    _, rows, _ = run(SCRIPTS / "ndr.lua", tmp_path, SIM_DUT_PPS=5e6, PG_SEARCH=search, PG_SIZES="64,512", PG_REPEATS=1, PG_STEP=0.2)
    found = {(row["size"], row["loss_limit"]): float(row["rate_pct"]) for row in rows}
    line = 10e9 / (84 * 8)
    ndr, pdr = 100 * 5e6 / line, 100 * 5e6 / 0.995 / line
    assert ndr - 0.2 <= found["64", "0"] <= ndr
    assert pdr - 0.2 <= found["64", "0.005"] <= pdr
    assert found["512", "0"] == 100  # 512-byte frames never reach 5 Mpps on this link


@pytest.mark.parametrize("search", ["mlr", "binary"])
def test_search_fails_trials_that_were_held_back(search, tmp_path):
    _, rows, _ = run(SCRIPTS / "ndr.lua", tmp_path, SIM_DUT_PPS=5e6, SIM_BLOCKS=1, PG_SEARCH=search, PG_SIZES="64", PG_REPEATS=1)
    assert rows and float(rows[0]["rate_pct"]) <= 100 * 5e6 / (10e9 / 672) / 0.97


def test_search_needs_fewer_full_trials_for_two_limits_than_two_searches(tmp_path):
    for search in ("mlr", "binary"):
        run(SCRIPTS / "ndr.lua", tmp_path, SIM_DUT_PPS=5e6, PG_SEARCH=search, PG_SIZES="64", PG_REPEATS=1)
        trials = list(csv.DictReader((tmp_path / "out.trials.csv").open()))
        full = sum(1 for trial in trials if trial["trial_ms"] == "2000")
        if search == "mlr":
            mlr = full
    assert mlr < full


def test_one_flow_sends_one_flow(tmp_path):
    _, _, calls = run(SCRIPTS / "one_flow.lua", tmp_path, PG_RUNS=1)
    assert all("src_ip=10.0.0.1,10.0.0.1,10.0.0.1,0.0.0.0" in line and "src_port=1024,1024,1024,0" in line for line in sent(calls))


def test_24k_flows_come_from_coprime_cycles(tmp_path):
    _, _, calls = run(SCRIPTS / "flows_24k.lua", tmp_path, PG_RUNS=1)
    assert all("src_ip=10.0.0.1,10.0.0.1,10.0.0.251,0.0.0.1" in line and "src_port=1024,1024,1120,1" in line for line in sent(calls))


def test_syn_flood_sends_syns_over_tcp(tmp_path):
    _, _, calls = run(SCRIPTS / "syn_flood.lua", tmp_path, PG_RUNS=1)
    assert sent(calls) and all("flags=syn" in line and "ip_proto=tcp" in line for line in sent(calls))


def test_churn_drains_and_undrains_and_ends_undrained(tmp_path):
    _, rows, _ = run(SCRIPTS / "churn.lua", tmp_path, PG_TARGET="10.0.0.1:80", PG_LBCTL=lbctl_stub(tmp_path), PG_MS=2000)
    log = (tmp_path / "lbctl.log").read_text().splitlines()
    assert "drain 10.0.0.1:80" in log and log[-1] == "undrain 10.0.0.1:80"
    assert [row["phase"] for row in rows] == ["still", "churn"] and int(rows[1]["changes"]) > 2


def test_churn_says_that_a_target_is_needed(tmp_path):
    stderr, rows, calls = run(SCRIPTS / "churn.lua", tmp_path)
    assert "PG_TARGET" in stderr and not rows and calls[-1] == "quit()"


def test_latency_reads_percentiles_from_samples(tmp_path):
    _, rows, _ = run(SCRIPTS / "latency.lua", tmp_path)
    assert [row["load_pct_of_ndr"] for row in rows] == ["10", "50", "90"]
    assert float(rows[0]["p50_us"]) == 50 and float(rows[0]["p99_us"]) == 99  # the stand-in writes 0.1 … 100 µs


def test_link_down_is_said(tmp_path):
    stderr, rows, _ = run(SCRIPTS / "one_flow.lua", tmp_path, SIM_LINK_DOWN=1)
    assert "link is down" in stderr and not rows


def test_a_number_that_is_none_is_named(tmp_path):
    stderr, _, _ = run(SCRIPTS / "flows_24k.lua", tmp_path, PG_RUNS="many")
    assert "PG_RUNS=many" in stderr


@pytest.mark.parametrize("line, message", [
    ('pktgen.sett("0", "rate", 1)', "pktgen.sett does not exist"),
    ('pktgen.range.dst_prt("0", "start", 1)', "pktgen.range.dst_prt does not exist"),
    ('pktgen.set("0", "rate")', "2 arguments, wants 3"),
    ('pktgen.set("0", "rate", 120)', "a percentage"),
    ('pktgen.set(0, "rate", 1)', "a port list as text"),
    ('pktgen.range.src_port("0", "step", 1)', "one of the known words"),
    ('pktgen.range.src_port("0", "inc", 65)', "capped at 64"),
    ('pktgen.range.dst_mac("0", "start", "02:00")', "a MAC address"),
])
def test_the_stand_in_refuses_what_the_generator_does(line, message, tmp_path):
    script = tmp_path / "bad.lua"
    script.write_text(line + "\npktgen.quit()\n")
    done = subprocess.run(["lua5.4", str(HERE / "standin.lua"), str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and message in done.stderr


def flows_of(path):
    from scapy.utils import RawPcapReader

    return [bytes(data) for data, _ in RawPcapReader(str(path))]


def make(tmp_path, *args):
    out = tmp_path / "made.pcap"
    done = subprocess.run(["/usr/bin/python3", str(SCRIPTS / "make_pcap.py"), *map(str, args), "--out", str(out)], capture_output=True,
                          text=True, timeout=120)
    return done, out


@pytest.mark.parametrize("extra", [(), ("--random",)])
def test_pcap_flows_are_distinct(extra, tmp_path):
    done, out = make(tmp_path, "flows", "--count", 70000, *extra)
    assert done.returncode == 0, done.stderr
    frames = flows_of(out)
    tuples = {frame[26:30] + frame[34:36] for frame in frames}
    assert len(frames) == 70000 and len(tuples) >= 69990 and all(len(frame) == 60 for frame in frames)


@pytest.mark.parametrize("vip, proto", [("198.18.0.1", "udp"), ("198.18.0.1", "tcp"), ("2001:db8::10", "udp"), ("2001:db8::10", "tcp")])
def test_pcap_checksums_are_right(vip, proto, tmp_path):
    from scapy.layers.all import Ether

    done, out = make(tmp_path, "flows", "--count", 20, "--vip", vip, "--proto", proto, "--size", 128)
    assert done.returncode == 0, done.stderr
    for raw in flows_of(out):
        packet = Ether(raw)
        l4 = packet.getlayer(proto.upper())
        given = l4.chksum
        del l4.chksum
        if vip.count("."):
            header = packet["IP"].chksum
            del packet["IP"].chksum
            assert Ether(bytes(packet))["IP"].chksum == header
        assert Ether(bytes(packet)).getlayer(proto.upper()).chksum == given


def test_pcap_imix_has_its_shares(tmp_path):
    _, out = make(tmp_path, "imix", "--count", 1200)
    sizes = [len(frame) + 4 for frame in flows_of(out)]
    assert (sizes.count(64), sizes.count(570), sizes.count(1518)) == (700, 400, 100)


def test_pcap_syns_are_syns_and_vips_are_mixed(tmp_path):
    _, out = make(tmp_path, "syn", "--count", 100, "--vip", "198.18.0.1", "--vip", "198.18.0.2")
    frames = flows_of(out)
    assert all(frame[47] == 0x02 for frame in frames)
    assert {frame[30:34] for frame in frames} == {bytes([198, 18, 0, 1]), bytes([198, 18, 0, 2])}


def test_pcap_refuses_nonsense(tmp_path):
    done, _ = make(tmp_path, "flows", "--count", 0)
    assert done.returncode == 2 and "--count" in done.stderr


def test_luacheck_finds_nothing():
    done = subprocess.run(["luacheck", "-q", "pktgen-scripts", "tests/pktgen"], cwd=HERE.parent.parent, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done.stdout
