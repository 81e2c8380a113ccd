"""Devices as a mapper gets them over DMI, turned into what drivers see.  Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from beehive._generated import dmi_pb2 as pb
from beehive.apis.anyvalue import from_any
from beehive.apis.devices import TWIN_TYPES, Device, DeviceModel, deliverable
from beehive.errors import SkerryError
from mappers.framework import push
from mappers.framework.driver import Property, Settings

DEFAULT_CYCLE_S = 1.0
MIN_CYCLE_S = (
    0.01  # a manifest that asks for more is taken to mean this; a busy loop would starve the other devices
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """One device.  state_cycle_s: seconds between state reports, 0 for none.  methods: name -> properties it may write."""

    id: str
    settings: Settings
    properties: Mapping[str, Property] = field(default_factory=lambda: MappingProxyType({}))
    state_cycle_s: float = 0.0
    methods: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def same_but_desired(self, other: "DeviceSpec") -> bool:
        """Whether nothing differs but what is wanted, so that the device need not be reopened."""
        return bool(_plain(self) == _plain(other))


def _plain(spec: DeviceSpec) -> Any:
    return (
        spec.id,
        dict(spec.settings),
        [(p.name, p.type, p.writable, dict(p.settings)) for p in spec.properties.values()],
    )


def from_proto(device: pb.Device, model: pb.DeviceModel | None) -> DeviceSpec:
    """Read what edgecore sent.  Properties that the model does not have are left out.  Raises: SkerryError without a model."""
    if model is None:
        raise SkerryError(
            f"there is no model {device.spec.deviceModelReference} for {device.namespace}/{device.name}"
        )
    id_ = f"{device.namespace}/{device.name}"
    rows = {row.name: row for row in model.spec.properties}
    properties: dict[str, Property] = {}
    for prop in device.spec.properties:
        row = rows.get(prop.name)
        type_ = row.type.upper() if row is not None else ""
        if row is None or type_ not in TWIN_TYPES:
            continue
        properties[prop.name] = Property(
            name=prop.name,
            type=type_,
            writable=row.accessMode != "ReadOnly",
            minimum=row.minimum,
            maximum=row.maximum,
            unit=row.unit,
            settings=_settings(prop.visitors.configData),
            desired=prop.desired.value,
            cycle_s=_reading(
                prop.collectCycle,
                prop.reportCycle,
                report=prop.reportToCloud,
                pushes=push.from_proto(prop.pushMethod, id_),
            ),
            report=prop.reportToCloud,
            pushes=push.from_proto(prop.pushMethod, id_),
            push_cycle_s=_cycle(prop.reportCycle),
            anomaly=_settings(prop.pushMethod.anomalyDetection),
        )
    return DeviceSpec(
        id=id_,
        settings=_settings(device.spec.protocol.configData),
        properties=properties,
        state_cycle_s=_cycle(device.status.reportCycle) if device.status.reportToCloud else 0.0,
        methods={m.name: tuple(m.propertyNames) for m in device.spec.methods},
    )


def from_objects(device: Device, model: DeviceModel) -> DeviceSpec:
    """Make a spec of API objects, for running without an edgecore.  Raises: SkerryError naming what blocks it."""
    good, problems = deliverable(device, model)
    for problem in problems:
        if problem.blocking:
            raise SkerryError(str(problem))
    rows = {row.name: row for row in model.spec.properties}
    properties = {
        prop.name: Property(
            name=prop.name,
            type=rows[prop.name].type,
            writable=rows[prop.name].writable,
            minimum=rows[prop.name].minimum,
            maximum=rows[prop.name].maximum,
            unit=rows[prop.name].unit,
            settings=Settings(prop.visitors.config_data if prop.visitors is not None else {}),
            desired=prop.desired.value if prop.desired is not None else "",
            cycle_s=_reading(
                prop.collect_cycle,
                prop.report_cycle,
                report=prop.report_to_cloud,
                pushes=push.from_api(prop.push_method, device.id),
            ),
            report=prop.report_to_cloud,
            pushes=push.from_api(prop.push_method, device.id),
            push_cycle_s=_cycle(prop.report_cycle),
            anomaly=Settings((prop.push_method.anomaly_detection if prop.push_method else None) or {}),
        )
        for prop in good.spec.properties
    }
    report = device.state_report
    return DeviceSpec(
        id=device.id,
        settings=Settings(good.spec.protocol.config_data),
        properties=properties,
        state_cycle_s=_cycle(report.report_cycle) if report.report_to_cloud else 0.0,
        methods={m.name: tuple(m.property_names) for m in device.spec.methods},
    )


def _settings(value: pb.CustomizedValue | pb.AnomalyDetection) -> Settings:
    return Settings({key: from_any(packed) for key, packed in value.data.items()})


def _reading(collect: int, report_cycle: int, *, report: bool, pushes: tuple[push.Target, ...]) -> float:
    """Seconds between readings: one reading serves the twin and the pushes, so the shorter cycle counts."""
    if not pushes:
        return _cycle(collect)
    return min(_cycle(collect), _cycle(report_cycle)) if report else _cycle(report_cycle)


def _cycle(ms: int) -> float:
    """Seconds of a cycle in ms.  Nanoseconds, as manifests before 1.18 have them, are recognised: no cycle is 11 days long."""
    if ms <= 0:
        return DEFAULT_CYCLE_S
    if ms >= 1_000_000_000:
        ms //= 1_000_000
    return max(ms / 1000, MIN_CYCLE_S)
