"""Where readings go besides the twin, and what is sent there.  Pure.

The manifest's `pushMethod` with KubeEdge's keys: `http`, `mqtt`, `otel`, of which the first counts as there, and independently
a database: `dbMethod.influxdb2`, `.redis`, `.TDEngine`, `.mysql`, the first of them.  Texts over HTTP and MQTT, members in
Redis and tables in MySQL are KubeEdge's; a point in InfluxDB has the property's type, which is a text in KubeEdge; its TDengine
tables are no legal names, so ours are others.   Source: protocol notes on DMI, section 11."""

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import quote, urlencode

import msgspec

from beehive._generated import dmi_pb2 as pb
from beehive.apis.devices import TWIN_TYPES, PushMethod

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Otlp:
    """Metrics over OTLP/HTTP.  device: its id, a resource attribute."""

    url: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis:
    """A sorted set for each device.  address: `host:port/database`."""

    address: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tdengine:
    """Rows of the super table `readings`, by TDengine's REST interface."""

    url: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mysql:
    """A table for each property.  address: `user@host:port/database`."""

    address: str
    device: str


Target = Http | Mqtt | Influx | Otlp | Redis | Tdengine | Mysql

MYSQL_NAME_CHARS = 64
"""The longest name of a table."""

TDENGINE_TABLE = (
    "CREATE STABLE IF NOT EXISTS readings (ts TIMESTAMP, number DOUBLE, text NCHAR(1024)) "
    "TAGS (device NCHAR(256), property NCHAR(128), type NCHAR(16))"
)


class Outgoing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing to be sent, as it waits on disk.  kind: http, mqtt, influx, otlp, redis, tdengine, mysql.  to: address; of one
    there is one queue.  topic: of MQTT, the key in Redis, the table in MySQL."""

    kind: str
    to: str
    body: str
    topic: str = ""
    qos: int = 0
    retained: bool = False
    timeout_s: float = 5.0


def from_api(push: PushMethod | None, device: str = "") -> tuple[Target, ...]:
    """The targets of a manifest.  What is incomplete is left out.   device: its id."""
    if push is None:
        return ()
    targets: list[Target | None] = []
    if push.http is not None:
        h = push.http
        targets.append(_http(h.host_name, h.port, h.request_path, h.timeout))
    elif push.mqtt is not None:
        m = push.mqtt
        targets.append(_mqtt(m.address, m.topic, m.qos, retained=m.retained))
    elif push.otel is not None:
        targets.append(_otlp(push.otel.endpoint_url, device))
    method = push.db_method
    database = method.influxdb2 if method is not None else None
    if method is not None and database is None:
        redis = method.redis.redis_client_config if method.redis is not None else None
        tdengine = method.tdengine.client_config if method.tdengine is not None else None
        if redis is not None:
            targets.append(_redis(redis.addr, redis.db, device))
        elif tdengine is not None:
            targets.append(_tdengine(tdengine.addr, tdengine.db_name, device))
        elif method.mysql is not None and method.mysql.mysql_client_config is not None:
            mysql = method.mysql.mysql_client_config
            targets.append(_mysql(mysql.addr, mysql.database, mysql.user_name, device))
    if database is not None:
        client, data = database.influxdb2_client_config, database.influxdb2_data_config
        if client is not None and data is not None:
            where = (client.url, client.org, client.bucket)
            targets.append(_influx(*where, data.measurement, data.field_key, data.tag))
    return tuple(t for t in targets if t is not None)


def from_proto(push: pb.PushMethod, device: str = "") -> tuple[Target, ...]:
    """The same of what edgecore sent."""
    targets: list[Target | None] = []
    if push.HasField("http"):
        targets.append(_http(push.http.hostname, push.http.port, push.http.requestpath, push.http.timeout))
    elif push.HasField("mqtt"):
        m = push.mqtt
        targets.append(_mqtt(m.address, m.topic, m.qos, retained=m.retained))
    elif push.HasField("otel"):
        targets.append(_otlp(push.otel.endpointURL, device))
    if push.HasField("dbMethod") and not push.dbMethod.HasField("influxdb2"):
        if push.dbMethod.HasField("redis"):
            redis = push.dbMethod.redis.redisClientConfig
            targets.append(_redis(redis.addr, redis.db, device))
        elif push.dbMethod.HasField("tdengine"):
            tdengine = push.dbMethod.tdengine.tdEngineClientConfig
            targets.append(_tdengine(tdengine.addr, tdengine.dbname, device))
        elif push.dbMethod.HasField("mysql"):
            mysql = push.dbMethod.mysql.mysqlClientConfig
            targets.append(_mysql(mysql.addr, mysql.database, mysql.userName, device))
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


def _otlp(url: str, device: str) -> Otlp | None:
    return Otlp(url=url, device=device) if url.startswith(("http://", "https://")) else None


def _redis(address: str, database: int, device: str) -> Redis | None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536 or not 0 <= database < 1_000_000:
        return None
    return Redis(address=f"{address}/{database}", device=device)


def _tdengine(address: str, database: str, device: str) -> Tdengine | None:
    if not address or not database.isidentifier():
        return None
    base = address if "://" in address else f"http://{address}"
    return Tdengine(url=f"{base.rstrip('/')}/rest/sql/{database}", device=device)


def _mysql(address: str, database: str, user: str, device: str) -> Mysql | None:
    """The port may be missing, as in KubeEdge's library."""
    host, _, port = address.rpartition(":") if not address.endswith("]") else ("", "", "")
    if not host:
        host, port = address, "3306"
    good = port.isascii() and port.isdecimal() and 0 < int(port) < 65536
    if not good or not host or not database or "/" in database or "@" in host:
        return None
    return Mysql(address=f"{user or 'root'}@{host}:{port}/{database}", device=device)


def mysql_table(device: str, name: str) -> str:
    """KubeEdge's name of a property's table; one that is too long for MySQL ends in a hash."""
    text = f"{device}/{name}"
    if len(text) <= MYSQL_NAME_CHARS:
        return text
    return f"{text[: MYSQL_NAME_CHARS - 13]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


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
        case Otlp():
            return Outgoing(kind="otlp", to=target.url, body=_metric(target, name, type_, value, at_ms))
        case Redis():
            namespace, _, device = target.device.partition("/")
            member = {
                "DeviceName": device,
                "PropertyName": name,
                "Namespace": namespace,
                "Value": value,
                "Type": TWIN_TYPES.get(type_, "string"),
                "TimeStamp": at_ms,
            }
            body = f"{at_ms} {msgspec.json.encode(member).decode()}"
            return Outgoing(kind="redis", to=target.address, topic=device, body=body)
        case Mysql():
            body = msgspec.json.encode([when, value]).decode()
            return Outgoing(
                kind="mysql", to=target.address, body=body, topic=mysql_table(target.device, name)
            )
        case Tdengine():
            return Outgoing(kind="tdengine", to=target.url, body=_row(target, name, type_, value, at_ms))


def number(type_: str, value: str) -> float | int | None:
    """A reading as a number; None for texts."""
    match type_:
        case "INT":
            return int(value)
        case "FLOAT" | "DOUBLE":
            return float(value)
        case "BOOLEAN":
            return int(value.lower() == "true")
        case _:
            return None


def _metric(target: Otlp, name: str, type_: str, value: str, at_ms: int) -> str:
    """One ResourceMetrics in OTLP's JSON; empty for what is no number, which metrics cannot hold."""
    found = number(type_, value)
    if found is None:
        return ""
    at = {"timeUnixNano": str(at_ms * 1_000_000)}
    reading = {"asInt": str(found), **at} if isinstance(found, int) else {"asDouble": found, **at}
    attribute = {"key": "device.id", "value": {"stringValue": target.device}}
    metric = {"name": name, "gauge": {"dataPoints": [reading]}}
    return msgspec.json.encode(
        {
            "resource": {"attributes": [attribute]},
            "scopeMetrics": [{"scope": {"name": "skerry"}, "metrics": [metric]}],
        }
    ).decode()


def metrics(bodies: Iterable[str]) -> str:
    """One ExportMetricsServiceRequest of many."""
    return '{"resourceMetrics":[' + ",".join(body for body in bodies if body) + "]}"


def _row(target: Tdengine, name: str, type_: str, value: str, at_ms: int) -> str:
    """The part of an INSERT for one reading.  The table's name stands for device and property."""
    table = hashlib.sha256(f"{target.device}\0{name}".encode()).hexdigest()[:24]
    found = number(type_, value)
    tags = ", ".join(_sql(text) for text in (target.device[:256], name[:128], type_))
    values = f"{at_ms}, {'NULL' if found is None else found}, {_sql(value[:1024])}"
    return f"t_{table} USING readings TAGS ({tags}) VALUES ({values})"


def _sql(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", " ").replace("\r", " ")
    return f"'{escaped}'"


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
