"""Who ends when, and who comes back."""

from __future__ import annotations

from edgecore.edged.admission import CRITICAL_PRIORITY
from edgecore.edged.pod import Pod
from edgecore.edged.shutdown import Period, groups, periods, returns, total_s
from tests.unit.edgecore.edged.builders import c, make


def _pod(name: str, priority: int | None = None) -> Pod:
    return make(meta={"name": name}, **({} if priority is None else {"priority": priority}))


def _names(times: tuple[Period, ...], *pods: Pod) -> list[tuple[int, list[str]]]:
    return [(g.seconds, [p.name for p in g.pods]) for g in groups(pods, times)]


def test_critical_pods_end_last_in_a_time_of_their_own() -> None:
    times = periods(20, 5)
    web, agent, low = _pod("web"), _pod("agent", CRITICAL_PRIORITY + 1000), _pod("low", -10)
    assert _names(times, agent, web, low) == [(15, ["web", "low"]), (5, ["agent"])]
    assert total_s(times) == 20


def test_a_group_without_pods_takes_no_time() -> None:
    assert _names(periods(20, 5), _pod("agent", CRITICAL_PRIORITY)) == [(5, ["agent"])]
    assert _names(periods(20, 5)) == []


def test_periods_that_cannot_be_are_bounded() -> None:
    assert periods(0, 5) == ()
    assert periods(-1, 0) == ()
    assert total_s(periods(10, 60)) == 10
    assert groups([_pod("web")], ()) == []


def test_periods_by_priority() -> None:
    times = (
        Period(priority=1000, seconds=7),
        Period(priority=-5, seconds=3),
        Period(priority=10, seconds=5),
    )
    pods = [_pod("a", 2000), _pod("b", 1000), _pod("c", 999), _pod("d"), _pod("e", -100)]
    assert _names(times, *pods) == [(3, ["d", "e"]), (5, ["c"]), (7, ["a", "b"])]


def test_what_would_run_again_after_a_power_cut_comes_back() -> None:
    assert returns(make())
    assert returns(make(restartPolicy="OnFailure"))
    assert not returns(make(restartPolicy="Never"))
    assert returns(make(c(restartPolicy="Always"), restartPolicy="Never"))
