"""Sends readings to where the manifests say, through a queue on disk for each address.

An address that is away stalls no other; what it misses waits, up to a bound, and arrives with the time it was read at.  What
an address refuses for good is dropped, counted, and said once."""

import asyncio
import hashlib
import logging
import os
import random
from collections import Counter
from pathlib import Path

import msgspec

from beehive import clock
from beehive.backoff import Backoff
from mappers.framework import http, push, resp
from mappers.framework.driver import Property
from mappers.framework.errors import DeviceError, DriverError
from mappers.framework.outbox import Outbox
from mappers.framework.poller import Sample
from mappers.framework.push import Outgoing

log = logging.getLogger(__name__)

BATCH = 500
RETRY_BASE_S, RETRY_CAP_S = 0.5, 60.0
MAX_ADDRESSES = 64
TDENGINE_NO_TABLE = (0x0362, 0x2603, 0x2662)
"""Codes of TDengine 2 and 3: invalid table name, table does not exist."""


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """What TDengine's REST interface answers."""

    code: int = 0
    desc: str = ""


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
        items: list[Outgoing | None] = [_decoded(line) for line in lines]
        first = next((item for item in items if item is not None), None)
        if first is None:
            self.counts["refused"] += len(items)
            return len(items), None
        if first.kind == "influx":
            return await self._send_points(items)
        if first.kind == "otlp":
            return await self._send_metrics(items)
        if first.kind == "redis":
            return await self._add_to_sets(items)
        if first.kind == "tdengine":
            return await self._insert(items)
        if first.kind == "mysql":
            return await self._add_rows(items)
        if first.kind == "mqtt":
            return await self._publish(first.to, items)
        for done, item in enumerate(items):
            try:
                if item is not None:
                    await self._post(item)
                    self.counts["sent"] += 1
            except DriverError as error:
                self._refused(1, error)
            except DeviceError as error:
                return done, error
        return len(items), None

    async def _send_points(self, items: list[Outgoing | None]) -> tuple[int, Exception | None]:
        """Many points in one call."""
        points = [item for item in items if item is not None]
        token = os.environ.get("TOKEN", "")  # KubeEdge's name for it
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if token:
            headers["Authorization"] = f"Token {token}"
        body = "\n".join(item.body for item in points)
        try:
            await self._ask(points[0].to, body, headers, 10.0)
        except DriverError as error:
            if len(points) > 1:  # one bad point must not take the others with it
                for done, item in enumerate(items):
                    _, failure = await self._send_points([item]) if item is not None else (1, None)
                    if failure is not None:
                        return done, failure
                return len(items), None
            self._refused(1, error)
            return len(items), None
        except DeviceError as error:
            return 0, error
        self.counts["sent"] += len(points)
        return len(items), None

    async def _send_metrics(self, items: list[Outgoing | None]) -> tuple[int, Exception | None]:
        """Many metrics in one call."""
        good = [item for item in items if item is not None and item.body]
        if len(good) < len(items):
            self._refused(len(items) - len(good), DriverError("a text is no metric"))
        if not good:
            return len(items), None
        headers = {"Content-Type": "application/json"}
        try:
            await self._ask(good[0].to, push.metrics(item.body for item in good), headers, 10.0)
        except DriverError as error:
            self._refused(len(good), error)
        except DeviceError as error:
            return 0, error
        else:
            self.counts["sent"] += len(good)
        return len(items), None

    async def _add_to_sets(self, items: list[Outgoing | None]) -> tuple[int, Exception | None]:
        """Many members in one connection.  What is sent twice is there once."""
        good = [item for item in items if item is not None]
        commands = []
        for item in good:
            score, _, member = item.body.partition(" ")
            commands.append(resp.command("ZADD", item.topic, score, member))
        password = os.environ.get("PASSWORD", "")  # KubeEdge's name for it
        try:
            answers = await asyncio.to_thread(resp.run, good[0].to, password, commands, 10.0)
        except DeviceError as error:
            return 0, error
        for wrong in answers:
            if wrong:
                self._refused(1, DriverError(wrong))
            else:
                self.counts["sent"] += 1
        return len(items), None

    async def _insert(self, items: list[Outgoing | None]) -> tuple[int, Exception | None]:
        """Many rows in one statement, and one by one if that is refused."""
        good = [item for item in items if item is not None]
        try:
            await self._sql(good[0].to, "INSERT INTO " + " ".join(item.body for item in good))
        except DriverError as error:
            if len(good) == 1:
                self._refused(1, error)
                return len(items), None
            for done, item in enumerate(items):
                _, failure = await self._insert([item]) if item is not None else (1, None)
                if failure is not None:
                    return done, failure
            return len(items), None
        except DeviceError as error:
            return 0, error
        self.counts["sent"] += len(good)
        return len(items), None

    async def _add_rows(self, items: list[Outgoing | None]) -> tuple[int, Exception | None]:
        """Many rows in one transaction, and one by one if that is refused."""
        rows = [(item.topic, *msgspec.json.decode(item.body, type=tuple[str, str])) for item in items if item]
        try:
            from mappers.framework import mysql  # PyMySQL is loaded only where it is used

            to = next(item.to for item in items if item)
            await asyncio.to_thread(mysql.insert, to, os.environ.get("PASSWORD", ""), rows)
        except ImportError:
            return 0, DeviceError("MySQL needs the extra `mappers-mysql`")
        except DriverError as error:
            if len(rows) == 1:
                self._refused(1, error)
                return len(items), None
            for done, item in enumerate(items):
                _, failure = await self._add_rows([item]) if item is not None else (1, None)
                if failure is not None:
                    return done, failure
            return len(items), None
        except DeviceError as error:
            return 0, error
        self.counts["sent"] += len(rows)
        return len(items), None

    async def _sql(self, url: str, statement: str) -> None:
        """One statement at TDengine; the table is made when it is missing.  Raises: DeviceError, DriverError."""
        user, password = os.environ.get("USERNAME", "root"), os.environ.get("PASSWORD", "taosdata")
        headers = {"Authorization": http.basic(user, password), "Content-Type": "text/plain; charset=utf-8"}
        for text in (statement, push.TDENGINE_TABLE, statement):
            answer = await self._ask(url, text, headers, 10.0)
            try:
                told = msgspec.json.decode(answer, type=_Told)
            except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
                raise DeviceError(f"{url} gives no answer of TDengine's") from error
            if told.code == 0 and text is statement:
                return
            missing = told.code & 0xFFFF in TDENGINE_NO_TABLE
            if told.code != 0 and not (missing and text is statement):
                raise DriverError(f"{url} says {told.code:#x} {told.desc[:128]}")
        raise DeviceError(f"{url} has no table `readings` and makes none")

    async def _post(self, item: Outgoing) -> None:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        await self._ask(item.to, item.body, headers, item.timeout_s)

    async def _ask(self, url: str, body: str, headers: dict[str, str], timeout_s: float) -> bytes:
        """Raises: DeviceError if trying again can help, else DriverError."""
        answer = await asyncio.to_thread(
            http.request, "POST", url, body=body.encode(), headers=headers, timeout_s=timeout_s
        )
        if answer.status >= 500 or answer.status in (401, 403, 408, 429):  # a token may be set right
            raise DeviceError(f"{url.partition('?')[0]} answers {answer.status}")
        if not 200 <= answer.status < 300:
            detail = answer.body[:128].decode("utf-8", "replace")
            raise DriverError(f"{url.partition('?')[0]} answers {answer.status} {detail}")
        return answer.body

    async def _publish(self, address: str, items: list[Outgoing | None]) -> tuple[int, Exception | None]:
        """One connection for all of them."""
        try:
            from mappers.framework import mqtt  # paho is loaded only where it is used

            link = mqtt.Link.use(mqtt.broker_of(address))
        except (DriverError, ImportError) as error:
            self._refused(len(items), error)
            return len(items), None
        done = 0
        try:
            await link.wait(5)
            for done, item in enumerate(items):  # noqa: B007
                try:
                    if item is not None:
                        await link.publish(item.topic, item.body.encode(), qos=item.qos, retain=item.retained)
                        self.counts["sent"] += 1
                except DriverError as error:
                    self._refused(1, error)
            return len(items), None
        except DeviceError as error:
            return done, error
        finally:
            await link.leave()

    def _refused(self, count: int, error: Exception) -> None:
        self.counts["refused"] += count
        self._say("a reading is refused: %s", error)

    def _say(self, text: str, detail: object) -> None:
        line = text % detail
        if line not in self._said:
            if len(self._said) > 1000:
                self._said.clear()
            self._said.add(line)
            log.warning("Push: %s", line)


def _decoded(line: bytes) -> Outgoing | None:
    try:
        return msgspec.json.decode(line, type=Outgoing)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None  # torn by a crash
