"""What is said to the hub that is of use in this session only."""

from __future__ import annotations

import pytest

from beehive.errors import Refused, Unavailable
from beehive.message import Failure, Op
from edgecore.edgehub.session import Session
from edgecore.metamanager import line as lines
from tests.unit.edgecore.metamanager.scene import Line, push


def _joined(*, ours: bool) -> tuple[lines.Line, Line]:
    down, line = Line(), lines.Line("edge-1")
    line.bind(down)
    line.session = Session("hub:1", ours, 7)
    return line, down


def test_before_there_is_a_link_nothing_is_sent_and_only_a_question_says_so() -> None:
    line = lines.Line("edge-1")
    line.wake()
    line.say(push())
    line.acknowledge([push()])
    assert not line.ours
    with pytest.raises(Unavailable, match="no link"):
        line.send(push())


def test_a_link_that_goes_meanwhile_harms_nobody() -> None:
    line, down = _joined(ours=True)

    def fail(message: object) -> None:
        raise Unavailable("it went")

    down.on_send = fail
    line.acknowledge([push()])
    line.refuse(push(), Refused("no"))


@pytest.mark.parametrize("ours", [True, False])
def test_each_hub_hears_what_it_knows(*, ours: bool) -> None:
    line, down = _joined(ours=ours)
    assert line.ours is ours
    messages = [push(), push(name="b")]
    line.acknowledge(messages)
    line.acknowledge([])
    acks = down.of(Op.ACK) if ours else down.of(Op.RESPONSE)
    ids = [one for ack in acks for one in (ack.decode(list[str]) if ours else [ack.parent])]
    assert ids == [message.id for message in messages]
    line.refuse(messages[0], Refused("n" * 1000))
    (error,) = down.of(Op.ERROR)
    text = error.decode(Failure).message if ours else error.text()
    assert text == "n" * 256
    before = len(down.sent)
    line.thank(messages[0])
    assert len(down.sent) - before == (0 if ours else 1)
