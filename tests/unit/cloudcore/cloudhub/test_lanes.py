"""What arrived from one node is worked on in order, side by side, and within bounds."""

from __future__ import annotations

import asyncio

from cloudcore.cloudhub.lanes import Lanes


def test_one_thing_in_order_and_different_things_side_by_side() -> None:
    async def main() -> None:
        begun: list[str] = []
        gates = {name: asyncio.Event() for name in ("a1", "a2", "b1")}

        async def work(item: str) -> None:
            begun.append(item)
            await gates[item].wait()

        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            lanes = Lanes[str](group, work)
            for item in gates:
                await lanes.submit(item[0], item)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert begun == ["a1", "b1"]
            gates["a1"].set()
            while len(begun) < 3:
                await asyncio.sleep(0)
            assert begun[2] == "a2"
            gates["a2"].set()
            gates["b1"].set()

    asyncio.run(main())


def test_width_and_room_are_bounded() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        running = most = done = 0

        async def work(item: int) -> None:
            nonlocal running, most, done
            running += 1
            most = max(most, running)
            await gate.wait()
            running -= 1
            done += 1

        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            lanes = Lanes[int](group, work, width=2, waiting=4)

            async def all_of_them() -> None:
                for item in range(10):
                    await lanes.submit(str(item), item)

            sender = group.create_task(all_of_them())
            for _ in range(20):
                await asyncio.sleep(0)
            assert not sender.done(), "the socket is not read on"
            assert running == 2
            gate.set()
        assert (done, most) == (10, 2)

    asyncio.run(main())
