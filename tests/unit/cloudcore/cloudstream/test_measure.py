"""Nodes are read while somebody asks, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import looptime
import pytest

from beehive import tunnel
from beehive.errors import Unavailable
from beehive.tunnelpeer import Stream
from cloudcore.cloudstream import measure
from cloudcore.cloudstream.measure import Measurer
from cloudcore.cloudstream.tunnels import Tunnels


class Page:
    def __init__(self, blocks: list[bytes]) -> None:
        self._blocks = blocks
        self.over = False

    async def read(self) -> bytes:
        if self._blocks:
            return self._blocks.pop(0)
        self.over = True
        return b""

    def reset(self, reason: str) -> None:
        self.over = True


class Nodes:
    """Stands where Tunnels does: answers with a counter that follows the clock, at half a core."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.asked: list[tuple[str, float]] = []
        self.pages: list[Page] = []
        self.silent: set[str] = set()
        self.gone: set[str] = set()
        self.status = 200
        self.extra = b""

    def nodes(self) -> list[str]:
        return list(self.names)

    async def open(self, node: str, head: tunnel.Head) -> tuple[Stream, tunnel.Answer]:
        assert (head.kind, head.method, head.path) == ("http", "GET", "/metrics/resource")
        now = asyncio.get_running_loop().time()
        self.asked.append((node, now))
        if node in self.silent:
            await asyncio.sleep(3600)
        if node in self.gone:
            raise Unavailable("cut")
        text = f"node_cpu_usage_seconds_total {now / 2:.3f} {int(now * 1000)}\nnode_memory_working_set_bytes 1024\n"
        data = text.encode() + self.extra
        self.pages.append(Page([data[i : i + 10_000] for i in range(0, len(data), 10_000)]))
        return cast("Stream", self.pages[-1]), tunnel.Answer(status=self.status)


def play(nodes: Nodes, monkeypatch: pytest.MonkeyPatch, story: Callable[[Measurer], Awaitable[None]]) -> None:
    loop = looptime.patch_event_loop(cast("asyncio.BaseEventLoop", asyncio.new_event_loop()))
    monkeypatch.setattr("beehive.clock.monotonic", loop.time)

    async def main() -> None:
        measurer = Measurer(cast("Tunnels", nodes))
        async with asyncio.TaskGroup() as group:
            running = group.create_task(measurer.run())
            await story(measurer)
            running.cancel()

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    assert all(page.over for page in nodes.pages), "a stream was left open"


def test_nobody_is_read_while_nobody_asks_and_the_first_question_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = Nodes("a", "b")

    async def story(measurer: Measurer) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(1000)
        assert nodes.asked == []
        began = loop.time()
        found = await measurer.usage()
        assert loop.time() - began == pytest.approx(measure.FIRST_GAP_S, abs=0.1)
        assert {name: used.node and used.node.cpu_nanocores for name, used in found.items()} == {
            "a": pytest.approx(500_000_000, rel=0.01),
            "b": pytest.approx(500_000_000, rel=0.01),
        }
        await asyncio.sleep(40)
        assert len(nodes.asked) == 2 * (2 + 2)
        began = loop.time()
        again = (await measurer.usage())["a"].node
        assert again is not None
        assert loop.time() - began == pytest.approx(0, abs=0.1)
        assert again.window_s == pytest.approx(measure.INTERVAL_S, abs=0.1)
        await asyncio.sleep(measure.KEEP_S + 2 * measure.INTERVAL_S)
        before = len(nodes.asked)
        await asyncio.sleep(1000)
        assert len(nodes.asked) == before, "read on although nobody asks"
        assert set(await measurer.usage()) == {"a", "b"}

    play(nodes, monkeypatch, story)


def test_a_node_that_is_silent_gone_or_new_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes("a", "b", "c")
    nodes.silent, nodes.gone = {"b"}, {"c"}

    async def story(measurer: Measurer) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert set(await measurer.usage()) <= {"a"}
        assert loop.time() - began <= measure.FIRST_WAIT_S + 0.1
        await asyncio.sleep(30)
        assert set(await measurer.usage()) == {"a"}
        nodes.silent, nodes.gone = set(), {"a"}
        nodes.names.append("d")
        await asyncio.sleep(60)
        assert set(await measurer.usage()) == {"b", "c", "d"}
        nodes.names.remove("b")
        await asyncio.sleep(20)
        assert set(await measurer.usage()) == {"c", "d"}

    play(nodes, monkeypatch, story)


@pytest.mark.parametrize(("status", "extra"), [(403, b""), (200, b"x" * (measure.MAX_PAGE + 1))])
def test_a_refusal_or_a_page_without_end_is_no_measurement(
    monkeypatch: pytest.MonkeyPatch, status: int, extra: bytes
) -> None:
    nodes = Nodes("a")
    nodes.status, nodes.extra = status, extra

    async def story(measurer: Measurer) -> None:
        assert await measurer.usage() == {}

    play(nodes, monkeypatch, story)
