"""Stock kubectl against the control plane in the box, through the tunnel, to real containers."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import json
import os
import re
import signal
import struct
import termios
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from beehive import tunnel
from beehive.tunnelpeer import Peer
from tests.integration.edged.bench import container, pod
from tests.integration.edged.machine import Containerd
from tests.integration.streams.rig import NODE, Rig, rig

pytestmark = pytest.mark.root

SPDY = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}
WEBSOCKET: dict[str, str] = {}
both = pytest.mark.parametrize("env", [WEBSOCKET, SPDY], ids=["websocket", "spdy"])

TALKER = "trap 'exit 0' TERM; i=0; while true; do i=$((i+1)); echo out $i; echo err $i >&2; sleep 0.1 & wait $!; done"
Story = Callable[[Rig], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture
def play(containerd: Containerd, tmp_path: Path) -> Play:
    def run(story: Story, **options: Any) -> None:
        async def scene() -> None:
            async with rig(tmp_path, containerd, **options) as stage:
                await story(stage)

        asyncio.run(scene())

    return run


def shell(script: str, **fields: Any) -> dict[str, Any]:
    return container(command=["sh", "-c", script], **fields)


async def line_of(stream: asyncio.StreamReader | None, wait_s: float = 10.0) -> str:
    assert stream is not None
    async with asyncio.timeout(wait_s):
        return (await stream.readline()).decode()


@contextlib.asynccontextmanager
async def ended_by_us(process: asyncio.subprocess.Process) -> AsyncIterator[asyncio.subprocess.Process]:
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def test_logs(play: Play) -> None:
    async def story(r: Rig) -> None:
        script = (
            "for i in 1 2 3; do echo out $i; echo err $i >&2; done; trap 'exit 0' TERM; sleep 1000 & wait"
        )
        await r.run_pod(pod("web", shell(script), container("other")))
        both_streams = [f"{s} {i}" for i in (1, 2, 3) for s in ("out", "err")]
        got = await r.kubectl("logs", "web", "-c", "c")
        assert (got.code, sorted(got.out.splitlines())) == (0, sorted(both_streams))
        assert len((await r.kubectl("logs", "web", "-c", "c", "--tail=2")).out.splitlines()) == 2
        assert len((await r.kubectl("logs", "web", "-c", "c", "--limit-bytes=7")).out) == 7
        assert (await r.kubectl("logs", "web", "-c", "c", "--since=1h")).out == got.out
        later = await r.kubectl("logs", "web", "-c", "c", "--since-time=2999-01-01T00:00:00Z")
        assert (later.code, later.out) == (0, "")
        stamped = await r.kubectl("logs", "web", "-c", "c", "--timestamps", "--tail=1")
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d) (out|err) 3\n", stamped.out
        )
        everything = await r.kubectl("logs", "web", "--all-containers", "--prefix")
        assert "[pod/web/c] out 1" in everything.out
        silent = await r.kubectl("logs", "web", "-c", "other")
        assert (silent.code, silent.out) == (0, "")

    play(story)


def test_errors_are_a_kubelets(play: Play) -> None:
    async def story(r: Rig) -> None:
        await r.run_pod(pod("web", container(), container("other")))
        await r.run_pod(
            pod("stuck", container(image="skerry.test/absent:1", imagePullPolicy="Never")), wait=False
        )
        raw = "/api/v1/namespaces/default/pods"
        for path, text in [
            (f"{raw}/nope/log", '(NotFound): pods "nope" not found'),
            (
                f"{raw}/web/log",
                "(BadRequest): a container name must be specified for pod web, choose one of: [c other]",
            ),
            (f"{raw}/web/log?container=x", "(BadRequest): container x is not valid for pod web"),
            (f"{raw}/web/log?container=c&tailLines=-1", "(BadRequest): invalid tailLines '-1'"),
            (
                f"{raw}/web/log?container=c&previous=true",
                'previous terminated container "c" in pod "web" not found',
            ),
            (f"{raw}/web/exec?container=c&command=x", "(BadRequest): Upgrade request required"),
        ]:
            got = await r.kubectl("get", "--raw", path)
            assert got.code == 1
            assert text in got.err
        stuck = await r.kubectl("logs", "stuck")
        assert re.search(r'container "c" in pod "stuck" is waiting to start: \w+', stuck.err), stuck.err
        for env in (WEBSOCKET, SPDY):
            got = await r.kubectl("exec", "stuck", "--", "true", env=env)
            assert got.err == 'error: unable to upgrade connection: container not found ("c")\n'
        await r.cut()
        r.tunnels._peers.clear()
        for args in (("logs", "web", "-c", "c"), ("exec", "web", "-c", "c", "--", "true")):
            got = await r.kubectl(*args)
            if got.code:  # unless the tunnel is back already
                assert f'node "{NODE}" is not connected' in got.err

    play(story)


def test_following_ends_with_the_container_and_previous_has_what_it_said(play: Play) -> None:
    async def story(r: Rig) -> None:
        await r.run_pod(pod("web", shell("trap 'echo bye; exit 7' TERM; echo first life; sleep 1000 & wait")))
        follow = await r.start("logs", "web", "-f")
        async with ended_by_us(follow):
            assert await line_of(follow.stdout) == "first life\n"
            # 137: the first process took `kill` along before it could say how it went
            assert (await r.kubectl("exec", "web", "--", "kill", "1")).code in (0, 137)
            assert await line_of(follow.stdout) == "bye\n"
            async with asyncio.timeout(30):
                assert await follow.wait() == 0
        async with asyncio.timeout(20):
            while (await r.kubectl("logs", "web", "-p")).out != "first life\nbye\n":
                await asyncio.sleep(0.2)
            while (await r.kubectl("logs", "web")).out != "first life\n":
                await asyncio.sleep(0.2)

    play(story)


def test_following_ends_at_once_with_an_error_when_the_tunnel_is_cut(play: Play) -> None:
    async def story(r: Rig) -> None:
        await r.run_pod(pod("web", shell(TALKER)))
        follow = await r.start("logs", "web", "-f")
        async with ended_by_us(follow):
            assert (await line_of(follow.stdout)).startswith(("out", "err"))
            await r.cut()
            assert follow.stdout is not None
            async with asyncio.timeout(30):
                await follow.stdout.read()
                assert await follow.wait() == 1
            assert follow.stderr is not None
            assert b"unexpected EOF" in await follow.stderr.read()
        async with asyncio.timeout(30):
            while (await r.kubectl("logs", "web", "--tail=1")).code:
                await asyncio.sleep(0.1)
        assert r.dials == 2

    play(story)


@both
def test_exec(play: Play, env: dict[str, str]) -> None:
    async def story(r: Rig) -> None:
        await r.run_pod(pod("web", container()))
        got = await r.kubectl("exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 3", env=env)
        assert (got.code, got.out) == (3, "out\n")
        assert got.err == "err\ncommand terminated with exit code 3\n"
        piped = await r.kubectl("exec", "-i", "web", "--", "cat", stdin=b"piped\n", env=env)
        assert (piped.code, piped.out) == (0, "piped\n")
        bulk = await r.kubectl("exec", "-i", "web", "--", "wc", "-c", stdin=b"x" * 5_000_000, env=env)
        assert (bulk.code, bulk.out) == (0, "5000000\n")
        back = await r.kubectl("exec", "web", "--", "sh", "-c", "yes | head -c 5000000", env=env)
        assert (back.code, len(back.out)) == (0, 5_000_000)
        # one that never reads its stdin ends all the same; not so with megabytes, where containerd 1.6 itself may hang
        deaf = await r.kubectl("exec", "-i", "web", "--", "true", stdin=b"x" * 1000, env=env)
        assert deaf.code == 0
        absent = await r.kubectl("exec", "web", "--", "/nonexistent", env=env)
        assert absent.code != 0
        assert "no such file or directory" in absent.err

    play(story)


@both
def test_a_terminal_with_its_size(play: Play, env: dict[str, str]) -> None:
    async def story(r: Rig) -> None:
        await r.run_pod(pod("web", container()))
        master, slave = os.openpty()
        try:
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
            process = await asyncio.create_subprocess_exec(
                "kubectl",
                f"--kubeconfig={r.kubeconfig}",
                *(
                    "exec",
                    "-it",
                    "web",
                    "--",
                    "sh",
                    "-c",
                    'tty; while read x; do [ "$x" = end ] && exit 5; stty size; done',
                ),
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env={**os.environ, **env},
                start_new_session=True,
            )
            os.set_blocking(master, False)
            try:
                await until_said(master, b"/dev/pts/")
                # the first size is sent when the session stands
                await until_said(master, b"33 77", asking=b"\r")
                fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 99, 0, 0))
                process.send_signal(signal.SIGWINCH)
                await until_said(master, b"44 99", asking=b"\r")
                os.write(master, b"end\r")
                async with asyncio.timeout(30):
                    assert await process.wait() == 5
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        finally:
            os.close(master)
            os.close(slave)

    play(story)


async def until_said(master: int, text: bytes, *, asking: bytes = b"") -> None:
    """asking: what to type until it is said."""
    said = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30):
            for round_ in itertools.count():
                if asking and round_ % 25 == 0:
                    os.write(master, asking)
                try:
                    said += os.read(master, 4096)
                except BlockingIOError:
                    await asyncio.sleep(0.02)
                if text in said:
                    break
    assert text in said


@both
def test_attach(play: Play, env: dict[str, str]) -> None:
    async def story(r: Rig) -> None:
        # it stays a moment: a runtime may cut off those who are attached before it passed on the last that was written
        script = "while read x; do echo heard $x; [ $x = end ] && sleep 0.5 && exit 0; done"
        await r.run_pod(pod("web", shell(script, stdin=True), restartPolicy="Never"))
        process = await r.start("attach", "web", "-i", stdin=asyncio.subprocess.PIPE, env=env)
        async with ended_by_us(process):
            assert process.stdin is not None
            process.stdin.write(b"one\n")
            assert await line_of(process.stdout) == "heard one\n"
            process.stdin.write(b"end\n")
            assert await line_of(process.stdout) == "heard end\n"
            async with asyncio.timeout(30):
                assert await process.wait() == 0

    play(story)


@both
def test_copying(play: Play, env: dict[str, str], tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        await r.run_pod(pod("web", container()))
        tree = tmp_path / "tree"
        (tree / "deep").mkdir(parents=True)
        (tree / "deep" / "blob").write_bytes(os.urandom(3_000_000))
        (tree / "note").write_text("hello")
        there = await r.kubectl("cp", str(tree), "web:/tmp/there", env=env)
        assert there.code == 0, there.err
        back = await r.kubectl("cp", "web:/tmp/there", str(tmp_path / "back"), env=env)
        assert back.code == 0, back.err
        assert (tmp_path / "back" / "note").read_text() == "hello"
        blob = (tmp_path / "back" / "deep" / "blob").read_bytes()
        assert blob == (tree / "deep" / "blob").read_bytes()

    play(story)


@both
def test_port_forward_with_many_connections(play: Play, env: dict[str, str]) -> None:
    async def story(r: Rig) -> None:
        # busybox's httpd has a backlog; its nc, which would echo, has none
        serve = "mkdir /tmp/w; yes 0123456789 | head -c 300000 >/tmp/w/f; trap 'exit 0' TERM; httpd -f -p 9000 -h /tmp/w & wait"
        await r.run_pod(pod("web", shell(serve)))
        process = await r.start("port-forward", "pod/web", ":9000", ":9001", env=env)
        async with ended_by_us(process):
            first = await line_of(process.stdout)
            forwarded = re.search(r"127\.0\.0\.1:(\d+) -> 9000", first)
            assert forwarded is not None, first or await process.stderr.read()  # type: ignore[union-attr]

            async def fetch() -> None:
                reader, writer = await asyncio.open_connection("127.0.0.1", int(forwarded.group(1)))
                try:
                    async with asyncio.timeout(20):
                        writer.write(b"GET /f HTTP/1.0\r\n\r\n")
                        body = (await reader.read(-1)).partition(b"\r\n\r\n")[2]
                        assert body == (b"0123456789\n" * 30_000)[:300_000]
                finally:
                    writer.close()

            async with asyncio.TaskGroup() as group:
                for n in range(10):
                    group.create_task(fetch(), name=f"fetch {n}")
            assert process.returncode is None

    play(story)


def test_a_verb_that_is_switched_off_is_refused_and_the_others_go_on(play: Play) -> None:
    async def story(r: Rig) -> None:
        await r.run_pod(pod("web", shell(TALKER)))
        for env in (WEBSOCKET, SPDY):
            got = await r.kubectl("exec", "web", "--", "true", env=env)
            assert got.code == 1
            assert "exec is switched off" in got.err
        assert (await r.kubectl("logs", "web", "--tail=1")).code == 0

    play(story, switches={"exec": False})


def test_a_hundred_streams_at_once_and_one_that_reads_nothing(play: Play) -> None:
    async def story(r: Rig) -> None:
        ticks = "trap 'exit 0' TERM; (while true; do echo tick; sleep 0.2; done) & wait"
        await r.run_pod(pod("web", shell(ticks)))
        await r.run_pod(pod("loud", shell("trap 'exit 0' TERM; sleep 1000 & wait")))
        stalled = await r.start("exec", "loud", "--", "yes")
        async with ended_by_us(stalled), r.client() as client:
            follow = f"{r.api}/api/v1/namespaces/default/pods/web/log?follow=true&tailLines=1"

            async def one() -> None:
                async with client.get(follow) as answer:
                    assert answer.status == 200
                    for _ in range(3):
                        assert await answer.content.readline() == b"tick\n"
                    standing.release()
                    await every.wait()
                    # the others have not taken it away
                    assert await answer.content.readline() == b"tick\n"

            standing, every = asyncio.Semaphore(0), asyncio.Event()
            async with asyncio.timeout(90), asyncio.TaskGroup() as group:
                for number in range(100):
                    group.create_task(one(), name=f"follower {number}")
                for _ in range(100):
                    await standing.acquire()
                # they and the one that reads nothing
                way = r.tunnels._peers[NODE][0]
                assert isinstance(way, Peer)
                assert way.mux.count == 101
                got = await r.kubectl("exec", "web", "--", "echo", "still here")
                assert (got.code, got.out) == (0, "still here\n")
                every.set()

    play(story)


def test_a_long_command_passes(play: Play) -> None:
    async def story(r: Rig) -> None:
        await r.run_pod(pod("web", container()))
        text = "x" * 20_000
        got = await r.kubectl("exec", "web", "--", "echo", text)
        assert (got.code, got.out) == (0, text + "\n")

    play(story)


def test_a_client_that_goes_away_leaves_nothing_behind(play: Play) -> None:
    async def story(r: Rig) -> None:
        await r.run_pod(pod("web", shell("echo one; trap 'exit 0' TERM; sleep 1000 & wait")))
        mux = r.tunnels._peers[NODE][0].mux
        for args in (("logs", "-f", "web"), ("exec", "web", "--", "sh", "-c", "echo one; sleep 1000")):
            for env in (WEBSOCKET, SPDY):
                process = await r.start(*args, env=env)
                async with ended_by_us(process):
                    assert await line_of(process.stdout) == "one\n"
                    assert mux.count == 1
                async with asyncio.timeout(30):
                    while mux.count:
                        await asyncio.sleep(0.05)

    play(story)


def test_stats_of_the_node_and_its_pods(play: Play) -> None:
    async def story(r: Rig) -> None:
        await r.run_pod(pod("web", container()))

        async def page(path: str) -> bytes:
            head = tunnel.Head(kind="http", method="GET", path=path)
            stream, answer = await r.tunnels.open(NODE, head)
            assert answer.status == 200
            body = b""
            while data := await stream.read():
                body += data
            return body

        async with asyncio.timeout(20):
            while not (found := json.loads(await page("/stats/summary")))["pods"]:
                await asyncio.sleep(0.2)
        assert found["node"]["nodeName"] == NODE
        web = found["pods"][0]
        assert web["podRef"]["name"] == "web"
        assert web["containers"][0]["memory"]["workingSetBytes"] > 0
        assert web["ephemeral-storage"]["usedBytes"] >= web["containers"][0]["logs"]["usedBytes"] > 0
        assert found["node"]["fs"]["capacityBytes"] > found["node"]["fs"]["usedBytes"] > 0
        assert found["node"]["runtime"]["imageFs"]["usedBytes"] > 0
        assert (
            b'container_memory_working_set_bytes{container="c",namespace="default",pod="web"}'
            in await page("/metrics/resource")
        )
        pods = json.loads(await page("/pods"))
        assert [p["metadata"]["name"] for p in pods["items"]] == ["web"]
        assert pods["items"][0]["status"]["phase"] == "Running"

    play(story)
