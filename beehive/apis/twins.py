"""The JSON that edge and cloud exchange about twins, states and membership (KubeEdge's D1, U1, U2, U3).  Pure.

The same shapes are spoken on the node's MQTT bus, so `devicetwin.documents` builds on them.  Timestamps are milliseconds since
1970; here they are numbers, in DeviceStatus they become decimal text (`status_twin`).
Source: protocol notes on devices section 10 and 11, on MQTT section 5."""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType, field

from beehive.apis.devices import Twin, TwinProperty


class ValueMetadata(Struct, frozen=True, kw_only=True, omit_defaults=True):
    timestamp: int = 0  # left out when 0, as Go does


class TwinValue(Struct, frozen=True, kw_only=True, omit_defaults=True):
    value: str | None = None
    metadata: ValueMetadata | None = None


class TypeMetadata(Struct, frozen=True, kw_only=True, omit_defaults=True):
    type: str = ""


class TwinVersion(Struct, frozen=True, kw_only=True):
    cloud: int = 0
    edge: int = 0


class MsgTwin(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One twin: what is wanted (`expected`) and what is (`actual`)."""

    expected: TwinValue | None = None
    actual: TwinValue | None = None
    optional: bool | None = None
    metadata: TypeMetadata | None = None
    expected_version: TwinVersion | None = None
    actual_version: TwinVersion | None = None


class TwinProblem(Struct, frozen=True, kw_only=True):
    """A reading or a desired value that the edge refused; the last good one stays."""

    property: str
    reason: str
    message: str


class TwinUpdate(Struct, frozen=True, kw_only=True):
    """U1 `device/<ns>/<name>/twin/edge_updated`, and the body of MQTT's `twin/update`.  A twin of null asks for its removal.

    Our edge sends every twin of the device each time, so that the newest report alone is enough.
    Ours are `problems`, what the edge refuses at the moment, and `anomalies`, what rules find wrong with readings that count;
    they are left out for a device without rules.  KubeEdge's cloud ignores both."""

    event_id: str = ""
    timestamp: int = 0
    twin: dict[str, MsgTwin | None] | None = None
    problems: list[TwinProblem] | UnsetType = UNSET
    anomalies: list[TwinProblem] | UnsetType = UNSET


ANOMALY = "skerry.dev/anomaly"
"""Key of a reading's metadata over DMI: what the driver finds wrong with a reading that is valid.  Ours."""


class MemberDevice(Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str = ""
    name: str = ""
    description: str = ""
    state: str = ""
    last_online: str = ""
    twin: dict[str, MsgTwin | None] | None = None


class MembershipUpdate(Struct, frozen=True, kw_only=True):
    """D1 `membership`.  Lists are null, not empty, when there is nothing."""

    event_id: str = ""
    timestamp: int = 0
    added_devices: list[MemberDevice] | None = None
    removed_devices: list[MemberDevice] | None = None


class MembershipDetail(Struct, frozen=True, kw_only=True):
    """The answer to U3: every device of the node.  An edge removes what is not listed."""

    event_id: str = ""
    timestamp: int = 0
    devices: list[MemberDevice] = []


class MembershipQuery(Struct, frozen=True, kw_only=True):
    """U3 `membership/detail`."""

    event_type: str = "group_membership_event"
    event_id: str = ""
    group_id: str = ""
    operation: str = "detail"
    timestamp: int = 0


class StateDevice(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    name: str = ""
    state: str = ""
    last_online_time: str = ""


class StateUpdate(Struct, frozen=True, kw_only=True):
    """U2 `device/<ns>/<name>/state/update`; KubeEdge sends it as a JSON string that holds this JSON."""

    event_id: str = ""
    timestamp: int = 0
    device: StateDevice = field(default_factory=StateDevice)


def status_twin(name: str, twin: MsgTwin) -> Twin:
    """The entry of `DeviceStatus.status.twins` for one reported twin.

    Each metadata key is there only if the report had it.  A side without a value is left out: `value` is required by the
    CRD, and a property that is only read has none that is desired.
    Source: KubeEdge devicecontroller/controller/upstream.go."""
    type_ = twin.metadata.type if twin.metadata is not None else ""
    return Twin(
        property_name=name,
        reported=_side(twin.actual, type_),
        observed_desired=_side(twin.expected, type_),
    )


def _side(value: TwinValue | None, type_: str) -> TwinProperty | None:
    if value is None or not value.value:
        return None
    metadata: dict[str, str] = {}
    if value.metadata is not None and value.metadata.timestamp:
        metadata["timestamp"] = str(value.metadata.timestamp)
    if type_:
        metadata["type"] = type_
    return TwinProperty(value=value.value, metadata=metadata)


CALL = "call"
"""Last part of the resource by which the cloud asks for a method, and last but one of that of the answer."""


class MethodCall(Struct, frozen=True, kw_only=True):
    """Ours.  Down as `device/<ns>/<name>/call`: do this method once.   id: of the call.   values: by property, as text."""

    id: Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[a-z0-9.\-]+$")]
    method: str
    values: dict[str, str] = {}
    timeout_ms: int = 10_000


class MethodResult(Struct, frozen=True, kw_only=True):
    """Ours.  Up as `device/<ns>/<name>/call/<id>`.   error: why it was not done, or may not have been; empty if it was."""

    result: str = ""
    error: str = ""
