"""Questions and their answers."""

from __future__ import annotations

import asyncio

import pytest

from beehive.errors import NotFound, Refused, SkerryError, Unavailable
from beehive.message import Failure, Message, Op, reply
from edgecore.metamanager.manager import MetaManager
from tests.unit.edgecore.metamanager.scene import Line, Memory, on


def test_a_question_without_a_link_or_an_answer_is_unavailable() -> None:
    async def offline(meta: MetaManager, store: Memory, line: Line) -> None:
        with pytest.raises(Unavailable, match="no link"):
            await meta.fetch("configmap", "d", "a")

    async def silent(meta: MetaManager, store: Memory, line: Line) -> None:
        with pytest.raises(Unavailable, match="did not answer"):
            await meta.fetch("configmap", "d", "a")

    async def cut(meta: MetaManager, store: Memory, line: Line) -> None:
        line.on_send = lambda message: meta.disconnected()
        with pytest.raises(Unavailable, match="lost before"):
            await meta.fetch("configmap", "d", "a")

    on(offline, linked=False)
    on(silent)
    on(cut)


@pytest.mark.parametrize(
    ("reason", "error"), [("NotFound", NotFound), ("Forbidden", Refused), ("Unavailable", Unavailable)]
)
def test_a_refused_question_raises_what_the_cloud_said(reason: str, error: type[SkerryError]) -> None:
    async def scene(meta: MetaManager, store: Memory, line: Line) -> None:
        def answer(question: Message) -> None:
            failure = reply(question, Failure(reason=reason, message="no"), operation=Op.ERROR)
            asyncio.get_running_loop().call_soon(meta.answered, failure)

        line.on_send = answer
        with pytest.raises(error, match="no"):
            await meta.ask(Op.QUERY, "d/configmap/a")

    on(scene)
