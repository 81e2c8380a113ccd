"""Both ends of the link as state machines: beehive.session."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from beehive import codec, session
from beehive.message import Failure, Inventory, InventoryEntry, Message, digest, new, reply
from beehive.session import (
    Acked,
    Alive,
    Answered,
    Close,
    Compare,
    Declined,
    Difference,
    EdgeSession,
    Failed,
    Forward,
    HubSession,
    Send,
    State,
    keepalive,
)

VECTORS = Path(__file__).parents[2] / "vectors" / "kubeedge" / "hub.jsonl"


def frame(
    source: str, group: str, operation: str, resource: str, content: object = None, parent: str = ""
) -> Message:
    return new(
        source=source, group=group, operation=operation, resource=resource, content=content, parent=parent
    )


def hub(*, ours: bool = True) -> HubSession:
    machine = HubSession(node="edge-1", ours=ours, number=3, opened_at=0.0)
    machine.opened(0.0)
    return machine


def test_our_edge_is_live_after_its_inventory_and_a_stock_one_at_once() -> None:
    assert hub(ours=False).state is State.LIVE
    machine = hub()
    assert machine.state is State.SYNCING
    inventory = Inventory(objects={"u": InventoryEntry("ns/pod/p", "7")})
    assert machine.handle_frame(
        frame("metamanager", "resource", "inventory", "null/node/edge-1", inventory), 1.0
    ) == [Difference(inventory)]
    assert machine.state is State.LIVE


def test_an_edge_says_what_it_holds_once_a_session() -> None:
    machine = hub()
    message = frame("metamanager", "resource", "inventory", "null/node/edge-1", {"objects": {}})
    assert machine.handle_frame(message, 1.0) == [Difference(Inventory(objects={}))]
    assert machine.handle_frame(message, 1.0) == []
    assert machine.handle_frame(message, 1.0) == []
    (command,) = machine.handle_frame(message, 1.0)
    assert isinstance(command, Close)
    assert command.code == session.CLOSE_BAD_FRAME


@pytest.mark.parametrize(
    ("message", "part"),
    [
        (frame("edged", "meta", "query", "ns/configmap/c"), "edgecontroller"),
        (frame("edged", "meta", "patch", "ns/podpatch/p", "{}"), "edgecontroller"),
        (frame("metaserver", "dynamiccontroller", "null", "null"), "dynamiccontroller"),
        (frame("twin", "resource", "update", "device/ns/d/twin/edge_updated"), "devicecontroller"),
        (frame("bus", "user", "upload", "ns/topic"), "router"),
        (frame("websocket", "hub", "UpdateNodeActionStatus", "operations/x"), "taskmanager"),
        (frame("metamanager", "meta", "query", "k8s/ca.crt"), "cloudhub"),
        (frame("cloudhub", "resource", "response", "default/volume/v", parent="x"), "csi"),
    ],
)
def test_the_hub_routes_by_source_and_operation(message: Message, part: str) -> None:
    assert hub().handle_frame(message, 1.0) == [Forward(part, message)]


@pytest.mark.parametrize(
    "source", ["edgecontroller", "devicecontroller", "cloudhub", "synccontroller", "cloudStream"]
)
def test_an_edge_that_speaks_as_a_cloud_part_is_not_heard(source: str) -> None:
    assert hub().handle_frame(frame(source, "meta", "update", "ns/pod/p"), 1.0) == []


def test_acks_of_both_kinds() -> None:
    push = frame("edgecontroller", "resource", "insert", "ns/pod/p")
    assert hub().handle_frame(reply(push), 1.0) == [Acked((push.id,))]
    assert hub().handle_frame(frame("metamanager", "resource", "ack", "", ["a", "b"]), 1.0) == [
        Acked(("a", "b"))
    ]
    failed = reply(push, "disk full", operation="error")
    assert hub().handle_frame(failed, 1.0) == [Failed(push.id, "disk full")]


def test_keepalive() -> None:
    assert hub().handle_frame(keepalive(), 1.0) == [Alive()]


def test_a_stock_edge_cannot_use_our_operations() -> None:
    message = frame("metamanager", "resource", "inventory", "null/node/edge-1", {"objects": {}})
    assert hub(ours=False).handle_frame(message, 1.0) == [Forward("edgecontroller", message)]


@pytest.mark.parametrize(
    "content", [None, [], "x", 7, {"objects": []}, {"objects": {"a": "b"}}, {"objects": {"a": [1, 2]}}]
)
def test_the_third_bad_frame_closes(content: object) -> None:
    machine = hub()
    bad = frame("metamanager", "resource", "inventory", "null/node/edge-1", content)
    assert machine.handle_frame(bad, 1.0) == []
    assert machine.handle_frame(bad, 1.0) == []
    (command,) = machine.handle_frame(bad, 1.0)
    assert isinstance(command, Close)
    assert command.code == session.CLOSE_BAD_FRAME
    assert machine.handle_frame(keepalive(), 2.0) == [], "a closed session hears nothing"


def test_silence_closes_sooner_for_ours_than_for_stock() -> None:
    for ours, limit in ((True, session.SILENCE_S), (False, session.STOCK_SILENCE_S)):
        machine = hub(ours=ours)
        machine.state = State.LIVE
        assert machine.tick(limit) == []
        machine.heard(limit)
        assert machine.tick(2 * limit) == []
        (command,) = machine.tick(2 * limit + 0.1)
        assert isinstance(command, Close)
        assert machine.tick(3 * limit) == []


def test_no_inventory_no_session() -> None:
    machine = hub()
    machine.heard(session.INVENTORY_S)
    (command,) = machine.tick(session.INVENTORY_S + 0.1)
    assert isinstance(command, Close)


def test_only_a_higher_number_takes_over() -> None:
    machine = hub()
    assert machine.replaced(3) == []
    assert machine.replaced(2) == []
    (command,) = machine.replaced(4)
    assert isinstance(command, Close)
    assert command.code == session.CLOSE_REPLACED


def edge(*, ours: bool = True) -> EdgeSession:
    machine = EdgeSession(node="edge-1", ours=ours)
    machine.opened(Inventory(objects={}), 0.0)
    return machine


def test_the_edge_speaks_first_and_lists_what_it_holds_only_to_ours() -> None:
    for ours, operations in ((True, ["keepalive", "inventory"]), (False, ["keepalive"])):
        machine = EdgeSession(node="edge-1", ours=ours)
        commands = machine.opened(Inventory(objects={}), 0.0)
        assert [c.message.route.operation for c in commands if isinstance(c, Send)] == operations


def test_keepalives_are_due_every_interval() -> None:
    machine = edge(ours=False)
    assert machine.tick(session.KEEPALIVE_S - 0.1) == []
    (command,) = machine.tick(session.KEEPALIVE_S)
    assert isinstance(command, Send)
    assert machine.tick(session.KEEPALIVE_S + 1) == []
    # ours hears pings, and an idle link costs less
    machine = edge(ours=True)
    machine.heard(session.KEEPALIVE_S)
    assert machine.tick(session.KEEPALIVE_S) == []


def test_the_edge_ends_a_silent_link_to_ours_but_not_to_a_stock_hub() -> None:
    (command,) = [c for c in edge().tick(session.SILENCE_S + 0.1) if isinstance(c, Close)]
    assert command.code == session.CLOSE_SILENT
    assert not [c for c in edge(ours=False).tick(600.0) if isinstance(c, Close)]


@pytest.mark.parametrize(
    ("message", "part"),
    [
        (frame("edgecontroller", "resource", "insert", "ns/pod/p"), "metamanager"),
        (frame("devicecontroller", "twin", "update", "membership"), "devicetwin"),
        (frame("devicecontroller", "twin", "response", "twin", "OK", parent="x"), "devicetwin"),
        (frame("router_eventbus", "user", "publish", "topic"), "eventbus"),
        (frame("router_servicebus", "user", "GET", "80:/"), "servicebus"),
        (frame("taskmanager", "taskmanager", "Check", "operations/x"), "taskmanager"),
    ],
)
def test_the_edge_routes_by_group(message: Message, part: str) -> None:
    assert edge().handle_frame(message, 1.0) == [Forward(part, message)]


def test_an_answer_goes_to_who_waits() -> None:
    answer = frame("edgecontroller", "resource", "response", "ns/secret/s", {}, parent="q")
    assert edge().handle_frame(answer, 1.0) == [Answered(answer)]


def test_unknown_groups_are_nobodys() -> None:
    assert edge().handle_frame(frame("x", "nobody", "insert", "ns/pod/p"), 1.0) == []


def test_every_recorded_frame_has_an_answer_in_both_roles() -> None:
    """Total: no frame of a stock pair raises, and what a stock edge sends is understood."""
    up_parts, down_parts = set(), set()
    hub_machine, edge_machine = hub(ours=False), edge(ours=False)
    for record in map(json.loads, VECTORS.read_text().splitlines()):
        if record["dir"] == "up":
            for command in hub_machine.handle_frame(codec.decode(record["text"]), 1.0):
                up_parts.add(command.to if isinstance(command, Forward) else type(command).__name__)
        elif record["dir"] == "down":
            for command in edge_machine.handle_frame(codec.decode(record["text"]), 1.0):
                down_parts.add(command.to if isinstance(command, Forward) else type(command).__name__)
    assert {"edgecontroller", "devicecontroller", "dynamiccontroller", "Alive", "Acked"} <= up_parts
    assert {"metamanager", "devicetwin", "Answered"} <= down_parts


def test_an_edge_of_ours_says_whether_sending_again_can_help() -> None:
    def error(content: object, *, ours: bool = True) -> list[session.Command]:
        return hub(ours=ours).handle_frame(
            frame("metamanager", "resource", "error", "d/pod/a", content, parent="m"), 1.0
        )

    bad = Failure(reason="ProtocolError", message="a bad UID")
    assert error(bad) == [Declined("m", "a bad UID")]
    assert error(Failure(reason="Unavailable", message="a full disk")) == [Failed("m", "a full disk")]
    assert error("text") == [Failed("m", "text")]
    assert error("text", ours=False) == [Failed("m", "text")]
    assert isinstance(error(bad, ours=False)[0], Failed)


def test_a_second_inventory_is_welcome_when_it_was_asked_for() -> None:
    machine = hub()
    message = frame("metamanager", "resource", "inventory", "null/node/edge-1", {"objects": {}})
    assert not machine.ask(), "the first has not come yet"
    machine.handle_frame(message, 1.0)
    assert machine.ask()
    assert not machine.ask(), "one at a time"
    assert machine.handle_frame(message, 2.0) == [Difference(Inventory(objects={}))]
    assert machine.handle_frame(message, 3.0) == []
    assert machine.bad_frames == 1
    assert not hub(ours=False).ask()


def test_a_digest_is_compared_once_the_inventory_came() -> None:
    machine = hub()
    said = frame("metamanager", "resource", "digest", "null/node/edge-1", digest({"u": 7}))
    assert machine.handle_frame(said, 1.0) == []
    machine.handle_frame(
        frame("metamanager", "resource", "inventory", "null/node/edge-1", {"objects": {}}), 1.0
    )
    assert machine.handle_frame(said, 2.0) == [Compare(digest({"u": 7}))]


def test_an_edge_that_is_asked_tells_and_one_of_a_stock_hub_is_not() -> None:
    asked = frame("cloudhub", "resource", "inventory", "null/node/edge-1")
    for ours, expected in ((True, [session.Tell()]), (False, [Forward("metamanager", asked)])):
        edge = EdgeSession(node="edge-1", ours=ours)
        edge.opened(Inventory(objects={}), 0.0)
        assert edge.handle_frame(asked, 1.0) == expected
