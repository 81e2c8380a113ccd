"""Whether a device is there, by what is said on topics."""

from typing import Any

import pytest

from mappers.framework.driver import DriverError, Settings
from mappers.mqtt.presence import presence_of

TWO = [
    {"topic": "bridge", "jsonPath": "$.state", "online": "online", "offline": "offline"},
    {"topic": "device", "online": "Online", "offline": "Offline"},
]


def said(mode: str, *messages: tuple[int, bytes]) -> bool | None:
    presence = presence_of(Settings({"availability": TWO, "availabilityMode": mode}))
    for place, payload in messages:
        presence.hear(presence.places[place], payload)
    return presence.present


@pytest.mark.parametrize(
    ("mode", "messages", "there"),
    [
        ("all", [], None),
        ("all", [(0, b'{"state":"online"}')], True),
        ("all", [(0, b'{"state":"online"}'), (1, b"Offline")], False),
        ("any", [(0, b'{"state":"online"}'), (1, b"Offline")], True),
        ("any", [(0, b'{"state":"offline"}'), (1, b"offline")], False),
        ("latest", [(1, b"Offline"), (0, b'{"state":"online"}')], True),
        ("latest", [(0, b'{"state":"online"}'), (1, b"Offline")], False),
        ("all", [(0, b"online"), (0, b'{"other":1}'), (1, b"\xff"), (1, b"")], None),  # says nothing
    ],
)
def test_modes(mode: str, messages: list[tuple[int, bytes]], there: bool | None) -> None:
    assert said(mode, *messages) is there


def test_one_topic_with_the_usual_words() -> None:
    presence = presence_of(Settings({"availabilityTopic": "t"}))
    (place,) = presence.places
    assert presence.hear(place, b'"online"')
    assert not presence.hear(place, b"yes")  # nothing new
    assert presence.hear(place, b" Offline ")
    assert presence.present is False


@pytest.mark.parametrize(
    "settings",
    [
        {"availability": "x"},
        {"availability": {"topic": "t"}},
        {"availability": ["t"]},
        {"availability": [{"jsonPath": "$.a"}]},
        {"availability": [{"topic": "t", "jsonPath": "$["}]},
        {"availability": TWO * 9},
        {"availabilityMode": "most"},
    ],
)
def test_settings_that_are_wrong(settings: dict[str, Any]) -> None:
    with pytest.raises(DriverError):
        presence_of(Settings(settings))


def test_they_come_as_json_over_the_dmi() -> None:
    presence = presence_of(Settings({"availability": '[{"topic":"t","online":"1","offline":"0"}]'}))
    assert presence.places[0].offline == "0"
