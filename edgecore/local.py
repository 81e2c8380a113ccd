"""The daemon's own socket: what `edgecore get` and `edgecore status` ask, one JSON line each way.

Only root may connect (mode 0600).  Everything is bounded: length of a line, number of callers, time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from beehive.errors import ConfigError, SkerryError
from beehive.local import CALL_S, ask
from beehive.message import UNREADABLE

__all__ = ["LocalSocket", "Question", "ask", "listen"]

log = logging.getLogger(__name__)

MAX_LINE_BYTES = 256 * 1024
MAX_CALLERS = 8

Question = Callable[[Mapping[str, Any]], Awaitable[Any]]
"""Answers one verb; what it returns is encoded as JSON."""


class LocalSocket:
    """Serve `questions`, by verb, at `path`."""

    def __init__(self, path: Path, questions: Mapping[str, Question]) -> None:
        self._path = path
        self._questions = questions
        self._callers = 0

    async def run(self) -> None:
        """For ever.  Raises: ConfigError."""
        try:
            listening = listen(self._path)
        except OSError as error:
            raise ConfigError(f"cannot listen at {self._path}: {error.strerror}") from error
        server = await asyncio.start_unix_server(self._serve, sock=listening, limit=MAX_LINE_BYTES)
        try:
            await server.serve_forever()
        finally:
            server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._callers += 1
        try:
            if self._callers > MAX_CALLERS:
                return
            async with asyncio.timeout(CALL_S):
                answer = await self._answer(await reader.readline())
                writer.write(msgspec.json.encode(answer) + b"\n")
                await writer.drain()
        except (TimeoutError, OSError, ValueError):
            log.debug("x a local caller was too slow, too long, or left")
        finally:
            self._callers -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            question = msgspec.json.decode(line, type=dict[str, Any])
        except UNREADABLE as error:
            return {"error": f"cannot read the question: {error}"}
        handler = self._questions.get(str(question.get("verb")))
        if handler is None:
            return {"error": f"unknown verb {question.get('verb')!r}"}
        try:
            return {"answer": await handler(question)}
        except SkerryError as error:
            return {"error": str(error)}
        except Exception as error:
            # the boundary of one question: whoever asks hears that, and not that nobody is there
            log.exception("Cannot answer %s", question.get("verb"))
            return {"error": f"a fault in the daemon, see its log: {error!r}"}


def listen(path: Path) -> socket.socket:
    """A unix socket of mode 0600 in the place of whatever an earlier process left.  Raises: OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        before = os.umask(0o177)
        try:
            found.bind(str(path))
        finally:
            os.umask(before)
        found.listen(MAX_CALLERS)
        found.setblocking(False)
    except OSError:
        found.close()
        raise
    return found
