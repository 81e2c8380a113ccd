"""What a program on the edge sees on the MQTT bus."""

from __future__ import annotations

import json
import queue
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

import paho.mqtt.client as mqtt

_DEVICE = "$hw/events/device/"


class Bus:
    """A client of the trial's broker, with the account for programs on this machine.  Use it in a `with`."""

    def __init__(self, port: int, home: Path) -> None:
        self._received: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.username_pw_set("local", (home / "mosquitto" / "local.password").read_text().strip())
        self._client.on_message = lambda client, data, message: self._received.put(
            (message.topic, message.payload)
        )
        self._client.on_connect = lambda client, *others: client.subscribe(f"{_DEVICE}#", qos=1)
        self._port = port

    def __enter__(self) -> Bus:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def twin(self, device: str) -> dict[str, Any]:
        """Ask for a twin as KubeEdge's applications do; empty while nobody answers.

        Property to {"expected": {"value": …}, "actual": {"value": …, "metadata": …}}."""
        event = uuid.uuid4().hex
        request = {"event_id": event, "timestamp": int(time.time() * 1000)}
        self._client.publish(f"{_DEVICE}{device}/twin/get", json.dumps(request), qos=1)
        deadline = time.monotonic() + 2
        while (left := deadline - time.monotonic()) > 0:
            try:
                topic, payload = self._received.get(timeout=left)
            except queue.Empty:
                break
            answer = json.loads(payload)
            if topic == f"{_DEVICE}{device}/twin/get/result" and answer.get("event_id") == event:
                twin: dict[str, Any] = answer.get("twin") or {}
                return twin
        return {}

    def report(self, device: str, name: str, value: str, *, qos: int = 0) -> None:
        """Say what a device reads, as it does itself that has no mapper."""
        twin = {name: {"actual": {"value": value}}}
        request = {"event_id": "", "timestamp": int(time.time() * 1000), "twin": twin}
        sent = self._client.publish(f"{_DEVICE}{device}/twin/update", json.dumps(request), qos=qos)
        if qos:
            sent.wait_for_publish(30)

    def actual(self, device: str) -> dict[str, str]:
        """The values that the device reported."""
        return {
            name: side["actual"]["value"] for name, side in self.twin(device).items() if side.get("actual")
        }
