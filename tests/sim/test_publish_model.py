"""The publish/acknowledge protocol, model-checked: every interleaving of two lb-cp that die at any step, lb-dp and its workers."""

import pathlib
import re
import subprocess

import pytest

MODEL = pathlib.Path(__file__).resolve().parents[2] / "cp/snapshot/publish.pml"


def check(text, folder):
    """(errors, states) of a model. Raises if the search was not complete."""
    (folder / "model.pml").write_text(text)
    subprocess.run(["spin", "-a", "model.pml"], cwd=folder, check=True, capture_output=True)
    subprocess.run(["gcc", "-O1", "-w", "-DSAFETY", "-DCOLLAPSE", "-DVECTORSZ=2048", "-o", "pan", "pan.c"], cwd=folder, check=True)
    said = subprocess.run(["./pan", "-m200000"], cwd=folder, check=True, capture_output=True, text=True).stdout
    assert "max search depth too small" not in said and "out of memory" not in said
    return int(re.search(r"errors: (\d+)", said).group(1)), int(re.search(r"(\d+) states, stored", said).group(1))


def test_the_protocol_holds_in_every_interleaving(tmp_path):
    errors, states = check(MODEL.read_text(), tmp_path)
    assert errors == 0 and states > 100_000


# lb-cp's new epoch and lb-dp's refusal of what is stale each suffice against an old lb-cp: both must go before one shows.
@pytest.mark.parametrize("changes", [
    {"epoch = floor / STEP + 1; n = 0": "epoch = 1; n = 0", ":: g > in_force ->": ":: g > 0 ->"},
    {"moving && SETTLED ->": "moving ->"},
    {"client != NOBODY && !moving && nempty": "client != NOBODY && nempty"},
], ids=["stale-generation", "early-release", "third-generation"])
def test_a_broken_protocol_is_found_out(tmp_path, changes):
    text = MODEL.read_text()
    for rule, broken in changes.items():
        assert rule in text
        text = text.replace(rule, broken)
    assert check(text, tmp_path)[0] > 0
