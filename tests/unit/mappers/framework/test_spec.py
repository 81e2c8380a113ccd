import json

import pytest

from beehive._generated import dmi_pb2 as pb
from beehive.apis.devices import decode_device, decode_model
from beehive.errors import SkerryError
from devicetwin.dmi_convert import to_device, to_model
from mappers.framework.spec import from_objects, from_proto
from mappers.virtual.thermostat import Thermostat

MODEL = decode_model(json.dumps(Thermostat.example[0]))
DEVICE = decode_device(json.dumps(Thermostat.example[1]))


def test_both_ways_to_a_spec_agree() -> None:
    """What edgecore sends, and what a file on the desk says, are the same device."""
    wishes = {p.name: p.desired.value for p in DEVICE.spec.properties if p.desired is not None}
    over_dmi = from_proto(to_device(DEVICE, wishes), to_model(MODEL))
    on_desk = from_objects(DEVICE, MODEL)
    assert dict(over_dmi.settings) == dict(on_desk.settings)
    assert over_dmi.state_cycle_s == on_desk.state_cycle_s == 5.0
    assert {
        n: (p.type, p.writable, p.desired, p.cycle_s, p.report) for n, p in over_dmi.properties.items()
    } == {n: (p.type, p.writable, p.desired, p.cycle_s, p.report) for n, p in on_desk.properties.items()}
    assert over_dmi.same_but_desired(on_desk)


def test_properties_unknown_to_the_model_are_left_out() -> None:
    device = pb.Device(name="d", namespace="n")
    device.spec.properties.add(name="a")
    device.spec.properties.add(name="b")
    device.spec.properties.add(name="c")
    model = pb.DeviceModel(name="m", namespace="n")
    model.spec.properties.add(name="a", type="int")
    model.spec.properties.add(name="b", type="odd")
    assert [(p.name, p.type) for p in from_proto(device, model).properties.values()] == [("a", "INT")]


def test_without_a_model_there_is_no_device() -> None:
    with pytest.raises(SkerryError, match="no model"):
        from_proto(pb.Device(name="d", namespace="n"), None)


@pytest.mark.parametrize(
    ("cycle", "seconds"),
    [(0, 1.0), (-5, 1.0), (500, 0.5), (1, 0.01), (10_000_000_000, 10.0), (999_999_999, 999_999.999)],
)
def test_cycles_are_ms_and_nanoseconds_of_old_manifests_are_recognised(cycle: int, seconds: float) -> None:
    device = pb.Device(name="d", namespace="n")
    device.spec.properties.add(name="a", collectCycle=cycle)
    model = pb.DeviceModel(name="m", namespace="n")
    model.spec.properties.add(name="a", type="INT")
    assert from_proto(device, model).properties["a"].cycle_s == seconds


def test_a_wish_is_no_reason_to_reopen_and_a_setting_is() -> None:
    base = to_device(DEVICE, {})
    spec = from_proto(base, to_model(MODEL))
    assert spec.same_but_desired(from_proto(to_device(DEVICE, {"target": "30"}), to_model(MODEL)))
    del base.spec.protocol.configData.data["timeConstant"]
    assert not spec.same_but_desired(from_proto(base, to_model(MODEL)))
