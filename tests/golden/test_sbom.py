"""./run sbom: every library the binaries load stands in it, with version and licence."""
import json
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_sbom_lists_libraries_with_versions_and_licences(lb_replay, tmp_path):
    build = pathlib.Path(lb_replay).resolve().parent.parent
    done = subprocess.run(["/usr/bin/python3", ROOT / "tests/run/sbom.py", "--build", build, "--json", tmp_path / "sbom.json"],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    parts = {part["name"]: part for part in json.loads((tmp_path / "sbom.json").read_text())["components"]}
    assert {"libc6", "libyaml-0-2", "libgrpc++1.51"} <= set(parts)
    for name, part in parts.items():
        assert part["version"] != "?" and part["licenses"], name
