"""lb-replay as a tool: its files, its errors and its exit codes."""
import json
import subprocess

import pytest
import yaml
from scapy.all import raw

from . import pcap
from .frames import T4, at, ether, ipip, one, tcp

PACKETS = [(1_600_000_000.25, raw(ether(tcp())), 54), (1_600_000_001.5, raw(ether(tcp("A"))), 54)]


class Tool:
    def __init__(self, binary, directory):
        self.binary, self.directory = binary, directory
        self.write_yaml("lb.yaml", one())
        pcap.write(self.path("in.pcap"), PACKETS)

    def path(self, name):
        return str(self.directory / name)

    def write_yaml(self, name, content):
        (self.directory / name).write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))

    def run(self, *args, config="lb.yaml", source="in.pcap", out="out.pcap"):
        command = [self.binary, "--config", self.path(config), "--in", self.path(source), "--out", self.path(out),
                   "--json", self.path("verdicts.jsonl"), *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def fails(self, *texts, args=(), **files):
        done = self.run(*args, **files)
        assert done.returncode == 1, done.stderr
        assert done.stdout == ""
        for text in texts:
            assert text in done.stderr, done.stderr
        return done.stderr

    def verdicts(self):
        return [json.loads(line) for line in (self.directory / "verdicts.jsonl").read_text().splitlines()]


@pytest.fixture
def tool(lb_replay, tmp_path):
    return Tool(lb_replay, tmp_path)


def test_one_line_of_json_per_packet_with_every_key(tool):
    assert tool.run().returncode == 0
    lines = (tool.directory / "verdicts.jsonl").read_text().splitlines()
    assert lines[0] == ('{"n":0,"verdict":"tx","reason":null,"listener":"web-80","target_group":"blue","target":"10.77.2.2:80",'
                        '"flow":"new","worker":0,"out_len":74,"out":[0]}')
    assert len(lines) == 2


@pytest.mark.parametrize("nanoseconds", [False, True])
@pytest.mark.parametrize("big_endian", [False, True])
def test_frames_leave_with_the_stamp_of_their_packet_in_the_resolution_of_the_capture(tool, nanoseconds, big_endian):
    pcap.write(tool.path("in.pcap"), PACKETS, nanoseconds=nanoseconds, big_endian=big_endian)
    assert tool.run().returncode == 0
    kept, frames = pcap.read(tool.path("out.pcap"))
    unit = 10**9 if nanoseconds else 10**6
    assert kept == nanoseconds
    assert [stamp for stamp, _ in frames] == [round(1_600_000_000.25 * unit), round(1_600_000_001.5 * unit)]


def test_the_same_input_gives_the_same_bytes(tool):
    assert tool.run(out="a.pcap").returncode == 0
    first = (tool.directory / "verdicts.jsonl").read_bytes()
    assert tool.run(out="b.pcap").returncode == 0
    assert (tool.directory / "a.pcap").read_bytes() == (tool.directory / "b.pcap").read_bytes()
    assert (tool.directory / "verdicts.jsonl").read_bytes() == first


def test_an_empty_capture_is_no_error(tool):
    pcap.write(tool.path("in.pcap"), [])
    done = tool.run("--summary")
    assert done.returncode == 0 and tool.verdicts() == [] and pcap.read(tool.path("out.pcap"))[1] == []
    assert "rx_packets 0 packets" in done.stdout


def test_the_summary_has_every_counter_with_unit_and_help(tool):
    lines = tool.run("--summary").stdout.splitlines()
    assert any(line.startswith("forwarded_packets 2 packets  # ") for line in lines)
    assert any(line.startswith("drop_no_listener 0 packets  # ") for line in lines)
    assert all("  # " in line for line in lines)


def test_json_and_summary_may_be_left_out(tool):
    command = [tool.binary, "--config", tool.path("lb.yaml"), "--in", tool.path("in.pcap"), "--out", tool.path("out.pcap")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tool.directory / "verdicts.jsonl").exists()
    frame = pcap.read(tool.path("out.pcap"))[1][0][1]
    assert frame == ipip(tcp())(frame)


# ---- errors: each says what is wrong and where ----


def test_a_wrong_configuration_names_file_line_and_field(tool):
    config = one()
    config["listeners"][0]["port"] = 99999
    tool.write_yaml("lb.yaml", config)
    error = tool.fails("lb.yaml:", "listeners[0].port")
    line = int(error.split("lb.yaml:")[1].split(":")[0])
    assert "99999" in (tool.directory / "lb.yaml").read_text().splitlines()[line - 1]
    assert not (tool.directory / "out.pcap").exists() and not (tool.directory / "verdicts.jsonl").exists()


def test_every_violation_of_every_file_is_told_at_once(tool):
    broken = one()
    broken["vips"][0]["address"] = "nowhere"
    tool.write_yaml("v2.yaml", broken)
    tool.write_yaml("events.yaml", "- {at: 1, apply: v2.yaml}\n- {at: 2, apply: missing.yaml}\n")
    tool.fails("v2.yaml:", "vips[0].address", "missing.yaml: No such file", args=["--events", tool.path("events.yaml")])


def test_wrong_events_name_file_line_and_field(tool):
    tool.write_yaml("events.yaml", "- {at: 0, drain: \"10.77.2.2:80\"}\n- {at: never, drain: \"10.77.2.2:80\"}\n")
    tool.fails("events.yaml:2: [1].at: ", args=["--events", tool.path("events.yaml")])


def test_an_event_for_an_unknown_target_names_its_line(tool):
    tool.write_yaml("events.yaml", "- {at: 0, drain: \"10.77.2.2:80\"}\n- {at: 1, healthy: \"10.9.9.9:80\"}\n")
    tool.fails("events.yaml:2: no target 10.9.9.9:80", args=["--events", tool.path("events.yaml")])


def test_files_named_in_events_are_relative_to_the_events_file(tool):
    (tool.directory / "scenario").mkdir()
    tool.write_yaml("scenario/v2.yaml", one(target=T4[1]))
    tool.write_yaml("scenario/events.yaml", "- {at: 0, apply: v2.yaml}\n")
    assert tool.run("--events", tool.path("scenario/events.yaml")).returncode == 0
    assert tool.verdicts()[0]["target"] == at(T4[1])


@pytest.mark.parametrize("args, text", [
    (["--unhealthy", "10.9.9.9:80"], "10.9.9.9:80: no such target"),
    (["--unhealthy", "nothing"], "nothing: must be ADDRESS:PORT"),
    (["--secret", "xyz"], "1 to 32 hex digits"),
    (["--secret", "0" * 33], "1 to 32 hex digits"),
    (["--workers", "0"], "--workers"),
    (["--workers", "129"], "--workers"),
    (["--mtu", "100"], "--mtu"),
    (["--events", "/nonexistent/e.yaml"], "/nonexistent/e.yaml"),
    (["--surprise"], "--surprise"),
])
def test_a_wrong_argument_is_named(tool, args, text):
    done = tool.run(*args)
    assert done.returncode == 1 and text in done.stderr


def test_what_is_no_capture_is_named(tool):
    (tool.directory / "text.pcap").write_text("this is not a capture, whatever its name says")
    tool.fails("text.pcap: ", source="text.pcap")
    tool.fails("missing.pcap: No such file", source="missing.pcap")


def test_a_capture_of_another_link_type_is_refused_by_name(tool):
    pcap.write(tool.path("raw.pcap"), PACKETS, link_type=101)
    tool.fails("raw.pcap: link type is RAW, only Ethernet", source="raw.pcap")


def test_a_capture_cut_off_within_a_packet_is_an_error_that_names_it(tool):
    whole = (tool.directory / "in.pcap").read_bytes()
    (tool.directory / "cut.pcap").write_bytes(whole[:-10])
    tool.fails("cut.pcap: packet 1: ", source="cut.pcap")
    assert len(tool.verdicts()) == 1, "what was read before stands"


def test_a_file_that_cannot_be_written_is_named(tool):
    tool.fails("nowhere/out.pcap", out="nowhere/out.pcap")


def test_a_full_disk_is_an_error(tool):
    command = [tool.binary, "--config", tool.path("lb.yaml"), "--in", tool.path("in.pcap"), "--out", "/dev/full"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "/dev/full: No space left" in done.stderr
    command[-1], command[len(command):] = tool.path("out.pcap"), ["--json", "/dev/full"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "/dev/full" in done.stderr


def test_help_and_version_end_well(tool):
    for flag, text in (("--help", "--config"), ("--version", "lb-replay ")):
        done = subprocess.run([tool.binary, flag], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 and text in done.stdout
