"""Golden packets: every case is a sentence that lb-replay is held to."""
import importlib
import pkgutil

import pytest

from . import cases, harness

for topic in pkgutil.iter_modules(cases.__path__):  # each module adds its cases
    importlib.import_module(f"{cases.__name__}.{topic.name}")

CASES = harness.CASES


def test_no_two_cases_say_the_same():
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)), sorted(name for name in set(names) if names.count(name) > 1)
    assert len(names) >= 60


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden(case, lb_replay, tmp_path):
    harness.run_case(lb_replay, tmp_path, case)
