"""Answers of both kinds of hub."""

from typing import Any

import pytest

from beehive.errors import Conflict, NotFound, ProtocolError, Refused, Unavailable
from beehive.message import Failure, Message, Op, new
from edgecore.metamanager import answers
from edgecore.metamanager.answers import AlreadyExists
from tests.vectors_kubeedge import frames


def answer(content: Any, operation: str = Op.RESPONSE) -> Message:
    return new(
        source="edgecontroller",
        group="resource",
        operation=operation,
        resource="d/configmap/c",
        content=content,
        parent="q",
    )


def status(code: int, reason: str = "", message: str = "why") -> dict[str, Any]:
    return {
        "ErrStatus": {"metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code}
    }


def test_an_object_is_the_answer() -> None:
    found = answers.read(answer({"metadata": {"name": "c"}}))
    assert found is not None
    assert bytes(found) == b'{"metadata":{"name":"c"}}'


def test_ok_and_null_are_nothing() -> None:
    assert answers.read(answer("OK")) is None
    assert answers.read(answer(None)) is None


def test_an_object_response_is_unwrapped() -> None:
    found = answers.read(answer({"Object": {"a": 1}, "Err": None}))
    assert found is not None
    assert bytes(found) == b'{"a":1}'
    assert answers.read(answer({"Object": None, "Err": {}})) is None


@pytest.mark.parametrize(
    ("code", "reason", "kind", "final"),
    [
        (404, "NotFound", NotFound, True),
        (403, "Forbidden", Refused, True),
        (422, "Invalid", Refused, True),
        (409, "Conflict", Conflict, True),
        (409, "AlreadyExists", AlreadyExists, True),
        (429, "TooManyRequests", Unavailable, False),
        (500, "InternalError", Unavailable, False),
        (0, "", Unavailable, False),
    ],
)
def test_a_status_becomes_our_error(code: int, reason: str, kind: type[Exception], final: bool) -> None:
    with pytest.raises(kind, match="why") as caught:
        answers.read(answer(status(code, reason)))
    assert answers.is_final(caught.value) is final  # type: ignore[arg-type]
    if code:
        with pytest.raises(kind):
            answers.read(answer({"Object": None, "Err": status(code, reason)}))


def test_an_existing_object_comes_along() -> None:
    with pytest.raises(AlreadyExists) as caught:
        answers.read(answer({"Object": {"n": 1}, "Err": status(409, "AlreadyExists")}))
    assert caught.value.existing is not None
    assert bytes(caught.value.existing) == b'{"n":1}'


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("NotFound", NotFound), ("Forbidden", Refused), ("Conflict", Conflict), ("Whatever", Unavailable)],
)
def test_our_hubs_failures(reason: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        answers.read(answer(Failure(reason=reason, message="m"), Op.ERROR))


def test_a_plain_error_text_may_be_tried_again() -> None:
    with pytest.raises(Unavailable, match="no idea"):
        answers.read(answer("no idea", Op.ERROR))


def test_nonsense_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        answers.read(answer({"ErrStatus": 5}))
    with pytest.raises(ProtocolError):
        answers.read(answer({"Object": None, "Err": {"ErrStatus": []}}))


def test_every_recorded_answer_of_a_stock_hub_can_be_read() -> None:
    found = refused = 0
    for frame in frames("down"):
        if not frame["header"].get("parent_msg_id"):
            continue
        try:
            answers.read(answer(frame["content"]))
            found += 1
        except NotFound:
            refused += 1
    assert found > 50
    assert refused > 0
