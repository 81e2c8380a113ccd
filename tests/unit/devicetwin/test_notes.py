import asyncio
import itertools
from collections.abc import Awaitable, Callable

from beehive.errors import Unavailable
from devicetwin.notes import Notes
from tests.support import virtualtime
from tests.unit.devicetwin.fakes import ManualClock, until


class Work:
    def __init__(self) -> None:
        self.done: list[tuple[float, str, int]] = []
        self.broken = False
        self.inside = 0

    async def __call__(self, id_: str, what: int) -> None:
        self.inside += 1
        await asyncio.sleep(0.01)
        self.inside -= 1
        if self.broken:
            raise Unavailable("no disk")
        self.done.append((round(asyncio.get_running_loop().time(), 2), id_, what))


def play(scenario: Callable[[Notes, Work], Awaitable[None]]) -> Work:
    """In virtual time."""
    work = Work()

    async def main() -> None:
        notes = Notes(work, ManualClock(), pace_s=0.1, quiet=8)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(notes.run())
            try:
                await scenario(notes, work)
            finally:
                task.cancel()

    virtualtime.run(main())
    return work


def test_the_first_goes_at_once_and_the_rest_at_the_pace_together() -> None:
    async def scenario(notes: Notes, work: Work) -> None:
        for _ in range(100):
            notes.add("a", 1)
            notes.add("a", 2)
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        assert len(notes) == 0

    done = play(scenario).done
    assert done[0][2] == 3
    assert 9 <= len(done) <= 12
    assert all(b[0] - a[0] >= 0.09 for a, b in itertools.pairwise(done))


def test_quiet_work_alone_does_not_hold_up_what_follows() -> None:
    async def scenario(notes: Notes, work: Work) -> None:
        notes.add("a", 8)
        await asyncio.sleep(0.03)
        notes.add("a", 1)
        await asyncio.sleep(0.03)
        assert [w for _, _, w in work.done] == [8, 1]
        notes.add("a", 8)
        await asyncio.sleep(0.03)
        assert [w for _, _, w in work.done] == [8, 1]
        await asyncio.sleep(0.1)
        assert [w for _, _, w in work.done] == [8, 1, 8]

    play(scenario)


def test_a_failure_is_tried_again_with_its_notes() -> None:
    async def scenario(notes: Notes, work: Work) -> None:
        work.broken = True
        notes.add("a", 1)
        await asyncio.sleep(2.5)
        notes.add("a", 4)
        work.broken = False
        await asyncio.sleep(2)

    assert [(i, w) for _, i, w in play(scenario).done] == [("a", 5)]


def test_flushing_now_waits_for_what_is_under_way_and_for_nobody_else() -> None:
    async def scenario(notes: Notes, work: Work) -> None:
        notes.add("a", 1)
        await asyncio.sleep(0.005)
        notes.add("a", 2)
        notes.add("b", 1)
        await notes.flush("a")
        assert [(i, w) for _, i, w in work.done if i == "a"] == [("a", 1), ("a", 2)]
        await asyncio.sleep(0.5)
        assert not notes._locks

    play(scenario)


def test_many_devices_are_served_together() -> None:
    async def scenario(notes: Notes, work: Work) -> None:
        for i in range(64):
            notes.add(str(i), 1)
        await asyncio.sleep(0.005)
        assert work.inside == 64
        await asyncio.sleep(0.1)

    assert len(play(scenario).done) == 64


def test_a_bug_in_the_work_for_one_device_leaves_the_others() -> None:
    done: list[str] = []

    async def work(id_: str, what: int) -> None:
        if id_ == "bad":
            raise ValueError("a bug")
        done.append(id_)

    async def story() -> None:
        notes = Notes(work, ManualClock(), pace_s=0.0)
        running = asyncio.create_task(notes.run())
        notes.add("bad", 1)
        notes.add("good", 1)
        await until(lambda: bool(done) or running.done())
        assert not running.done()
        assert len(notes) == 0
        running.cancel()

    asyncio.run(story())
    assert done == ["good"]
