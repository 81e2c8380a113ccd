"""What edged reports goes to the outbox first, and then to whoever watches here."""

import asyncio

from beehive.errors import Unavailable
from edgecore.podstatuses import ShownReports


class Outbox:
    def __init__(self, said: list[tuple[str, ...]]) -> None:
        self.said = said

    async def pod_status(self, namespace: str, name: str, uid: str, status: bytes) -> None:
        self.said.append(("status", namespace, name, uid))

    async def pod_gone(self, namespace: str, name: str, uid: str) -> None:
        self.said.append(("gone", uid))

    async def event(self, event: bytes) -> None:
        self.said.append(("event", event.decode()))


def test_reports_are_kept_then_shown() -> None:
    said: list[tuple[str, ...]] = []

    async def reported(namespace: str, name: str, uid: str) -> None:
        said.append(("shown", namespace, name, uid))
        raise Unavailable("the disk")  # what cannot be shown was reported all the same

    async def story() -> None:
        reports = ShownReports(Outbox(said), reported=reported, over=lambda uid: said.append(("over", uid)))
        await reports.pod_status("n", "p", "u", b"{}")
        await reports.event(b"e")
        await reports.pod_gone("n", "p", "u")

    asyncio.run(story())
    assert said == [
        ("status", "n", "p", "u"),
        ("shown", "n", "p", "u"),
        ("event", "e"),
        ("gone", "u"),
        ("over", "u"),
    ]


def test_a_local_api_that_comes_later_shows_what_is_reported_from_then_on() -> None:
    told: list[str] = []

    class Kept:
        async def pod_status(self, namespace: str, name: str, uid: str, status: bytes) -> None:
            told.append(f"{uid} {status.decode()}")

        async def pod_gone(self, namespace: str, name: str, uid: str) -> None:
            told.append(f"{uid} gone")

        async def event(self, event: bytes) -> None:
            raise AssertionError("nothing is told of events")

    async def show(namespace: str, name: str, uid: str) -> None:
        told.append(f"{uid} shown")

    async def story() -> None:
        reports = ShownReports(Kept())
        await reports.pod_status("d", "a", "u", b"1")
        await reports.pod_gone("d", "b", "v")
        reports.show(show, lambda uid: told.append(f"{uid} over"))
        await reports.pod_status("d", "a", "u", b"2")
        await reports.pod_gone("d", "a", "u")

    asyncio.run(story())
    assert told == ["u 1", "v gone", "u 2", "u shown", "u gone", "u over"]
