"""Every file in configs/ is accepted by the daemon it is for."""

import subprocess

import pytest
import tree

CONFIGS = [n for n in tree.files() if n.startswith("configs/") and n.endswith(".yaml")]


@pytest.mark.parametrize("name", CONFIGS)
def test_config_is_accepted(name):
    daemon = "lb-dp" if name.rsplit("/", 1)[1].startswith("dp") else "lb-cp"
    done = subprocess.run([tree.BUILD / "bin" / daemon, "--config", tree.ROOT / name, "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_a_demo_config():
    assert "configs/demo.yaml" in CONFIGS
