"""What becomes of readings that a place takes, refuses, or is not there for."""

import asyncio
from collections.abc import Sequence

import pytest

from mappers.framework import http, resp
from mappers.framework.errors import DeviceError
from mappers.framework.push import Outgoing
from mappers.framework.sinks import SINKS, Progress


def readings(kind: str, *bodies: str) -> list[Outgoing]:
    return [Outgoing(kind=kind, to="http://there", body=body, topic="t") for body in bodies]


class Place:
    """Answers by what it was sent: `bad` is refused for good, `away` makes it go."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def request(self, method: str, url: str, *, body: bytes, **_: object) -> http.Answer:
        text = body.decode()
        self.calls.append(text)
        if "away" in text:
            raise DeviceError("no answer from there")
        return http.Answer(status=400 if "bad" in text else 204, body=b"why")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    found = Place()
    monkeypatch.setattr(http, "request", found.request)
    return found


def send(kind: str, items: Sequence[Outgoing]) -> tuple[Progress, DeviceError | None]:
    progress = Progress()
    try:
        asyncio.run(SINKS[kind](items, progress))
    except DeviceError as error:
        return progress, error
    return progress, None


def test_one_by_one_it_stops_where_the_place_went(place: Place) -> None:
    progress, failure = send("http", readings("http", "a", "bad", "b", "away", "c"))
    assert (progress.sent, len(progress.refused), progress.done) == (2, 1, 3)
    assert failure is not None
    assert place.calls == ["a", "bad", "b", "away"]


def test_together_is_one_call(place: Place) -> None:
    assert send("influx", readings("influx", "a", "b", "c")) == (Progress(sent=3), None)
    assert place.calls == ["a\nb\nc"]


def test_one_that_is_refused_does_not_take_the_others_with_it(place: Place) -> None:
    progress, failure = send("influx", readings("influx", "a", "bad", "b"))
    assert (progress.sent, progress.done, failure) == (2, 3, None)
    assert progress.refused == ["http://there answers 400 why"]
    assert place.calls == ["a\nbad\nb", "a", "bad", "b"]


def test_a_place_that_goes_after_a_refusal_keeps_the_rest_waiting(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([400, 204, 503])
    monkeypatch.setattr(http, "request", lambda *_, **__: http.Answer(status=next(answers), body=b""))
    progress, failure = send("influx", readings("influx", "a", "b", "c"))
    assert (progress.sent, progress.done) == (1, 1)
    assert str(failure) == "http://there answers 503"


def test_a_text_that_an_older_version_queued_is_refused_and_the_others_are_sent(place: Place) -> None:
    progress, failure = send("otlp", readings("otlp", '{"a":1}', "", '{"b":2}'))
    assert (progress.sent, progress.refused, failure) == (2, ["a text is no metric"], None)
    assert place.calls == ['{"resourceMetrics":[{"a":1}]}', '{"resourceMetrics":[{"b":2}]}']


def test_a_row_that_is_none_is_refused_and_asks_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    mysql = pytest.importorskip("mappers.framework.mysql", reason="PyMySQL is not installed")
    asked: list[object] = []
    monkeypatch.setattr(mysql, "insert", lambda to, password, rows: asked.extend(rows))
    progress, failure = send("mysql", readings("mysql", '["2026-01-01 00:00:00","5"]', "[1]"))
    assert (progress.sent, len(progress.refused), failure) == (1, 1, None)
    assert asked == [("t", "2026-01-01 00:00:00", "5")]


def test_redis_answers_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resp, "run", lambda *_: ["", "WRONGTYPE no set", ""])
    progress, _ = send("redis", readings("redis", "1 a", "2 b", "3 c"))
    assert (progress.sent, progress.refused) == (2, ["WRONGTYPE no set"])


def test_an_address_that_is_no_broker_is_refused() -> None:
    items = [Outgoing(kind="mqtt", to="nonsense://x", body="", topic="t")] * 2
    progress, failure = send("mqtt", items)
    assert (progress.done, progress.sent, failure) == (2, 0, None)


@pytest.mark.parametrize(
    ("status", "again"), [(204, None), (401, True), (429, True), (503, True), (404, False)]
)
def test_which_answers_are_worth_another_try(
    status: int, again: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "request", lambda *_, **__: http.Answer(status=status, body=b""))
    progress, failure = send("http", readings("http", "a"))
    assert (failure is not None) is bool(again)
    assert progress.sent == (again is None)
