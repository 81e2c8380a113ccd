"""Log quotas: which files are renamed and removed, and that a runtime that does not play along loses nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecore.edged.errors import CriError
from edgecore.edged.logs import LogFile, Logs, Rotation, plan_rotation

STAMP = "20260102-030405"


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"0.log": 10}, Rotation()),
        ({}, Rotation()),
        ({"0.log": 11}, Rotation(rename_to=f"0.log.{STAMP}")),
        # of three files the oldest goes when a fourth comes
        (
            {"0.log": 11, "0.log.1": 9, "0.log.2": 9},
            Rotation(remove=("0.log.1",), rename_to=f"0.log.{STAMP}"),
        ),
        # another container run's files are not this one's
        ({"0.log": 1, "1.log": 99, "1.log.1": 99, "1.log.2": 99, "1.log.3": 99}, Rotation()),
        # rotated within this second already
        ({"0.log": 50, f"0.log.{STAMP}": 10}, Rotation()),
        # ... and what was rotated is the last that was written, however much it is
        ({"0.log": 50, f"0.log.{STAMP}": 99}, Rotation()),
        # a file that grew far beyond its size takes the place of several
        (
            {"0.log": 29, "0.log.1": 5, "0.log.2": 5},
            Rotation(remove=("0.log.1", "0.log.2"), rename_to=f"0.log.{STAMP}"),
        ),
    ],
)
def test_plan(sizes: dict[str, int], expected: Rotation) -> None:
    assert plan_rotation(sizes, "0.log", max_bytes=10, max_files=3, stamp=STAMP) == expected


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(2, 6))
def test_the_quota_holds_after_any_history(written: list[int], max_files: int) -> None:
    sizes: dict[str, int] = {}
    for second, size in enumerate(written):
        sizes["0.log"] = sizes.get("0.log", 0) + size
        todo = plan_rotation(sizes, "0.log", max_bytes=10, max_files=max_files, stamp=f"{second:04d}")
        for name in todo.remove:
            del sizes[name]
        if todo.rename_to:
            sizes[todo.rename_to] = sizes.pop("0.log")
        assert len(sizes) <= max_files
        old = sorted(n for n in sizes if n != "0.log")
        # what is kept beside the newest fits the quota
        assert sum(sizes[n] for n in old[:-1]) <= 10 * (max_files - 1)
        assert sizes.get("0.log", 0) <= 10


class Runtime:
    def __init__(self, error: CriError | None = None) -> None:
        self.error = error
        self.reopened: list[str] = []

    async def reopen_log(self, container_id: str) -> None:
        self.reopened.append(container_id)
        if self.error is not None:
            raise self.error


def one(tmp_path: Path, data: bytes) -> LogFile:
    folder = tmp_path / "ns_p_u" / "c"
    folder.mkdir(parents=True)
    (folder / "0.log").write_bytes(data)
    return LogFile(container_id="id", folder="ns_p_u/c", current="0.log")


def test_a_log_over_its_size_is_renamed_and_reopened(tmp_path: Path) -> None:
    runtime = Runtime()
    file = one(tmp_path, b"x" * 11)
    logs = Logs(runtime, tmp_path, max_bytes=10, max_files=3)
    assert asyncio.run(logs.round([file], STAMP))
    assert runtime.reopened == ["id"]
    assert [p.name for p in (tmp_path / "ns_p_u" / "c").iterdir()] == [f"0.log.{STAMP}"]
    assert not asyncio.run(logs.round([file], STAMP))


def test_a_runtime_that_cannot_reopen_keeps_the_name(tmp_path: Path) -> None:
    runtime = Runtime(CriError("no", retryable=True))
    file = one(tmp_path, b"x" * 11)
    logs = Logs(runtime, tmp_path, max_bytes=10, max_files=3)
    asyncio.run(logs.round([file], STAMP))
    assert [p.name for p in (tmp_path / "ns_p_u" / "c").iterdir()] == ["0.log"]


def test_what_cannot_be_a_log_is_left_alone(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "0.log").write_bytes(b"x" * 11)
    (tmp_path / "ns_p_u").symlink_to(victim)
    runtime = Runtime()
    logs = Logs(runtime, tmp_path, max_bytes=10, max_files=3)
    file = LogFile(container_id="id", folder="ns_p_u", current="0.log")
    asyncio.run(logs.round([file, LogFile(container_id="x", folder="none/c", current="0.log")], STAMP))
    assert runtime.reopened == []
    assert [p.name for p in victim.iterdir()] == ["0.log"]


def test_no_quota_means_no_rotation(tmp_path: Path) -> None:
    runtime = Runtime()
    logs = Logs(runtime, tmp_path, max_bytes=0, max_files=3)
    assert not asyncio.run(logs.round([one(tmp_path, b"x" * 99)], STAMP))
    assert runtime.reopened == []
