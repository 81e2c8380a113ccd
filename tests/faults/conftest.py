"""One trial for all cases, put right before each, and a table of the cases at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import footprint
from tests.e2e.skerry import missing
from tests.faults.cases import elsewhere, ids_of
from tests.faults.stage import Stage


def pytest_configure(config: pytest.Config) -> None:
    # a plugin of its own hears of tests in other folders, too
    config.pluginmanager.register(Table(), "table of the cases")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slow)


class Table:
    """What came of each case, wherever its tests are."""

    def __init__(self) -> None:
        self._results: dict[str, list[tuple[str, str, float]]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        name = report.nodeid.rpartition("::")[2]
        cases = elsewhere(report.nodeid)
        if report.nodeid.startswith("tests/faults/"):
            cases += ids_of(name)
        why = ""
        if report.skipped and isinstance(report.longrepr, tuple):
            why = report.longrepr[2]
        elif report.failed:
            why = str(getattr(getattr(report.longrepr, "reprcrash", None), "message", report.longrepr))
        outcome = f"{report.outcome}  {why.splitlines()[0][:150] if why else ''}"
        for case in cases:
            self._results.setdefault(case, []).append((name, outcome, report.duration))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._results:
            return
        terminalreporter.section("faults")
        for case in sorted(self._results):
            for name, outcome, seconds in self._results[case]:
                terminalreporter.line(f"{case:<6} {seconds:6.1f} s  {name[:66]:<66} {outcome}")


@pytest.fixture(scope="session")
def whole() -> Iterator[Stage]:
    if reason := missing():
        pytest.skip(reason)
    stage = Stage()
    before = footprint.look(stage.skerry.home)
    try:
        stage.open()
        yield stage
    finally:
        problems = stage.close()
    assert problems == []
    left = footprint.left_behind(before, stage.skerry.home)
    # other tests on this machine may have taken their own things away meanwhile, or made the first rule of a table
    new = [one for what in left.values() for one in (what["new"] if isinstance(what, dict) else [what])]
    assert [one for one in new if not str(one).startswith("table table")] == [], left


@pytest.fixture
def stage(whole: Stage) -> Stage:
    """The trial with everything right."""
    whole.settle()
    return whole
