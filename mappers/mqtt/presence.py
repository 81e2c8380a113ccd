"""Whether a device is there, from what it and others say on topics.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mappers.framework import jsonpath
from mappers.framework.driver import DriverError, Settings
from mappers.framework.errors import ValueRefused

AWAY = ("offline", "false", "0", "unavailable", "dead")
MAX_PLACES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A topic.  online: None takes everything for it that is not offline.  offline: None for what is usual."""

    topic: str
    path: str = ""
    online: str | None = None
    offline: str | None = None


@dataclass(slots=True)
class Presence:
    """mode: `all` wants every place to say that the device is there, `any` one of them, `latest` whichever spoke last."""

    places: tuple[Place, ...] = ()
    mode: str = "all"
    said: dict[Place, bool] = field(default_factory=dict)
    last: bool | None = None

    def hear(self, place: Place, payload: bytes) -> bool:
        """Take a message.  Says whether the device came or went by it; one that says neither changes nothing."""
        before = self.present
        text = _text(place, payload)
        if text is None:
            return False
        if place.offline is not None and text == place.offline.lower():
            here = False
        elif place.online is not None and text == place.online.lower():
            here = True
        elif place.online is None:
            here = text not in AWAY
        else:
            return False
        self.said[place] = self.last = here
        return self.present != before

    @property
    def present(self) -> bool | None:
        """None while nobody has said."""
        if self.mode == "latest" or not self.said:
            return self.last
        if self.mode == "any":
            return any(self.said.values())
        return all(self.said.values())


def presence_of(settings: Settings) -> Presence:
    """From `availabilityTopic`, or `availability` and `availabilityMode`.  Raises: DriverError naming the setting."""
    wrong = DriverError("setting 'availability' is not a list of topic, jsonPath, online and offline")
    listed = settings.get("availability")
    if isinstance(listed, str) and listed:  # DMI carries lists as JSON
        try:
            listed = msgspec.json.decode(listed)
        except msgspec.DecodeError:
            raise wrong from None
    if listed is not None and (not isinstance(listed, list) or len(listed) > MAX_PLACES):
        raise wrong
    places = [_place(each) for each in listed or [] if isinstance(each, Mapping)]
    if len(places) != len(listed or []):
        raise wrong
    topic = settings.text("availabilityTopic", "")
    if topic:
        places.append(Place(topic=topic))
    mode = settings.text("availabilityMode", "all").lower()
    if mode not in ("all", "any", "latest"):
        raise DriverError("setting 'availabilityMode' is not all, any or latest")
    return Presence(places=tuple(places), mode=mode)


def _place(given: Mapping[str, Any]) -> Place:
    row = Settings(given)
    path = row.text("jsonPath", "")
    jsonpath.parse(path)
    return Place(
        topic=row.text("topic"),
        path=path,
        online=row.text("online") if "online" in row else None,
        offline=row.text("offline") if "offline" in row else None,
    )


def _text(place: Place, payload: bytes) -> str | None:
    """What a message says in this place; None for nothing."""
    if not place.path:
        return payload.decode("utf-8", "replace").strip().strip('"').lower()
    try:
        value = jsonpath.find(jsonpath.decode(payload), place.path)
    except ValueRefused:
        return None
    return "true" if value is True else "false" if value is False else str(value).lower()
