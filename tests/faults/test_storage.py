"""The edge's disk: F-S."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from beehive import logs
from edgecore import local
from tests.e2e.skerry import eventually
from tests.faults.disk import Shim
from tests.faults.stage import BACK_S, Stage

PAGE = 4096


def flip_bits(database: Path) -> None:
    rng = random.Random(6)
    raw = bytearray(database.read_bytes())
    for _ in range(200):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    database.write_bytes(raw)


def flip_in_the_log(database: Path) -> None:
    log = database.with_name(database.name + "-wal")
    raw = bytearray(log.read_bytes())
    assert raw, "there is no log to damage"
    for at in range(40, len(raw), 1000):
        raw[at] ^= 0x10
    log.write_bytes(raw)


def cut_short(database: Path) -> None:
    os.truncate(database, database.stat().st_size // 2)


def zero_a_page(database: Path) -> None:
    with database.open("r+b") as file:
        file.seek(PAGE * 2)
        file.write(bytes(PAGE))


def zero_the_header(database: Path) -> None:
    with database.open("r+b") as file:
        file.write(bytes(PAGE))


def lose_the_log(database: Path) -> None:
    database.with_name(database.name + "-wal").unlink()


def keep_only_the_log(database: Path) -> None:
    database.unlink()


def lose_everything(database: Path) -> None:
    for path in database.parent.glob(database.name + "*"):
        path.unlink()


def lose_the_key(database: Path) -> None:
    (database.parent / "keys" / "store.key").unlink()


DAMAGES = [
    flip_bits,
    flip_in_the_log,
    cut_short,
    pytest.param(zero_a_page, marks=pytest.mark.quick),
    zero_the_header,
    lose_the_log,
    keep_only_the_log,
    lose_everything,
    lose_the_key,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_f_s03_a_damaged_store(stage: Stage, damage: Callable[[Path], None]) -> None:
    before, restarts = stage.containers(), stage.restarts()
    database = stage.edge / "edgecore.db"
    stage.kill("cloudcore")
    stage.kill("edgecore")
    damage(database)
    stage.start("edgecore")
    eventually(stage.edge_status, "the agent", 60)
    # offline: whatever was lost, nothing is a reason to stop a pod
    time.sleep(6)
    assert stage.containers() == before
    stage.start("cloudcore")
    eventually(stage.is_linked, "the link", BACK_S)
    eventually(lambda: stage.edge_status()["store"]["complete"], "a whole store", BACK_S)
    eventually(stage.is_agreed, "agreement", BACK_S)
    time.sleep(2)
    assert stage.containers() == before
    assert stage.restarts() == restarts
    held = local.ask(stage.edge / "edgecore.sock", "get", kind="pods")
    assert len(held["items"]) == 10


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """Not a byte of room is left."""
    ballast = folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                if not file.write(bytes(64 * 1024)):
                    break
        with (folder / "ballast-2").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x"):
                pass
        yield
    finally:
        ballast.unlink()
        (folder / "ballast-2").unlink(missing_ok=True)


@contextlib.contextmanager
def no_inodes(folder: Path) -> Iterator[None]:
    """Not a file more can be made."""
    ballast = folder / "ballast"
    ballast.mkdir()
    try:
        with contextlib.suppress(OSError):
            for number in range(1_000_000):
                (ballast / str(number)).touch()
        yield
    finally:
        for path in ballast.iterdir():
            path.unlink()
        ballast.rmdir()


def fat_configmap(value: str) -> str:
    """Too big for whatever room the log of the database still has."""
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "hello", "namespace": "default"},
        "data": {"index.html": value, "fat": "x" * 900_000},
    }
    return json.dumps(body)


def test_f_s04_a_full_disk(stage: Stage) -> None:
    without_room(stage, full)


def test_f_s05_no_inodes(stage: Stage) -> None:
    without_room(stage, no_inodes)


def without_room(stage: Stage, fault: Callable[[Path], contextlib.AbstractContextManager[None]]) -> None:
    before, restarts = stage.containers(), stage.restarts()
    agent = stage.pid("edgecore")
    text = f"Through a full disk {time.time():.0f}\n"
    with fault(stage.edge):
        stage.skerry.kubectl("replace", "-f", "-", stdin=fat_configmap(text))
        eventually(lambda: stage.condition("DiskPressure") == "True", "DiskPressure", 60)
        time.sleep(15)
        assert stage.pid("edgecore") == agent
        assert stage.is_linked()
        assert before <= stage.containers()
        status = stage.edge_status()
        if fault is full:
            held = local.ask(stage.edge / "edgecore.sock", "get", kind="configmaps")
            kept = next(item for item in held["items"] if item["metadata"]["name"] == "hello")
            assert kept["data"]["index.html"] != text
            assert status["store"]["failures"] > 0
    try:
        eventually(stage.is_agreed, "agreement, by itself", 60)
        (web,) = [one for one in stage.skerry.containers() if one.name == "web"]
        eventually(lambda: stage.skerry.inside(web, "/www/index.html") == text, "the page", 60)
        assert stage.pid("edgecore") == agent
        assert stage.containers() == before
        assert stage.restarts() == restarts
    finally:
        stage.skerry.kubectl("replace", "-f", "-", stdin=small_configmap("Hello from the edge.\n"))
        # the condition stays for five minutes, as a kubelet's does, and keeps new pods away; not from the next case
        stage.kill("edgecore")


def test_f_s04_an_agent_starts_on_a_full_disk(stage: Stage) -> None:
    before = stage.containers()
    stage.kill("edgecore")
    with full(stage.edge):
        stage.start("edgecore")
        eventually(stage.edge_status, "the agent", 60)
        time.sleep(5)
        assert stage.containers() == before
    eventually(stage.is_linked, "the link", BACK_S)
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.containers() == before


def test_f_s08_each_sync_takes_five_seconds(stage: Stage, tmp_path: Path) -> None:
    before, restarts = stage.containers(), stage.restarts()
    shim = Shim(tmp_path, stage.edge)
    stage.kill("edgecore")
    words = {
        name: value for name, value in shim.environment.items() if name.startswith(("SKERRY_TEST", "LD_"))
    }
    stage.parts.daemons["edgecore"].start(stage.parts.command("edgecore"), env=words)
    try:
        eventually(stage.is_linked, "the link", BACK_S)
        eventually(stage.is_agreed, "agreement", 60)
        number = stage.session()
        shim.slow_down(5.0)
        text = f"Over a slow disk {time.time():.0f}\n"
        stage.skerry.kubectl("replace", "-f", "-", stdin=small_configmap(text))
        for _ in range(15):
            assert stage.edge_status(), "the agent answers while its disk stands"
            time.sleep(1)
        # no heartbeat waited for the disk
        assert stage.session() == number
        since = time.time()
        eventually(lambda: stage.is_fresh(since), "the lease", BACK_S)
        (web,) = [one for one in stage.skerry.containers() if one.name == "web"]
        eventually(lambda: stage.skerry.inside(web, "/www/index.html") == text, "the page", 60)
        assert stage.containers() == before
        assert stage.restarts() == restarts
    finally:
        shim.slow_down(0.0)
        stage.skerry.kubectl("replace", "-f", "-", stdin=small_configmap("Hello from the edge.\n"))
        stage.kill("edgecore")


def test_f_e09_a_disk_that_hangs_is_told_of_and_waited_for(stage: Stage, tmp_path: Path) -> None:
    before, restarts = stage.containers(), stage.restarts()
    shim = Shim(tmp_path, stage.edge)
    stage.kill("edgecore")
    words = {
        name: value for name, value in shim.environment.items() if name.startswith(("SKERRY_TEST", "LD_"))
    }
    stage.parts.daemons["edgecore"].start(stage.parts.command("edgecore"), env=words)
    try:
        eventually(stage.is_linked, "the link", BACK_S)
        eventually(stage.is_agreed, "agreement", 60)
        agent, offset = stage.pid("edgecore"), stage.log_size("edgecore")
        shim.slow_down(25.0)
        text = f"Behind a disk that hung {time.time():.0f}\n"
        stage.skerry.kubectl("replace", "-f", "-", stdin=small_configmap(text))
        told = "The store's writer has stood still"
        eventually(lambda: told in stage.log_since("edgecore", offset), "a word of it", 90)
        shim.slow_down(0.0)
        goes_on = "The store's writer goes on"
        eventually(lambda: goes_on in stage.log_since("edgecore", offset), "a word of its end", 90)
        # where it hangs, too
        assert "in _commit" in stage.log_since("edgecore", offset)
        (web,) = [one for one in stage.skerry.containers() if one.name == "web"]
        eventually(lambda: stage.skerry.inside(web, "/www/index.html") == text, "the page", 60)
        assert stage.pid("edgecore") == agent
        assert stage.containers() == before
        assert stage.restarts() == restarts
    finally:
        shim.slow_down(0.0)
        stage.skerry.kubectl("replace", "-f", "-", stdin=small_configmap("Hello from the edge.\n"))
        stage.kill("edgecore")


def small_configmap(value: str) -> str:
    plain = json.loads(fat_configmap(value))
    del plain["data"]["fat"]
    return json.dumps(plain)


@pytest.mark.quick
def test_f_s10_a_second_agent(stage: Stage) -> None:
    before, agent = stage.containers(), stage.pid("edgecore")
    words = [sys.executable, "-m", "edgecore.cli", "run", "--config", str(stage.edge / "edgecore.yaml")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert f"another edgecore (process {agent})" in done.stderr
    assert stage.pid("edgecore") == agent
    assert stage.is_linked()
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.containers() == before


def test_f_s06_logs_at_debug_do_not_fill_the_disk(stage: Stage) -> None:
    """As somebody has it who appends the daemon's output to a file and forgets that."""
    before = stage.containers()
    log = stage.skerry.home / "logs" / "edgecore.log"
    copy = log.with_name("edgecore.log.1")
    stage.kill("edgecore")
    # a day's worth of it, all but the last lines
    with log.open("ab") as file:
        while file.tell() < logs.MAX_BYTES - 64 * 1024:
            file.write(b"a line of yesterday\n" * 3000)
    stage.parts.daemons["edgecore"].start([*stage.parts.command("edgecore"), "--log-level", "debug"])
    try:
        eventually(stage.is_linked, "the link", BACK_S)
        number = 0

        def emptied() -> bool:
            nonlocal number
            number += 1
            stage.make_configmaps("chat", 1, str(number))
            stage.line.cut()
            return copy.exists()

        eventually(emptied, "an empty log", 180)
        assert log.stat().st_size < logs.MAX_BYTES / 2
        assert copy.stat().st_size < 1.5 * logs.MAX_BYTES
        eventually(stage.is_linked, "the link", BACK_S)
        eventually(stage.is_agreed, "agreement", BACK_S)
        assert "edgecore" in log.read_text()
        assert stage.containers() == before
    finally:
        stage.kill("edgecore")
        copy.unlink(missing_ok=True)
