"""The stock kubectl, pointed at a trial: what works here works for everybody."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deploy import machine
from deploy.errors import TrialError

_TIMEOUT_S = 20.0
_REFUSED = re.compile(r"connection to the server (\S+) was refused")


class Kubectl:
    """Raises TrialError with kubectl's own words for whatever does not work."""

    def __init__(self, kubeconfig: Path | None, cache: Path | None = None) -> None:
        """kubeconfig: None for what kubectl finds by itself.  cache: a folder for what it remembers, if not its own."""
        self._command = ["kubectl", *(["--kubeconfig", str(kubeconfig)] if kubeconfig is not None else [])]
        if cache is not None:
            self._command += ["--cache-dir", str(cache)]

    def run(self, *arguments: str | Path, stdin: bytes = b"", timeout_s: float = _TIMEOUT_S) -> str:
        try:
            return machine.run([*self._command, *arguments], stdin=stdin, timeout_s=timeout_s)
        except TrialError as error:
            if refused := _REFUSED.search(str(error)):
                raise TrialError(f"the API at {refused[1]} does not answer: does cloudcore run?") from error
            raise

    def is_ready(self) -> str | None:
        """None when the API server says that it is, else why not."""
        return machine.succeeds([*self._command, "get", "--raw", "/readyz"], timeout_s=5.0)

    def items(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        """All objects of one kind, in all namespaces unless told otherwise."""
        scope = arguments or ("--all-namespaces",)
        listed: list[dict[str, Any]] = json.loads(self.run("get", kind, "-o", "json", *scope))["items"]
        return listed

    def watch(self, kind: str, *arguments: str) -> Iterator[dict[str, Any]]:
        """Objects of one kind, then each again when it changed, until the API ends it.  Ends kubectl with the loop.

        Raises TrialError with kubectl's own words when it ended."""
        command = [*self._command, "get", kind, *arguments, "--watch", "--output=json"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=machine.environment()
        ) as process:
            assert process.stdout is not None, "a pipe was asked for"
            assert process.stderr is not None, "a pipe was asked for"
            lines: list[str] = []
            try:
                for line in process.stdout:
                    lines.append(line)
                    if line.startswith(
                        "}"
                    ):  # objects are indented, and follow each other without anything between
                        yield json.loads("".join(lines))
                        lines.clear()
                words = process.stderr.read().strip().splitlines()
            finally:
                process.terminate()
        raise TrialError(f"kubectl ended: {words[-1] if words else 'the API ended the watch'}")

    def apply(self, files: Sequence[Path]) -> None:
        flags = [word for file in files for word in ("-f", file)]
        self.run("apply", *flags, timeout_s=60.0)

    def apply_text(self, manifest: str) -> None:
        self.run("apply", "-f", "-", stdin=manifest.encode(), timeout_s=60.0)
