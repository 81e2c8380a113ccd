"""The stock kubectl, pointed at a trial: what works here works for everybody."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy import machine

_TIMEOUT_S = 20.0


class Kubectl:
    """Raises TrialError with kubectl's own words for whatever does not work."""

    def __init__(self, kubeconfig: Path, cache: Path) -> None:
        self._command = ["kubectl", "--kubeconfig", str(kubeconfig), "--cache-dir", str(cache)]

    def run(self, *arguments: str | Path, stdin: bytes = b"", timeout_s: float = _TIMEOUT_S) -> str:
        return machine.run([*self._command, *arguments], stdin=stdin, timeout_s=timeout_s)

    def is_ready(self) -> str | None:
        """None when the API server says that it is, else why not."""
        return machine.succeeds([*self._command, "get", "--raw", "/readyz"], timeout_s=5.0)

    def items(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        """All objects of one kind, in all namespaces unless told otherwise."""
        scope = arguments or ("--all-namespaces",)
        listed: list[dict[str, Any]] = json.loads(self.run("get", kind, "-o", "json", *scope))["items"]
        return listed

    def apply(self, files: Sequence[Path]) -> None:
        flags = [word for file in files for word in ("-f", file)]
        self.run("apply", *flags, timeout_s=60.0)

    def apply_text(self, manifest: str) -> None:
        self.run("apply", "-f", "-", stdin=manifest.encode(), timeout_s=60.0)
