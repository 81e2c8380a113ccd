"""What a runtime's streaming server is asked."""

from __future__ import annotations

import asyncio

import pytest

from beehive.errors import Unavailable
from edgecore.edgestream.upgrade import upgrade


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://[::1",
        "http://127.0.0.1:99999/exec/x",
        "http://127.0.0.1/exec/x",
        "http://192.0.2.1:80/exec/x",
        "http://localhost:80/exec/x",
        "https://127.0.0.1:80/exec/x",
        "http://127.0.0.1:80/exec/\N{SNOWMAN}",
        "http://127.0.0.1:80/exec/a b",
        "unix:///run/x",
    ],
)
def test_only_plain_http_on_this_machine_is_dialled(url: str) -> None:
    with pytest.raises(Unavailable, match="plain HTTP on this machine"):
        asyncio.run(upgrade(url, "POST", []))
