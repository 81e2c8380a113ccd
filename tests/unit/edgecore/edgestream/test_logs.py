"""Log files: safe opening, rotation, following.  Small files in a temporary folder."""

from __future__ import annotations

import asyncio
import gzip
import os
import time
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest

from beehive.errors import NotFound, Unavailable
from edgecore.edgestream import logs
from edgecore.edgestream.crilog import Options
from edgecore.edgestream.logs import LogFile, read_log


def record(text: str, tag: str = "F") -> bytes:
    return f"2026-01-02T03:04:05Z stdout {tag} {text}\n".encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "default_web_uid" / "c"
    path.mkdir(parents=True)
    return path


def log_in(folder: Path) -> LogFile:
    return LogFile(str(folder.parent.parent), str(folder / "0.log"))


EVERYTHING = Options()


async def ended() -> bool:
    return False


async def runs() -> bool:
    return True


def read(log: LogFile, options: Options = EVERYTHING) -> bytes:
    async def main() -> bytes:
        return b"".join([part async for part in read_log(log, log.open(), options, ended)])

    return asyncio.run(main())


def test_the_whole_log_is_read_with_its_rotated_files(folder: Path) -> None:
    with gzip.open(folder / "0.log.20260101-000000.gz", "wb") as packed:
        packed.write(record("one") + record("two"))
    (folder / "0.log.20260102-000000").write_bytes(record("three"))
    (folder / "0.log").write_bytes(record("four"))
    (folder / "1.log").write_bytes(record("other"))
    (folder / "0.log.20260103-000000.tmp").write_bytes(record("half packed"))
    log = log_in(folder)
    assert read(log) == b"one\ntwo\nthree\nfour\n"
    for lines, text in [
        (0, b""),
        (1, b"four\n"),
        (2, b"three\nfour\n"),
        (3, b"two\nthree\nfour\n"),
        (9, read(log)),
    ]:
        assert read(log, Options(tail_lines=lines)) == text


def test_lines_skipped_in_a_rotated_file_may_be_cut_by_blocks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "BLOCK", 7)
    (folder / "0.log.20260102-000000").write_bytes(
        record("one") + record("tw", "P") + record("o") + record("three")
    )
    (folder / "0.log").write_bytes(record("four"))
    assert read(log_in(folder), Options(tail_lines=3)) == b"two\nthree\nfour\n"


def test_links_pipes_and_paths_that_leave_are_not_opened(folder: Path, tmp_path: Path) -> None:
    root = str(tmp_path)
    secret = tmp_path.parent / "secret"
    secret.write_bytes(record("secret"))
    (folder / "0.log").symlink_to(secret)
    os.mkfifo(folder / "1.log")
    (tmp_path / "default_web_uid" / "d").symlink_to(folder)
    (folder / "2.log").mkdir()
    for name in ("0.log", "1.log", "2.log", "3.log"):
        with pytest.raises(NotFound, match="cannot open the log"):
            read(LogFile(root, str(folder / name)))
    with pytest.raises(NotFound, match="cannot open the log"):
        read(LogFile(root, str(tmp_path / "default_web_uid" / "d" / "3.log")))
    for path in (str(secret), f"{root}/../secret", "0.log"):
        with pytest.raises(NotFound, match="below"):
            LogFile(root, path)


def test_a_damaged_packed_file_is_said(folder: Path) -> None:
    (folder / "0.log.20260101-000000.gz").write_bytes(b"no gzip at all")
    (folder / "0.log").write_bytes(record("four"))
    with pytest.raises(Unavailable, match="cannot read the log"):
        read(log_in(folder))


def test_following_goes_on_across_rotation_and_ends_with_the_container(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "POLL_S", 0.001)
    monkeypatch.setattr(logs, "STILL_RUNNING_S", 0.0)
    path = folder / "0.log"
    path.write_bytes(record("one"))
    alive = True

    async def still_running() -> bool:
        return alive

    async def main() -> bytes:
        nonlocal alive
        got = b""
        async with (
            asyncio.timeout(30),
            aclosing(
                read_log(log_in(folder), log_in(folder).open(), Options(follow=True), still_running)
            ) as parts,
        ):
            async for part in parts:
                got += part
                if got == b"one\n":
                    with path.open("ab") as file:
                        file.write(record("two")[:10])
                        file.flush()
                        await asyncio.sleep(0.02)
                        file.write(record("two")[10:])
                elif got == b"one\ntwo\n":
                    path.rename(folder / "0.log.20260102-000000")
                    with (folder / "0.log.20260102-000000").open("ab") as file:
                        file.write(record("late"))
                    path.write_bytes(record("fresh"))
                elif got.endswith(b"fresh\n"):
                    with path.open("ab") as file:
                        file.write(record("last"))
                    alive = False
        return got

    assert asyncio.run(main()) == b"one\ntwo\nlate\nfresh\nlast\n"


@pytest.mark.parametrize("name", ["0.log", "0.log.20260101-000000"])
def test_a_removed_file_is_let_go_under_a_client_that_does_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Else fifty of them keep on the disk what the quota took away."""
    monkeypatch.setattr(logs, "POLL_S", 0.001)
    monkeypatch.setattr(logs, "STILL_RUNNING_S", 0.0)
    monkeypatch.setattr(logs, "LET_GO_S", 0.02)
    alive = True
    (folder / "0.log").write_bytes(record("begins"))
    (folder / name).write_bytes(record("x" * 1000) * 1000)

    def kept() -> list[str]:
        links = []
        for one in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                links.append(os.readlink(one))
        return [link for link in links if link.startswith(str(folder)) and link.endswith("(deleted)")]

    async def still_running() -> bool:
        return alive

    async def main() -> list[bytes]:
        nonlocal alive
        got: list[bytes] = []
        source = read_log(log_in(folder), log_in(folder).open(), Options(follow=True), still_running)
        async with asyncio.timeout(30), aclosing(source) as parts:
            async for part in parts:
                got.append(part)
                if len(got) == 1:
                    (folder / name).unlink()
                    assert kept()
                    while kept():
                        await asyncio.sleep(0.01)
                    (folder / "0.log").write_bytes(record("newest"))
                    alive = False
        return got

    got = asyncio.run(main())
    assert got[-1] == b"newest\n"
    assert sum(map(len, got)) < 500_000


def test_a_file_that_is_removed_while_its_end_is_looked_for_stays_open(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LET_GO_S", 0.01)
    (folder / "0.log").write_bytes(record("one") + record("two"))
    slow = logs.tail_start

    def slowly(*args: Any) -> tuple[int, int]:
        (folder / "0.log").unlink()
        time.sleep(0.2)
        return slow(*args)

    monkeypatch.setattr(logs, "tail_start", slowly)
    assert read(log_in(folder), Options(tail_lines=1)) == b"two\n"


def test_following_a_file_that_is_emptied_in_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "POLL_S", 0.001)
    path = folder / "0.log"
    path.write_bytes(record("a long first line"))

    async def main() -> bytes:
        got = b""
        async with (
            asyncio.timeout(30),
            aclosing(
                read_log(log_in(folder), log_in(folder).open(), Options(follow=True, limit_bytes=20), runs)
            ) as parts,
        ):
            async for part in parts:
                if not got:
                    path.write_bytes(record("b"))
                got += part
        return got

    assert asyncio.run(main()) == b"a long first line\nb\n"


def test_the_limit_ends_following(folder: Path) -> None:
    (folder / "0.log").write_bytes(record("12345"))

    async def main() -> bytes:
        async with asyncio.timeout(30):
            return b"".join(
                [
                    p
                    async for p in read_log(
                        log_in(folder), log_in(folder).open(), Options(follow=True, limit_bytes=3), runs
                    )
                ]
            )

    assert asyncio.run(main()) == b"123"
