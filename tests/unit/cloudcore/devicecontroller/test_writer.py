"""Writing DeviceStatuses, when something about one of them is wrong."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from beehive.apis.devices import Twin, TwinProperty, decode_device
from beehive.errors import Refused
from cloudcore.devicecontroller.reports import StatusChange
from cloudcore.devicecontroller.writer import StatusWriter
from cloudcore.errors import Status, from_status
from cloudcore.objects import DEVICE, DEVICESTATUS, Kind, Object, read
from tests.support import virtualtime


def test_a_fault_in_one_status_is_finished_with_and_the_others_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its edge would send the report again after the restart, and end the hub of the whole fleet each time."""
    written: list[str] = []

    class Devices:
        def get(self, namespace: str, name: str) -> None:
            return None

    async def store(self: StatusWriter, key: tuple[str, str], slot: object, change: object) -> bool:
        if key[1] == "bad":
            raise RuntimeError("a bug")
        if key[1] == "invalid":
            raise Refused("no", reason="Invalid")
        written.append(key[1])
        return True

    monkeypatch.setattr(StatusWriter, "_store", store)

    async def story() -> None:
        nothing: Any = Devices()
        writer = StatusWriter(nothing, nothing, nothing, nothing, interval_s=0.0)
        running = asyncio.create_task(writer.run())
        heard: dict[str, str] = {}
        for name in ("bad", "invalid", "good"):
            writer.submit(
                ("d", name),
                StatusChange(),
                lambda error, name=name: heard.update({name: error.reason if error else ""}),  # type: ignore[misc]
            )
            async with asyncio.timeout(30):
                while name not in heard and not running.done():
                    await asyncio.sleep(0)
        # P7: what counts for nothing is known to whoever sent it
        assert heard == {"bad": "InternalError", "invalid": "Invalid", "good": ""}
        running.cancel()

    asyncio.run(story())
    assert written == ["good"]


class Api:
    """Answers writes with what is in `faults`, then takes them."""

    def __init__(self, faults: list[Status]) -> None:
        self.faults = faults
        self.tries: list[float] = []
        self.number = 1
        self.status: dict[str, Any] = {}

    async def patch(self, kind: Kind, name: str, body: bytes, namespace: str = "") -> Object:
        self.tries.append(asyncio.get_running_loop().time())
        if self.faults:
            raise from_status(self.faults.pop(0), retry_after_s=30.0 if len(self.tries) == 1 else None)
        self.status.update(json.loads(body)["status"])
        return self.stored()

    def stored(self) -> Object:
        self.number += 1
        metadata = {"namespace": "d", "name": "n", "uid": "s", "resourceVersion": str(self.number)}
        return read(DEVICESTATUS, json.dumps({"metadata": metadata, "status": self.status}).encode())


def test_what_the_api_cannot_take_now_is_tried_again_with_what_came_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    metadata = {"namespace": "d", "name": "n", "uid": "u", "resourceVersion": "1"}
    spec = {"properties": [{"name": "p"}]}
    text = json.dumps({"metadata": metadata, "spec": spec}).encode()
    faults = [
        Status(code=429, reason="TooManyRequests", message="slower"),
        Status(code=409, reason="Conflict", message="somebody else wrote it"),
        Status(code=503, reason="ServiceUnavailable", message="not now"),
    ]

    async def story() -> None:
        api = Api(faults)
        first = api.stored()

        class Held:
            def __init__(self, item: Object) -> None:
                self.item = item

            def get(self, namespace: str, name: str) -> Object:
                return self.item

        class Placement:
            def device(self, namespace: str, name: str) -> Any:
                return decode_device(text)

        parts: Any = (api, Held(read(DEVICE, text)), Held(first), Placement())
        monkeypatch.setattr("beehive.clock.monotonic", asyncio.get_running_loop().time)
        writer = StatusWriter(*parts, interval_s=1.0)
        running = asyncio.create_task(writer.run())
        heard: list[str] = []
        for value in ("1", "2", "3"):
            change = StatusChange(twins={"p": Twin(property_name="p", reported=TwinProperty(value=value))})
            writer.submit(("d", "n"), change, lambda error, value=value: heard.append(f"{value}:{error}"))  # type: ignore[misc]
            await asyncio.sleep(0.5)
        assert heard == []
        while not heard:
            await asyncio.sleep(0.1)
        running.cancel()
        assert heard == ["1:None", "2:None", "3:None"]
        assert api.status["twins"][0]["reported"]["value"] == "3"
        assert len(api.tries) == 4
        assert api.tries[1] - api.tries[0] >= 30.0  # as it asked for

    virtualtime.run(story())
