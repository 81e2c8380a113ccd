"""Where a watch may begin."""

from hypothesis import given
from hypothesis import strategies as st

from edgecore.metaserver import history
from edgecore.metaserver.history import History, Key

A, B = Key("/pods", "x", "a"), Key("/pods", "y", "b")


def test_a_watch_replays_what_came_after_the_list() -> None:
    past = History()
    past.add(A, uid="1", version=5, gone=False)
    past.mark(7)
    past.add(B, uid="2", version=6, gone=False)  # older than the list's version, but later here
    seq = past.since(7)
    assert seq is not None
    assert [change.key for change in past.touched("/pods", "", seq)] == [B]
    assert past.touched("/pods", "x", seq) == []
    assert past.touched("/configmaps", "", seq) == []


def test_only_the_latest_state_of_an_object_is_replayed() -> None:
    past = History()
    past.mark(1)
    past.add(A, uid="1", version=2, gone=False)
    past.add(A, uid="1", version=3, gone=False)
    past.add(A, uid="1", version=4, gone=True, tombstone=b"{}")
    assert [(c.version, c.gone) for c in past.touched("/pods", "", past.since(1) or 0)] == [(4, True)]


def test_a_state_that_is_known_is_no_change() -> None:
    past = History()
    assert past.add(A, uid="1", version=3, gone=False)
    assert past.add(A, uid="1", version=3, gone=False) is None
    assert past.add(A, uid="1", version=2, gone=False) is None
    assert past.add(A, uid="9", version=2, gone=False)
    assert past.add(A, uid="9", version=2, gone=True)
    assert past.add(A, uid="9", version=2, gone=True) is None
    assert past.add(A, uid="9", version=2, gone=False)


def test_a_version_nobody_was_told_is_too_old() -> None:
    past = History()
    past.add(A, uid="1", version=5, gone=False)
    assert past.since(4) is None
    assert past.since(5) is not None


def test_forgotten_changes_make_a_version_too_old() -> None:
    past = History()
    past.mark(1)
    for number in range(history.MAX_CHANGES + 1):
        past.add(Key("/pods", "x", str(number)), uid="u", version=2 + number, gone=False)
    assert past.since(1) is None
    past.mark(1)
    assert past.since(1) == past.seq


def test_tombstones_are_bounded() -> None:
    past = History()
    size = history.MAX_TOMBSTONE_BYTES
    one = past.add(A, uid="1", version=1, gone=True, tombstone=b"x" * size)
    two = past.add(B, uid="1", version=1, gone=True, tombstone=b"x")
    assert one is not None
    assert two is not None
    assert (len(one.tombstone), two.tombstone) == (size, b"")


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.booleans(), st.booleans()), max_size=60)
)
def test_whoever_replays_ends_where_everything_is(steps: list[tuple[str, int, bool, bool]]) -> None:
    """A client that lists at a mark and replays from it has the state that there is."""
    past, world = History(), dict[str, int]()
    told: tuple[int, dict[str, int]] | None = None
    for name, version, gone, look in steps:
        if past.add(Key("/r", "", name), uid="u", version=version, gone=gone):
            if gone:
                world.pop(name, None)
            else:
                world[name] = version
        if look:
            past.mark(past.version)
            if told is None:
                told = (past.version, dict(world))
    if told is None:
        return
    seq = past.since(told[0])
    assert seq is not None
    seen = told[1]
    for change in past.touched("/r", "", seq):
        if change.gone:
            seen.pop(change.key.name, None)
        else:
            seen[change.key.name] = change.version
    assert seen == world


def test_versions_that_nobody_was_told_by_this_process_are_forgotten() -> None:
    history = History()
    history.add(Key("r", "", "a"), uid="u", version=7, gone=False)
    assert history.since(7) is not None
    history.forget()
    assert history.since(7) is None
    history.mark(history.version)
    assert history.since(7) == history.seq
