"""The outbox: coalescing, bounds, what the disk must know."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from beehive import codec
from beehive.message import Message, new
from edgecore.metamanager.outbox import (
    AGAIN_MS,
    DATA,
    EVENT,
    NODE,
    PLAUSIBLE_MS,
    POD,
    POD_GONE,
    SOON_MS,
    TWIN,
    Kind,
    Limits,
    Outbox,
)
from edgecore.metamanager.records import Pending


def report(text: object = "x", resource: str = "d/podpatch/p") -> Message:
    return new(source="edged", group="meta", operation="patch", resource=resource, content=text)


def texts(messages: list[Message]) -> list[object]:
    return [message.decode(object) for message in messages]


def test_the_newest_of_a_key_waits_and_the_older_is_forgotten() -> None:
    box = Outbox()
    for number in range(3):
        assert box.put(POD, "pod/u", report(number), 0)
    assert texts(box.take(0)) == [2]
    assert len(box) == 1


def test_an_acknowledged_report_leaves_and_nothing_stays_behind() -> None:
    box = Outbox()
    for number in range(50):
        box.put(EVENT, f"event/{number}", report(number), 0)
    for message in box.take(0):
        assert box.acked(message.id)
    assert len(box) == 0
    assert box.bytes_held == 0
    assert len(box.delivery._slots) == 0  # keys of events never come again
    assert not box.acked("unknown")


def test_a_report_replaced_in_flight_stays_until_the_newer_is_acknowledged() -> None:
    box = Outbox()
    box.put(POD, "pod/u", report("old"), 0)
    (first,) = box.take(0)
    box.put(POD, "pod/u", report("new"), 0)
    assert box.take(0) == []  # one of a key in flight
    box.acked(first.id)
    assert len(box) == 1
    (second,) = box.take(0)
    assert texts([second]) == ["new"]
    box.acked(second.id)
    assert len(box) == 0


def test_the_end_of_a_pod_is_not_overtaken() -> None:
    box = Outbox()
    box.put(POD, "pod/u", report("running"), 0)
    box.put(POD_GONE, "pod/u", report("gone"), 0)
    box.put(POD, "pod/u", report("late"), 0)
    box.put(POD_GONE, "pod/u", report("gone again"), 0)
    (only,) = box.take(0)
    assert texts([only]) == ["gone"]
    box.acked(only.id)
    assert len(box) == 0


def test_what_was_in_flight_goes_again_in_the_next_session() -> None:
    box = Outbox()
    box.put(TWIN, "twin/t", report(1), 0)
    (first,) = box.take(0)
    box.new_session()
    (again,) = box.take(0)
    assert again.id == first.id


def test_what_failed_goes_again_and_what_was_refused_does_not() -> None:
    box = Outbox()
    box.put(POD, "pod/a", report("a"), 0)
    (message,) = box.take(0)
    assert box.failed(message.id, 0.0)
    assert box.take(0) == []
    (again,) = box.take(60.0)
    assert box.refused(again.id, "Forbidden")
    assert len(box) == 0
    assert box.dropped == {("pod", "refused:Forbidden"): 1}


def test_events_leave_when_written_to_a_hub_that_never_acknowledges_them() -> None:
    box = Outbox()
    box.put(EVENT, "event/e", report("e", "d/event/e"), 0)
    box.put(POD, "pod/u", report("p"), 0)
    for message in box.take(0):
        box.written(message)
    assert "event/e" not in box
    assert "pod/u" in box


def test_events_are_bounded_and_the_oldest_goes() -> None:
    box = Outbox()
    for number in range(EVENT.max_count + 5):
        box.put(EVENT, f"event/{number}", report(number), 0)
    assert len(box) == EVENT.max_count
    assert "event/4" not in box
    assert "event/5" in box
    assert box.dropped == {("event", "full"): 5}


def test_old_events_are_dropped_and_old_statuses_are_not() -> None:
    box = Outbox()
    box.put(EVENT, "event/e", report(), 0)
    box.put(POD, "pod/u", report(), 0)
    box.expire(EVENT.max_age_ms + 1)
    assert "event/e" not in box
    assert "pod/u" in box
    assert box.dropped == {("event", "old"): 1}


def test_when_room_ends_the_least_important_goes_first() -> None:
    box = Outbox(limits=Limits(max_bytes=4500))
    box.put(DATA, "data/1", report("d" * 1000), 0)
    box.put(EVENT, "event/1", report("e" * 1000), 0)
    box.put(POD, "pod/1", report("p" * 1000), 0)
    box.put(TWIN, "twin/1", report("t" * 1000), 0)
    assert "event/1" not in box
    box.put(POD, "pod/2", report("p" * 1000), 0)
    assert "data/1" not in box
    assert {"pod/1", "pod/2", "twin/1"} == set(box._reports)
    assert box.dropped == {("event", "full"): 1, ("data", "full"): 1}


def test_a_report_that_is_too_big_is_counted_and_changes_nothing() -> None:
    box = Outbox()
    box.put(POD, "pod/1", report("small"), 0)
    assert not box.put(POD, "pod/1", report("x" * 2_000_000), 0)
    assert texts(box.take(0)) == ["small"]
    assert box.dropped == {("pod", "too-big"): 1}


class Table:
    """What a store's outbox table would hold."""

    def __init__(self) -> None:
        self.rows: dict[str, Pending] = {}
        self.commits = 0

    def follow(self, box: Outbox, now_ms: int, *, everything: bool = False) -> None:
        change = box.unsaved(now_ms, everything=everything)
        if not change:
            return
        self.commits += 1
        for key in [key for key, row in self.rows.items() if row.seq in change.drops]:
            del self.rows[key]
        for row in change.puts:
            self.rows[row.key] = row
        box.saved(change, now_ms)


def test_statuses_are_saved_at_once_and_readings_only_when_they_wait() -> None:
    box, table = Outbox(), Table()
    box.put(POD, "pod/u", report("p"), 0)
    box.put(TWIN, "twin/t", report("t"), 0)
    box.put(NODE, "node", report("n"), 0)
    table.follow(box, 0)
    assert set(table.rows) == {"pod/u"}
    table.follow(box, SOON_MS)
    assert set(table.rows) == {"pod/u", "twin/t"}


def test_a_reading_that_is_acknowledged_at_once_never_touches_the_disk() -> None:
    box, table = Outbox(), Table()
    for second in range(100):
        box.put(TWIN, "twin/t", report(second), second * 1000)
        (message,) = box.take(second)
        box.acked(message.id)
        table.follow(box, second * 1000 + 500)
    assert table.commits == 0
    assert not box._touched


def test_a_reading_that_only_waits_for_its_pace_never_touches_the_disk() -> None:
    box, table = Outbox(), Table()
    box.delivery.pace_s = 1.0
    sent = 0
    for tick in range(1000):  # ten a second
        message = new(
            source="twin",
            group="resource",
            operation="update",
            resource="device/default/t/twin/edge_updated",
            content=tick,
        )
        box.put(TWIN, "twin/t", message, tick * 100)
        for frame in box.take(tick / 10):
            sent += 1
            box.acked(frame.id)
        table.follow(box, tick * 100 + 99)
    assert sent == 100
    assert table.commits == 0


def test_a_restart_brings_back_what_was_not_acknowledged_in_order() -> None:
    box, table = Outbox(), Table()
    for number in range(5):
        box.put(POD, f"pod/{number}", report(number), 0)
    box.put(POD_GONE, "pod/1", report("gone"), 0)
    table.follow(box, 0)
    box = Outbox()
    box.restore(sorted(table.rows.values(), key=lambda row: row.seq))
    assert texts(box.take(0)) == [0, 2, 3, 4, "gone"]
    box.put(POD, "pod/0", report("newer"), 0)
    assert box._reports["pod/0"].seq > 6


def test_an_unreadable_row_is_counted_and_removed() -> None:
    box, table = Outbox(), Table()
    table.rows["k"] = Pending(seq=4, key="k", kind="pod", at_ms=0, message=b"not json")
    box.restore(list(table.rows.values()))
    table.follow(box, 0)
    assert table.rows == {}
    assert box.dropped == {("pod", "unreadable"): 1}


Step = tuple[str, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(["pod", "gone", "twin", "event", "take", "ack", "fail", "cut", "save", "tick"]),
        st.integers(0, 3),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_the_newest_of_every_key_arrives_whatever_the_link_does(run: list[Step]) -> None:
    """Over a link that cuts, refuses for a while and answers in any order; with the process dying at the end."""
    box, table = Outbox(), Table()
    wanted: dict[str, object] = {}
    gone: set[str] = set()
    delivered: dict[str, object] = {}
    flying: list[tuple[str, Message]] = []
    now = 0

    def put(kind: Kind, key: str) -> None:
        if key not in gone:
            box.put(kind, key, report([key, now]), now)
            wanted[key] = now

    def end(key: str) -> None:
        if key not in gone:
            put(POD_GONE, key)
            gone.add(key)

    def deliver(messages: list[Message]) -> None:
        for message in messages:
            key, value = message.decode(tuple[str, int])
            flying.append((key, message))
            delivered[key] = value

    def ack(number: int) -> None:
        if flying:
            box.acked(flying.pop(number % len(flying))[1].id)

    def fail(number: int) -> None:
        if flying:
            box.failed(flying.pop(number % len(flying))[1].id, now / 1000)

    def cut(number: int) -> None:
        flying.clear()
        box.new_session()

    acts: dict[str, Callable[[int], object]] = {
        "pod": lambda n: put(POD, f"pod/{n}"),
        "gone": lambda n: end(f"pod/{n}"),
        "twin": lambda n: put(TWIN, f"twin/{n}"),
        "event": lambda n: put(EVENT, f"event/{n}/{now}"),
        "take": lambda n: deliver(box.take(now / 1000)),
        "ack": ack,
        "fail": fail,
        "cut": cut,
        "save": lambda n: table.follow(box, now),
        "tick": lambda n: None,
    }
    for what, number in run:
        now += 700
        acts[what](number)
    table.follow(box, now, everything=True)
    assert {key for key, row in table.rows.items()} == set(box._reports)
    box = Outbox()
    box.restore(sorted(table.rows.values(), key=lambda row: row.seq))
    now += 100_000
    while messages := box.take(now / 1000):
        for message in messages:
            key, value = message.decode(tuple[str, int])
            assert value >= int(str(delivered.get(key, 0)))  # never an older state after a newer one
            delivered[key] = value
            box.acked(message.id)
    assert {key: delivered.get(key) for key in wanted} == wanted
    table.follow(box, now)
    assert table.rows == {}


def test_a_reading_that_changes_by_the_second_is_written_by_the_minute_while_the_cloud_is_away() -> None:
    box, table = Outbox(), Table()
    for second in range(1200):
        box.put(TWIN, "twin/t", report(second), second * 1000)
        table.follow(box, second * 1000 + 500)
    assert table.commits <= 1 + 1_200_000 // AGAIN_MS
    table.follow(box, 1_200_000, everything=True)  # the daemon stops
    assert texts([codec.decode(table.rows["twin/t"].message)]) == [1199]
    (message,) = box.take(1200)
    box.acked(message.id)
    table.follow(box, 1_200_500)
    assert table.rows == {}
    box.put(TWIN, "twin/t", report("next"), 1_300_000)
    table.follow(box, 1_300_000 + SOON_MS)
    assert "twin/t" in table.rows


def test_a_board_that_learns_the_time_drops_nothing_as_old() -> None:
    box, table = Outbox(), Table()
    box.put(EVENT, "event/e", report(), 5_000, at_ms=1_000)  # 1970
    table.follow(box, 5_000)
    box.expire(6_000)
    today = PLAUSIBLE_MS + 10 * EVENT.max_age_ms
    box = Outbox()
    box.restore(list(table.rows.values()), 100, at_ms=today)
    box.expire(200)
    assert "event/e" in box
    box.expire(EVENT.max_age_ms + 200)
    assert "event/e" not in box
    box = Outbox()
    row = replace(table.rows["event/e"], at_ms=PLAUSIBLE_MS)  # this one's writer knew the time
    box.restore([row], 100, at_ms=today)
    box.expire(200)
    assert "event/e" not in box
    assert box.dropped == {("event", "old"): 1}
