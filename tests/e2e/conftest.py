import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tests.e2e import world  # noqa: E402

_current = None


def _world(workers):
    """One lab is up at a time; tests are ordered so that it changes once."""
    global _current
    if _current is None or _current.workers != workers:
        if _current is not None:
            _current.close()
        _current = None
        _current = world.World(workers)
    return _current


@pytest.fixture(scope="session", autouse=True)
def _taken_down_at_the_end():
    yield
    if _current is not None:
        _current.close()


@pytest.fixture
def up(case):
    """The world of a test's case, settled."""
    running = _world(case.workers)
    running.settle()
    yield running
    running.end_helpers()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed and _current is not None:
        report.sections.append(("logs", _current.logs()))


def pytest_generate_tests(metafunc):
    """A test is run for the cases its module-level mark names: @pytest.mark.cases(world.PLAIN); default all."""
    if "case" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("cases")
        cases = mark.args[0] if mark else world.ALL
        if cases is world.ALL and os.environ.get("LB_E2E_IN_TURN"):
            cases = world.IN_TURN
        metafunc.parametrize("case", cases, ids=str)


def pytest_configure(config):
    config.addinivalue_line("markers", "cases(list): the cases a test runs for")
    if hasattr(config, "workerinput"):  # one of several processes: each has labs of its own
        os.environ["LB_LAB"] = "-".join(filter(None, [os.environ.get("LB_LAB"), config.workerinput["workerid"]]))


RUN = 6  # tests: as many as a process takes at a time


def lab_of(item):
    """What decides whether a test can use the lab of the one before it."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    if "case" in params:
        return "", params["case"].workers
    return item.module.__name__, params.get("lab", 0)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Tests of one lab follow each other. Shared out among processes, they go in runs, a module's own lab in one."""
    items.sort(key=lab_of, reverse=True)
    count = {}
    for item in items:
        lab = lab_of(item)
        count[lab] = count.get(lab, -1) + 1
        number = 0 if lab[0] else count[lab] // RUN
        item.add_marker(pytest.mark.xdist_group(f"{lab[0]}{lab[1]}.{number}"))
