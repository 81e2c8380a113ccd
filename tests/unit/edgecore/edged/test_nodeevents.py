"""What is told of the node."""

from __future__ import annotations

from typing import Any

from edgecore.edged.node import before
from edgecore.edged.nodeevents import of_conditions, rebooted


def _status(**conditions: str) -> dict[str, Any]:
    return {
        "conditions": [
            {"type": name, "status": value, "lastTransitionTime": "t"} for name, value in conditions.items()
        ]
    }


def test_each_change_of_a_condition_is_told_once_with_a_kubelets_reason() -> None:
    first = _status(MemoryPressure="False", DiskPressure="False", PIDPressure="False", Ready="True")
    assert [t.reason for t in of_conditions("n", {}, first)] == [
        "NodeHasSufficientMemory",
        "NodeHasNoDiskPressure",
        "NodeHasSufficientPID",
        "NodeReady",
    ]
    assert of_conditions("n", before(first).conditions, first) == []
    bad = _status(
        MemoryPressure="True", DiskPressure="True", PIDPressure="True", Ready="False", CloudConnected="False"
    )
    told = of_conditions("n", before(first).conditions, bad)
    assert [t.reason for t in told] == [
        "NodeHasInsufficientMemory",
        "NodeHasDiskPressure",
        "NodeHasInsufficientPID",
        "NodeNotReady",
    ]
    assert told[3].message == "Node n status is now: NodeNotReady"


def test_another_boot_id_is_a_reboot() -> None:
    told = rebooted("n", "a", "b")
    assert told is not None
    assert (told.kind, told.reason) == ("Warning", "Rebooted")
    assert told.message == "Node n has been rebooted, boot id: b"
    assert rebooted("n", "a", "a") is None
    assert rebooted("n", "", "a") is None, "the first start says nothing of a reboot"
    assert rebooted("n", "a", "") is None
