"""Sends readings to where the manifests say, through a queue on disk for each address.

An address that is away stalls no other; what it misses waits, up to a bound, and arrives with the time it was read at.  What
an address refuses for good is dropped, counted, and said once."""

import asyncio
import hashlib
import logging
import random
from collections import Counter
from pathlib import Path

import msgspec

from beehive import clock
from beehive.backoff import Backoff
from mappers.framework import push
from mappers.framework.driver import Property
from mappers.framework.errors import DeviceError
from mappers.framework.outbox import Outbox
from mappers.framework.poller import Sample
from mappers.framework.push import Outgoing
from mappers.framework.sinks import NO_METRIC, SINKS, Progress

log = logging.getLogger(__name__)

BATCH = 500
RETRY_BASE_S, RETRY_CAP_S = 0.5, 60.0
MAX_ADDRESSES = 64


class Pusher:
    """`run` never returns; `push` may be called from the event loop at any time.  folder: None keeps all in memory."""

    def __init__(self, folder: Path | None, *, rng: random.Random) -> None:
        self.counts: Counter[str] = Counter()  # sent, refused, unsent (no room, or too many addresses)
        self._folder = folder
        self._rng = rng
        self._queues: dict[str, Outbox] = {}
        self._wake: dict[str, asyncio.Event] = {}
        self._group: asyncio.TaskGroup | None = None
        self._said: set[str] = set()

    def push(self, prop: Property, sample: Sample) -> None:
        """Queue a reading for each of its property's targets."""
        for target in prop.pushes:
            out = push.render(target, sample.name, sample.type, sample.value, clock.wall_ms())
            if not out.body:
                self._refused(NO_METRIC)
                continue
            name = hashlib.sha256(f"{out.kind} {out.to}".encode()).hexdigest()[:16]
            queue = self._queue(name)
            if queue is None:
                self.counts["unsent"] += 1
                continue
            try:
                queue.append(msgspec.json.encode(out))
            except OSError as error:
                self._say("cannot write the buffer of readings: %s", error)
            self._wake[name].set()

    async def run(self) -> None:
        """Never returns."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                if self._folder is not None and self._folder.is_dir():
                    for path in sorted(self._folder.iterdir()):  # left from before
                        if path.is_dir():
                            self._queue(path.name)
                for name in self._queues:
                    self._start(name)
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            for queue in self._queues.values():
                queue.close()

    def _queue(self, name: str) -> Outbox | None:
        found = self._queues.get(name)
        if found is not None:
            return found
        if len(self._queues) >= MAX_ADDRESSES:
            self._say("there are more than %s addresses to push to", MAX_ADDRESSES)
            return None
        try:
            found = Outbox(self._folder / name if self._folder is not None else None)
        except OSError as error:
            self._say("readings wait in memory only: %s", error)
            found = Outbox(None)
        self._queues[name] = found
        self._wake[name] = asyncio.Event()
        self._start(name)
        return found

    def _start(self, name: str) -> None:
        if self._group is not None:
            self._group.create_task(self._serve(name), name=f"push {name}")

    async def _serve(self, name: str) -> None:
        queue, wake = self._queues[name], self._wake[name]
        backoff = Backoff(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
        away = False
        while True:
            wake.clear()
            lines = queue.peek(BATCH)
            if not lines:
                await wake.wait()
                continue
            sent, failure = await self._send(lines)
            if sent:
                self._done(queue, lines[:sent])
                backoff.reset()
                if away and failure is None:
                    away = False
                    log.info("Readings are taken again, %d were lost meanwhile", queue.dropped)
            if failure is not None:
                if not away:
                    away = True
                    log.warning("Readings wait: %s", failure)
                await asyncio.sleep(backoff.next_s(self._rng))

    def _done(self, queue: Outbox, lines: list[bytes]) -> None:
        # The queue may have dropped its oldest while they were sent.
        still = queue.peek(len(lines))
        count = len(lines)
        while count and still[:count] != lines[len(lines) - count :]:
            count -= 1
        try:
            queue.done(count)
        except OSError as error:
            self._say("cannot write the buffer of readings: %s", error)

    async def _send(self, lines: list[bytes]) -> tuple[int, Exception | None]:
        """Send in order.  Returns how many are done with, and why it stopped."""
        items: list[Outgoing] = []
        for line in lines:
            item = _decoded(line)
            if item is None:
                break
            items.append(item)
        if not items:
            self._refused("its record cannot be read")
            return 1, None
        progress = Progress()
        failure = None
        try:
            await SINKS[items[0].kind](items, progress)
        except DeviceError as error:
            failure = error
        self.counts["sent"] += progress.sent
        for why in progress.refused:
            self._refused(why)
        return progress.done, failure

    def _refused(self, why: str) -> None:
        self.counts["refused"] += 1
        self._say("a reading is refused: %s", why)

    def _say(self, text: str, detail: object) -> None:
        line = text % detail
        if line not in self._said:
            if len(self._said) > 1000:
                self._said.clear()
            self._said.add(line)
            log.warning("Push: %s", line)


def _decoded(line: bytes) -> Outgoing | None:
    """None for what a crash has torn, or for a kind of place that was known to another version."""
    try:
        found = msgspec.json.decode(line, type=Outgoing)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    return found if found.kind in SINKS else None
