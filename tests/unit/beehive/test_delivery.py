"""What goes to one peer, in which order, and what again: beehive.delivery."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from beehive.delivery import RESEND_S, Delivery, Item, Priority
from beehive.message import Message, new


def item(
    key: str, version: int, *, delete: bool = False, force: bool = False, priority: Priority = Priority.BULK
) -> Item:
    frame = new(
        source="edgecontroller",
        group="resource",
        operation="delete" if delete else "update",
        resource=f"ns/pod/{key}",
        content=[key, version],
    )
    return Item(key=key, version=version, message=frame, delete=delete, force=force, priority=priority)


def sent(frames: list[Message]) -> list[object]:
    return [frame.decode(object) for frame in frames]


def test_newest_wins_while_waiting() -> None:
    delivery = Delivery()
    for version in (1, 3, 2):
        delivery.offer(item("a", version))
    assert sent(delivery.take(0)) == [["a", 3]]
    assert delivery.take(0) == []
    assert delivery.counters.coalesced == 1


def test_one_frame_per_object_in_flight_and_the_newest_follows_the_ack() -> None:
    delivery = Delivery()
    delivery.offer(item("a", 1))
    (first,) = delivery.take(0)
    delivery.offer(item("a", 2))
    delivery.offer(item("a", 3))
    assert delivery.take(0) == []
    assert delivery.ack(first.id) is not None
    assert sent(delivery.take(0)) == [["a", 3]]


def test_the_window_bounds_what_is_in_flight() -> None:
    delivery = Delivery(window=2)
    for n in range(5):
        delivery.offer(item(str(n), 1))
    frames = delivery.take(0)
    assert sent(frames) == [["0", 1], ["1", 1]]
    delivery.ack(frames[0].id)
    assert sent(delivery.take(0)) == [["2", 1]]
    assert (delivery.in_flight, len(delivery)) == (2, 4)


def test_urgent_first() -> None:
    delivery = Delivery(window=1)
    delivery.offer(item("bulk", 1))
    delivery.offer(item("status", 1, priority=Priority.STATUS))
    assert sent(delivery.take(0)) == [["status", 1]]


def test_what_the_peer_holds_is_not_sent_again() -> None:
    delivery = Delivery()
    delivery.know("a", 5)
    assert not delivery.offer(item("a", 5))
    assert not delivery.offer(item("a", 4))
    assert delivery.offer(item("a", 5, force=True))
    assert delivery.applied("a") == 5


def test_nothing_overtakes_a_delete() -> None:
    delivery = Delivery()
    delivery.offer(item("a", 5, delete=True))
    assert not delivery.offer(item("a", 6))
    (frame,) = delivery.take(0)
    assert not delivery.offer(item("a", 7))
    done = delivery.ack(frame.id)
    assert done is not None
    assert done.delete
    assert (delivery.take(0), len(delivery)) == ([], 0)


def test_a_refused_frame_waits_longer_each_time_and_keeps_its_id() -> None:
    delivery = Delivery()
    delivery.offer(item("a", 1))
    (frame,) = delivery.take(0)
    delivery.fail(frame.id, 0)
    assert delivery.take(0.5) == []
    assert delivery.next_wakeup() == 1.0
    assert [again.id for again in delivery.take(1.0)] == [frame.id]
    delivery.fail(frame.id, 1.0)
    assert delivery.take(2.5) == []
    assert [again.id for again in delivery.take(3.0)] == [frame.id]


def test_news_end_the_wait_of_a_refused_frame() -> None:
    delivery = Delivery()
    delivery.offer(item("a", 1))
    (frame,) = delivery.take(0)
    delivery.fail(frame.id, 0)
    delivery.offer(item("a", 2))
    assert sent(delivery.take(0)) == [["a", 2]]


def test_an_unanswered_frame_goes_again() -> None:
    delivery = Delivery()
    delivery.offer(item("a", 1))
    (frame,) = delivery.take(0)
    assert delivery.take(RESEND_S - 0.1) == []
    assert [again.id for again in delivery.take(RESEND_S)] == [frame.id]
    assert delivery.counters.resent == 1


def test_a_new_session_sends_what_was_in_flight() -> None:
    delivery = Delivery()
    delivery.offer(item("a", 1))
    delivery.offer(item("b", 1))
    old = delivery.take(0)
    delivery.offer(item("b", 2))
    delivery.restart()
    assert delivery.ack(old[0].id) is None, "an ack for the old session"
    assert sent(delivery.take(0)) == [["a", 1], ["b", 2]]


def test_unknown_acks_are_ignored() -> None:
    delivery = Delivery()
    assert delivery.ack("nobody") is None
    assert delivery.fail("nobody", 0) is None


def test_no_growth_per_key() -> None:
    delivery = Delivery()
    for version in range(1000):
        delivery.offer(item("a", version))
    assert len(delivery) == 1
    for _ in range(1000):
        for frame in delivery.take(0):
            delivery.ack(frame.id)
        delivery.offer(item("a", delivery.applied("a") + 1))
    assert len(delivery._sent) + len(delivery._later) + len(delivery._ready) < 5


steps = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.sampled_from("abc"), st.integers(0, 30)),
        st.tuples(st.just("delete"), st.sampled_from("abc"), st.integers(0, 30)),
        st.tuples(st.sampled_from(["take", "ack", "fail", "lose", "cut"]), st.just(""), st.integers(0, 5)),
    ),
    max_size=80,
)


@settings(max_examples=300)
@given(steps, st.integers(1, 3))
def test_any_order_of_events_converges_and_no_object_goes_back(
    history: list[tuple[str, str, int]], window: int
) -> None:
    """A peer that applies what it gets, over a link that loses frames and acks, ends with the newest of everything."""
    delivery = Delivery(window=window)
    peer: dict[str, int] = {}
    newest: dict[str, int] = {}
    gone: set[str] = set()
    wire: list[Message] = []
    now = 0.0

    def apply(frame: Message) -> None:
        key, version = frame.decode(tuple[str, int])
        if frame.route.operation == "delete":
            peer[key] = -1
        elif peer.get(key) != -1:
            assert version >= peer.get(key, 0), "an older version was sent after a newer one"
            peer[key] = version

    for action, key, number in history:
        now += 0.1
        if action == "offer" and key not in gone:
            delivery.offer(item(key, number))
            newest[key] = max(number, newest.get(key, number))
        elif action == "delete" and key not in gone:
            delivery.offer(item(key, number, delete=True))
            gone.add(key)
        elif action == "take":
            wire += delivery.take(now)
            assert delivery.in_flight <= window
        elif action in ("ack", "fail") and wire:
            frame = wire.pop(0)
            if action == "ack":
                apply(frame)
                delivery.ack(frame.id)
            else:
                delivery.fail(frame.id, now)
        elif action == "lose" and wire:
            wire.pop(0)
        elif action == "cut":
            for frame in wire[:number]:
                apply(frame)  # arrived, but its ack was lost with the connection
            wire.clear()
            delivery.restart()
    for _ in range(200):
        now += RESEND_S * 2
        for frame in wire + delivery.take(now):
            apply(frame)
            delivery.ack(frame.id)
        wire = []
    assert len(delivery) == 0
    for key, version in newest.items():
        assert peer[key] == (-1 if key in gone else version)


def test_what_the_peer_can_never_use_is_not_sent_again_and_something_newer_is() -> None:
    delivery = Delivery()
    delivery.offer(item("a", 5))
    (frame,) = delivery.take(0)
    declined = delivery.decline(frame.id)
    assert declined is not None
    assert declined.key == "a"
    assert delivery.decline(frame.id) is None
    assert not delivery.offer(item("a", 5))
    assert (delivery.take(1e6), len(delivery), delivery.counters.declined) == ([], 0, 1)
    assert delivery.offer(item("a", 6))
    assert len(delivery.take(1e6)) == 1


def test_what_the_api_went_back_with_is_sent_marked_and_versions_grow_from_there() -> None:
    delivery = Delivery(marks=True)
    delivery.know("a", 50)
    assert not delivery.offer(item("a", 12))
    assert delivery.offer(replace(item("a", 12), back=True))
    (frame,) = delivery.take(0)
    assert frame.is_restored
    assert delivery.offer(item("a", 13)), "newer than what is on its way"
    delivery.fail(frame.id, 0)
    (again,) = delivery.take(100)
    assert (again.decode(list[object]), again.is_restored) == (["a", 13], True)
    delivery.ack(again.id)
    assert not delivery.offer(item("a", 13))
    assert delivery.offer(item("a", 14))
    (plain,) = delivery.take(100)
    assert not plain.is_restored


def test_a_peer_that_does_not_mark_gets_what_it_always_gets() -> None:
    delivery = Delivery()
    delivery.know("a", 50)
    delivery.offer(replace(item("a", 12), back=True))
    (frame,) = delivery.take(0)
    assert not frame.is_restored
    delivery.ack(frame.id)
    assert delivery.applied("a") == 12


def test_what_the_peer_lost_is_sent_again() -> None:
    delivery = Delivery()
    delivery.know("a", 5)
    assert not delivery.offer(item("a", 5))
    delivery.lost("a", 3)
    assert delivery.offer(item("a", 5))
    delivery.lost("a")
    assert len(delivery.take(0)) == 1


def test_what_the_peer_would_only_gather_waits_here_and_holds_no_place() -> None:
    """A report that waits at the hub for its second would be in flight: 64 devices would silence the node's pods."""
    delivery = Delivery(pace_s=1.0, window=2)
    for version in (1, 2):
        delivery.offer(replace(item("a", version), paced=True))
    (first,) = delivery.take(10.0)
    assert sent([first]) == [["a", 2]]
    delivery.ack(first.id)
    delivery.drop("a")  # as the outbox does when nothing newer waits
    for version in (3, 4):
        delivery.offer(replace(item("a", version), paced=True))
        assert delivery.take(10.5) == []
    delivery.offer(item("b", 1))
    assert sent(delivery.take(10.6)) == [["b", 1]]
    assert delivery.next_wakeup() == 11.0
    assert sent(delivery.take(11.0)) == [["a", 4]]
    assert delivery.next_wakeup() is not None
    assert delivery.take(11.0) == []


def test_a_new_session_keeps_the_pace_and_one_without_needs_none() -> None:
    delivery = Delivery(pace_s=1.0)
    delivery.offer(replace(item("a", 1), paced=True))
    delivery.take(10.0)
    delivery.restart()
    assert delivery.take(10.1) == []
    assert sent(delivery.take(11.0)) == [["a", 1]]
    delivery.restart()
    delivery.pace_s = 0.0
    assert sent(delivery.take(11.1)) == [["a", 1]]


def test_paces_of_keys_that_never_come_again_are_forgotten() -> None:
    delivery = Delivery(pace_s=1.0)
    for n in range(1000):
        delivery.offer(replace(item(str(n), 1), paced=True))
        (frame,) = delivery.take(float(n))
        delivery.ack(frame.id)
        delivery.drop(str(n))
    assert len(delivery._paces) < 200
