"""Volumes are written anew whenever what they hold has changed."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest

from edgecore.edged import persistent, volumes
from edgecore.edged.csi import Published
from edgecore.edged.errors import VolumeError
from edgecore.edged.podcontext import PodContext
from edgecore.edged.podvolumes import PodVolumes
from tests.unit.edgecore.edged.builders import c, make


class Context:
    """As much of a pod's context as the volumes need here."""

    def __init__(self, runs: bool) -> None:
        self.shared = self
        self.clock = self
        self.config = self.pod = cast("Any", self)
        self.root_dir = None
        self.sources: object = None
        self.runtime = self
        self.runs = runs

    def now(self) -> float:
        return 0.0

    def running(self) -> bool:
        return self.runs

    def complain(self, text: str) -> None:
        pass

    async def event(self, *words: str) -> None:
        pass


def bring(monkeypatch: pytest.MonkeyPatch, *, runs: bool = False, during: Any = None) -> tuple[bool, bool]:
    """Whether it went well, and whether there is more to do.   during: what happens while the sources are read."""
    held = PodVolumes(cast("PodContext", Context(runs)))

    async def gather() -> volumes.Sources:
        if during is not None:
            during(held)
        return volumes.Sources()

    monkeypatch.setattr(held, "_gather", gather)
    monkeypatch.setattr(held, "held_paths", dict)
    return asyncio.run(held.bring()), held.stale


@pytest.fixture(autouse=True)
def _nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "prepare", lambda *_, **__: None)


def test_what_changes_meanwhile_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bring(monkeypatch) == (True, False)
    assert bring(monkeypatch, during=lambda held: setattr(held, "stale", True)) == (True, True)


@pytest.mark.parametrize("runs", [True, False])
def test_what_could_not_be_mounted_is_tried_again(monkeypatch: pytest.MonkeyPatch, runs: bool) -> None:
    def fail(*_: object, **__: object) -> None:
        raise VolumeError("no")

    monkeypatch.setattr(volumes, "prepare", fail)
    assert bring(monkeypatch, runs=runs) == (runs, True)


class Driven(Context):
    """A pod that runs with a volume of a driver."""

    def __init__(self) -> None:
        super().__init__(runs=True)
        self.pod = make(c(), volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}])
        self.objects = self.storage = self
        self.at = 0.0
        self.asked: list[float] = []

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def fetch(self, kind: str, namespace: str, name: str, *, fresh: bool = False) -> bytes:
        if fresh:
            self.asked.append(self.at)
        if kind == "persistentvolume":
            source = {"driver": "d.test", "volumeHandle": "h"}
            whose = {"namespace": "ns", "name": "data", "uid": "u1"}
            return msgspec.json.encode(
                {"metadata": {"name": "pv"}, "spec": {"csi": source, "claimRef": whose}}
            )
        about = {"namespace": "ns", "name": "data", "uid": "u1"}
        return msgspec.json.encode(
            {"metadata": about, "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}
        )

    async def publish(self, *_: object) -> Published:
        return Published(path="/v", own=False)


def test_what_changes_between_two_looks_at_sizes_puts_the_second_off_no_further() -> None:
    pod = Driven()
    held = PodVolumes(cast("PodContext", pod))
    for at in (0.0, 290.0, 300.0, 310.0):
        pod.at, held.refresh_at = at, None
        assert isinstance(asyncio.run(held._claim("data")), persistent.Claim)
        assert held.refresh_at == (600.0 if at >= 300 else 300.0)
    assert pod.asked == [300.0]
