"""The local API as a part of the daemon: whatever is wrong with it, pods and the link go on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from beehive.errors import Unavailable
from edgecore.metaserver import module
from edgecore.metaserver.jwt import BadToken
from edgecore.metaserver.mirror import Mirror
from edgecore.metaserver.module import MetaServer, MetaServerOptions
from edgecore.metaserver.objects import Filter, Gvr
from edgecore.metaserver.remote import Remote, Scope
from tests.unit.edgecore.metaserver import fakes


def test_a_fault_in_the_local_api_does_not_end_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    options = MetaServerOptions(host="127.0.0.1", port=0, pki=tmp_path)
    store, cloud = fakes.FakeStore(), fakes.FakeCloud()
    made = MetaServer(options, node="edge-1", store=store, cloud=cloud)
    done: list[str] = []

    def failing(what: str, *errors: Exception) -> Any:
        left = list(errors)

        async def work() -> None:
            if left:
                raise left.pop(0)
            done.append(what)
            if not what.startswith("load"):
                await asyncio.Event().wait()

        return work

    # keys that this version cannot read, a disk that fails once, and bugs
    monkeypatch.setattr(made.access, "load", failing("load keys", BadToken("no keys"), BadToken("no keys")))
    monkeypatch.setattr(made.mirror, "load", failing("load objects"))
    monkeypatch.setattr(made.writes, "load", failing("load writes", Unavailable("the disk")))
    monkeypatch.setattr(made.mirror, "run", failing("mirror", RuntimeError("a bug")))
    monkeypatch.setattr(made.remote, "run", failing("remote", KeyError("a bug")))
    monkeypatch.setattr(made.writes, "run", failing("writes"))
    monkeypatch.setattr(made, "_serve_tcp", failing("port", OSError("taken")))

    async def story() -> None:
        running = asyncio.create_task(made.run())
        async with asyncio.timeout(60):
            while len(done) < 6 and not running.done():
                await asyncio.sleep(0.001)
        assert not running.done()
        running.cancel()

    asyncio.run(story())
    assert done[:2] == ["load objects", "load writes"], "each is loaded once"
    assert sorted(done[2:]) == ["mirror", "port", "remote", "writes"]


def test_what_was_followed_before_a_fault_is_followed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that nobody keeps fresh any more would be worse than none."""
    remote = Remote(fakes.FakeCloud(), Mirror(fakes.FakeStore()), "edge-1", monotonic=lambda: 0.0)
    wanted = Filter(gvr=Gvr("", "v1", "configmaps"))
    followed: list[Filter] = []
    fault = asyncio.Event()

    async def follow(scope: Scope) -> None:
        followed.append(scope.filter)
        await asyncio.Event().wait()

    async def fail() -> None:
        await fault.wait()
        raise RuntimeError("a bug")

    monkeypatch.setattr(remote, "_follow", follow)
    monkeypatch.setattr(remote, "_apply_forever", fail)

    async def until(count: int) -> None:
        async with asyncio.timeout(60):
            while len(followed) < count:
                await asyncio.sleep(0.001)

    async def story() -> None:
        first = asyncio.create_task(remote.run())
        remote.follow(wanted, "d:default")
        await until(1)
        fault.set()
        with pytest.raises(ExceptionGroup):
            await first
        fault.clear()
        second = asyncio.create_task(remote.run())
        await until(2)
        second.cancel()

    asyncio.run(story())
    assert followed == [wanted, wanted]
