"""Who gets in when a node is full."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from edgecore.edged.admission import Room, decide, labels_of, short
from edgecore.edged.pod import Pod
from edgecore.edged.quantity import NANO
from tests.unit.edgecore.edged.builders import c, make

ROOM = Room(
    allocatable={"cpu": 2 * NANO, "memory": 2**30 * NANO, "ephemeral-storage": 2**30 * NANO}, max_pods=3
)
CRITICAL = {"priority": 2_000_001_000}


def pod(uid: str, cpu: str = "", memory: str = "", **spec: Any) -> Pod:
    requests = {k: v for k, v in (("cpu", cpu), ("memory", memory)) if v}
    return make(c(resources={"requests": requests}), meta={"uid": uid}, **spec)


def porting(uid: str, number: int, **more: Any) -> Pod:
    port = {"containerPort": 8080, "hostPort": number, "protocol": "TCP", **more}
    return make(c(ports=[port]), meta={"uid": uid})


@pytest.mark.parametrize(
    ("labels", "reason"), [({}, ""), ({"disk": "slow"}, "NodeAffinity"), ({"disk": "fast"}, "")]
)
def test_labels(labels: dict[str, str], reason: str) -> None:
    decided = decide(pod("n", nodeSelector={"disk": "fast"}), [], replace(ROOM, labels=labels))
    assert (decided.refused.reason if decided.refused else "") == reason


def test_labels_of_a_node() -> None:
    assert labels_of(b'{"metadata":{"labels":{"disk":"fast"}}}') == {"disk": "fast"}
    assert labels_of(b'{"metadata":{}}') == labels_of(b"[]") == {}


@pytest.mark.parametrize(
    ("new", "others", "reason", "words"),
    [
        (pod("n", "2"), [], "", ""),
        (pod("n", "1500m"), [pod("a", "500m")], "", ""),
        (pod("n", "1501m"), [pod("a", "500m")], "OutOfcpu", "requested: 1501, used: 500, capacity: 2000"),
        (pod("n", "", "1025Mi"), [], "OutOfmemory", "requested: 1074790400, used: 0, capacity: 1073741824"),
        (pod("n"), [pod("a"), pod("b"), pod("d")], "OutOfpods", "requested: 1, used: 3, capacity: 3"),
        # nothing asked for is always there
        (pod("n"), [pod("a", "2")], "", ""),
        (pod("n", os={"name": "windows"}), [], "PodOSNotSupported", "OS"),
        (pod("n", nodeSelector={"kubernetes.io/arch": "s390x"}), [], "NodeAffinity", "selector"),
        (pod("n", nodeSelector={"disk": "fast"}), [], "", ""),
        (porting("n", 80), [porting("a", 80)], "NodePorts", "free ports"),
        (porting("n", 80, hostIP="192.0.2.1"), [porting("a", 80)], "NodePorts", "free ports"),
        (porting("n", 80, hostIP="192.0.2.1"), [porting("a", 80, hostIP="192.0.2.2")], "", ""),
        (porting("n", 80), [porting("a", 80, protocol="UDP"), porting("b", 81)], "", ""),
        (porting("n", 0), [porting("a", 0)], "", ""),
    ],
)
def test_room(new: Pod, others: list[Pod], reason: str, words: str) -> None:
    refused = decide(new, others, ROOM).refused
    assert (refused.reason if refused else "") == reason
    assert words in (refused.message if refused else "")


@pytest.mark.parametrize(
    ("new", "pressure", "refused"),
    [
        (pod("n"), "MemoryPressure", True),
        (pod("n", "100m"), "MemoryPressure", False),
        (pod("n", tolerations=[{"operator": "Exists"}]), "MemoryPressure", False),
        (
            pod("n", tolerations=[{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]),
            "MemoryPressure",
            False,
        ),
        (pod("n", tolerations=[{"key": "other", "operator": "Exists"}]), "MemoryPressure", True),
        (pod("n", "100m"), "DiskPressure", True),
        (pod("n", "100m"), "PIDPressure", True),
        (pod("n", **CRITICAL), "DiskPressure", False),
    ],
)
def test_pressure(new: Pod, pressure: str, refused: bool) -> None:
    room = Room(allocatable=ROOM.allocatable, pressures=frozenset({pressure}))
    found = decide(new, [], room).refused
    assert (found is not None) == refused
    if found is not None:
        assert found.reason == "Evicted"
        assert pressure in found.message


def test_a_critical_pod_ends_the_cheapest_that_make_room() -> None:
    others = [pod("low", "1", priority=1), pod("high", "500m", priority=9), pod("best")]
    room = Room(allocatable=ROOM.allocatable, max_pods=10)
    assert decide(pod("n", "1", **CRITICAL), others, room).preempt == ("low",)
    assert decide(pod("n", "600m", **CRITICAL), others, room).preempt == ("low",)
    # best effort pods hold a place, and nothing else
    assert decide(pod("n", **CRITICAL), others, Room(allocatable=ROOM.allocatable, max_pods=3)).preempt == (
        "best",
    )


def test_a_critical_pod_ends_no_critical_one_and_nobody_in_vain() -> None:
    others = [pod("c", "2", **CRITICAL), pod("low", "0")]
    decision = decide(pod("n", "1", **CRITICAL), others, ROOM)
    assert decision.preempt == ()
    assert decision.refused is not None
    assert decision.refused.reason == "OutOfcpu"


def test_why_a_pod_that_runs_cannot_have_more() -> None:
    other, wants = pod("o", "1500m"), pod("u", "600m")
    assert short(wants, [], ROOM) == ""
    assert (
        short(wants, [other], ROOM)
        == "Node didn't have enough resource: cpu, requested: 600, used: 1500, capacity: 2000"
    )


def test_groups_that_nobody_can_keep_out_are_refused() -> None:
    strict = pod("n", securityContext={"supplementalGroupsPolicy": "Strict"})
    refused = decide(strict, [], ROOM).refused
    assert refused is not None
    assert refused.reason == "SupplementalGroupsPolicyNotSupported"
    assert decide(strict, [], replace(ROOM, strict_groups=True)).refused is None
    assert decide(pod("n", securityContext={"supplementalGroupsPolicy": "Merge"}), [], ROOM).refused is None
