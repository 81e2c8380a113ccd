"""What Python 3.11.2, which Debian 12 has, does otherwise than later ones, and nothing else would show."""

from __future__ import annotations

import ast
from pathlib import Path

import beehive

ROOT = Path(beehive.__file__).parent.parent
PACKAGES = ("beehive", "cloudcore", "edgecore", "devicetwin", "mappers", "deploy")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


def test_nothing_comes_out_of_except_star() -> None:
    """What begins there, an error or a cancellation, is wrapped into a group, and so missed by who waits for it."""
    for file in FILES:
        for block in ast.walk(ast.parse(file.read_text())):
            if not isinstance(block, ast.TryStar):
                continue
            inside = [node for handler in block.handlers for line in handler.body for node in ast.walk(line)]
            where = f"{file.relative_to(ROOT)}:{block.lineno}"
            assert not any(isinstance(node, ast.Raise | ast.Await) for node in inside), where
