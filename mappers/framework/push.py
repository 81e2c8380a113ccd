"""Where readings go besides the twin, and what is sent there.  Pure.

The manifest's `pushMethod` with KubeEdge's keys: `http`, `mqtt` and `dbMethod.influxdb2`; as there, one of the first two and
independently a database.  Texts over HTTP and MQTT are KubeEdge's; a point in InfluxDB has the property's type, which is a text
in KubeEdge.   Source: protocol notes on DMI, section 11."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import quote, urlencode

import msgspec

from beehive._generated import dmi_pb2 as pb
from beehive.apis.devices import PushMethod

DEFAULT_PORTS = {"http": 80, "https": 443}
# What would break a form is escaped, and nothing else: KubeEdge escapes nothing, and somebody may parse the text by hand.
_FORM_SAFE = " :/,;.-_~!*'()[]{}\"@$?|<>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    url: str
    timeout_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mqtt:
    address: str
    topic: str
    qos: int = 0
    retained: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Influx:
    """url: of the write call, with organisation and bucket."""

    url: str
    measurement: str
    field_key: str
    tags: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


Target = Http | Mqtt | Influx


class Outgoing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing to be sent, as it waits on disk.  kind: http, mqtt, influx.  to: address; of one there is one queue."""

    kind: str
    to: str
    body: str
    topic: str = ""
    qos: int = 0
    retained: bool = False
    timeout_s: float = 5.0


def from_api(push: PushMethod | None) -> tuple[Target, ...]:
    """The targets of a manifest.  What is incomplete is left out."""
    if push is None:
        return ()
    targets: list[Target | None] = []
    if push.http is not None:
        h = push.http
        targets.append(_http(h.host_name, h.port, h.request_path, h.timeout))
    elif push.mqtt is not None:
        m = push.mqtt
        targets.append(_mqtt(m.address, m.topic, m.qos, retained=m.retained))
    database = push.db_method.influxdb2 if push.db_method is not None else None
    if database is not None:
        client, data = database.influxdb2_client_config, database.influxdb2_data_config
        if client is not None and data is not None:
            where = (client.url, client.org, client.bucket)
            targets.append(_influx(*where, data.measurement, data.field_key, data.tag))
    return tuple(t for t in targets if t is not None)


def from_proto(push: pb.PushMethod) -> tuple[Target, ...]:
    """The same of what edgecore sent."""
    targets: list[Target | None] = []
    if push.HasField("http"):
        targets.append(_http(push.http.hostname, push.http.port, push.http.requestpath, push.http.timeout))
    elif push.HasField("mqtt"):
        m = push.mqtt
        targets.append(_mqtt(m.address, m.topic, m.qos, retained=m.retained))
    if push.HasField("dbMethod") and push.dbMethod.HasField("influxdb2"):
        database = push.dbMethod.influxdb2
        client, data = database.influxdb2ClientConfig, database.influxdb2DataConfig
        where = (client.url, client.org, client.bucket)
        targets.append(_influx(*where, data.measurement, data.fieldKey, dict(data.tag)))
    return tuple(t for t in targets if t is not None)


def _http(host: str, port: int, path: str, timeout: int) -> Http | None:
    if not host:
        return None
    base = (host if "://" in host else f"http://{host}").rstrip("/")
    scheme = base.partition("://")[0]
    at = f":{port}" if port and port != DEFAULT_PORTS.get(scheme) else ""
    seconds = timeout / 1000 if timeout > 60 else float(timeout)  # its unit is not said anywhere
    return Http(url=f"{base}{at}/{path.lstrip('/')}", timeout_s=min(max(seconds, 0.0), 60.0) or 5.0)


def _mqtt(address: str, topic: str, qos: int, *, retained: bool) -> Mqtt | None:
    if not address or not topic or qos not in (0, 1, 2):
        return None
    return Mqtt(address=address, topic=topic, qos=qos, retained=retained)


def _influx(
    url: str, org: str, bucket: str, measurement: str, key: str, tags: Mapping[str, str]
) -> Influx | None:
    if not url or not bucket or not measurement:
        return None
    query = urlencode({"org": org, "bucket": bucket, "precision": "ms"})
    return Influx(
        url=f"{url.rstrip('/')}/api/v2/write?{query}", measurement=measurement, field_key=key, tags=tags
    )


def render(target: Target, name: str, type_: str, value: str, at_ms: int) -> Outgoing:
    """What to send of a reading.  at_ms: when it was read; what is sent late says so."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000))
    match target:
        case Http():
            body = f"{_form(name)}={_form(value)}&time={when}"
            return Outgoing(kind="http", to=target.url, body=body, timeout_s=target.timeout_s)
        case Mqtt():
            body = f"time is {when}  {target.topic}: {value}"
            return Outgoing(
                kind="mqtt",
                to=target.address,
                body=body,
                topic=target.topic,
                qos=target.qos,
                retained=target.retained,
            )
        case Influx():
            return Outgoing(kind="influx", to=target.url, body=point(target, name, type_, value, at_ms))


def _form(text: str) -> str:
    return quote(text, safe=_FORM_SAFE)


def point(target: Influx, name: str, type_: str, value: str, at_ms: int) -> str:
    """A line of InfluxDB's line protocol."""
    tags = "".join(
        f",{_escaped(key)}={_escaped(tag)}" for key, tag in sorted(target.tags.items()) if key and tag
    )
    match type_:
        case "INT":
            number = f"{int(value)}i"
        case "FLOAT" | "DOUBLE":
            number = value
        case "BOOLEAN":
            number = value.lower()
        case _:
            number = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    measurement = _escaped(target.measurement, equals=False)
    return f"{measurement}{tags} {_escaped(target.field_key or name)}={number} {at_ms}"


def _escaped(text: str, *, equals: bool = True) -> str:
    text = " ".join(text.splitlines()).replace(
        "\\", "/"
    )  # a line break ends the point, and so may a last backslash
    for char in ", =" if equals else ", ":
        text = text.replace(char, "\\" + char)
    return text
