from __future__ import annotations

import asyncio

from beehive.delivery import Item
from beehive.errors import Refused, Unavailable
from beehive.message import FINAL_REASONS, Failure, Group, Message, Op, Source, new
from beehive.session import Close, Declined, Forward, HubSession
from cloudcore.cloudhub.dispatch import FINISHED, Dispatcher, Outcome, lane_key
from cloudcore.cloudhub.lanes import Lanes
from cloudcore.cloudhub.nodes import MAX_REPLIES, Link, Nodes


def link(number: int = 1, *, ours: bool = True, node: str = "a") -> Link:
    session = HubSession(node=node, ours=ours, number=number, opened_at=0.0)
    session.opened(0.0)
    return Link(session)


def message(resource: str = "ns/pod/web", operation: str = Op.UPDATE, source: str = Source.EDGED) -> Message:
    return new(source=source, group=Group.META, operation=operation, resource=resource)


def item(key: str, version: int = 1, *, delete: bool = False) -> Item:
    return Item(key=key, version=version, message=message(), delete=delete)


def test_the_higher_number_holds_the_node_whatever_the_order() -> None:
    nodes = Nodes()
    old, new_ = link(1), link(2)
    assert nodes.open(new_)
    assert not nodes.open(old)
    assert isinstance(old.closing, Close)
    assert nodes.get("a") is new_
    nodes.closed(old)
    assert nodes.get("a") is new_
    nodes.seen_number("a", 2)
    assert new_.closing is None
    nodes.seen_number("a", 3)
    assert isinstance(new_.closing, Close)


def test_answers_go_before_acknowledgements_and_those_before_pushes() -> None:
    one = link()
    assert one.offer(item("u"))
    for message_id in ("x", "y"):
        one.ack(message_id)
    answer = message()
    one.reply(answer)
    assert one.take(0.0) is answer
    acks = one.take(0.0)
    assert acks is not None
    assert acks.decode(list[str]) == ["x", "y"]
    pushed = one.take(0.0)
    assert pushed is not None
    assert one.take(0.0) is None
    one.acked((pushed.id,))
    assert len(one.delivery) == 0


def test_a_stock_edge_is_never_sent_our_words() -> None:
    one = link(ours=False)
    one.ack("x")
    assert one.take(0.0) is None


def test_an_edge_that_takes_no_answers_is_cut_off() -> None:
    one = link()
    for _ in range(MAX_REPLIES + 1):
        one.reply(message())
    assert isinstance(one.closing, Close)


def test_the_inventory_is_acknowledged_when_all_of_it_is_committed() -> None:
    one = link()
    for key in ("early", "late"):
        one.offer(item(key))
    first, second = one.take(0.0), one.take(0.0)
    assert first is not None
    assert second is not None
    one.acked((first.id,))
    one.await_committed({"early", "late"}, "inventory")
    assert one.take(0.0) is None
    one.acked((second.id,))
    acks = one.take(0.0)
    assert acks is not None
    assert acks.decode(list[str]) == ["inventory"]


def test_what_an_edge_can_never_use_does_not_hold_up_the_rest() -> None:
    one = link()
    told: list[tuple[str, str]] = []
    dispatcher = Dispatcher({}, lambda *_: None, lambda link, item, text: told.append((item.key, text)))
    one.offer(item("bad"))
    frame = one.take(0.0)
    assert frame is not None
    one.await_committed({"bad"}, "inventory")
    dispatcher.perform(one, [Declined(frame.id, "a bad UID"), Declined("nobody", "x")])
    acks = one.take(0.0)
    assert acks is not None
    assert acks.decode(list[str]) == ["inventory"]
    assert told == [("bad", "a bad UID")]


def test_silence_ends_a_link_and_quiet_is_asked() -> None:
    nodes = Nodes()
    one = link()
    nodes.open(one)
    nodes.tick(7.0, ping_after_s=6.0)
    assert one.ping_due
    assert one.closing is None
    nodes.tick(9.5, ping_after_s=6.0)
    assert isinstance(one.closing, Close)


def test_lanes_keep_the_order_per_key_and_bound_what_waits() -> None:
    async def go() -> None:
        done: list[str] = []
        gate = asyncio.Event()

        async def work(what: str) -> None:
            if what == "a1":
                await gate.wait()
            done.append(what)

        async with asyncio.TaskGroup() as group:
            lanes = Lanes[str](group, work, width=4, waiting=3)
            for key, what in (("a", "a1"), ("a", "a2"), ("b", "b1")):
                await lanes.submit(key, what)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert done == ["b1"]
            await lanes.submit("c", "c1")
            blocked = group.create_task(lanes.submit("d", "d1"))
            await asyncio.sleep(0)
            gate.set()
            await blocked
        assert done.index("a1") < done.index("a2")
        assert set(done) == {"a1", "a2", "b1", "c1", "d1"}

    asyncio.run(go())


def test_what_a_part_raises_becomes_an_answer() -> None:
    async def outcome(error: Exception | None, *, ours: bool = True) -> Message | None:
        async def part(one: Link, sent: Message) -> Outcome:
            if error is not None:
                raise error
            return FINISHED

        one = link(ours=ours)
        dispatcher = Dispatcher({"edgecontroller": part}, lambda *_: None)
        await dispatcher.forward(one, Forward("edgecontroller", message()))
        return one.take(0.0)

    async def go() -> None:
        taken = await outcome(None)
        assert taken is not None
        assert taken.route.operation == Op.ACK
        for error, reason in (
            (Refused("no"), "Refused"),
            (Refused("no", reason="Invalid"), "Invalid"),
            (Refused("no", reason="SomethingNew"), "Refused"),
            (RuntimeError("a fault"), "InternalError"),
        ):
            # its sender counts it as dropped, and does not send it again
            taken = await outcome(error)
            assert taken is not None
            assert taken.route.operation == Op.ERROR
            assert taken.decode(Failure).reason == reason
            assert reason in FINAL_REASONS
        assert await outcome(Refused("no"), ours=False) is None
        later = await outcome(Unavailable("away"))
        assert later is not None
        assert later.route.operation == Op.ERROR
        assert later.decode(Failure).reason == "Unavailable"
        assert await outcome(Unavailable("away"), ours=False) is None

    asyncio.run(go())


def test_frames_about_one_object_share_a_lane() -> None:
    assert lane_key(message("ns/podpatch/web")) == lane_key(message("ns/pod/web"))
    twin = message("device/ns/room/twin/edge_updated", source=Source.TWIN)
    assert lane_key(twin) == lane_key(message("device/ns/room/state/update", source=Source.TWIN))
