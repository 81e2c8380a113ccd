"""Clocks that jump: F-T05."""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.skerry import eventually
from tests.faults.stage import BACK_S, Stage

HOUR_S = 3600


@pytest.fixture
def skewed(stage: Stage, tmp_path: Path) -> Iterator[Callable[[str, int], None]]:
    """Edge and hub with a wall clock that can be stepped: called with a part and its seconds."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("not installed: cc")
    library = tmp_path / "skew.so"
    source = Path(__file__).with_name("skew.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)

    def step(part: str, seconds: int) -> None:
        with (tmp_path / part).open("r+b") as file:
            file.write(struct.pack("q", seconds))

    for part in ("cloudcore", "edgecore"):
        (tmp_path / part).write_bytes(bytes(8))
        stage.kill(part)
        environment = {"LD_PRELOAD": str(library), "SKERRY_TEST_SKEW": str(tmp_path / part)}
        stage.parts.daemons[part].start(stage.parts.command(part), env=environment)
    try:
        eventually(stage.api_is_ready, "the API", 60)
        eventually(stage.is_linked, "the link", 60)
        eventually(stage.is_agreed, "agreement", 60)
        yield step
    finally:
        for part in ("cloudcore", "edgecore"):
            stage.kill(part)


def lease(stage: Stage) -> str:
    found: str = stage.skerry.get("lease", "-n", "kube-node-lease", stage.skerry.node_name)["spec"][
        "renewTime"
    ]
    return found


def is_ready(stage: Stage) -> bool:
    conditions = stage.skerry.get("node", stage.skerry.node_name)["status"]["conditions"]
    return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)


@pytest.mark.parametrize(
    ("part", "seconds"),
    [
        ("edgecore", HOUR_S),
        ("edgecore", -HOUR_S),
        ("cloudcore", HOUR_S),
        # no more, or the certificate with which this test asks, made a minute ago, is not valid yet
        ("cloudcore", -240),
    ],
)
def test_f_t05_a_clock_steps_while_connected(
    stage: Stage, skewed: Callable[[str, int], None], part: str, seconds: int
) -> None:
    before, restarts = stage.containers(), stage.restarts()
    number = stage.session()
    skewed(part, seconds)
    time.sleep(14)
    assert stage.session() == number
    first = lease(stage)
    eventually(lambda: lease(stage) != first, "the lease, renewed", 60)
    assert is_ready(stage)
    if seconds > 0:
        # certificates that were made a minute ago are not valid an hour ago; in an hour they are
        stage.line.cut()
        eventually(lambda: stage.is_linked() and stage.session() > number, "the link", BACK_S)
    skewed(part, 0)
    time.sleep(3)
    assert is_ready(stage)
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.containers() == before
    assert stage.restarts() == restarts
