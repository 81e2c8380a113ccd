"""Which devices have announced themselves over MQTT, from messages as Home Assistant's discovery has them.  Pure.

`homeassistant/<component>/[<node>/]<object>/config` announces one component, with a `device` block that says to which device
it belongs; `homeassistant/device/<object>/config` announces a device with all its components.  An empty message takes back what
its topic announced.  What is kept has bounds, and what is beyond them is counted: anybody with an account at the broker may
announce.  What comes of messages does not depend on their order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from beehive.apis.hardware import (
    MAX_OFFERED,
    MAX_TEXT,
    MQTT,
    Offer,
    OfferedMethod,
    OfferedProperty,
    Rule,
    Seen,
    wants,
)
from edgecore.discovery import entity
from edgecore.discovery.entity import NotUnderstood
from edgecore.discovery.names import written_out

PREFIX = "homeassistant"
FILTERS = (f"{PREFIX}/+/+/config", f"{PREFIX}/+/+/+/config")
MAX_MESSAGE = 64 * 1024
MAX_TOPICS = 2048
MAX_HELD_BYTES = 4 * 1024 * 1024
MAX_DEVICES = 128
MAX_COMPONENTS = 128
MAX_OFFER_BYTES = 24 * 1024
_PART = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MODES = ("all", "any", "latest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One announced component.  device: to which it belongs.   label: what its properties are called, or begin with."""

    kind: str
    label: str
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """What one topic says.  identity: of the device."""

    identity: str
    device: Mapping[str, Any]
    origin: str
    components: tuple[Component, ...]
    size: int


@dataclass(slots=True)
class Book:
    """What is announced at the moment.  `hear` takes a message; `seen` says what rules want of it."""

    topics: dict[str, Announced] = field(default_factory=dict)
    held: int = 0
    refused: dict[str, int] = field(default_factory=lambda: {"bad": 0, "bound": 0})

    def hear(self, topic: str, payload: bytes) -> bool:
        """Take a message on a discovery topic.  Says whether anything is other than before."""
        parts = topic_parts(topic)
        if parts is None:
            return False
        before = self.topics.get(topic)
        if not payload:
            return self._forget(topic)
        try:
            now = read(parts, payload)
        except NotUnderstood:
            self.refused["bad"] += 1
            return self._forget(topic)  # what it said before does not hold any more either
        if now == before:
            return False
        held = self.held - (before.size if before is not None else 0) + now.size
        if (before is None and len(self.topics) >= MAX_TOPICS) or held > MAX_HELD_BYTES:
            self.refused["bound"] += 1
            return False
        self.topics[topic] = now
        self.held = held
        return True

    def _forget(self, topic: str) -> bool:
        old = self.topics.pop(topic, None)
        if old is None:
            return False
        self.held -= old.size
        return True

    def seen(self, rules: Iterable[Rule]) -> list[Seen]:
        """The announced devices that a rule wants, each with the first rule in order that does."""
        ordered = list(rules)
        found: list[Seen] = []
        groups: dict[str, list[tuple[str, Announced]]] = {}
        for topic in sorted(self.topics):
            announced = self.topics[topic]
            groups.setdefault(announced.identity, []).append((topic, announced))
        for identity in sorted(groups):
            thing = describe(identity, groups[identity])
            rule = next((rule for rule in ordered if wants(rule, thing)), None)
            if rule is None:
                continue
            if len(found) >= MAX_DEVICES:
                break
            found.append(msgspec.structs.replace(thing, rule_name=rule.name, rule_namespace=rule.namespace))
        return found


def topic_parts(topic: str) -> tuple[str, str, str] | None:
    """Component, node (may be empty) and object of a discovery topic; None for another topic, or one with odd characters."""
    levels = topic.split("/")
    if len(levels) not in (4, 5) or levels[0] != PREFIX or levels[-1] != "config":
        return None
    if not all(_PART.fullmatch(level) for level in levels[1:-1]):
        return None
    return levels[1], levels[2] if len(levels) == 5 else "", levels[-2]


def read(parts: tuple[str, str, str], payload: bytes) -> Announced:
    """Read a message that is not empty.  Raises: NotUnderstood."""
    if len(payload) > MAX_MESSAGE:
        raise NotUnderstood("the message is too long")
    try:
        message = msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise NotUnderstood(f"the message is no JSON: {error}") from error
    if not isinstance(message, dict):
        raise NotUnderstood("the message is no object")
    config = written_out(message)
    kind, node, object_ = parts
    device, origin = _map(config.get("device")), _map(config.get("origin"))
    if kind == "device":
        components = _components(config, message.get("~"))
    else:
        components = (
            Component(kind=kind, label=_label(object_ if node else "", config, object_), config=config),
        )
    return Announced(
        identity=_identity(device, node or object_),
        device=device,
        origin=entity.clean(origin.get("name")),
        components=components,
        size=len(payload),
    )


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _components(config: Mapping[str, Any], base: Any) -> tuple[Component, ...]:
    """Those of a device's message; what it says itself, `~` (base) included, holds for each that does not say it."""
    listed = config.get("components")
    if not isinstance(listed, dict) or len(listed) > MAX_COMPONENTS:
        raise NotUnderstood("the message has no components, or too many")
    common = {
        key: value for key, value in config.items() if key not in ("components", "device", "origin", "name")
    }
    found = []
    for key, said in sorted(listed.items()):
        if not isinstance(said, dict):
            continue
        own = written_out({"~": base, **said})
        kind = own.get("platform")
        if not isinstance(kind, str) or len(own) == 1:  # a platform alone takes a component away
            continue
        found.append(Component(kind=kind, label=_label(str(key), own, str(key)), config={**common, **own}))
    return tuple(found)


def _label(given: str, config: Mapping[str, Any], otherwise: str) -> str:
    """What properties are called: the object within its node, else the component's name, else the object."""
    name = config.get("name")
    for text in (given, name if isinstance(name, str) else "", config.get("object_id"), otherwise):
        label = _slug(text) if isinstance(text, str) else ""
        if label:
            return label
    return "value"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:48].rstrip("-")


def _identity(device: Mapping[str, Any], otherwise: str) -> str:
    """What a device is known by: its first identifier, else its first connection, else the topic."""
    ids = device.get("identifiers")
    for each in ids if isinstance(ids, list) else [ids]:
        if isinstance(each, str | int) and not isinstance(each, bool) and (text := entity.clean(each, 200)):
            return text
    connections = device.get("connections")
    for each in connections if isinstance(connections, list) else []:
        if isinstance(each, list) and len(each) == 2 and all(isinstance(part, str) for part in each):
            return entity.clean(":".join(each), 200)
    return otherwise


def describe(identity: str, topics: list[tuple[str, Announced]]) -> Seen:
    """A device with all that is announced of it.  topics: in order."""
    said: dict[str, Any] = {}
    for _, announced in topics:
        said = {**announced.device, **said}
    offer = _offer([component for _, announced in topics for component in announced.components])
    model = entity.clean(said.get("model"))
    return Seen(
        rule_name="",
        identity=identity,
        subsystem=MQTT,
        name=entity.clean(said.get("name")) or identity[:128],
        vendor=entity.clean(said.get("manufacturer")),
        product=entity.clean(said.get("model_id")) or model,
        serial=entity.clean(said.get("serial_number")) or identity[:128],
        model=model,
        driver=next((a.origin for _, a in topics if a.origin), ""),
        dev_path=topics[0][0][:MAX_TEXT],
        offer=offer,
    )


def _offer(components: list[Component]) -> Offer:
    rows: list[OfferedProperty] = []
    left: list[str] = []
    pressed: list[str] = []
    taken: set[str] = set()
    places: dict[str, dict[str, Any]] = {}
    mode = ""
    size = 0
    for component in components:
        if component.kind in entity.SILENT:
            continue
        label = component.label
        if label in taken:
            label = f"{label}-{_slug(component.kind)}"
        try:
            made, why_not = entity.properties(component.kind, label, component.config)
        except NotUnderstood as error:
            left.append(str(error))
            continue
        left += why_not
        for row in made:
            name, count = row.name, 2
            while name in taken:
                name, count = f"{row.name}-{count}", count + 1
            row = msgspec.structs.replace(row, name=name)
            size += len(msgspec.json.encode(row))
            if len(rows) >= MAX_OFFERED or size > MAX_OFFER_BYTES:
                left.append(f"{name}: there are too many")
                continue
            taken.add(name)
            rows.append(row)
            if row.writable and "topic" not in row.config and row.description.startswith("to be sent"):
                pressed.append(name)
        for place in _availability(component.config):
            places[place["topic"] + place.get("jsonPath", "")] = place
        said = component.config.get("availability_mode")
        mode = said if said in _MODES else mode
    settings: dict[str, Any] = {}
    if places:
        settings["availability"] = list(places.values())[:8]
        settings["availabilityMode"] = mode or "latest"
    return Offer(
        protocol_name=MQTT,
        config_data=settings,
        properties=rows,
        methods=[OfferedMethod(name=name, property_names=[name]) for name in pressed],
        left=[text[:MAX_TEXT] for text in left[:MAX_OFFERED]],
    )


def _availability(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where a device says that it is there, in the driver's settings.  What is not understood does not count."""
    listed = config.get("availability")
    places = listed if isinstance(listed, list) else []
    if config.get("availability_topic"):
        single = {
            "topic": config["availability_topic"],
            "value_template": config.get("availability_template"),
            "payload_available": config.get("payload_available", "online"),
            "payload_not_available": config.get("payload_not_available", "offline"),
        }
        places = [*places, single]
    found = []
    for place in places[:8]:
        try:
            row = {
                "topic": entity.topic(place.get("topic")),
                "online": entity.payload(place.get("payload_available", "online")),
                "offline": entity.payload(place.get("payload_not_available", "offline")),
            }
            if path := entity.json_path(place.get("value_template")):
                row["jsonPath"] = path
        except NotUnderstood:
            continue
        found.append(row)
    return found
