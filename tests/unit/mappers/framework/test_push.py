import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive.apis.decode import convert
from beehive.apis.devices import Device, DeviceModel, PushMethod
from devicetwin.dmi_convert import to_device, to_model
from mappers.framework import push
from mappers.framework.outbox import Outbox
from mappers.framework.spec import from_objects, from_proto

INFLUX = {
    "influxdb2": {
        "influxdb2ClientConfig": {"url": "http://db:8086/", "org": "o 1", "bucket": "b"},
        "influxdb2DataConfig": {"measurement": "m x", "tag": {"a b": "c,d=e"}, "fieldKey": "f"},
    }
}
HTTP = {"hostName": "http://10.0.0.7", "port": 8080, "requestPath": "/in", "timeout": 2000}
MQTT = {"address": "tcp://10.0.0.7:1883", "topic": "t", "qos": 1, "retained": True}
AT = 1_700_000_000_123
WHEN = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(AT / 1000))


def both(method: dict[str, object], **cycles: int) -> list[tuple[push.Target, ...]]:
    """The targets as `--simulate` and as a mapper at an edge see them."""
    model = convert(
        {
            "metadata": {"name": "m", "namespace": "n"},
            "spec": {"protocol": "x", "properties": [{"name": "p", "type": "INT", "accessMode": "ReadOnly"}]},
        },
        DeviceModel,
    )
    device = convert(
        {
            "metadata": {"name": "d", "namespace": "n"},
            "spec": {
                "deviceModelRef": {"name": "m"},
                "protocol": {"protocolName": "x"},
                "properties": [{"name": "p", "pushMethod": method, **cycles}],
            },
        },
        Device,
    )
    specs = [from_objects(device, model), from_proto(to_device(device, {}), to_model(model))]
    assert specs[0].properties["p"] == specs[1].properties["p"]
    return [spec.properties["p"].pushes for spec in specs]


def test_manifests_read_the_same_on_both_ways() -> None:
    http = push.Http(url="http://10.0.0.7:8080/in", timeout_s=2.0)
    mqtt = push.Mqtt(address="tcp://10.0.0.7:1883", topic="t", qos=1, retained=True)
    for targets in both({"http": HTTP, "mqtt": MQTT, "dbMethod": INFLUX}):
        assert targets[0] == http  # http goes before mqtt, as in KubeEdge
        assert isinstance(targets[1], push.Influx)
        assert targets[1].url == "http://db:8086/api/v2/write?org=o+1&bucket=b&precision=ms"
    assert both({"mqtt": MQTT}) == [(mqtt,), (mqtt,)]
    incomplete: tuple[dict[str, Any], ...] = (
        {},
        {"mqtt": {"address": "a"}},
        {"dbMethod": {"redis": {}}},
        {"http": {"port": 1}},
    )
    for nothing in incomplete:
        assert both(nothing) == [(), ()]
    assert push.from_api(None) == ()


def test_other_databases_and_collectors() -> None:
    redis = {"redis": {"redisClientConfig": {"addr": "10.0.0.7:6379", "db": 2}}}
    tdengine = {"TDEngine": {"TDEngineClientConfig": {"addr": "10.0.0.7:6041", "dbName": "plant"}}}
    otel = {"endpointURL": "https://10.0.0.7:4318/v1/metrics"}
    wanted = [
        push.Otlp(url="https://10.0.0.7:4318/v1/metrics", device="n/d"),
        push.Redis(address="10.0.0.7:6379/2", device="n/d"),
    ]
    assert both({"otel": otel, "dbMethod": {**redis, **tdengine}}) == [tuple(wanted)] * 2
    assert both({"http": HTTP, "otel": otel})[0] == both({"http": HTTP})[0]
    row = push.Tdengine(url="http://10.0.0.7:6041/rest/sql/plant", device="n/d")
    assert both({"dbMethod": tdengine}) == [(row,), (row,)]
    for bad in (
        {"otel": {"endpointURL": "ftp://x"}},
        {"dbMethod": {"redis": {"redisClientConfig": {"addr": "nowhere"}}}},
        {"dbMethod": {"TDEngine": {"TDEngineClientConfig": {"addr": "h:1", "dbName": "a;drop"}}}},
    ):
        assert both(bad) == [(), ()]


def test_mysql_has_a_table_for_each_property() -> None:
    config = {"addr": "10.0.0.7:3307", "database": "plant", "userName": "u"}
    for method, address in (
        (config, "u@10.0.0.7:3307/plant"),
        ({"addr": "db", "database": "plant"}, "root@db:3306/plant"),
        ({**config, "addr": "[::1]:3306"}, "u@[::1]:3306/plant"),
    ):
        wanted = push.Mysql(address=address, device="n/d")
        assert both({"dbMethod": {"mysql": {"mysqlClientConfig": method}}}) == [(wanted,), (wanted,)]
    for bad in ({"addr": ""}, {"addr": "h:x"}, {"addr": "h:70000"}, {"database": ""}, {"database": "a/b"}):
        assert both({"dbMethod": {"mysql": {"mysqlClientConfig": {**config, **bad}}}}) == [(), ()]
    out = push.render(push.Mysql(address="u@h:1/d", device="n/d"), "p", "FLOAT", "21.5", AT)
    assert (out.kind, out.to, out.topic) == ("mysql", "u@h:1/d", "n/d/p")
    assert out.body == f'["{WHEN}","21.5"]'
    long = push.mysql_table("default/" + "x" * 60, "temperature")
    assert len(long) == 64
    assert long != push.mysql_table("default/" + "x" * 60, "temperaturf")


@given(st.text(max_size=40))
def test_a_text_cannot_leave_its_quotes(value: str) -> None:
    row = push.render(push.Tdengine(url="u", device="a/b"), "p", "STRING", value, AT).body
    inside = row.partition("NULL, ")[2].removesuffix(")")
    assert inside[0] == inside[-1] == "'"
    text, escaped = inside[1:-1], False
    for letter in text:
        assert escaped or letter != "'"
        escaped = letter == "\\" and not escaped
    assert not escaped


def test_what_goes_over_the_wire() -> None:
    http = push.render(push.Http(url="http://h/in"), "t", "FLOAT", "21.5", AT)
    assert (http.to, http.body) == ("http://h/in", f"t=21.5&time={WHEN}")
    assert push.render(push.Http(url="u"), "t", "STRING", "a&b=c", AT).body.startswith("t=a%26b%3Dc&time=")
    mqtt = push.render(push.Mqtt(address="a", topic="z/t"), "t", "INT", "7", AT)
    assert mqtt.body == f"time is {WHEN}  z/t: 7"


@pytest.mark.parametrize(
    ("type_", "value", "text"),
    [
        ("INT", "+7", "7i"),
        ("FLOAT", "21.5", "21.5"),
        ("BOOLEAN", "true", "true"),
        ("STRING", 'say "hi" \\', r'"say \"hi\" \\"'),
    ],
)
def test_points_keep_their_type(type_: str, value: str, text: str) -> None:
    (target,) = push.from_api(convert({"dbMethod": INFLUX}, PushMethod))
    line = push.render(target, "p", type_, value, AT).body
    assert line == rf"m\ x,a\ b=c\,d\=e f={text} {AT}"


def test_a_queue_keeps_its_order_over_restarts(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "q", segment_bytes=50)
    lines = [f"line {i}".encode() for i in range(40)]
    for line in lines[:30]:
        box.append(line)
    first = box.peek(3)
    assert first == lines[:3]
    box.done(3)
    box.close()
    again = Outbox(tmp_path / "q", segment_bytes=50)
    for line in lines[30:]:
        again.append(line)
    got = []
    while found := again.peek(4):
        got += found
        again.done(len(found))
    assert got == lines[3:]
    again.close()
    assert [p.stat().st_size for p in (tmp_path / "q").glob("*.lines")] == [0]
    assert not Outbox(tmp_path / "q").peek(1)


def test_a_torn_end_does_not_spoil_the_next_line(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.append(b"good")
    box.close()
    (path,) = tmp_path.glob("*.lines")
    path.write_bytes(path.read_bytes() + b"to")
    again = Outbox(tmp_path)
    again.append(b"new")
    assert again.peek(9) == [b"good"]
    again.done(1)
    assert again.peek(9) == [b"new"]
    again.close()


@pytest.mark.parametrize("on_disk", [True, False])
def test_the_oldest_go_when_there_is_no_room(tmp_path: Path, *, on_disk: bool) -> None:
    box = Outbox(tmp_path if on_disk else None, max_bytes=400, segment_bytes=100)
    lines = [f"{i:09d}".encode() for i in range(200)]
    for line in lines:
        box.append(line)
    assert sum(p.stat().st_size for p in tmp_path.glob("*.lines")) <= 400
    got: list[bytes] = []
    while found := box.peek(7):
        got += found
        box.done(len(found))
    assert got == lines[-len(got) :]
    assert len(got) >= 25
    assert box.dropped == 200 - len(got)
    box.append(b"x" * 100_000)
    box.append(b"two\nlines")
    assert box.dropped == 202 - len(got)
    box.close()


@given(
    st.lists(
        st.one_of(st.binary(max_size=20).filter(lambda b: b"\n" not in b), st.integers(1, 5)), max_size=80
    )
)
def test_in_memory_it_is_a_queue(steps: list[bytes | int]) -> None:
    box = Outbox(None, segment_bytes=40)
    model: list[bytes] = []
    for step in steps:
        if isinstance(step, bytes):
            box.append(step)
            model.append(step)
        else:
            found = box.peek(step)
            assert found == model[: len(found)]
            assert found or not model
            box.done(len(found))
            del model[: len(found)]
