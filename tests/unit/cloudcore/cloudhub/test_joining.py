"""What a joining or renewing machine is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beehive.errors import SkerryError, Unavailable
from beehive.message import Failure, Group, JoinAnswer, JoinRequest, Message, Op, RenewRequest, Source, new
from cloudcore.cloudhub import joining
from cloudcore.errors import JoinRefused

ANSWER = JoinAnswer(certificate="pem", ca="ca")


def frame(operation: str, content: Any) -> Message:
    return new(
        source=Source.METAMANAGER,
        group=Group.HUB,
        operation=operation,
        resource="null/node/a",
        content=content,
    )


def ask(
    message: Message, outcome: JoinAnswer | Exception, *, renew: bool = False
) -> tuple[Message, list[Any]]:
    seen: list[Any] = []

    async def answer(*words: Any) -> JoinAnswer:
        seen.append(words)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    if renew:
        return asyncio.run(joining.renew_answer(answer, message, "edge-1", None, None)), seen
    return asyncio.run(joining.join_answer(answer, message, "192.0.2.1", None)), seen


@pytest.mark.parametrize("renew", [False, True])
@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (ANSWER, ""),
        (JoinRefused("the token is used up", reason="TokenUsedUp"), "TokenUsedUp"),
        (Unavailable("no route"), "Unavailable"),
        (SkerryError("x" * 5000), "Unavailable"),
    ],
)
def test_each_outcome_is_said_in_a_frame(renew: bool, outcome: Any, reason: str) -> None:
    request = RenewRequest(csr="csr") if renew else JoinRequest(node="a", token="t", csr="csr")
    message = frame(Op.RENEW if renew else Op.JOIN, request)
    told, seen = ask(message, outcome, renew=renew)
    assert told.parent == message.id
    assert seen == [("edge-1", "csr", None, None) if renew else (request, "192.0.2.1", None)]
    if not reason:
        assert told.decode(JoinAnswer) == ANSWER
    else:
        assert told.route.operation == Op.ERROR
        failure = told.decode(Failure)
        assert failure.reason == reason
        assert len(failure.message) <= 512


@pytest.mark.parametrize("renew", [False, True])
def test_a_frame_of_another_shape_is_answered(renew: bool) -> None:
    told, seen = ask(frame(Op.JOIN, {"token": 3}), ANSWER, renew=renew)
    assert told.route.operation == Op.ERROR
    assert seen == []
