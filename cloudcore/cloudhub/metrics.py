"""What the hub did and does, in Prometheus' text form, for whoever runs it: on the loopback unless told otherwise.

    GET /metrics

A port that is taken is no reason not to serve edges: it is said once, and tried again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

log = logging.getLogger(__name__)

READ_S = 5.0
MAX_REQUEST_BYTES = 8192
MAX_READERS = 16
RETRY_S = 60.0
TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Metric:
    """One number.   counts: it only grows (a counter); else it says how things are (a gauge)."""

    name: str
    help: str
    value: float
    counts: bool = True


def text(metrics: Iterable[Metric]) -> str:
    """The exposition format.  Source: Prometheus, text-based format 0.0.4."""
    lines = []
    for metric in metrics:
        lines.append(f"# HELP {metric.name} {metric.help}")
        lines.append(f"# TYPE {metric.name} {'counter' if metric.counts else 'gauge'}")
        lines.append(
            f"{metric.name} {metric.value:g}" if metric.value % 1 else f"{metric.name} {metric.value:.0f}"
        )
    return "\n".join(lines) + "\n"


class MetricsServer:
    """A supervised part.   read: the numbers of now."""

    name = "metrics"

    def __init__(self, address: str, port: int, read: Callable[[], Iterable[Metric]]) -> None:
        self._address = address
        self._port = port
        self._read = read
        self._readers = 0

    async def run(self) -> None:
        told = False
        while True:
            try:
                server = await asyncio.start_server(
                    self._serve, self._address, self._port, limit=MAX_REQUEST_BYTES
                )
            except OSError as error:
                if not told:
                    log.warning(
                        "The hub's numbers cannot be read at %s:%d: %s",
                        self._address,
                        self._port,
                        error.strerror or error,
                    )
                told = True
                await asyncio.sleep(RETRY_S)
                continue
            async with server:
                await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._readers += 1
        try:
            if self._readers <= MAX_READERS:
                async with asyncio.timeout(READ_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(head))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("A reader of numbers went wrong: %s", error)
        finally:
            self._readers -= 1
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        request = head.split(b"\r\n", 1)[0].split(b" ")
        if len(request) != 3 or request[0] != b"GET" or request[1].split(b"?")[0] != b"/metrics":
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        body = text(self._read()).encode()
        return (
            f"HTTP/1.1 200 OK\r\nContent-Type: {TYPE}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            + body
        )
