import contextlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive.apis import devices
from beehive.apis.decode import ObjectError
from beehive.apis.devices import (
    Device,
    DeviceModel,
    check_device,
    check_model,
    check_value,
    decode_device,
    decode_model,
    deliverable,
    merged,
)
from tests.vectors_kubeedge import frames

MODEL = {
    "apiVersion": "devices.kubeedge.io/v1beta1",
    "kind": "DeviceModel",
    "metadata": {"name": "boiler", "namespace": "plant"},
    "spec": {
        "protocol": "modbus",
        "protocolConfigData": {"communicateMode": "TCP", "port": "502"},
        "properties": [
            {
                "name": "temp",
                "type": "FLOAT",
                "accessMode": "ReadOnly",
                "minimum": "0",
                "maximum": "120",
                "visitors": {
                    "protocolName": "modbus",
                    "configData": {"register": "InputRegister", "scale": 0.1},
                },
            },
            {"name": "setpoint", "type": "INT", "accessMode": "ReadWrite", "minimum": "10", "maximum": "90"},
        ],
    },
}
DEVICE = {
    "apiVersion": "devices.kubeedge.io/v1beta1",
    "kind": "Device",
    "metadata": {"name": "boiler-7", "namespace": "plant", "labels": {"Description": "basement"}},
    "spec": {
        "deviceModelRef": {"name": "boiler"},
        "nodeName": "edge-a",
        "protocol": {"protocolName": "modbus", "configData": {"ip": "10.1.2.3", "slaveID": 1}},
        "properties": [
            {
                "name": "temp",
                "collectCycle": 5000,
                "reportToCloud": True,
                "visitors": {"configData": {"scale": 1, "offset": 2}},
            },
            {"name": "setpoint", "desired": {"value": "70"}},
        ],
    },
}


def device(**spec: object) -> Device:
    return decode_device(json.dumps({**DEVICE, "spec": {**DEVICE["spec"], **spec}}))


def model(**spec: object) -> DeviceModel:
    return decode_model(json.dumps({**MODEL, "spec": {**MODEL["spec"], **spec}}))


def reasons(problems: list[devices.Problem]) -> list[str]:
    return [p.reason for p in problems]


class TestDecode:
    def test_objects_of_a_real_cloud_are_read_whole(self) -> None:
        read = {"device": 0, "devicemodel": 0}
        for message in frames("down"):
            kind = message["route"]["resource"].split("/")[1:2]
            if kind == ["device"]:
                got = decode_device(json.dumps(message["content"]))
                assert got.id == "vectors/thermo-1"
                assert got.spec.properties[0].desired is not None
                assert got.spec.properties[0].collect_cycle == 2000
                assert got.spec.protocol.config_data == {"address": "none"}
                read["device"] += 1
            elif kind == ["devicemodel"]:
                assert decode_model(json.dumps(message["content"])).spec.properties[0].type == "INT"
                read["devicemodel"] += 1
        assert min(read.values()) >= 2

    def test_keys_match_without_regard_to_case_but_user_maps_stay(self) -> None:
        text = (
            json.dumps(DEVICE).replace('"collectCycle"', '"COLLECTcycle"').replace('"nodeName"', '"nodename"')
        )
        got = decode_device(text)
        assert got.spec.node_name == "edge-a"
        assert got.spec.properties[0].collect_cycle == 5000
        assert got.metadata.labels == {"Description": "basement"}
        assert got.spec.protocol.config_data == {"ip": "10.1.2.3", "slaveID": 1}

    def test_irregular_capitals_are_read_in_any_case_and_written_exactly(self) -> None:
        push = {"dbmethod": {"tdengine": {"tdengineclientconfig": {"addr": "a", "dbname": "d"}}}}
        got = device(properties=[{"name": "temp", "pushmethod": push}])
        out = json.loads(msgspec.json.encode(got))
        assert out["spec"]["properties"][0]["pushMethod"] == {
            "dbMethod": {"TDEngine": {"TDEngineClientConfig": {"addr": "a", "dbName": "d"}}}
        }

    def test_null_is_not_given_and_unknown_fields_are_ignored(self) -> None:
        got = decode_device(
            json.dumps({**DEVICE, "spec": {"properties": None, "nodeName": None, "extra": [1]}})
        )
        assert got.spec.properties == []
        assert got.spec.node_name == ""

    def test_of_two_spellings_the_last_counts(self) -> None:
        assert decode_device('{"spec": {"nodeName": "a", "NODENAME": "b"}}').spec.node_name == "b"

    @pytest.mark.parametrize(
        ("text", "path"),
        [
            ('{"spec": {"nodeName": 7}}', "$.spec.nodeName"),
            ('{"spec": {"properties": [{}, {"collectCycle": "5"}]}}', "$.spec.properties[1].collectCycle"),
            ('{"spec": []}', "$.spec"),
            ("[]", "expected"),
            ("{", ""),
            ("\x00", ""),
        ],
    )
    def test_a_bad_object_names_the_path(self, text: str, path: str) -> None:
        with pytest.raises(ObjectError) as error:
            decode_device(text)
        assert path.lower() in str(error.value).lower()

    def test_too_deep_and_too_long_are_errors_of_ours(self) -> None:
        with pytest.raises(ObjectError):
            decode_device('{"spec":' * 100_000)
        with pytest.raises(ObjectError):
            decode_device(b" " * (3 * 1024 * 1024 + 1))

    @given(st.binary(max_size=200))
    def test_garbage_raises_only_our_error(self, data: bytes) -> None:
        with contextlib.suppress(ObjectError):
            decode_device(data)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        [
                            "spec",
                            "Properties",
                            "metadata",
                            "name",
                            "desired",
                            "value",
                            "protocol",
                            "visitors",
                            "configData",
                        ]
                    ),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        )
    )
    def test_any_json_is_a_device_or_our_error_and_then_has_an_answer(self, value: object) -> None:
        try:
            got = decode_device(json.dumps(value))
        except ObjectError:
            return
        check_device(got, None)
        deliverable(got, model())
        assert decode_device(msgspec.json.encode(got)) == got

    def test_state_report_falls_back_to_the_legacy_status(self) -> None:
        old = decode_device(json.dumps({**DEVICE, "status": {"reportToCloud": True, "reportCycle": 5}}))
        assert old.state_report.report_cycle == 5
        new = decode_device(
            json.dumps({"spec": {"stateReport": {"reportToCloud": False}}, "status": {"reportToCloud": True}})
        )
        assert not new.state_report.report_to_cloud


class TestCheckValue:
    @pytest.mark.parametrize(
        ("type_", "good", "bad"),
        [
            (
                "INT",
                ["0", "-5", "+7", "9223372036854775807", "-9223372036854775808"],
                ["", "1.0", "9223372036854775808", "0x1", "1_0", " 1", "\u0661"],
            ),
            ("FLOAT", ["1", "1.5", "-.5", "2.", "1e3"], ["", ".", "NaN", "inf", "1e39", "1_0", "1,5"]),
            ("DOUBLE", ["1e39", "0.1"], ["1e400", "nan", "0x1p3"]),
            ("BOOLEAN", ["true", "False", "1", "t"], ["", "yes", "TrUe"]),
            ("STRING", ["", "ünï %{}+ ok"], ["\x00", "a\x1bb", "x" * 4097, "\ud800"]),
            ("Updated", [], ["x"]),
        ],
    )
    def test_types(self, type_: str, good: list[str], bad: list[str]) -> None:
        for value in good:
            assert check_value(value, type_) is None, value
        for value in bad:
            assert check_value(value, type_) is not None, value

    def test_range_is_inclusive_and_a_bad_bound_does_not_bind(self) -> None:
        assert check_value("10", "INT", minimum="10", maximum="90") is None
        assert check_value("9", "INT", minimum="10") == "is below the minimum 10"
        assert check_value("90.5", "FLOAT", maximum="90") == "is above the maximum 90"
        assert check_value("5", "INT", minimum="low") is None

    @given(st.text(), st.sampled_from([*devices.TWIN_TYPES, "", "int"]), st.text(max_size=8))
    def test_any_text_has_an_answer(self, value: str, type_: str, bound: str) -> None:
        check_value(value, type_, minimum=bound, maximum=bound)

    @given(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False))
    def test_what_python_prints_is_accepted(self, number: int, real: float) -> None:
        assert check_value(str(number), "INT") is None
        assert check_value(repr(real), "DOUBLE") is None


class TestCheck:
    def test_a_good_pair_has_no_problem(self) -> None:
        assert check_model(model()) == []
        assert check_device(device(), model()) == []

    @pytest.mark.parametrize(
        ("spec", "expected"),
        [
            ({"deviceModelRef": None}, ["NoModelRef"]),
            ({"deviceModelRef": {}}, ["NoModelRef"]),
            ({"protocol": {}}, ["NoProtocol"]),
            ({"properties": [{"name": "temp"}, {"name": "temp"}]}, ["DuplicateProperty"]),
            ({"properties": [{"name": "other"}]}, ["UnknownProperty"]),
            ({"properties": [{"name": ""}]}, ["BadName"]),
            ({"properties": [{"name": "a b"}]}, ["BadName"]),
            ({"properties": [{"name": "temp", "collectCycle": -1}]}, ["BadCycle"]),
            ({"properties": [{"name": "temp", "desired": {"value": "5"}}]}, ["ReadOnly"]),
            ({"properties": [{"name": "temp", "desired": {"value": ""}}]}, []),
            ({"properties": [{"name": "setpoint", "desired": {"value": "warm"}}]}, ["InvalidValue"]),
            ({"properties": [{"name": "setpoint", "desired": {"value": "91"}}]}, ["OutOfRange"]),
            ({"methods": [{"name": "m", "propertyNames": ["nope"]}]}, ["UnknownProperty"]),
        ],
    )
    def test_device_problems(self, spec: dict[str, object], expected: list[str]) -> None:
        assert reasons(check_device(device(**spec), model())) == expected

    def test_a_missing_model_blocks(self) -> None:
        problems = check_device(device(), None)
        assert reasons(problems) == ["ModelNotFound"]
        assert problems[0].blocking
        assert str(problems[0]) == "$.spec.deviceModelRef.name: there is no device model plant/boiler"

    @pytest.mark.parametrize(
        ("row", "expected"),
        [
            ({"name": "a", "type": "int"}, ["UnknownType"]),
            ({"name": "a", "type": "INT", "accessMode": "Write"}, ["UnknownAccessMode"]),
            ({"name": "a", "type": "INT", "minimum": "x"}, ["BadRange"]),
            ({"name": "a", "type": "INT", "minimum": "5", "maximum": "4"}, ["BadRange"]),
            ({"name": "a/b", "type": "INT"}, []),
        ],
    )
    def test_model_problems(self, row: dict[str, str], expected: list[str]) -> None:
        assert reasons(check_model(model(properties=[row]))) == expected


class TestMerge:
    def test_the_models_visitor_wins_and_instance_keys_override(self) -> None:
        got = merged(device(), model())
        visitors = got.spec.properties[0].visitors
        assert visitors is not None
        assert visitors.protocol_name == "modbus"
        assert visitors.config_data == {"register": "InputRegister", "scale": 1, "offset": 2}
        assert got.spec.protocol.config_data == {
            "communicateMode": "TCP",
            "port": "502",
            "ip": "10.1.2.3",
            "slaveID": 1,
        }

    def test_without_a_model_visitor_the_instances_stays_and_is_never_absent(self) -> None:
        got = merged(device(), model())
        assert got.spec.properties[1].visitors == devices.ProtocolConfig()

    def test_merging_twice_changes_nothing(self) -> None:
        once = merged(device(), model())
        assert merged(once, model()) == once

    def test_deliverable_leaves_out_what_hurts_a_mapper(self) -> None:
        rows = [*MODEL["spec"]["properties"], {"name": "odd", "type": "Updated"}]
        spec = [
            {"name": "temp", "collectCycle": -1, "desired": {"value": "1"}},
            {"name": "setpoint", "desired": {"value": "5000"}},
            {"name": "setpoint"},
            {"name": "unknown"},
            {"name": "odd"},
        ]
        got, problems = deliverable(device(properties=spec), model(properties=rows))
        assert [p.name for p in got.spec.properties] == ["temp", "setpoint"]
        assert got.spec.properties[0].collect_cycle == 0
        assert got.spec.properties[1].desired is None
        assert not any(p.blocking for p in problems)
        assert check_device(got, model(properties=rows)) == [
            p for p in check_device(got, model(properties=rows)) if p.reason == "ReadOnly"
        ]
