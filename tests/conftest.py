"""How the suite runs: parts beside each other in several processes, on real Kubernetes nodes that they share.

A test begins once what it needs has been built (see tests/parts.py); at the end stands how long each part took.
"""

import functools
import os
import subprocess
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from _pytest.nodeid import NodeId
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests import known_secrets, parts, patience
from tests.servers import cluster as clusters

# A busy machine is no failure.
hypothesis.settings.register_profile("suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("suite")
patience.begin()

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
PROGRESS = os.environ.get("TESK_TEST_BUILT", "")
"""The file to which a scripts/build that runs beside the tests writes the name of each thing that is there."""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[clusters.Cluster]:
    """The newest Kubernetes, which all processes share; a test must leave the node as it is."""
    kept = os.environ.get("TESK_TEST_CLUSTER")
    name, shared = kept or f"test-{clusters.RUN}", bool(kept or WORKER)
    with clusters.cluster(tmp_path_factory.mktemp("cluster"), name, shared=shared) as running:
        yield running


class _ByGroup(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out groups of tests in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return parts.part(nodeid).group


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByGroup:
    config.option.loadscopereorder = False
    return _ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts tests into the order in which their groups begin, in turn one that waits and one that works."""
    if not WORKER:
        return
    _tell_apart(items)
    is_building = bool(PROGRESS)

    def order(item: pytest.Item) -> tuple[int, int]:
        return (parts.built_by(item.nodeid) if is_building else 0, parts.rank(item.nodeid))

    items.sort(key=order)
    if not is_building:
        items[:] = parts.in_turn(items, lambda item: parts.part(item.nodeid))


def _tell_apart(items: list[pytest.Item]) -> None:
    """Gives tests of one id, as schemathesis makes them, ids of their own: pytest-xdist would run the first alone."""
    seen = Counter(item.nodeid for item in items)
    for item in items:
        if seen[item.nodeid] > 1:
            assert item.parent
            item._id = NodeId.parse(f"{item.parent.nodeid}::{item.name}")
    if len({item.nodeid for item in items}) < len(items):
        raise pytest.UsageError("some tests have the same id, so that not all of them would run")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Waits for what the test needs before its time limit begins."""
    for what in parts.NEEDS[parts.part(item.nodeid).name]:
        _ensure(what)
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Fails a test that has left a secret where it does not belong."""
    yield
    leaks = known_secrets.take()
    assert not leaks, "; ".join(leaks)


@functools.cache
def _ensure(what: str) -> None:
    progress = Path(PROGRESS)
    while PROGRESS and what in parts.BUILT and not {what, "end"} & set(progress.read_text().split()):
        time.sleep(0.5)
    subprocess.run([str(clusters.ROOT / "scripts" / "ensure"), what], check=True, timeout=clusters.START_S)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Leaves out of a failure's traceback what lies above the suite's own code."""
    if call.excinfo:
        trace = call.excinfo.tb
        own = (part for part, _ in traceback.walk_tb(trace) if part.f_code.co_filename.startswith(f"{parts.TESTS}/"))
        first = next(own, None)
        while first and trace.tb_next and trace.tb_frame is not first:
            trace = trace.tb_next
        call.excinfo = pytest.ExceptionInfo.from_exc_info((call.excinfo.type, call.excinfo.value, trace))
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Prints a failure when it happens, since a run takes minutes and may be stopped."""
    if report.failed and not WORKER:
        print(f"\n{report.nodeid} failed ({report.when}):\n{report.longreprtext[-4000:]}", flush=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Ends the node that the processes shared."""
    if not WORKER and session.config.option.dist != "no":
        clusters.end(f"test-{clusters.RUN}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tells when each part began and ended, and how long its tests took together."""
    begin, end = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and report.nodeid.startswith("tests/"):
                name = parts.part(report.nodeid).name
                begin[name].append(report.start)
                end[name].append(report.stop)
    terminalreporter.section("time of each part, in seconds")
    first = min((min(moments) for moments in begin.values()), default=0.0)
    for name in sorted(begin, key=lambda name: min(begin[name])):
        busy = sum(end[name]) - sum(begin[name])
        span = f"{min(begin[name]) - first:6.0f} to {max(end[name]) - first:5.0f}"
        terminalreporter.write_line(f"{name:12} {span}   its tests together {busy:6.0f}")
