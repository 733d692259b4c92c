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
        metafunc.parametrize("case", cases, ids=str)


def pytest_configure(config):
    config.addinivalue_line("markers", "cases(list): the cases a test runs for")


def pytest_collection_modifyitems(items):
    def workers(item):
        case = item.callspec.params.get("case") if hasattr(item, "callspec") else None
        return case.workers if case else 0

    items.sort(key=workers)
