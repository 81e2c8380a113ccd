"""Readings on their way to MySQL: a MariaDB of the test's own (Debian's mariadb-server-core), and servers that are none."""

import asyncio
import contextlib
import random
import shutil
import socket
import socketserver
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pymysql")
import pymysql

from mappers.framework import mysql, pusher
from mappers.framework.driver import Property
from mappers.framework.errors import DeviceError
from mappers.framework.poller import Sample
from mappers.framework.push import Mysql
from mappers.framework.pusher import Pusher
from tests.integration.mappers.support import until
from tests.integration.mappers.test_push import running
from tests.integration.mappers.test_push_databases import serving
from tests.support.ports import free_port

TABLES = Path("/usr/share/mysql/mysql_system_tables.sql")
SERVER = shutil.which("mariadbd", path="/usr/sbin:/usr/bin:/sbin")
real = pytest.mark.skipif(SERVER is None or not TABLES.is_file(), reason="needs Debian's mariadb-server-core")
PASSWORD = "s3cret"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pusher, "RETRY_BASE_S", 0.05)
    monkeypatch.setattr(pusher, "RETRY_CAP_S", 0.1)
    monkeypatch.setenv("PASSWORD", PASSWORD)


def _command(folder: Path, *more: str) -> list[str]:
    assert SERVER is not None
    small = ("--innodb-buffer-pool-size=8M", "--innodb-log-file-size=4M")
    return [SERVER, "--no-defaults", "--user=root", f"--datadir={folder / 'data'}", *small, *more]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of a server that has a database `readings` and an account that may use it."""
    folder = tmp_path_factory.mktemp("mysql")
    (folder / "data").mkdir()
    account = "plant@'127.0.0.1'"
    statements = [
        "create database mysql;",
        "use mysql;",
        TABLES.read_text(),
        "create database readings;",
        "flush privileges;",
        f"create user {account} identified by '{PASSWORD}';",
        f"grant all on readings.* to {account};",
        "create table readings.`plant/boiler/number` (id int auto_increment primary key, ts datetime, field int);",
    ]
    subprocess.run(
        _command(folder, "--bootstrap"),
        input="\n".join(statements).encode(),
        capture_output=True,
        check=True,
        timeout=120,
    )
    return folder


@contextlib.contextmanager
def database(folder: Path, port: int) -> Iterator[None]:
    command = _command(folder, f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder / 's'}")
    with (
        (folder / "log").open("ab") as log,
        subprocess.Popen([*command, f"--pid-file={folder / 'pid'}"], stdout=log, stderr=log) as process,
    ):
        try:
            deadline = time.monotonic() + 60
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.02)
            yield
        finally:
            process.terminate()
            process.wait(60)


def rows(port: int, table: str) -> list[tuple[Any, ...]]:
    connection = pymysql.connect(
        host="127.0.0.1", port=port, user="plant", password=PASSWORD, database="readings"
    )
    with connection, connection.cursor() as cursor:
        try:
            cursor.execute(f"select id, ts, field from `{table}` order by id")
        except pymysql.err.ProgrammingError:
            return []
        return list(cursor.fetchall())


def push(one: Pusher, port: int, value: str, *, name: str = "temp", user: str = "plant") -> None:
    target = Mysql(address=f"{user}@127.0.0.1:{port}/readings", device="plant/boiler")
    sample = Sample(name=name, type="STRING", value=value, desired="")
    one.push(Property(name=name, pushes=(target,)), sample)


@real
def test_rows_wait_for_a_server_that_is_away_and_come_once(folder: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        one = Pusher(tmp_path, rng=random.Random(1))
        before = time.time()
        for i in range(20):
            push(one, port, str(i))
        push(one, port, "'; DROP TABLE `x`; -- é", name="a%s`b")
        async with running(one):
            await asyncio.sleep(0.2)
            assert one.counts["sent"] == 0
            with await asyncio.to_thread(_entered, stack := contextlib.ExitStack(), folder, port):
                await until(lambda: one.counts["sent"] == 21, seconds=60)
                found = await asyncio.to_thread(rows, port, "plant/boiler/temp")
                assert [text for _, _, text in found] == [str(i) for i in range(20)]
                assert abs(found[0][1].timestamp() - before) < 60  # when it was read
                ((_, _, text),) = await asyncio.to_thread(rows, port, "plant/boiler/a%s``b")
                assert text == "'; DROP TABLE `x`; -- é"
                push(one, port, "words", name="number")  # no text fits this table of the operator's
                push(one, port, "21")
                await until(lambda: one.counts["sent"] == 22, seconds=60)
                assert one.counts["refused"] == 1
                assert (await asyncio.to_thread(rows, port, "plant/boiler/temp"))[-1][2] == "21"
                await asyncio.to_thread(stack.close)
            push(one, port, "22")
            await asyncio.sleep(0.2)
            with await asyncio.to_thread(_entered, stack := contextlib.ExitStack(), folder, port):
                await until(lambda: one.counts["sent"] == 23, seconds=60)
                await asyncio.to_thread(stack.close)

    asyncio.run(scenario())


def _entered(stack: contextlib.ExitStack, folder: Path, port: int) -> contextlib.ExitStack:
    """Started in a thread: the loop goes on meanwhile."""
    stack.enter_context(database(folder, port))
    return stack


@real
def test_what_is_to_be_set_right_loses_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PASSWORD", "wrong")

    async def scenario(port: int) -> None:
        one = Pusher(tmp_path, rng=random.Random(1))
        async with running(one):
            push(one, port, "1")
            await until(lambda: "Access denied" in caplog.text)
            assert one.counts.total() == 0
            monkeypatch.setenv("PASSWORD", PASSWORD)
            await until(lambda: one.counts["sent"] == 1)

    port = free_port()
    with database(folder, port):
        asyncio.run(scenario(port))
        with pytest.raises(DeviceError, match="nowhere"):
            mysql.insert(f"plant@127.0.0.1:{port}/nowhere", PASSWORD, [("t", "2026-01-01 00:00:00", "1")])
    assert PASSWORD not in caplog.text


class _Scripted(socketserver.StreamRequestHandler):
    says: bytes = b""

    def handle(self) -> None:
        self.wfile.write(self.says)


@pytest.mark.parametrize(
    "says",
    [
        b"",
        b"HTTP/1.0 400 Bad Request\r\n\r\n",
        b"\0" * 64,
        b"\xff" * 512,
        b"\x4a\0\0\0\x0a5.5.5\0" + b"\0" * 80,
        b"\x17\0\0\0\xff\x10\x04Too many connections",
        bytes(range(256)),
    ],
)
def test_a_server_that_is_no_mysql_keeps_what_waits(says: bytes) -> None:
    class Handler(_Scripted):
        pass

    Handler.says = says
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    port = free_port()
    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", port), Handler)), pytest.raises(DeviceError):
        mysql.insert(f"u@127.0.0.1:{port}/d", "", [("t", "2026-01-01 00:00:00", "1")])


def test_nobody_there() -> None:
    with pytest.raises(DeviceError, match=r"^mysql at"):
        mysql.insert(f"u@127.0.0.1:{free_port()}/d", "", [("t", "2026-01-01 00:00:00", "1")])
