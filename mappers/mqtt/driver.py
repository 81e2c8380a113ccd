"""Devices that speak plain MQTT topics.   Settings: README.md beside this file."""

import time
from pathlib import Path

from mappers.framework import jsonpath
from mappers.framework.convert import Value
from mappers.framework.driver import DeviceError, Driver, DriverError, Property
from mappers.framework.errors import NothingYet, ValueRefused
from mappers.framework.mqtt import Broker, Link, Listener, broker_of
from mappers.mqtt.presence import Place, presence_of


class Mqtt(Driver):
    """One device.  What it sends is reported at once; `read` gives the last that was heard."""

    protocol = "mqtt"

    async def open(self) -> None:
        self.heard: dict[str, tuple[float, bytes]] = {}
        self.presence = presence_of(self.settings)
        self.max_age_s = self.settings.number("maxAge", 0.0)
        self.listening: list[tuple[str, Listener]] = []
        self.link = Link.use(self._broker())
        try:
            for prop in self.properties.values():
                self._listen(prop)
            for place in self.presence.places:
                self._subscribe(place.topic, self._hearer(place))
            await self.link.wait(self.settings.number("timeout", 5.0))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        for topic, listener in self.listening:
            self.link.unsubscribe(topic, listener)
        await self.link.leave()

    def _broker(self) -> Broker:
        settings = self.settings
        secret = settings.text("passwordFile", "")
        try:
            password = Path(secret).read_text().strip() if secret else settings.text("password", "")
        except (OSError, UnicodeDecodeError) as error:
            raise DriverError(f"setting 'passwordFile' names no readable file: {error}") from error
        return broker_of(
            settings.text("brokerURL", "tcp://127.0.0.1:1883"),
            client_id=settings.text("clientID", ""),
            user=settings.text("username", ""),
            password=password,
            ca=settings.get("ca"),
        )

    def _listen(self, prop: Property) -> None:
        topic = prop.settings.text("topic", "")
        if topic:
            jsonpath.parse(prop.settings.text("jsonPath", ""))
            self._subscribe(topic, lambda topic, payload: self._on_message(prop, payload))

    def _subscribe(self, topic: str, listener: Listener) -> None:
        self.link.subscribe(topic, listener)
        self.listening.append((topic, listener))

    def _on_message(self, prop: Property, payload: bytes) -> None:
        self.heard[prop.name] = (time.monotonic(), payload)
        try:
            value = extract(payload, prop)
        except ValueRefused:
            return  # said when it is read
        self.changed(prop.name, value)

    def _hearer(self, place: Place) -> Listener:
        def hear(topic: str, payload: bytes) -> None:
            if self.presence.hear(place, payload):
                self.state_changed()

        return hear

    async def read(self, prop: Property) -> Value:
        if not self.link.connected.is_set():
            raise DeviceError("the broker is away")
        if not prop.settings.text("topic", ""):
            if prop.settings.text("commandTopic", ""):
                raise NothingYet(f"{prop.name} can only be set")
            raise DriverError(f"setting 'topic' of {prop.name} is missing")
        if prop.name not in self.heard:
            raise NothingYet(f"nothing was heard of {prop.name} so far")
        at, payload = self.heard[prop.name]
        max_age_s = prop.settings.number("maxAge", self.max_age_s)
        if max_age_s and time.monotonic() - at > max_age_s:
            raise DeviceError(f"nothing was heard of {prop.name} for {max_age_s:g} s")
        return extract(payload, prop)

    async def write(self, prop: Property, value: Value) -> None:
        settings = prop.settings
        topic = settings.text("commandTopic")
        template = settings.get("template")
        text = str(template) if template is not None else "${value}"
        if isinstance(value, bool) and "payloadOn" in settings:
            value = settings.text("payloadOn") if value else settings.text("payloadOff", "OFF")
        if template is None and isinstance(value, str | bytes):
            payload = value if isinstance(value, bytes) else value.encode()
        else:
            payload = jsonpath.fill(text, value).encode()
        qos = settings.integer("qos", 1)
        if qos not in (0, 1, 2):
            raise DriverError("setting 'qos' is not 0, 1 or 2")
        await self.link.publish(topic, payload, qos=qos, retain=settings.flag("retain"))

    async def state(self) -> str:
        if not self.link.connected.is_set() or self.presence.present is False:
            return "offline"
        return "online" if self.heard or self.presence.present else "unknown"


def extract(payload: bytes, prop: Property) -> Value:
    """The value in a message: at the JSON path if one is given, else the whole text.  Raises: ValueRefused, DriverError."""
    path = prop.settings.text("jsonPath", "")
    if path:
        return _boolean(jsonpath.find(jsonpath.decode(payload), path), prop)
    if prop.type == "BYTES":
        return payload
    try:
        return _boolean(payload.decode().strip(), prop)
    except UnicodeDecodeError as error:
        raise ValueRefused("the message is not UTF-8") from error


def _boolean(value: Value, prop: Property) -> Value:
    """A BOOLEAN as its device says it: by `stateOn` and `stateOff`, else `on` and `off`."""
    if prop.type != "BOOLEAN":
        return value
    text = ("true" if value else "false") if isinstance(value, bool) else str(value)
    for key, usual, here in (("stateOn", "on", True), ("stateOff", "off", False)):
        if text.lower() == prop.settings.text(key, usual).lower():
            return here
    return value
