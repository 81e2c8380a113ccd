"""One trial for all cases, put right before each, and a table of the cases at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import footprint
from tests.e2e.skerry import missing
from tests.faults.stage import Stage

_results: dict[str, list[tuple[str, str, float]]] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slow)


def case_id(name: str) -> str:
    """`test_f_e01_the_agent…` → `F-E01`."""
    words = name.removeprefix("test_").split("_")
    parts = words[:2] if len(words[0]) == 1 and not words[0][-1].isdigit() else words[:1]
    return "-".join(parts).upper()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "tests/faults/test_" not in report.nodeid:
        return
    if report.when == "call" or report.outcome != "passed":
        why = ""
        if report.skipped and isinstance(report.longrepr, tuple):
            why = report.longrepr[2]
        elif report.failed:
            why = str(getattr(getattr(report.longrepr, "reprcrash", None), "message", report.longrepr))
        name = report.nodeid.rpartition("::")[2]
        _results.setdefault(case_id(name), []).append(
            (name, f"{report.outcome}  {why.splitlines()[0][:150] if why else ''}", report.duration)
        )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _results:
        return
    terminalreporter.section("faults")
    for case in sorted(_results):
        for name, outcome, seconds in _results[case]:
            terminalreporter.line(f"{case:<6} {seconds:6.1f} s  {name:<66} {outcome}")


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
