"""Reads the recorded conversations of a stock KubeEdge pair."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent / "vectors" / "kubeedge"


def lines(name: str) -> Iterator[dict[str, Any]]:
    with (ROOT / name).open() as file:
        for line in file:
            yield json.loads(line)


def frames(direction: str) -> Iterator[dict[str, Any]]:
    """Messages of the hub's websocket that went `down` or `up`."""
    for line in lines("hub.jsonl"):
        if line.get("dir") == direction and line.get("opcode") == "text":
            yield json.loads(line["text"])
