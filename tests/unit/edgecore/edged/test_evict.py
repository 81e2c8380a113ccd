"""When a machine is short, and who goes first."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from edgecore.edged.evict import (
    MI,
    Signals,
    Thresholds,
    Usage,
    conditions,
    evicted,
    left,
    limited,
    over_limits,
    rank,
    shortages,
    worth_ending,
)
from edgecore.edged.pod import Pod
from tests.unit.edgecore.edged.builders import c, make

GI = 1024 * MI
PLENTY = Signals(
    memory_bytes=GI,
    memory_free=GI,
    disk_bytes=GI,
    disk_free=GI,
    inodes=1000,
    inodes_free=1000,
    image_disk_bytes=GI,
    image_disk_free=GI,
    pids=1000,
    pids_free=1000,
)


@pytest.mark.parametrize(
    ("change", "condition", "resource"),
    [
        ({"memory_free": 99 * MI}, "MemoryPressure", "memory"),
        ({"disk_free": 102 * MI}, "DiskPressure", "ephemeral-storage"),
        ({"inodes_free": 49}, "DiskPressure", "inodes"),
        ({"image_disk_free": 153 * MI}, "DiskPressure", "ephemeral-storage"),
        ({"pids_free": 99}, "PIDPressure", "pids"),
    ],
)
def test_shortages(change: dict[str, int], condition: str, resource: str) -> None:
    found = shortages(replace(PLENTY, **change), Thresholds())
    assert [(s.condition, s.resource) for s in found] == [(condition, resource)]


@pytest.mark.parametrize("change", [{"memory_free": 100 * MI}, {"disk_free": 103 * MI}, {"inodes_free": 50}])
def test_enough_is_enough(change: dict[str, int]) -> None:
    assert shortages(replace(PLENTY, **change), Thresholds()) == []


def test_what_is_not_known_is_not_short() -> None:
    assert shortages(Signals(), Thresholds()) == []


def test_a_condition_stays_on_for_a_while() -> None:
    short = shortages(replace(PLENTY, memory_free=0), Thresholds())
    on = conditions(short, {}, now=100.0, transition_s=300)
    assert on == {"MemoryPressure": 100.0}
    assert conditions([], on, now=399.0, transition_s=300) == on
    assert conditions([], on, now=400.0, transition_s=300) == {}


def pod(memory: str = "", **spec: Any) -> Pod:
    return make(c(resources={"requests": {"memory": memory} if memory else {}}), **spec)


def test_rank_by_memory() -> None:
    pods = {
        "within": (pod("100Mi"), Usage(memory={"c": 50 * MI})),
        "little-over": (pod("100Mi"), Usage(memory={"c": 110 * MI})),
        "far-over": (pod(), Usage(memory={"c": 90 * MI})),
        "worthy": (pod(priority=5), Usage(memory={"c": 900 * MI})),
        "critical": (pod(priority=2_000_000_000), Usage(memory={"c": 900 * MI})),
    }
    assert rank(pods, "memory") == ["far-over", "little-over", "worthy", "within"]


def test_rank_by_disk_and_pids() -> None:
    pods = {
        "small": (pod(), Usage(volumes={"v": 1})),
        "big": (pod(), Usage(logs={"c": 5}, node_files=5)),
    }
    assert rank(pods, "ephemeral-storage") == ["big", "small"]
    assert rank({"a": (pod(priority=1), Usage()), "b": (pod(), Usage())}, "pids") == ["b", "a"]


def test_what_is_said_of_an_evicted_pod() -> None:
    short = shortages(replace(PLENTY, memory_free=MI), Thresholds())[0]
    said = evicted(pod("1Mi"), Usage(memory={"c": 3 * MI}), short)
    assert (said.phase, said.reason) == ("Failed", "Evicted")
    assert said.message == (
        "The node was low on resource: memory. Threshold quantity: 102400Ki, available: 1024Ki. "
        "Container c was using 3Mi, request is 1Mi, has larger consumption of memory. "
    )


def test_what_is_said_of_one_that_goes_for_the_disk() -> None:
    short = shortages(replace(PLENTY, disk_free=0), Thresholds())[0]
    pods = make(c("a"), c("b", resources={"requests": {"ephemeral-storage": "1M"}}), c("d"))
    said = evicted(pods, Usage(logs={"a": 1500, "b": 10**6, "d": 0}, layers={"a": 548, "b": 1}), short)
    assert said.message.endswith(
        "Container a was using 2Ki, request is 0, has larger consumption of ephemeral-storage. "
        "Container b was using 1000001, request is 1M, has larger consumption of ephemeral-storage. "
    )


def with_volume(limit: str | None, **fields: Any) -> Pod:
    return make(c(**fields), volumes=[{"name": "v", "emptyDir": {"sizeLimit": limit} if limit else {}}])


def test_limits_of_volumes_containers_and_pods() -> None:
    assert not limited(with_volume(None))
    volume = with_volume("1Mi")
    assert limited(volume)
    assert over_limits(volume, Usage(volumes={"v": MI})) is None
    found = over_limits(volume, Usage(volumes={"v": MI + 1}))
    assert found is not None
    assert found.message == 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '
    whole = with_volume(None, resources={"limits": {"ephemeral-storage": "2Mi"}})
    assert limited(whole)
    assert over_limits(whole, Usage(layers={"c": MI}, volumes={"v": MI})) is None
    found = over_limits(whole, Usage(layers={"c": MI}, volumes={"v": MI}, node_files=4096))
    assert found is not None
    assert found.message == "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "
    two = make(c("a", resources={"limits": {"ephemeral-storage": "1Mi"}}), c("b"))
    found = over_limits(two, Usage(logs={"a": MI}, layers={"a": MI}))
    assert found is not None
    assert found.message == 'Container a exceeded its local ephemeral storage limit "1Mi". '
    assert over_limits(two, Usage(logs={"b": 2 * GI})) is None


def test_what_is_left_to_the_nearest_limit() -> None:
    pod = with_volume("1Mi", resources={"limits": {"ephemeral-storage": "2Mi"}})
    assert left(pod, Usage()) == MI
    assert left(pod, Usage(layers={"c": 3 * MI // 2})) == MI // 2
    assert left(pod, Usage(volumes={"v": 2 * MI})) == -MI
    assert left(with_volume(None), Usage()) is None


def test_a_memory_volume_is_limited_by_its_own_size() -> None:
    pod = make(c(), volumes=[{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1"}}])
    assert over_limits(pod, Usage(volumes={"v": 5})) is None


def test_a_pod_is_not_ended_for_a_disk_that_something_else_filled() -> None:
    (short,) = shortages(replace(PLENTY, disk_free=0), Thresholds())
    assert short.resource == "ephemeral-storage"
    tenth = -(-short.missing // 10)
    assert worth_ending(Usage(volumes={"v": tenth}), short)
    assert not worth_ending(Usage(volumes={"v": tenth - 1}), short)
    assert not worth_ending(Usage(), replace(short, missing=0))
    assert not worth_ending(Usage(volumes={"v": tenth}), replace(short, resource="inodes"))
    assert worth_ending(Usage(), replace(short, resource="memory"))
