"""Every configuration of lb-cp in configs/ is accepted by it. Those of lb-dp depend on the machine: unit tests read them."""

import subprocess

import pytest
import tree

CONFIGS = [n for n in tree.files() if n.startswith("configs/") and n.endswith(".yaml") and not n.startswith("configs/dp")]


@pytest.mark.parametrize("name", CONFIGS)
def test_config_is_accepted(name):
    done = subprocess.run([tree.BUILD / "bin/lb-cp", "--config", tree.ROOT / name, "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_a_demo_config():
    assert "configs/demo.yaml" in CONFIGS
