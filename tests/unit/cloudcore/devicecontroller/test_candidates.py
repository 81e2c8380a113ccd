"""What is written about found hardware; each plan, carried out, leaves nothing to be done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from beehive.apis import hardware
from beehive.apis.hardware import CANDIDATE_ANNOTATION, Offer, OfferedMethod, OfferedProperty, Seen, parse
from cloudcore.devicecontroller import candidates
from cloudcore.devicecontroller.candidates import Action, Candidate, Create, Key, Patch, TakeBack
from cloudcore.objects import DEVICE, DEVICECANDIDATE, Object, read

TEMPLATE = {
    "deviceModelRef": {"name": "meter"},
    "protocol": {"protocolName": "modbus", "configData": {"serialPort": "${devnode}", "baudRate": 9600}},
}
METER = Seen(rule_name="meter", identity="a:b:1", subsystem="tty", dev_node="/dev/ttyUSB0")


class Api:
    """Objects as an API would hold them after what was planned."""

    def __init__(self, **spec: Any) -> None:
        self.rule: dict[str, Any] = {
            "apiVersion": hardware.API_VERSION,
            "kind": "HardwareRule",
            "metadata": {"name": "meter"},
            "spec": {"match": {"subsystem": "tty"}, **spec},  # or another
        }
        self.things: dict[tuple[str, Key], dict[str, Any]] = {}
        self.seen: dict[str, list[Seen]] = {}
        self.declared = ["power"]
        self.covered: Callable[[Candidate], bool] = lambda _: True

    def item(self, kind: str, key: Key) -> Object | None:
        found = self.things.get((kind, key))
        return (
            read(DEVICE if kind == "Device" else DEVICECANDIDATE, msgspec.json.encode(found))
            if found
            else None
        )

    def plan(self) -> list[Action]:
        held = {}
        for kind, key in self.things:
            item = self.item(kind, key)
            if kind == "DeviceCandidate" and item and (candidate := candidates.read(item)):
                held[key] = candidate
        rules = {(rule.namespace, rule.name): rule for rule in parse([self.rule])}
        return candidates.plan(
            held,
            self.seen,
            rules,
            lambda key: self.item("Device", key),
            lambda _: self.declared,
            self.covered,
        )

    def settle(self) -> list[Action]:
        """Plan and do until there is nothing more to do; everything that was done."""
        done: list[Action] = []
        for _ in range(10):
            actions = self.plan()
            if not actions:
                return done
            for action in actions:
                self.do(action)
            done += actions
        raise AssertionError(f"it does not settle: {actions}")

    def do(self, action: Action) -> None:
        match action:
            case Create(kind, namespace, body):
                self.things.setdefault((kind.kind, (namespace, body["metadata"]["name"])), body)
            case Patch(kind, key, body):
                merge(self.things[kind.kind, key], body)
            case TakeBack(key, _):
                merge(self.things["DeviceCandidate", key], {"spec": {"accepted": False}})

    def only(self, kind: str) -> dict[str, Any]:
        (found,) = (thing for (its, _), thing in self.things.items() if its == kind)
        return found


def merge(whole: dict[str, Any], part: dict[str, Any]) -> None:
    for key, value in part.items():
        if value is None:
            whole.pop(key, None)
        elif isinstance(value, dict) and isinstance(whole.get(key), dict):
            merge(whole[key], value)
        else:
            whole[key] = value


def test_seen_accepted_moved_and_gone() -> None:
    api = Api(template=TEMPLATE)
    api.seen = {"edge-1": [METER]}
    api.settle()
    candidate = api.only("DeviceCandidate")
    assert candidate["status"]["phase"] == "Present"
    assert "accepted" not in candidate["spec"]
    candidate["spec"]["accepted"] = True
    api.settle()
    device = api.only("Device")
    assert device["spec"]["protocol"]["configData"] == {"serialPort": "/dev/ttyUSB0", "baudRate": 9600}
    assert device["spec"]["properties"] == [{"name": "power", "reportToCloud": True}]
    assert device["metadata"]["annotations"] == {CANDIDATE_ANNOTATION: device["metadata"]["name"]}
    device["spec"]["protocol"]["configData"]["baudRate"] = 19200  # a person's
    assert api.settle() == []
    api.seen = {"edge-1": []}
    api.settle()
    assert candidate["status"]["phase"] == "Absent"
    api.seen = {"edge-1": [msgspec.structs.replace(METER, dev_node="/dev/ttyUSB3")]}
    api.settle()
    assert device["spec"]["protocol"]["configData"] == {"serialPort": "/dev/ttyUSB3", "baudRate": 19200}
    assert candidate["spec"]["devNode"] == "/dev/ttyUSB3"


def test_a_node_that_said_nothing_yet_loses_nothing() -> None:
    api = Api(template=TEMPLATE, accept=True)
    api.seen = {"edge-1": [METER]}
    api.settle()
    api.seen = {}
    assert api.settle() == []
    assert api.only("DeviceCandidate")["status"]["phase"] == "Present"


def test_deleting_the_device_is_a_no_that_stands() -> None:
    api = Api(template=TEMPLATE, accept=True)
    api.seen = {"edge-1": [METER]}
    api.settle()
    key = next(key for kind, key in api.things if kind == "Device")
    del api.things["Device", key]
    assert api.plan() == [TakeBack(key, key[1])]
    api.settle()
    assert api.only("DeviceCandidate")["spec"]["accepted"] is False
    assert api.only("DeviceCandidate")["status"]["device"] == ""
    api.seen = {"edge-1": []}
    api.settle()
    api.seen = {"edge-1": [METER]}
    api.settle()
    assert ("Device", key) not in api.things
    api.only("DeviceCandidate")["spec"]["accepted"] = True
    api.settle()
    assert ("Device", key) in api.things


def test_what_is_in_the_way_is_said() -> None:
    api = Api(accept=True)
    api.seen = {"edge-1": [METER]}
    api.settle()
    assert "no template" in api.only("DeviceCandidate")["status"]["message"]
    name = api.only("DeviceCandidate")["metadata"]["name"]
    other = Api(accept=True, template=TEMPLATE)
    other.things["Device", ("default", name)] = {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {},
    }
    other.seen = {"edge-1": [METER]}
    other.settle()
    assert "was not made of it" in other.only("DeviceCandidate")["status"]["message"]
    assert other.only("Device")["spec"] == {}


def test_a_node_that_makes_up_identities_does_not_fill_the_api() -> None:
    api = Api(template=TEMPLATE)
    for turn in range(4):
        api.seen = {
            "edge-1": [msgspec.structs.replace(METER, identity=f"{turn}-{i}") for i in range(256)],
            "edge-2": [METER],
        }
        api.settle()
    nodes = [thing["spec"]["nodeName"] for thing in api.things.values()]
    assert nodes.count("edge-1") == candidates.MAX_CANDIDATES
    assert nodes.count("edge-2") == 1


def test_a_node_cannot_speak_of_anothers_things() -> None:
    api = Api(template=TEMPLATE, accept=True)
    api.seen = {"edge-1": [METER], "edge-2": [METER]}
    api.settle()
    nodes = sorted(t["spec"]["nodeName"] for (kind, _), t in api.things.items() if kind == "Device")
    assert nodes == ["edge-1", "edge-2"]
    # one made by hand under a name that is not its own counts for nothing
    api.things["DeviceCandidate", ("default", "forged")] = {
        "metadata": {"name": "forged", "namespace": "default"},
        "spec": {**hardware.facts(METER), "nodeName": "edge-1", "accepted": True},
    }
    assert api.settle() == []


PUMP = Seen(
    rule_name="meter",
    identity="A1B2C3",
    subsystem="mqtt",
    name="Pump",
    offer=Offer(
        protocol_name="mqtt",
        config_data={"availability": [{"topic": "pump/LWT"}], "availabilityMode": "all"},
        properties=[
            OfferedProperty(
                name="on", type="BOOLEAN", writable=True, config={"topic": "pump/s", "stateOn": "ON"}
            ),
            OfferedProperty(name="power", type="DOUBLE", unit="W", config={"topic": "pump/p"}),
        ],
        methods=[OfferedMethod(name="restart", property_names=["on"])],
    ),
)


def offering(**spec: Any) -> Api:
    api = Api(match={"subsystem": "mqtt"}, accept=True, **spec)
    api.declared = []
    api.seen = {"edge-1": [PUMP]}
    return api


def test_what_describes_itself_becomes_a_model_and_a_device() -> None:
    api = offering()
    api.settle()
    name = hardware.object_name("edge-1", PUMP)
    model = api.things["DeviceModel", ("default", name)]
    assert model["spec"]["properties"][0] == {"name": "on", "type": "BOOLEAN", "accessMode": "ReadWrite"}
    assert model["spec"]["properties"][1]["unit"] == "W"
    device = api.things["Device", ("default", name)]["spec"]
    assert api.only("Device")["metadata"]["annotations"]["skerry.dev/known-as"] == "Pump"
    assert device["deviceModelRef"] == {"name": name}
    assert device["nodeName"] == "edge-1"
    assert device["protocol"] == {"protocolName": "mqtt", "configData": PUMP.offer.config_data}  # type: ignore[union-attr]
    assert device["properties"][0]["visitors"] == {"configData": {"topic": "pump/s", "stateOn": "ON"}}
    assert device["methods"] == [{"name": "restart", "propertyNames": ["on"]}]


def test_a_template_is_laid_over_what_is_offered() -> None:
    api = offering(template={"protocol": {"configData": {"username": "drivers", "availabilityMode": "any"}}})
    api.settle()
    spec = api.things["Device", ("default", hardware.object_name("edge-1", PUMP))]["spec"]
    assert spec["protocol"]["configData"] == {
        "availability": [{"topic": "pump/LWT"}],
        "availabilityMode": "any",
        "username": "drivers",
    }
    own = offering(template={"deviceModelRef": {"name": "pump"}})
    own.settle()
    assert not any(kind == "DeviceModel" for kind, _ in own.things)
    assert own.things["Device", ("default", hardware.object_name("edge-1", PUMP))]["spec"][
        "deviceModelRef"
    ] == {"name": "pump"}


def test_a_changed_offer_shows_in_the_candidate_and_changes_no_device() -> None:
    api = offering()
    api.settle()
    key = ("default", hardware.object_name("edge-1", PUMP))
    before = api.things["Device", key]
    less = Offer(protocol_name="mqtt", config_data={"availabilityMode": "any"}, left=["x: no"])
    api.seen = {"edge-1": [msgspec.structs.replace(PUMP, offer=less)]}
    api.settle()  # which ends only when the candidate says the same
    assert api.things["DeviceCandidate", key]["spec"]["offer"] == msgspec.to_builtins(less)
    assert api.things["Device", key] == before
    api.seen = {"edge-1": [msgspec.structs.replace(PUMP, offer=None)]}
    api.settle()
    assert "offer" not in api.things["DeviceCandidate", key]["spec"]


def test_a_source_that_is_not_known_makes_nothing_absent() -> None:
    api = offering()
    api.settle()
    key = ("default", hardware.object_name("edge-1", PUMP))
    api.seen = {"edge-1": []}
    api.covered = lambda candidate: candidate.seen.subsystem != "mqtt"
    assert api.settle() == []
    api.covered = lambda _: True
    api.settle()
    assert api.things["DeviceCandidate", key]["status"]["phase"] == "Absent"
