"""How the readings that wait for one address get there: a way for each kind of place.

A way takes readings in their order and keeps a `Progress`, which says how far it came also when the place goes away in the
middle.  What a place refuses for good does not hold up what comes after it."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from mappers.framework import http, push, resp
from mappers.framework.errors import DeviceError, DriverError
from mappers.framework.push import Outgoing

TIMEOUT_S = 10.0
NO_METRIC = "a text is no metric"
TDENGINE_NO_TABLE = (0x0362, 0x2603, 0x2662)
"""Codes of TDengine 2 and 3: invalid table name, table does not exist."""


@dataclass(slots=True)
class Progress:
    """What became of the readings so far, from the first on.  refused: for each that was, why."""

    sent: int = 0
    refused: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """How many need not be sent again."""
        return self.sent + len(self.refused)


class Sink(Protocol):
    """Sends readings of one kind to their one address.  Raises: DeviceError, when trying again later can help."""

    async def __call__(self, items: Sequence[Outgoing], progress: Progress) -> None: ...


def _one_by_one(send: Callable[[Outgoing], Awaitable[None]]) -> Sink:
    async def each(items: Sequence[Outgoing], progress: Progress) -> None:
        for item in items:
            try:
                await send(item)
            except DriverError as error:
                progress.refused.append(str(error))
            else:
                progress.sent += 1

    return each


def _together(send: Callable[[Sequence[Outgoing]], Awaitable[None]]) -> Sink:
    """All in one call, and one by one if that is refused: a bad one must not take the others with it."""

    async def each(item: Outgoing) -> None:
        await send([item])

    async def all_(items: Sequence[Outgoing], progress: Progress) -> None:
        try:
            await send(items)
        except DriverError as error:
            if len(items) > 1:
                await _one_by_one(each)(items, progress)
            else:
                progress.refused.append(str(error))
        else:
            progress.sent += len(items)

    return all_


async def _form(item: Outgoing) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    await _ask(item.to, item.body, headers, item.timeout_s)


async def _points(items: Sequence[Outgoing]) -> None:
    token = os.environ.get("TOKEN", "")  # KubeEdge's name for it
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    if token:
        headers["Authorization"] = f"Token {token}"
    await _ask(items[0].to, "\n".join(item.body for item in items), headers, TIMEOUT_S)


async def _metrics(items: Sequence[Outgoing]) -> None:
    if not all(item.body for item in items):
        raise DriverError(NO_METRIC)
    body = push.metrics(item.body for item in items)
    await _ask(items[0].to, body, {"Content-Type": "application/json"}, TIMEOUT_S)


async def _members(items: Sequence[Outgoing], progress: Progress) -> None:
    """In one connection to Redis.  What is sent twice is there once."""
    commands = []
    for item in items:
        score, _, member = item.body.partition(" ")
        commands.append(resp.command("ZADD", item.topic, score, member))
    password = os.environ.get("PASSWORD", "")  # KubeEdge's name for it
    for wrong in await asyncio.to_thread(resp.run, items[0].to, password, commands, TIMEOUT_S):
        if wrong:
            progress.refused.append(wrong)
        else:
            progress.sent += 1


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """What TDengine's REST interface answers."""

    code: int = 0
    desc: str = ""


async def _statement(items: Sequence[Outgoing]) -> None:
    """One INSERT at TDengine; the table is made when it is missing."""
    url, statement = items[0].to, "INSERT INTO " + " ".join(item.body for item in items)
    user, password = os.environ.get("USERNAME", "root"), os.environ.get("PASSWORD", "taosdata")
    headers = {"Authorization": http.basic(user, password), "Content-Type": "text/plain; charset=utf-8"}
    for text in (statement, push.TDENGINE_TABLE, statement):
        answer = await _ask(url, text, headers, TIMEOUT_S)
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


async def _rows(items: Sequence[Outgoing]) -> None:
    """One transaction at MySQL."""
    try:
        from mappers.framework import mysql  # PyMySQL is loaded only where it is used
    except ImportError:
        raise DeviceError("MySQL needs the extra `mappers-mysql`") from None
    try:
        rows = [(item.topic, *msgspec.json.decode(item.body, type=tuple[str, str])) for item in items]
    except msgspec.DecodeError as error:
        raise DriverError(f"no row of a table: {error}") from error
    await asyncio.to_thread(mysql.insert, items[0].to, os.environ.get("PASSWORD", ""), rows)


async def _publish(items: Sequence[Outgoing], progress: Progress) -> None:
    """One connection to the broker for all of them."""
    try:
        from mappers.framework import mqtt  # paho is loaded only where it is used

        link = mqtt.Link.use(mqtt.broker_of(items[0].to))
    except (DriverError, ImportError) as error:
        progress.refused += [str(error)] * len(items)
        return

    async def one(item: Outgoing) -> None:
        await link.publish(item.topic, item.body.encode(), qos=item.qos, retain=item.retained)

    try:
        await link.wait(5)
        await _one_by_one(one)(items, progress)
    finally:
        await link.leave()


async def _ask(url: str, body: str, headers: dict[str, str], timeout_s: float) -> bytes:
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


SINKS: Mapping[str, Sink] = {
    "http": _one_by_one(_form),
    "influx": _together(_points),
    "otlp": _together(_metrics),
    "redis": _members,
    "tdengine": _together(_statement),
    "mysql": _together(_rows),
    "mqtt": _publish,
}
"""By `Outgoing.kind`."""
