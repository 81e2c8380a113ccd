"""How long the cloud waits for a silent node, and what that makes of tolerations."""

from typing import Any

import pytest

from cloudcore import reschedule

READY, GONE = reschedule.TAINTS


def toleration(key: str = GONE, seconds: int | None = None, **more: Any) -> dict[str, Any]:
    made = {"key": key, "operator": "Exists", "effect": "NoExecute", **more}
    return made if seconds is None else {**made, "tolerationSeconds": seconds}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("never", None), ("0s", 0), ("300s", 300), ("10m", 600), ("1h30m", 5400), ("12h", 43200)],
)
def test_what_can_be_said(text: str, seconds: float | None) -> None:
    assert reschedule.read(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "-5s", "soon", "1d", "5s ", "9" * 20 + "s"])
def test_what_cannot(text: str) -> None:
    with pytest.raises(ValueError, match="neither never nor a time"):
        reschedule.read(text)


def test_the_node_then_its_group_then_the_cloud() -> None:
    assert reschedule.choose("5m", "never", None) == 300
    assert reschedule.choose("", "5m", None) == 300
    assert reschedule.choose("never", "5m", 60.0) is None
    assert reschedule.choose("", "", 60.0) == 60
    assert reschedule.choose("", "", None) is None
    # a word that nobody understands never ends a pod
    assert reschedule.choose("soon", "5m", 60.0) is None


@pytest.mark.parametrize(
    ("tolerations", "stays"),
    [
        ([], False),
        ([toleration(seconds=300)], False),
        ([toleration()], True),
        ([toleration(READY)], False),
        ([{"operator": "Exists"}], True),
        ([{"operator": "Exists", "effect": "NoSchedule"}], False),
        ([{}], False),
    ],
)
def test_who_stays(tolerations: list[dict[str, Any]], stays: bool) -> None:
    assert reschedule.stays(tolerations) is stays


def test_tolerations_get_the_nodes_time_and_the_others_stay() -> None:
    mine = {"key": "mine", "operator": "Exists"}
    usual = [mine, toleration(READY, 300), toleration(GONE, 300)]
    never = [mine, toleration(READY), toleration(GONE)]
    assert reschedule.tolerations(usual, None) == never
    assert reschedule.tolerations(usual, 3600) == [mine, toleration(READY, 3600), toleration(GONE, 3600)]
    assert reschedule.tolerations([], None) == [toleration(READY), toleration(GONE)]
    everything = [{"operator": "Exists"}]
    assert reschedule.tolerations(everything, 60) == everything
    for found in (usual, [], everything):
        once = reschedule.tolerations(found, 60)
        assert reschedule.tolerations(once, 60) == once
