"""What edged loads: an edge has 45 MB for everything."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "grpc",
    "aiohttp",
    "kubernetes",
    "cryptography",
    "pydantic",
    "requests",
    "yaml",
    "click",
    "websockets",
    "ctypes",
)


def test_nothing_heavy_is_loaded() -> None:
    code = "import sys, edgecore.edged.manager; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "edgecore.edged.cri" in loaded
    assert loaded.isdisjoint(HEAVY)
