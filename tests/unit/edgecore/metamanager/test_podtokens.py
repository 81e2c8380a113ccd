"""When the tokens of pods are asked for, and when they are written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from beehive import clock
from beehive.errors import Unavailable
from edgecore.metamanager import podtokens, tokens
from edgecore.metamanager.podtokens import PodTokens
from tests.unit.edgecore.metamanager.test_manager import Memory


def request(uid: str) -> bytes:
    return json.dumps({"spec": {"expirationSeconds": 3600, "boundObjectRef": {"uid": uid}}}).encode()


class Cloud:
    """Gives tokens that live so long, and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.life_s = 0.0
        self.away = False

    async def ask(self, operation: str, where: str, content: msgspec.Raw) -> msgspec.Raw | None:
        if self.away:
            raise Unavailable("no link")
        self.asked += 1
        ends = clock.rfc3339(clock.wall().fromtimestamp(clock.wall().timestamp() + self.life_s))
        status = {"token": f"t{self.asked}", "expirationTimestamp": ends}
        return msgspec.Raw(json.dumps({"status": status}).encode())


def on(scene: Callable[[PodTokens, Memory, Cloud], Awaitable[None]]) -> None:
    async def play() -> None:
        store, cloud = Memory(), Cloud()
        held = PodTokens(store, cloud.ask)  # type: ignore[arg-type]
        running = asyncio.create_task(held.run())
        try:
            async with asyncio.timeout(30):
                await scene(held, store, cloud)
        finally:
            running.cancel()

    asyncio.run(play())


def text(answer: bytes) -> str:
    return str(json.loads(answer)["status"]["token"])


def stored(store: Memory) -> list[bytes]:
    return [tokens.text(note) for note in store.states(tokens.ALL).values()]


def test_a_first_token_is_written_before_its_pod_has_it_and_used_while_it_is_fresh() -> None:
    async def scene(held: PodTokens, store: Memory, cloud: Cloud) -> None:
        cloud.life_s = 3600
        assert text(await held.get("d", "sa", request("a"))) == "t1"
        assert stored(store) == [b"t1"]
        assert text(await held.get("d", "sa", request("a"))) == "t1"
        assert cloud.asked == 1

    on(scene)


def _stale(store: Memory, *, left_s: float) -> None:
    """Turn what is stored into what is due to be asked for again, with so much of its life left."""
    for key, note in store.states(tokens.ALL).items():
        found = tokens.read(note)
        assert found is not None
        now = clock.wall().timestamp()
        store.notes[key] = msgspec.json.encode(
            msgspec.structs.replace(found, came=now - 100 * left_s, ends=now + left_s)
        )


def test_later_ones_of_all_pods_share_a_commit_while_the_stored_ones_still_count() -> None:
    async def scene(held: PodTokens, store: Memory, cloud: Cloud) -> None:
        cloud.life_s = 3600
        for uid in "abc":
            await held.get("d", "sa", request(uid))
        _stale(store, left_s=700)
        commits = store.counters.commits
        for uid in "abc":
            assert text(await held.get("d", "sa", request(uid))) in ("t4", "t5", "t6")
            await held.get("d", "sa", request(uid))
        assert cloud.asked == 6  # what is only in memory is used, too
        assert b"t6" in await held.texts()
        assert store.counters.commits == commits
        held.save_soon()  # the link has gone
        while store.counters.commits == commits:
            await asyncio.sleep(0)
        assert sorted(stored(store)) == [b"t4", b"t5", b"t6"]
        assert store.counters.commits == commits + 1

    on(scene)


def test_a_token_whose_predecessor_is_over_is_written_at_once() -> None:
    async def scene(held: PodTokens, store: Memory, cloud: Cloud) -> None:
        await held.get("d", "sa", request("a"))  # over as soon as it came
        cloud.life_s = 3600
        await held.get("d", "sa", request("a"))
        while stored(store) != [b"t2"]:
            await asyncio.sleep(0)

    on(scene)


def test_tokens_of_a_pod_that_is_gone_do_not_come_back() -> None:
    async def scene(held: PodTokens, store: Memory, cloud: Cloud) -> None:
        cloud.life_s = 3600
        await held.get("d", "sa", request("a"))
        _stale(store, left_s=700)
        await held.get("d", "sa", request("a"))
        store.notes.clear()
        await held.save()
        assert stored(store) == []
        assert await held.texts() == []

    on(scene)


def test_while_the_disk_refuses_they_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podtokens, "RETRY_S", 0.01)

    async def scene(held: PodTokens, store: Memory, cloud: Cloud) -> None:
        cloud.life_s = 3600
        await held.get("d", "sa", request("a"))
        _stale(store, left_s=700)
        assert text(await held.get("d", "sa", request("a"))) == "t2"
        store.broken = True
        held.save_soon()
        await asyncio.sleep(0.05)
        cloud.away = True
        assert text(await held.get("d", "sa", request("a"))) == "t2"
        store.broken = False
        while stored(store) != [b"t2"]:
            await asyncio.sleep(0)

    on(scene)
