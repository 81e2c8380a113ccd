"""What cloudcore looks after now and then."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest

from beehive.errors import ProtocolError
from cloudcore import main


def test_a_certificate_that_cannot_be_made_does_not_end_the_links_of_a_fleet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faults: list[Exception] = [
        ProtocolError("the Secret is no Secret"),
        ssl.SSLError("no key"),
        OSError("no memory"),
    ]
    tried = asyncio.Event()

    async def ensure_server(*_: Any) -> None:
        if not faults:
            tried.set()
            await asyncio.Event().wait()
        raise faults.pop()

    monkeypatch.setattr(main, "ensure_server", ensure_server)
    monkeypatch.setattr(main, "_wanted", lambda _: {"10.0.0.1"})
    monkeypatch.setattr(main, "ADDRESSES_S", 0.0)

    async def story() -> None:
        nothing: Any = None
        names = main._Names(set())
        running = asyncio.create_task(main._Upkeep(nothing, nothing, nothing, [], names).run())
        waiting = asyncio.create_task(tried.wait())
        await asyncio.wait({running, waiting}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        assert tried.is_set()
        running.cancel()

    asyncio.run(story())
