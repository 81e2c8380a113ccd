"""What a driver is: one class that reads and writes the properties of one device.

Write a subclass of `Driver` in a file of its own and run it with `mapper run FILE`.  One object is made per device.  Only
`read` is needed; `write` if something can be set.  Each method may be `async def` or plain `def`: plain ones run in a thread
of the device's own, so a blocking library stalls only its device.  The methods of one object are never called at the same
time.

A method that raises says that the device did not answer.  The framework logs it once, tries again with growing pauses, and
says when the device is back; a driver needs no retry loop of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from mappers.framework.convert import Value
from mappers.framework.errors import DeviceError, DriverError, NothingYet
from mappers.framework.push import Target

__all__ = ["Around", "DeviceError", "Driver", "DriverError", "NothingYet", "Property", "Settings", "Value"]

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Settings(Mapping[str, Any]):
    """The `configData` of a manifest.  Keys match without regard to case, since manifests spell them in every way."""

    def __init__(self, data: Mapping[str, Any] = NOTHING) -> None:
        self._data = dict(data)
        self._keys = {key.lower(): key for key in data}

    def __getitem__(self, key: str) -> Any:
        return self._data[self._keys[key.lower()]]

    def __iter__(self) -> Any:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return f"Settings({sorted(self._data)})"  # values may be secrets

    def number(self, key: str, default: float | None = None) -> float:
        """A number that may be given as text.  Raises: DriverError naming the key."""
        value = self.get(key, default)
        try:
            if value is None or isinstance(value, bool):
                raise ValueError
            return float(value)
        except (TypeError, ValueError):
            raise DriverError(f"setting {key!r} is not a number: {value!r:.64}") from None

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number that may be given as text, 0x included.  Raises: DriverError naming the key."""
        value = self.get(key, default)
        try:
            if value is None or isinstance(value, bool):
                raise ValueError
            if isinstance(value, str):
                return int(value, 0)
            if value != int(value):
                raise ValueError
            return int(value)
        except (TypeError, ValueError, OverflowError):
            raise DriverError(f"setting {key!r} is not a whole number: {value!r:.64}") from None

    def text(self, key: str, default: str | None = None) -> str:
        """Raises: DriverError when it is missing and has no default."""
        value = self.get(key, default)
        if value is None:
            raise DriverError(f"setting {key!r} is missing")
        return str(value)

    def flag(self, key: str, *, default: bool = False) -> bool:
        """true/false, also as text.  Raises: DriverError naming the key."""
        value = self.get(key, default)
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "1", "yes", "on"):
            return True
        if str(value).lower() in ("false", "0", "no", "off", ""):
            return False
        raise DriverError(f"setting {key!r} is not true or false: {value!r:.64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """One property of a device: the model's row, and how this device addresses it.

    type: INT FLOAT DOUBLE STRING BOOLEAN BYTES STREAM.  minimum, maximum: text of the model, "" if there is none.
    settings: the visitor's configData.  desired: what is wanted, as text, "" for nothing.
    cycle_s: seconds between readings.  report: whether readings go to the twin.  pushes, push_cycle_s: where else they go, how
    often.  anomaly: `pushMethod.anomalyDetection`, for `Driver.anomaly`."""

    name: str
    type: str = "STRING"
    writable: bool = False
    minimum: str = ""
    maximum: str = ""
    unit: str = ""
    settings: Settings = field(default_factory=Settings)
    desired: str = ""
    cycle_s: float = 1.0
    report: bool = True
    pushes: tuple[Target, ...] = ()
    push_cycle_s: float = 1.0
    anomaly: Settings = field(default_factory=Settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """A device that a driver found.  identity: stays the same.  settings: for the Device's `spec.protocol.configData`.
    about: what is known of it, for people."""

    identity: str
    name: str = ""
    settings: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    about: Mapping[str, str] = field(default_factory=lambda: NOTHING)


class Driver:
    """Base of drivers.  `self.id`, `self.settings` and `self.properties` are there before `open` is called.

    protocol: name under which manifests find this driver, `spec.protocol.protocolName`.
    example: a list of a DeviceModel and a Device as in YAML, for `mapper test`, `mapper run --simulate` and the docs."""

    protocol: ClassVar[str] = ""
    example: ClassVar[list[dict[str, Any]]] = []

    id: str
    settings: Settings
    properties: Mapping[str, Property]

    async def open(self) -> None:
        """Connect.  Called before anything else, and again after the device was lost or its settings changed."""

    async def close(self) -> None:
        """Disconnect.  Called once for each `open` that did not raise."""

    async def read(self, prop: Property) -> Value:
        """The value of a property now, as the Python type of its `type`."""
        raise NotImplementedError

    async def write(self, prop: Property, value: Value) -> None:
        """Set a property.  value: already of the property's type and within its range."""
        raise DriverError(f"{type(self).__name__} cannot write")

    async def state(self) -> str:
        """One of online, ok, offline, unhealthy, unknown.  Called while the device answers."""
        return "online"

    async def call(self, method: str, values: Mapping[str, Value]) -> Value:
        """Do a device's method; what it returns is told to the caller.  By default each of the properties is written.

        method: one of the Device's `spec.methods`.   values: by property, of those that the method names; already of their
        properties' types and within their ranges."""
        raise NotImplementedError  # the framework writes them

    async def anomaly(self, prop: Property, value: Value) -> str | None:
        """Say in a few words what is wrong with a reading that is possible and still not right; None for nothing.

        Called after each `read` of a property that has an `anomalyDetection`, which is `prop.anomaly`; the rules of range, rate
        and so on are edgecore's.  What it says becomes a condition, an event and an MQTT message; the reading counts all the
        same."""
        return None

    @classmethod
    async def discover(cls, settings: Settings) -> list[Around]:
        """Devices of this kind that are around, for `mapper discover`.  settings: what the command was given."""
        raise DriverError(f"{cls.__name__} cannot look for devices")

    def changed(self, name: str, value: Value) -> None:
        """Report a value that the device sent by itself.  May be called from any method, and from the event loop's
        callbacks."""
        self._push(name, value)

    def state_changed(self) -> None:
        """Have `state` asked at once: the device said that it goes, or is back.  As `changed`, from any method or callback."""
        self._ask_state()

    _push: Callable[[str, Value], None] = staticmethod(lambda name, value: None)
    _ask_state: Callable[[], None] = staticmethod(lambda: None)


def find_driver(namespace: Mapping[str, Any], module: str) -> type[Driver]:
    """The one driver class that a file defines.  Raises: DriverError."""
    found = [
        thing
        for thing in namespace.values()
        if isinstance(thing, type)
        and issubclass(thing, Driver)
        and thing is not Driver
        and thing.__module__ == module
    ]
    # A base class and its subclass in one file: the subclass is meant.
    leaves = [a for a in found if not any(b is not a and issubclass(b, a) for b in found)]
    if len(leaves) != 1:
        names = ", ".join(c.__name__ for c in leaves) or "none"
        raise DriverError(f"a driver file has one subclass of Driver; found: {names}")
    (driver,) = leaves
    if not driver.protocol:
        raise DriverError(f"{driver.__name__} has no protocol: set the class attribute `protocol`")
    if driver.read is Driver.read:
        raise DriverError(f"{driver.__name__} has no read method")
    return driver
