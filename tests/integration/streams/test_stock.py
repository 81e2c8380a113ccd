"""Stock kubectl against a node whose tunnel is a stock KubeEdge edge's, to real containers."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from tests.fakes import stockedge
from tests.integration.edged.bench import container, pod
from tests.integration.streams.rig import Rig
from tests.integration.streams.test_kubectl import TALKER, Play, both, ended_by_us, line_of, play, shell

__all__ = ["play"]

pytestmark = pytest.mark.root


def asked(r: Rig) -> set[int]:
    assert r.stock is not None
    return {kind for kind, _ in r.stock.asked}


def test_logs_and_their_end(play: Play) -> None:
    async def story(r: Rig) -> None:
        await r.run_pod(pod("web", shell(TALKER)))
        async with asyncio.timeout(30):
            while len((got := await r.kubectl("logs", "web", "--tail=3")).out.splitlines()) < 3:
                await asyncio.sleep(0.1)  # it has not said so much yet
        assert got.code == 0  # and more lines than three, where it went on speaking while they were read
        follow = await r.start("logs", "-f", "web")
        async with ended_by_us(follow):
            assert re.match(r"(out|err) \d+\n", await line_of(follow.stdout))
        assert r.stock is not None
        number = r.stock.asked[-1][1]["MessID"]
        async with asyncio.timeout(30):
            while number not in r.stock.removed:
                await asyncio.sleep(0.05)
        assert asked(r) == {stockedge.LOGS}
        # a status has no place on this wire: what is wrong is the log
        assert 'previous terminated container "c"' in (await r.kubectl("logs", "-p", "web")).out

    play(story, stock="script")


@pytest.mark.parametrize("edge", ["script", "ours"])
@both
def test_exec_and_cp(play: Play, env: dict[str, str], edge: str, tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        await r.run_pod(pod("web", container()))
        got = await r.kubectl("exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 3", env=env)
        assert (got.code, got.out) == (3, "out\n")
        assert got.err == "err\ncommand terminated with exit code 3\n"
        piped = await r.kubectl("exec", "-i", "web", "--", "wc", "-c", stdin=b"x" * 300_000, env=env)
        assert (piped.code, piped.out) == (0, "300000\n")
        (tmp_path / "blob").write_bytes(os.urandom(300_000))
        there = await r.kubectl("cp", str(tmp_path / "blob"), "web:/tmp/blob", env=env)
        assert there.code == 0, there.err
        back = await r.kubectl("cp", "web:/tmp/blob", str(tmp_path / "back"), env=env)
        assert back.code == 0, back.err
        assert (tmp_path / "back").read_bytes() == (tmp_path / "blob").read_bytes()
        absent = await r.kubectl("exec", "web", "-c", "c", "--", "/nonexistent", env=env)
        assert absent.code != 0
        assert "no such file or directory" in absent.err
        await r.run_pod(
            pod("stuck", container(image="skerry.test/absent:1", imagePullPolicy="Never")), wait=False
        )
        refused = await r.kubectl("exec", "stuck", "--", "true", env=env)
        assert 'container not found ("c")' in refused.err
        if edge == "script":
            assert asked(r) == {stockedge.EXEC}

    play(story, stock=edge)


@both
def test_attach_and_port_forward(play: Play, env: dict[str, str]) -> None:
    async def story(r: Rig) -> None:
        script = "httpd -f -p 9000 -h /etc & while read x; do echo heard $x; [ $x = end ] && exit 0; done"
        await r.run_pod(pod("web", shell(script, stdin=True), restartPolicy="Never"))
        forward = await r.start("port-forward", "pod/web", ":9000", env=env)
        async with ended_by_us(forward):
            port = re.search(r"127\.0\.0\.1:(\d+) -> 9000", await line_of(forward.stdout))
            assert port is not None
            reader, writer = await asyncio.open_connection("127.0.0.1", int(port.group(1)))
            writer.write(b"GET /hostname HTTP/1.0\r\n\r\n")
            async with asyncio.timeout(20):
                assert b"200 OK" in await reader.read()
            writer.close()
        process = await r.start("attach", "web", "-i", stdin=asyncio.subprocess.PIPE, env=env)
        async with ended_by_us(process):
            assert process.stdin is not None
            process.stdin.write(b"one\n")
            assert await line_of(process.stdout) == "heard one\n"
            process.stdin.write(b"end\n")
            assert await line_of(process.stdout) == "heard end\n"
            async with asyncio.timeout(30):
                assert await process.wait() == 0
        assert asked(r) == {stockedge.EXEC, stockedge.ATTACH}

    play(story, stock="script")


def test_top(play: Play) -> None:
    async def story(r: Rig) -> None:
        await r.run_pod(pod("web", shell("trap 'exit 0' TERM; (while true; do :; done) & wait")))
        async with asyncio.timeout(60):
            while "web" not in (got := await r.kubectl("top", "pod", "--no-headers")).out:
                await asyncio.sleep(0.5)
        assert re.search(r"web\s+\d+m\s+\d+Mi", got.out), got.out
        assert asked(r) == {stockedge.METRIC}

    play(story, stock="script")
