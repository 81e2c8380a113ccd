import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from beehive._generated import dmi_pb2 as pb
from beehive.apis.anyvalue import from_any, to_any
from beehive.apis.devices import decode_device, decode_model
from devicetwin.dmi_convert import digest, readings, to_device, to_model
from devicetwin.twin import Reading

DEVICE = decode_device(
    json.dumps(
        {
            "metadata": {"name": "d", "namespace": "n"},
            "spec": {
                "deviceModelRef": {"name": "m"},
                "protocol": {
                    "protocolName": "p",
                    "configData": {"format": 1448695129, "data": {"a": [1]}, "none": None},
                },
                "stateReport": {"reportToCloud": True, "reportCycle": 7000},
                "methods": [{"name": "heat", "propertyNames": ["x"]}],
                "properties": [
                    {
                        "name": "x",
                        "collectCycle": 500,
                        "reportToCloud": True,
                        "pushMethod": {
                            "http": {"hostName": "h", "port": 1, "requestPath": "/p"},
                            "mqtt": {"address": "a", "qos": 1},
                            "otel": {"endpointURL": "u"},
                            "anomalyDetection": {"k": 1},
                            "dbMethod": {
                                "influxdb2": {
                                    "influxdb2ClientConfig": {"url": "u"},
                                    "influxdb2DataConfig": {"tag": {"t": "v"}},
                                },
                                "redis": {"redisClientConfig": {"addr": "r", "db": 2}},
                                "TDEngine": {"TDEngineClientConfig": {"addr": "t", "dbName": "db"}},
                                "mysql": {"mysqlClientConfig": {"userName": "u"}},
                            },
                        },
                    }
                ],
            },
        }
    )
)
MODEL = decode_model(
    '{"metadata": {"name": "m", "namespace": "n"}, "spec": {"properties": [{"name": "x", "type": "INT"}]}}'
)


def test_a_device_arrives_whole() -> None:
    got = to_device(DEVICE, {"x": "5"})
    assert (got.name, got.namespace, got.spec.deviceModelReference) == ("d", "n", "m")
    assert (got.status.reportToCloud, got.status.reportCycle) == (True, 7000)
    assert list(got.spec.methods[0].propertyNames) == ["x"]
    (prop,) = got.spec.properties
    assert prop.desired.value == "5"
    assert prop.collectCycle == 500
    assert prop.pushMethod.http.hostname == "h"
    assert prop.pushMethod.http.requestpath == "/p"
    assert prop.pushMethod.mqtt.qos == 1
    assert prop.pushMethod.otel.endpointURL == "u"
    assert from_any(prop.pushMethod.anomalyDetection.data["k"]) == 1
    assert prop.pushMethod.dbMethod.influxdb2.influxdb2ClientConfig.url == "u"
    assert dict(prop.pushMethod.dbMethod.influxdb2.influxdb2DataConfig.tag) == {"t": "v"}
    assert prop.pushMethod.dbMethod.redis.redisClientConfig.db == 2
    assert prop.pushMethod.dbMethod.tdengine.tdEngineClientConfig.dbname == "db"
    assert prop.pushMethod.dbMethod.mysql.mysqlClientConfig.userName == "u"


def test_numbers_are_whole_nested_values_are_text_and_null_is_left_out() -> None:
    data = to_device(DEVICE, {}).spec.protocol.configData.data
    assert {key: from_any(value) for key, value in data.items()} == {
        "format": 1448695129,
        "data": '{"a":[1]}',
    }


def test_config_data_and_desired_are_always_there() -> None:
    (prop,) = to_device(DEVICE, {}).spec.properties
    assert prop.visitors.HasField("configData")
    assert prop.HasField("desired")


def test_the_digest_follows_the_wish_and_the_model() -> None:
    a = digest(to_device(DEVICE, {"x": "5"}), to_model(MODEL))
    assert a == digest(to_device(DEVICE, {"x": "5"}), to_model(MODEL))
    assert a != digest(to_device(DEVICE, {"x": "6"}), to_model(MODEL))
    other = decode_model(msgspec.json.encode(MODEL).replace(b"INT", b"FLOAT"))
    assert a != digest(to_device(DEVICE, {"x": "5"}), to_model(other))


def test_a_report_with_missing_sides_says_nothing_of_them() -> None:
    request = pb.ReportDeviceStatusRequest()
    request.reportedDevice.twins.add(propertyName="x")
    request.reportedDevice.twins.add(propertyName="y").reported.value = "1"
    assert readings(request) == [Reading(name="x", reported=None), Reading(name="y", reported="1")]


@given(
    st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False)
)
def test_scalars_survive_or_become_text(value: object) -> None:
    packed = to_any(value)
    assert packed is not None
    back = from_any(packed)
    assert back == value or (isinstance(value, float) and float(back) == value)


def test_what_is_damaged_or_unknown_is_none() -> None:
    packed = to_any("x")
    assert packed is not None
    packed.value = b"\xff"
    assert from_any(packed) is None
    packed.type_url = "type.googleapis.com/google.protobuf.Struct"
    assert from_any(packed) is None
