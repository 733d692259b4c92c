"""Finds lb-replay: $LB_BUILD (default: build/ at the root) holds bin/lb-replay or replay/lb-replay."""
import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def lb_replay():
    build = pathlib.Path(os.environ.get("LB_BUILD", ROOT / "build"))
    if not build.is_absolute():
        build = ROOT / build
    for candidate in (build / "bin/lb-replay", build / "replay/lb-replay"):
        if candidate.exists():
            return str(candidate)
    pytest.fail(f"no lb-replay in {build}; run ./run build or set LB_BUILD")
