"""What is known here of this node's devices, now: their objects, records, owners and faults.  Pure.

The parts of devicetwin share one of these.  Each table below has one part that writes it; all of them read."""

from collections import deque
from collections.abc import Mapping
from typing import Any

from beehive.apis import devices as api
from beehive.apis.devices import Device, DeviceModel, ModelProperty, Problem
from beehive.apis.hardware import CANDIDATE_ANNOTATION
from devicetwin import twin
from devicetwin.membership import Record
from devicetwin.twin import Change

HISTORY = 32  # readings kept in memory per property


class Known:
    """Keys are `<namespace>/<name>` of a device, but for `models`."""

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}  # as stored
        self.models: dict[str, DeviceModel] = {}
        self.records: dict[str, Record] = {}
        self.good: dict[str, Device] = {}  # what may be told to mappers: merged, without what is bad
        self.blocked: dict[str, list[Problem]] = {}
        self.bad: dict[str, dict[str, str]] = {}  # refused values now, by device and property
        self.owner: dict[str, str] = {}
        self.left: dict[str, str] = {}  # devices that are gone -> the mapper that was not told yet
        self.unsure: set[str] = set()
        """Devices whose stored readings may be older than what the cloud has: power was cut before they were saved."""
        self.present: frozenset[str] | None = None  # candidates whose hardware is there; None: not known
        self._history: dict[tuple[str, str], deque[tuple[int, str]]] = {}

    def rows(self, id_: str) -> dict[str, ModelProperty]:
        """The properties a device can have; from its twins when its model is missing."""
        device = self.devices.get(id_)
        model = self.models.get(device.model_id) if device is not None else None
        if model is not None:
            return {row.name: row for row in model.spec.properties if row.type in api.TWIN_TYPES}
        if device is None:
            return {}
        record = self.records.get(id_, Record())
        return {
            n: ModelProperty(name=n, type=twin.CHECKS.get(t.type, "STRING")) for n, t in record.twins.items()
        }

    def problems(self, id_: str) -> dict[str, str]:
        """All that is wrong with a device now, by property ("" for the whole)."""
        device = self.devices.get(id_)
        out = {property_at(device, p.path): str(p) for p in self.blocked.get(id_, ())}
        return {**out, **self.bad.get(id_, {})}

    def protocol_of(self, id_: str) -> str | None:
        """None for a device that is not of this node."""
        device = self.devices.get(id_)
        return device.spec.protocol.protocol_name if device is not None else None

    def found(self) -> Mapping[str, str]:
        """The devices that were made of found hardware: id -> name of the candidate."""
        return {
            id_: candidate
            for id_, device in self.devices.items()
            if (candidate := device.metadata.annotations.get(CANDIDATE_ANNOTATION))
        }

    def is_absent(self, id_: str) -> bool:
        """Whether a device was made of hardware that is known not to be there."""
        device = self.devices.get(id_)
        candidate = device.metadata.annotations.get(CANDIDATE_ANNOTATION) if device is not None else None
        return bool(candidate) and self.present is not None and candidate not in self.present

    def forget(self, id_: str) -> None:
        """Nothing more is known of a device that left the node, but its object if that is stored."""
        self.bad.pop(id_, None)
        for key in [k for k in self._history if k[0] == id_]:
            del self._history[key]

    # --- the last readings

    def remember(self, id_: str, change: Change) -> None:
        """Keep what a change brings of readings that are other than the last."""
        for name, before in change.changed.items():
            now = change.twins.get(name)
            if now is None:
                # names that come and go, as a client may make them up, must not pile up
                self._history.pop((id_, name), None)
                continue
            if now.actual is None:
                continue
            if before is not None and before.actual is not None and before.actual.value == now.actual.value:
                continue
            line = self._history.setdefault((id_, name), deque(maxlen=HISTORY))
            line.append((now.actual.at, now.actual.value))

    def history(self, id_: str) -> Mapping[str, list[tuple[int, str]]]:
        """The last readings of each property since this process began: (ms since 1970, value), oldest first."""
        return {name: list(line) for (device, name), line in sorted(self._history.items()) if device == id_}

    # --- for the local command line

    def snapshot(self, id_: str, *, delivered: bool, problems: Mapping[str, str]) -> dict[str, Any]:
        """One device as plain values.   delivered: whether its mapper has confirmed it as it is now."""
        record = self.records[id_]
        return {
            "id": id_,
            "state": record.state,
            "lastOnlineTime": record.last_online,
            "protocol": self.protocol_of(id_) or "",
            "mapper": self.owner.get(id_, ""),
            "delivered": delivered,
            "problems": dict(problems),
            "twins": {
                name: {
                    "type": t.type,
                    "desired": t.expected.value if t.expected is not None else None,
                    "reported": t.actual.value if t.actual is not None else None,
                    "reportedAt": t.actual.at if t.actual is not None else None,
                }
                for name, t in sorted(record.twins.items())
            },
        }


def property_at(device: Device | None, path: str) -> str:
    """The name of the property that a problem's path is about, or ""."""
    head, _, rest = path.partition("$.spec.properties[")
    index = rest.partition("]")[0]
    if device is None or head or not index.isdigit() or int(index) >= len(device.spec.properties):
        return ""
    return device.spec.properties[int(index)].name
