import json
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from beehive.apis import devices_v1alpha2 as old
from beehive.apis.decode import convert
from beehive.apis.devices import Device, DeviceModel, check_device, check_model, decode_device, decode_model
from mappers.framework.spec import from_objects
from mappers.modbus import codec
from mappers.modbus.driver import line_of, unit_of

BOILER = """
apiVersion: devices.kubeedge.io/v1alpha2
kind: DeviceModel
metadata: {name: boiler, namespace: plant}
spec:
  protocol: modbus
  properties:
  - name: target
    description: wanted
    type: {int: {accessMode: ReadWrite, defaultValue: 55, minimum: 20, maximum: 80.0, unit: celsius}}
  - name: temperature
    type: {float: {accessMode: ReadOnly, defaultValue: 1}}
  - name: pump
    type: {boolean: {accessMode: ReadWrite, defaultValue: false}}
---
apiVersion: devices.kubeedge.io/v1alpha2
kind: Device
metadata: {name: boiler-1, namespace: plant, labels: {a: b}}
spec:
  deviceModelRef: {name: boiler}
  nodeSelector:
    nodeSelectorTerms:
    - matchExpressions: [{key: '', operator: In, values: [edge-1]}]
  protocol:
    modbus: {slaveID: 3}
    common:
      com: {serialPort: /dev/ttyS0, baudRate: 9600, dataBits: 8, parity: even, stopBits: 1}
      collectTimeout: 7
      customizedValues: {serialType: RS485}
  propertyVisitors:
  - propertyName: target
    collectCycle: 500000000
    reportCycle: 1000000000
    modbus: {register: HoldingRegister, offset: 2, limit: 1, scale: 1, isSwap: true}
  - propertyName: temperature
    collectCycle: -1
    modbus: {register: InputRegister, offset: 0, limit: 2, scale: 0.1}
status:
  twins:
  - propertyName: pump
    desired: {value: 'true', metadata: {type: boolean}}
"""


def objects(text: str) -> tuple[DeviceModel, Device]:
    model, device = old.convert(yaml.safe_load_all(text))
    return convert(model, DeviceModel), convert(device, Device)


def test_an_old_boiler_runs() -> None:
    model, device = objects(BOILER)
    assert check_model(model) == []
    assert check_device(device, model) == []
    assert (device.spec.node_name, device.metadata.labels) == ("edge-1", {"a": "b"})
    spec = from_objects(device, model)
    assert (line_of(spec.settings).device, line_of(spec.settings).parity) == ("/dev/ttyS0", "E")
    assert unit_of(spec.settings) == 3
    assert spec.settings["serialType"] == "RS485"
    target, temperature, pump = (spec.properties[name] for name in ("target", "temperature", "pump"))
    assert (target.type, target.minimum, target.maximum, target.cycle_s) == ("INT", "20", "80", 0.5)
    assert target.desired == "55"  # the model's default
    assert codec.field_of(target).swap_bytes
    assert (temperature.desired, temperature.writable, temperature.cycle_s) == ("", False, 1.0)
    assert pump.desired == "true"


def test_where_one_is_read_it_is_converted() -> None:
    model, device = yaml.safe_load_all(BOILER)
    read = decode_device(json.dumps(device))
    assert read.spec.protocol.protocol_name == "modbus"
    assert read.spec.properties[0].collect_cycle == 500
    assert decode_model(json.dumps(model).encode()).spec.properties[2].type == "BOOLEAN"


def test_a_protocol_of_ones_own() -> None:
    text = """
apiVersion: devices.kubeedge.io/v1alpha2
kind: Device
metadata: {name: cam}
spec:
  protocol: {customizedProtocol: {protocolName: onvif, configData: {url: a:80}}}
  propertyVisitors:
  - {propertyName: p, customizedProtocol: {protocolName: onvif, configData: {method: m}}, customizedValues: {x: 1}}
"""
    (new,) = old.convert(yaml.safe_load_all(text))
    assert new["spec"]["protocol"] == {"protocolName": "onvif", "configData": {"url": "a:80"}}
    (row,) = new["spec"]["properties"]
    assert row["visitors"] == {"protocolName": "onvif", "configData": {"x": 1, "method": "m"}}


def test_others_stay_as_they_are() -> None:
    new = {"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "spec": {"nodeName": "v1alpha2"}}
    assert old.convert([new, None, "x"]) == [new, None, "x"]
    assert decode_device(json.dumps(new)).spec.node_name == "v1alpha2"


KEYS = (
    *(
        "spec",
        "protocol",
        "modbus",
        "common",
        "com",
        "propertyVisitors",
        "type",
        "int",
        "status",
        "twins",
        "desired",
    ),
    *("nodeSelector", "nodeSelectorTerms", "matchExpressions", "values", "properties", "value"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.sampled_from(["Device", "DeviceModel"]))
def test_any_shape_has_an_answer(body: Any, kind: str) -> None:
    document = {**(body if isinstance(body, dict) else {}), "apiVersion": old.OLD, "kind": kind}
    (new,) = old.convert([document])
    assert new["apiVersion"] == old.NEW
    convert(new["spec"].get("properties"), list[dict[str, Any]])
