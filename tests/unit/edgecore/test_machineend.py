"""When edgecore is stopped: is it the machine that goes down?"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from beehive.supervise import Part, supervise
from edgecore.machineend import MachineEnd, is_stopping


def _systemctl(folder: Path, says: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "systemctl"
    program.write_text(f"#!/bin/sh\n[ \"$*\" = is-system-running ] || exit 9\necho '{says}'\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("says", "code", "stopping"),
    [
        ("stopping", 1, True),
        ("running", 0, False),
        ("degraded", 1, False),
        ("offline", 1, False),
        ("", 0, False),
    ],
)
def test_only_a_manager_that_stops_means_the_machine(
    says: str, code: int, stopping: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _systemctl(tmp_path, says, code, monkeypatch)
    assert asyncio.run(is_stopping()) is stopping


def test_a_machine_without_systemd_never_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not asyncio.run(is_stopping())


@pytest.mark.parametrize("stopping", [True, False])
def test_pods_end_before_any_other_part_and_only_with_the_machine(stopping: bool) -> None:
    order: list[str] = []
    asked: list[float] = []

    async def goes_down() -> bool:
        return stopping

    async def shut_down() -> None:
        await asyncio.sleep(0)
        order.append("pods")

    async def other() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            order.append("other")

    async def main() -> None:
        stop = asyncio.Event()
        end = MachineEnd(shut_down, 5.0, need=asked.append, stopping=goes_down)
        parts = [Part(name="other", run=other), Part(name="end", run=end.run, stop_s=end.stop_s)]
        asyncio.get_running_loop().call_soon(stop.set)
        await supervise(parts, stop=stop, signals=False)

    asyncio.run(main())
    assert order == (["pods", "other"] if stopping else ["other"])
    assert asked == ([15.0] if stopping else [])
