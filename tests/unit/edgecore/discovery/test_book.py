"""Devices that announce themselves: what they are called, can do, and cannot."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive.apis import hardware
from beehive.apis.decode import convert
from beehive.apis.devices import Device, DeviceModel, check_device, check_model
from beehive.apis.hardware import MAX_OFFERED, Offer, OfferedProperty, Report, Rule, Seen
from edgecore.discovery import book
from edgecore.discovery.book import Book, topic_parts
from tests.unit.edgecore.discovery import announcements

RULE = Rule(name="any", patterns={"subsystem": "mqtt"})


def heard(*sets: dict[str, dict[str, Any]], rule: Rule = RULE) -> list[Seen]:
    one = Book()
    for messages in sets:
        for topic, message in messages.items():
            assert one.hear(topic, json.dumps(message).encode())
    return one.seen([rule])


def offer_of(*sets: dict[str, dict[str, Any]]) -> Offer:
    (thing,) = heard(*sets)
    assert thing.offer is not None
    return thing.offer


def rows(offer: Offer) -> dict[str, OfferedProperty]:
    return {row.name: row for row in offer.properties}


def valid(thing: Seen, rule: Rule = RULE) -> tuple[Device, DeviceModel]:
    """The objects that would be made, which nothing may be wrong with."""
    made = hardware.device_object("edge-1", thing, rule)
    model_made = hardware.model_object("edge-1", thing, rule)
    assert made is not None
    assert model_made is not None
    device, model = convert(made, Device), convert(model_made, DeviceModel)
    assert check_model(model) == []
    assert check_device(device, model) == []
    return device, model


def test_in_the_manner_of_zigbee2mqtt() -> None:
    (thing,) = heard(announcements.ZIGBEE)
    assert (thing.name, thing.vendor, thing.product) == ("Kitchen plug", "IKEA", "E1603")
    assert (thing.identity, thing.driver) == ("zigbee2mqtt_0x00158d0001a2b3c4", "Zigbee2MQTT")
    offer = thing.offer
    assert offer is not None
    assert offer.config_data["availabilityMode"] == "all"
    assert offer.config_data["availability"][1] == {
        "topic": "zigbee2mqtt/Kitchen plug/availability",
        "online": "online",
        "offline": "offline",
        "jsonPath": "$.state",
    }
    found = rows(offer)
    assert sorted(found) == [
        "countdown",
        "last-seen",
        "power",
        "power-on-behavior",
        "switch",
        "update-available",
    ]
    assert (found["power"].type, found["power"].unit, found["power"].writable) == ("DOUBLE", "W", False)
    assert found["power"].config == {"topic": "zigbee2mqtt/Kitchen plug", "jsonPath": "$.power"}
    assert (found["switch"].type, found["switch"].writable) == ("BOOLEAN", True)
    assert found["switch"].config["payloadOn"] == found["switch"].config["stateOn"] == "ON"
    assert found["update-available"].config["jsonPath"] == "$.update.available"
    assert found["update-available"].config["stateOn"] == "true"
    assert found["power-on-behavior"].description == "one of off, previous, on"
    assert (found["countdown"].type, found["countdown"].minimum, found["countdown"].maximum) == (
        "INT",
        "0",
        "43200",
    )
    assert found["last-seen"].type == "STRING"
    assert len(offer.left) == 1
    assert offer.left[0].startswith("odd: its template is not understood")
    valid(thing)


def test_a_light_with_all_in_one_message() -> None:
    found = rows(offer_of(announcements.ZIGBEE_LIGHT))
    assert sorted(found) == ["light", "light-brightness", "light-color-temp"]
    assert found["light"].config["template"] == '{"state": ${value}}'
    assert found["light"].config["payloadOn"] == "ON"
    assert (found["light-brightness"].maximum, found["light-brightness"].config["jsonPath"]) == (
        "254",
        "$.brightness",
    )
    assert (found["light-color-temp"].minimum, found["light-color-temp"].maximum) == ("250", "454")


def test_in_the_manner_of_tasmota() -> None:
    (thing,) = heard(announcements.TASMOTA)
    assert (thing.name, thing.model, thing.vendor) == ("Pump", "Sonoff S31", "Tasmota")
    assert thing.offer is not None
    assert thing.offer.config_data["availability"] == [
        {"topic": "tasmota/pump/tele/LWT", "online": "Online", "offline": "Offline"}
    ]
    found = rows(thing.offer)
    assert found["pump"].config["commandTopic"] == "tasmota/pump/cmnd/POWER"
    assert found["pump"].config["topic"] == "tasmota/pump/tele/STATE"
    assert found["pump-energy-power"].config["jsonPath"] == "$.ENERGY.Power"
    valid(thing)


def test_in_the_manner_of_esphome() -> None:
    (thing,) = heard(announcements.ESPHOME)
    assert thing.offer is not None
    found = rows(thing.offer)
    assert (found["humidity"].unit, found["humidity"].config["maxAge"]) == ("percent", 600)
    assert found["restart"].description == "to be sent: PRESS"
    assert [(m.name, m.property_names) for m in thing.offer.methods] == [("restart", ["restart"])]
    device, _ = valid(thing)
    assert device.spec.methods[0].name == "restart"


def test_a_whole_device_in_one_message() -> None:
    (thing,) = heard(announcements.WHOLE)
    assert (thing.identity, thing.serial, thing.driver) == ("hp-1", "0042", "bridge")
    assert thing.offer is not None
    assert thing.offer.config_data["availability"][0]["topic"] == "hp/online"
    found = rows(thing.offer)
    assert sorted(found) == ["curve", "outside", "quiet"]
    assert found["outside"].config == {"topic": "hp/state", "jsonPath": "$.out"}
    assert found["curve"].config["commandTopic"] == "hp/set"
    assert found["curve"].config["template"] == '{"curve": ${value}}'
    assert (found["curve"].type, found["curve"].minimum) == ("DOUBLE", "0.1")
    valid(thing)


def test_the_order_of_messages_does_not_matter() -> None:
    forward = heard(announcements.ZIGBEE, announcements.ESPHOME, announcements.TASMOTA)
    backward = heard(
        *[
            dict(reversed(m.items()))
            for m in (announcements.TASMOTA, announcements.ESPHOME, announcements.ZIGBEE)
        ]
    )
    assert forward == backward


def test_an_empty_message_takes_back_what_was_announced() -> None:
    one = Book()
    for topic, message in announcements.ESPHOME.items():
        one.hear(topic, json.dumps(message).encode())
    assert not one.hear("homeassistant/button/kitchen/other/config", b"")
    assert one.hear("homeassistant/button/kitchen/restart/config", b"")
    (thing,) = one.seen([RULE])
    assert thing.offer is not None
    assert [row.name for row in thing.offer.properties] == ["humidity"]
    assert one.hear("homeassistant/sensor/kitchen/humidity/config", b"not json")  # that holds no more either
    assert one.seen([RULE]) == []
    assert one.held == 0
    assert one.refused["bad"] == 1


def test_rules_choose() -> None:
    messages = (announcements.ZIGBEE, announcements.ESPHOME, announcements.TASMOTA)
    one = Rule(name="ikea", patterns={"subsystem": "mqtt", "vendor": "ikea"})
    assert [thing.name for thing in heard(*messages, rule=one)] == ["Kitchen plug"]
    two = Rule(name="esp", patterns={"subsystem": "MQTT", "name": "kit*", "vendor": "espressif"})
    assert [thing.name for thing in heard(*messages, rule=two)] == ["kitchen"]
    for patterns in (
        {"subsystem": "tty"},
        {"subsystem": "mqtt", "devtype": "*"},
        {"subsystem": "mqtt", "port": "*"},
    ):
        assert heard(*messages, rule=Rule(name="no", patterns=patterns)) == []


@pytest.mark.parametrize(
    "topic",
    [
        "homeassistant/config",
        "homeassistant/sensor/config",
        "homeassistant/sensor/a/b/c/config",
        "homeassistant/sensor/../config",
        "homeassistant/sensor/a b/config",
        "homeassistant/sensor//config",
        f"homeassistant/sensor/{'x' * 65}/config",
        "other/sensor/a/config",
        "homeassistant/sensor/a/state",
    ],
)
def test_topics_that_announce_nothing(topic: str) -> None:
    assert topic_parts(topic) is None
    assert not Book().hear(topic, b"{}")


@pytest.mark.parametrize(
    "change",
    [
        {"state_topic": "$SYS/#"},
        {"state_topic": "$hw/events/device/default/other/twin/update"},
        {"state_topic": "a/+/b"},
        {"state_topic": "x" * 2000},
        {"state_topic": "a\x00b"},
        {"state_topic": ["a"]},
        {"value_template": "{{ value_json.a.__class__() }}"},
        {"value_template": "{{ states('x') }}"},
        {"value_template": 7},
        {"value_template": "{{ value_json." + "a." * 1000 + "}}"},
    ],
)
def test_what_cannot_be_used_is_left_out_by_name(change: dict[str, Any]) -> None:
    offer = offer_of({"homeassistant/sensor/n/t/config": {"state_topic": "t", **change}})
    assert offer.properties == []
    assert len(offer.left) == 1
    assert offer.left[0].startswith("t: its t")


@pytest.mark.parametrize(
    ("template", "made"),
    [
        ("{{ value }}", None),
        ('{"mode": "{{ value }}"}', '{"mode": ${value}}'),
        ('{"x": {{ value | int }}, "y": 1}', '{"x": ${value}, "y": 1}'),
        ("set {{ value }}", "left"),
        ('{"a": "b {{ value }}"}', "left"),
        ("{{ value }}{{ value }}", "left"),
        ("{% if x %}", "left"),
    ],
)
def test_templates_of_commands(template: str, made: str | None) -> None:
    offer = offer_of(
        {
            "homeassistant/text/n/t/config": {
                "state_topic": "s",
                "command_topic": "c",
                "command_template": template,
            }
        }
    )
    if made == "left":
        assert "its command's template is not understood" in offer.left[0]
    else:
        assert offer.properties[0].config.get("template") == made


def test_bounds() -> None:
    one = Book()
    for n in range(book.MAX_TOPICS + 5):
        one.hear(f"homeassistant/sensor/n{n}/t/config", b'{"state_topic":"t"}')
    assert len(one.topics) == book.MAX_TOPICS
    assert one.refused["bound"] == 5
    assert len(one.seen([RULE])) == book.MAX_DEVICES
    assert not Book().hear("homeassistant/sensor/n/t/config", b'{"a":"' + b"x" * book.MAX_MESSAGE + b'"}')
    big = Book()
    for n in range(200):
        big.hear(
            f"homeassistant/sensor/n{n}/t/config",
            json.dumps({"state_topic": "t", "x": "y" * 60_000}).encode(),
        )
    assert big.held <= book.MAX_HELD_BYTES
    many = {f"homeassistant/sensor/n/t{n}/config": {"state_topic": f"t/{n}"} for n in range(MAX_OFFERED + 20)}
    offer = offer_of(many)
    assert len(offer.properties) == MAX_OFFERED
    assert len(offer.left) == 20
    long = {
        f"homeassistant/sensor/n/t{n}/config": {"state_topic": "t" * 1000, "unit_of_measurement": "u" * 500}
        for n in range(MAX_OFFERED)
    }
    assert len(msgspec.json.encode(offer_of(long))) < 2 * book.MAX_OFFER_BYTES


def test_hostile_names_do_no_harm() -> None:
    (thing,) = heard(
        {
            "homeassistant/sensor/n/t/config": {
                "state_topic": "t",
                "name": "\x1b[2J" + "x" * 5000,
                "unit_of_measurement": "\n\r\x00",
                "device": {
                    "identifiers": ["../../etc\x1b"],
                    "name": "a\nb",
                    "manufacturer": ["x"],
                    "model": 7,
                },
            },
            "homeassistant/sensor/n/T/config": {
                "state_topic": "t",
                "device": {"identifiers": ["../../etc\x1b"]},
            },
        }
    )
    assert all(char.isprintable() for char in thing.name + thing.identity)
    assert thing.offer is not None
    assert len({row.name for row in thing.offer.properties}) == 2
    valid(thing)


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["~", "device", "dev", "state_topic", "stat_t", "command_topic", "value_template", "availability", "avty", "min",
        "max", "step", "options", "schema", "brightness", "supported_color_modes", "payload_on", "components", "cmps",
        "p", "platform", "qos", "retain", "expire_after", "unit_of_measurement", "name", "position_topic"]  # fmt: skip
KINDS = [
    "sensor",
    "binary_sensor",
    "switch",
    "light",
    "number",
    "cover",
    "climate",
    "lock",
    "fan",
    "button",
    "device",
    "odd",
]


@given(
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(KEYS), JSON | st.sampled_from(["a/b", "~/x", "json"])),
)
def test_any_message_makes_objects_that_are_right_or_nothing(kind: str, message: dict[str, Any]) -> None:
    one = Book()
    one.hear(f"homeassistant/{kind}/n/o/config", json.dumps(message).encode())
    for thing in one.seen([RULE]):
        again = msgspec.json.decode(msgspec.json.encode(Report(seen=[thing])), type=Report)
        assert again.seen == [thing]
        valid(thing)


@given(st.binary(max_size=200))
def test_any_bytes(payload: bytes) -> None:
    one = Book()
    one.hear("homeassistant/device/n/config", payload)
    one.seen([RULE])
