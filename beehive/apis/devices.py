"""Device, DeviceModel and DeviceStatus (devices.kubeedge.io/v1beta1) as types, with the rules that both ends apply.  Pure.

Field names and JSON spellings are KubeEdge's, irregular capitals included.  What is here besides the types:

- `decode_device` and its sisters read an object as Go would (see `beehive.apis.decode`),
- `check_model`, `check_device` say what is wrong with an object, as values with a path and a CamelCase reason,
- `merged` fills a device from its model, `deliverable` leaves out what would hurt a mapper,
- `check_value` is the one rule for the text of a property's value.

Values of properties are text on every wire.  Cycles are milliseconds, 0 means the default of one second.
Sources: KubeEdge build/crds/devices, edge/pkg/devicetwin/dmicache/dmicache.go (merge rule)."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct, field

from beehive.apis import devices_v1alpha2 as v1alpha2
from beehive.apis.decode import MAX_OBJECT_BYTES, convert, decode

GROUP = "devices.kubeedge.io"
VERSION = "v1beta1"
API_VERSION = f"{GROUP}/{VERSION}"

DEFAULT_CYCLE_MS = 1000
MAX_VALUE_BYTES = 4096  # ours; KubeEdge stops at 512 characters out of a small set, which loses JSON, spaces and percent signs
MAX_NAME_CHARS = 128  # KubeEdge's limit for a twin's key
MAX_PROPERTIES = 1024  # of one device; ours

# KubeEdge's set for the key of a twin (edge/pkg/devicetwin/dtcommon/util.go): names outside it reach no twin.
_NAME = re.compile(r"[A-Za-z0-9\-_.,:/@#]{1,128}")
_INT = re.compile(r"[+-]?[0-9]{1,20}")
_FLOAT = re.compile(r"[+-]?([0-9]{1,400}(\.[0-9]{0,400})?|\.[0-9]{1,400})([eE][+-]?[0-9]{1,4})?")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

# Model type -> the type in a twin's metadata.  KubeEdge writes "string" for all that mappers report, and the type is lost.
TWIN_TYPES = {
    "INT": "int",
    "FLOAT": "float",
    "DOUBLE": "double",
    "STRING": "string",
    "BOOLEAN": "boolean",
    "BYTES": "bytes",
    "STREAM": "stream",
}
ACCESS_MODES = ("ReadWrite", "ReadOnly")
STATES = ("online", "offline", "ok", "unknown", "unhealthy")  # compared in lower case

# Go's strconv.ParseBool.
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_FLOAT32_MAX = 3.4028234663852886e38


# --- metadata --------------------------------------------------------------------------------------------------------


class OwnerReference(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False
    block_owner_deletion: bool = False


class ObjectMeta(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The part of Kubernetes' metadata that devices need."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: list[OwnerReference] = []


# --- Device ----------------------------------------------------------------------------------------------------------


class ModelRef(Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str = ""


class TwinProperty(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One side of a twin: a value as text, with `timestamp` (decimal string of ms) and `type` in its metadata."""

    value: str = ""
    metadata: dict[str, str] = {}


class ProtocolConfig(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """How a driver reaches something: a protocol name that selects the mapper, and settings that only the driver reads."""

    protocol_name: str = ""
    config_data: dict[str, Any] = {}


class PushMethodHTTP(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    host_name: str = ""
    port: int = 0
    request_path: str = ""
    timeout: int = 0


class PushMethodMQTT(Struct, frozen=True, kw_only=True, omit_defaults=True):
    address: str = ""
    topic: str = ""
    qos: int = 0
    retained: bool = False


class PushMethodOTEL(Struct, frozen=True, kw_only=True, omit_defaults=True):
    endpoint_url: str = field(default="", name="endpointURL")


class Influxdb2ClientConfig(Struct, frozen=True, kw_only=True, omit_defaults=True):
    url: str = ""
    org: str = ""
    bucket: str = ""


class Influxdb2DataConfig(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    measurement: str = ""
    tag: dict[str, str] = {}
    field_key: str = ""


class DBMethodInfluxdb2(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    influxdb2_client_config: Influxdb2ClientConfig | None = None
    influxdb2_data_config: Influxdb2DataConfig | None = None


class RedisClientConfig(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    addr: str = ""
    db: int = 0
    poolsize: int = 0
    min_idle_conns: int = 0


class DBMethodRedis(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    redis_client_config: RedisClientConfig | None = None


class TDEngineClientConfig(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    addr: str = ""
    db_name: str = ""


class DBMethodTDEngine(Struct, frozen=True, kw_only=True, omit_defaults=True):
    client_config: TDEngineClientConfig | None = field(default=None, name="TDEngineClientConfig")


class MySQLClientConfig(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    addr: str = ""
    database: str = ""
    user_name: str = ""


class DBMethodMySQL(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    mysql_client_config: MySQLClientConfig | None = None


class DBMethod(Struct, frozen=True, kw_only=True, omit_defaults=True):
    influxdb2: DBMethodInfluxdb2 | None = None
    redis: DBMethodRedis | None = None
    tdengine: DBMethodTDEngine | None = field(default=None, name="TDEngine")
    mysql: DBMethodMySQL | None = None


class PushMethod(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Where a mapper sends samples besides the twin."""

    http: PushMethodHTTP | None = None
    mqtt: PushMethodMQTT | None = None
    otel: PushMethodOTEL | None = None
    db_method: DBMethod | None = None
    anomaly_detection: dict[str, Any] | None = None


class DeviceProperty(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One property of one device.  `collect_cycle` paces twin reports, `report_cycle` pushes and databases; ms."""

    name: str = ""
    desired: TwinProperty | None = None
    visitors: ProtocolConfig | None = None
    report_cycle: int = 0
    collect_cycle: int = 0
    report_to_cloud: bool = False
    push_method: PushMethod | None = None


class DeviceMethod(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    name: str = ""
    description: str = ""
    property_names: list[str] = []


class StateReport(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    report_to_cloud: bool = False
    report_cycle: int = 0


class DeviceSpec(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    device_model_ref: ModelRef | None = None
    node_name: str = ""
    properties: list[DeviceProperty] = []
    protocol: ProtocolConfig = ProtocolConfig()
    methods: list[DeviceMethod] = []
    state_report: StateReport | None = None


class LegacyDeviceStatus(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """`status` of a Device.  Read only where `spec.stateReport` is absent."""

    report_to_cloud: bool = False
    report_cycle: int = 0


class Device(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    spec: DeviceSpec = DeviceSpec()
    status: LegacyDeviceStatus | None = None

    @property
    def id(self) -> str:
        """What a device is called outside Kubernetes: `<namespace>/<name>`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def model_id(self) -> str:
        """The model's id, or "" when the device names none."""
        ref = self.spec.device_model_ref
        return f"{self.metadata.namespace}/{ref.name}" if ref is not None and ref.name else ""

    @property
    def state_report(self) -> StateReport:
        """Whether and how often the device's state is to be reported, the legacy place included."""
        if self.spec.state_report is not None:
            return self.spec.state_report
        old = self.status or LegacyDeviceStatus()
        return StateReport(report_to_cloud=old.report_to_cloud, report_cycle=old.report_cycle)


# --- DeviceModel -----------------------------------------------------------------------------------------------------


class ModelProperty(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    name: str = ""
    description: str = ""
    type: str = ""
    access_mode: str = ""
    minimum: str = ""
    maximum: str = ""
    unit: str = ""
    visitors: ProtocolConfig | None = None

    @property
    def writable(self) -> bool:
        """Anything but ReadOnly may be written, as in KubeEdge's mapper framework."""
        return self.access_mode != "ReadOnly"

    @property
    def twin_type(self) -> str:
        return TWIN_TYPES.get(self.type, "string")


class DeviceModelSpec(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    protocol: str = ""
    protocol_config_data: dict[str, Any] = {}
    properties: list[ModelProperty] = []


class DeviceModel(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    spec: DeviceModelSpec = DeviceModelSpec()

    @property
    def id(self) -> str:
        return f"{self.metadata.namespace}/{self.metadata.name}"

    def property(self, name: str) -> ModelProperty | None:
        return next((p for p in self.spec.properties if p.name == name), None)


# --- DeviceStatus ----------------------------------------------------------------------------------------------------


class Twin(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What the cloud shows of one property: the value read, and the desired value as the mapper last echoed it."""

    property_name: str = ""
    reported: TwinProperty | None = None
    observed_desired: TwinProperty | None = None


class Condition(Struct, frozen=True, kw_only=True, rename="camel"):
    """A Kubernetes condition; ours in `DeviceStatus.status.conditions`, which KubeEdge's clients ignore."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""


class DeviceStatusStatus(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    twins: list[Twin] = []
    state: str = ""
    last_online_time: str = ""
    conditions: list[Condition] = []
    extensions: dict[str, Any] | None = None


class DeviceStatus(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The reported side of the Device of the same namespace and name, which owns it."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    spec: dict[str, Any] = {}
    status: DeviceStatusStatus = DeviceStatusStatus()


def decode_device(data: bytes | str) -> Device:
    """v1alpha2 is converted.  Raises: ObjectError."""
    old = _old(data)
    return convert(v1alpha2.device(old), Device) if old is not None else decode(data, Device)


def decode_model(data: bytes | str) -> DeviceModel:
    """v1alpha2 is converted.  Raises: ObjectError."""
    old = _old(data)
    return convert(v1alpha2.model(old), DeviceModel) if old is not None else decode(data, DeviceModel)


def _old(data: bytes | str) -> dict[str, Any] | None:
    """The document, if it is of v1alpha2."""
    named = "v1alpha2" in data if isinstance(data, str) else b"v1alpha2" in data
    if not named or len(data) > MAX_OBJECT_BYTES:
        return None  # nearly always: it need not be parsed twice
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # decode says what is wrong with it
    return document if v1alpha2.is_old(document) else None


def decode_status(data: bytes | str) -> DeviceStatus:
    """Raises: ObjectError."""
    return decode(data, DeviceStatus)


# --- rules -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with an object.

    path: JSON path from the object's root.  reason: CamelCase, for a condition.  blocking: the object cannot be used at all;
    otherwise only the part at `path` is left out."""

    path: str
    reason: str
    message: str
    blocking: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def check_value(value: str, type_: str, *, minimum: str = "", maximum: str = "") -> str | None:
    """Say what is wrong with the text of a value of a model type, or None.

    minimum, maximum: as in the model; only numbers have a range, and a bound that is no number does not bind.
    Readings are checked for their type only (a reading out of range is news, not an error); desired values for both."""
    if len(value.encode("utf-8", "surrogatepass")) > MAX_VALUE_BYTES:
        return f"is longer than {MAX_VALUE_BYTES} bytes"
    if _CONTROL.search(value):
        return "contains control characters"
    match type_:
        case "INT":
            number = _integer(value)
            if number is None:
                return f"is not an INT (64 bits, decimal): {value[:64]!r}"
            return _out_of_range(number, minimum, maximum)
        case "FLOAT" | "DOUBLE":
            real = _real(value)
            if real is None or (type_ == "FLOAT" and abs(real) > _FLOAT32_MAX):
                return f"is not a {type_}: {value[:64]!r}"
            return _out_of_range(real, minimum, maximum)
        case "BOOLEAN":
            return None if value in _TRUE or value in _FALSE else f"is not a BOOLEAN: {value[:64]!r}"
        case "STRING" | "BYTES" | "STREAM":
            return None
        case _:
            return f"has the unknown type {type_[:64]!r}"


def parse_bool(value: str) -> bool:
    """Read a boolean as Go does.  Raises: ValueError."""
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ValueError(f"not a boolean: {value[:64]!r}")


def _integer(value: str) -> int | None:
    if not _INT.fullmatch(value):
        return None
    number = int(value)
    return number if -(2**63) <= number < 2**63 else None


def _real(value: str) -> float | None:
    if not _FLOAT.fullmatch(value):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _out_of_range(number: float, minimum: str, maximum: str) -> str | None:
    low, high = _real(minimum), _real(maximum)
    if low is not None and number < low:
        return f"is below the minimum {minimum}"
    if high is not None and number > high:
        return f"is above the maximum {maximum}"
    return None


def check_model(model: DeviceModel) -> list[Problem]:
    """What is wrong with a model, in the order of its fields; empty when nothing is."""
    problems: list[Problem] = []
    if not model.spec.protocol:
        problems.append(Problem(path="$.spec.protocol", reason="NoProtocol", message="names no protocol"))
    if len(model.spec.properties) > MAX_PROPERTIES:
        problems.append(_too_many(len(model.spec.properties)))
    seen: set[str] = set()
    for i, prop in enumerate(model.spec.properties):
        path = f"$.spec.properties[{i}]"
        problems += _check_name(prop.name, seen, path)
        if prop.type not in TWIN_TYPES:
            text = f"has the unknown type {prop.type[:64]!r}; known are {', '.join(TWIN_TYPES)}"
            problems.append(Problem(path=f"{path}.type", reason="UnknownType", message=text))
        if prop.access_mode and prop.access_mode not in ACCESS_MODES:
            text = f"has the unknown access mode {prop.access_mode[:64]!r}"
            problems.append(Problem(path=f"{path}.accessMode", reason="UnknownAccessMode", message=text))
        problems += _check_bounds(prop, path)
    return problems


def _check_bounds(prop: ModelProperty, path: str) -> list[Problem]:
    problems = [
        Problem(path=f"{path}.{key}", reason="BadRange", message=f"is not a number: {bound[:64]!r}")
        for key, bound in (("minimum", prop.minimum), ("maximum", prop.maximum))
        if bound and _real(bound) is None
    ]
    low, high = _real(prop.minimum), _real(prop.maximum)
    if low is not None and high is not None and low > high:
        text = f"is above the maximum {prop.maximum}"
        problems.append(Problem(path=f"{path}.minimum", reason="BadRange", message=text))
    return problems


def _check_name(name: str, seen: set[str], path: str) -> list[Problem]:
    if not _NAME.fullmatch(name):
        text = f"is not a property name ({MAX_NAME_CHARS} letters, digits or -_.,:/@# at most): {name[:64]!r}"
        return [Problem(path=f"{path}.name", reason="BadName", message=text)]
    if name in seen:
        return [Problem(path=f"{path}.name", reason="DuplicateProperty", message=f"is there twice: {name}")]
    seen.add(name)
    return []


def _too_many(count: int) -> Problem:
    text = f"has {count} entries, more than {MAX_PROPERTIES}"
    return Problem(path="$.spec.properties", reason="TooManyProperties", message=text, blocking=True)


def check_device(device: Device, model: DeviceModel | None) -> list[Problem]:
    """What is wrong with a device, given the model it names (None: there is none of that name).

    The problems of the model itself are `check_model`'s.  Total: any decoded Device has an answer."""
    problems: list[Problem] = []
    if not device.model_id:
        text = "names no device model"
        problems.append(
            Problem(path="$.spec.deviceModelRef.name", reason="NoModelRef", message=text, blocking=True)
        )
    elif model is None:
        text = f"there is no device model {device.model_id}"
        problems.append(
            Problem(path="$.spec.deviceModelRef.name", reason="ModelNotFound", message=text, blocking=True)
        )
    if not device.spec.protocol.protocol_name:
        path = "$.spec.protocol.protocolName"
        problems.append(Problem(path=path, reason="NoProtocol", message="names no protocol", blocking=True))
    if len(device.spec.properties) > MAX_PROPERTIES:
        problems.append(_too_many(len(device.spec.properties)))
    seen: set[str] = set()
    for i, prop in enumerate(device.spec.properties):
        problems += _check_property(prop, model, seen, f"$.spec.properties[{i}]")
    known = {p.name for p in device.spec.properties}
    for i, method in enumerate(device.spec.methods):
        for name in method.property_names:
            if name not in known:
                text = f"names the property {name[:64]!r}, which the device does not have"
                path = f"$.spec.methods[{i}].propertyNames"
                problems.append(Problem(path=path, reason="UnknownProperty", message=text))
    return problems


def _check_property(
    prop: DeviceProperty, model: DeviceModel | None, seen: set[str], path: str
) -> list[Problem]:
    problems = _check_name(prop.name, seen, path)
    for key, cycle in (("collectCycle", prop.collect_cycle), ("reportCycle", prop.report_cycle)):
        if cycle < 0:
            problems.append(Problem(path=f"{path}.{key}", reason="BadCycle", message=f"is negative: {cycle}"))
    if model is None or problems:
        return problems
    row = model.property(prop.name)
    if row is None:
        text = f"is not a property of the model {model.metadata.name}: {prop.name}"
        return [*problems, Problem(path=f"{path}.name", reason="UnknownProperty", message=text)]
    if prop.desired is not None and prop.desired.value:
        problems += _check_desired(prop.desired.value, row, f"{path}.desired.value")
    return problems


def _check_desired(value: str, row: ModelProperty, path: str) -> list[Problem]:
    if not row.writable:
        return [Problem(path=path, reason="ReadOnly", message=f"{row.name} is read only")]
    wrong = check_value(value, row.type)
    if wrong:
        return [Problem(path=path, reason="InvalidValue", message=wrong)]
    wrong = check_value(value, row.type, minimum=row.minimum, maximum=row.maximum)
    return [Problem(path=path, reason="OutOfRange", message=wrong)] if wrong else []


def merged(device: Device, model: DeviceModel) -> Device:
    """The device with its model's defaults filled in: visitors and connection settings, nothing else.

    A model's visitor wins as a whole, then each top-level key of the instance's configData overrides; no deep merge.
    `protocol.protocolName` is always the instance's.   Source: KubeEdge edge/pkg/devicetwin/dmicache/dmicache.go."""
    rows = {row.name: row for row in model.spec.properties}
    properties = [_merged_property(prop, rows.get(prop.name)) for prop in device.spec.properties]
    protocol = device.spec.protocol
    data = {**model.spec.protocol_config_data, **protocol.config_data}
    spec = msgspec.structs.replace(
        device.spec,
        properties=properties,
        protocol=msgspec.structs.replace(protocol, config_data=data),
    )
    return msgspec.structs.replace(device, spec=spec)


def _merged_property(prop: DeviceProperty, row: ModelProperty | None) -> DeviceProperty:
    own = prop.visitors or ProtocolConfig()
    if row is None or row.visitors is None:
        return msgspec.structs.replace(prop, visitors=own)
    data = {**row.visitors.config_data, **own.config_data}
    visitors = ProtocolConfig(protocol_name=row.visitors.protocol_name, config_data=data)
    return msgspec.structs.replace(prop, visitors=visitors)


def deliverable(device: Device, model: DeviceModel) -> tuple[Device, list[Problem]]:
    """The merged device without the parts that a mapper must not see, and what was wrong.

    Left out: properties with a bad or second name, unknown to the model or of unknown type (they crash KubeEdge's mappers);
    desired values of the wrong type, out of range or for something read only; negative cycles.
    If a problem is blocking, the device must not be delivered at all."""
    problems = check_device(device, model)
    drop: set[str] = set()
    clear: set[str] = set()
    for problem in problems:
        match = re.match(r"\$\.spec\.properties\[\d+\]", problem.path)
        if match is not None and problem.reason in ("BadName", "DuplicateProperty", "UnknownProperty"):
            drop.add(match.group())
        elif match is not None and problem.path.endswith(".desired.value"):
            clear.add(match.group())
    kept: list[DeviceProperty] = []
    for i, prop in enumerate(device.spec.properties):
        path = f"$.spec.properties[{i}]"
        row = model.property(prop.name)
        if path in drop or row is None or row.type not in TWIN_TYPES:
            continue
        kept.append(
            msgspec.structs.replace(
                prop,
                desired=None if path in clear else prop.desired,
                collect_cycle=max(prop.collect_cycle, 0),
                report_cycle=max(prop.report_cycle, 0),
            )
        )
    spec = msgspec.structs.replace(device.spec, properties=kept)
    return merged(msgspec.structs.replace(device, spec=spec), model), problems


def check_call(
    device: Device, rows: Mapping[str, ModelProperty], method: str, values: Mapping[str, str]
) -> str | None:
    """Say what is wrong with a call of a device's method, or None.   rows: the model's properties.   values: by property."""
    found = next((m for m in device.spec.methods if m.name == method), None)
    if found is None:
        known = ", ".join(sorted(m.name for m in device.spec.methods)) or "none"
        return f"there is no method {method[:64]!r}; the device has {known}"
    for name, text in values.items():
        row = rows.get(name)
        if name not in found.property_names or row is None:
            takes = ", ".join(found.property_names) or "nothing"
            return f"method {method} takes no {name[:64]!r}; it takes {takes}"
        wrong = check_value(text, row.type, minimum=row.minimum, maximum=row.maximum)
        if wrong:
            return f"the value of {name} {wrong}"
    return None
