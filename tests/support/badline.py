"""A `Relay` for tests that are not coroutines: it runs in a thread, and its line may be made bad from outside."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from types import TracebackType

from tests.support.relay import Line, Relay


class BadLine:
    """Forwards a port of its own to `host:port` until the `with` ends.  Set the members of `line` at any time."""

    def __init__(self, host: str, port: int, listen_port: int = 0, *, listen_host: str = "127.0.0.1") -> None:
        self.line = Line()
        self._relay = Relay(host, port, self.line, listen_port, listen_host)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="bad line")

    @property
    def port(self) -> int:
        return self._relay.listen_port

    @property
    def connections(self) -> int:
        """How many there have been."""
        return self._relay.connections

    def __enter__(self) -> BadLine:
        self._thread.start()
        assert self._ready.wait(10), "the relay did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.good()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive(), "the relay did not stop"

    def good(self) -> None:
        """Nothing is wrong with it any more."""
        self.line.delay_s = self.line.jitter_s = self.line.rate = 0.0
        self.line.shared = False
        self.line.piece, self.line.gather_s = 0, 0.0
        self.line.blackhole = self.line.mute_down = self.line.refuse = False

    def redirect(self, host: str, port: int) -> None:
        """Where connections go that are made from now on."""
        self._relay.host, self._relay.port = host, port

    def cut(self) -> None:
        """Reset every open connection."""
        self._loop.call_soon_threadsafe(self._relay.cut)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        async with self._relay:
            self._ready.set()
            await self._stop.wait()


def main(host: str, port: str, listen_host: str) -> None:
    """A good line as a process of its own, for another network namespace; prints its port and runs until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    with BadLine(host, int(port), listen_host=listen_host) as line:
        print(line.port, flush=True)
        signal.sigwait([signal.SIGTERM])


if __name__ == "__main__":
    main(*sys.argv[1:])
