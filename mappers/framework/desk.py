"""A driver without an edge: run it on a desk, start a new one, check one against what the framework expects."""

import asyncio
import contextlib
import logging
import random
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from beehive.apis import devices_v1alpha2
from beehive.apis.decode import convert
from beehive.apis.devices import API_VERSION, Device, DeviceModel
from beehive.errors import SkerryError
from beehive.supervise import Part, supervise
from mappers.framework.convert import Value, from_text, to_text
from mappers.framework.driver import Driver, Property, Settings
from mappers.framework.errors import DriverError, NothingYet
from mappers.framework.poller import CALL_TIMEOUT_S, Poller, Sample
from mappers.framework.runner import Runner
from mappers.framework.spec import DeviceSpec, from_objects

log = logging.getLogger(__name__)

TEMPLATE = '''"""Driver for NAME.   Try it: mapper run FILE --simulate      Check it: mapper test FILE"""

from mappers.framework.driver import Driver, DriverError, Property, Value


class CLASS(Driver):
    protocol = "NAME"  # a Device's spec.protocol.protocolName

    async def open(self) -> None:
        # Connect.  self.settings is the Device's spec.protocol.configData.
        self.value = self.settings.number("start", 20.0)

    async def close(self) -> None:
        pass

    async def read(self, prop: Property) -> Value:
        # Return the value as the property's type; raise when the device does not answer.
        # prop.settings is the property's visitors.configData: a register, a pin, a path.
        if prop.name == "value":
            return self.value
        raise DriverError(f"there is no {prop.name}")

    async def write(self, prop: Property, value: Value) -> None:
        # The value has the property's type and is within its range.
        if prop.name != "value" or not isinstance(value, float):
            raise DriverError(f"cannot set {prop.name}")
        self.value = value

    example = [
        {
            "kind": "DeviceModel",
            "metadata": {"name": "NAME", "namespace": "default"},
            "spec": {
                "protocol": "NAME",
                "properties": [{"name": "value", "type": "FLOAT", "accessMode": "ReadWrite"}],
            },
        },
        {
            "kind": "Device",
            "metadata": {"name": "NAME-1", "namespace": "default"},
            "spec": {
                "deviceModelRef": {"name": "NAME"},
                "protocol": {"protocolName": "NAME", "configData": {"start": 20}},
                "properties": [{"name": "value", "reportToCloud": True, "desired": {"value": "21"}}],
            },
        },
    ]
'''


def write_template(name: str) -> Path:
    """Write `<name>.py` here.  Raises: DriverError if the name is no name or the file is there."""
    stem = name.removesuffix(".py").replace("-", "_")
    if not stem.isidentifier() or not stem.isascii():
        raise DriverError(f"not a name for a driver: {name!r}")
    path = Path(f"{stem}.py")
    text = TEMPLATE.replace("FILE", str(path)).replace("NAME", stem.replace("_", "-"))
    text = text.replace("CLASS", "".join(word.capitalize() for word in stem.split("_")))
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        raise DriverError(f"{path} is there already") from None
    except OSError as error:
        raise DriverError(f"cannot write {path}: {error}") from error
    return path


def load_specs(driver: type[Driver], path: Path | None) -> list[DeviceSpec]:
    """The devices of a YAML file, of the driver's example, or of `sample.yaml` beside it.  Raises: SkerryError."""
    documents: list[Any] = driver.example
    if path is None and not documents:
        path = _sample(driver)
    if path is not None:
        import yaml

        try:
            documents = [d for d in yaml.safe_load_all(path.read_text()) if d]
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DriverError(f"cannot read {path}: {error}") from error
    kinds = [(d.get("kind"), d) for d in devices_v1alpha2.convert(documents) if isinstance(d, dict)]
    models = {m.id: m for m in (convert(d, DeviceModel) for k, d in kinds if k == "DeviceModel")}
    devices = [convert(d, Device) for k, d in kinds if k == "Device"]
    if not devices:
        raise DriverError(
            f"{driver.__name__} has no example; give a DeviceModel and a Device with --device FILE"
        )
    specs = []
    for device in devices:
        model = models.get(device.model_id)
        if model is None:
            raise DriverError(f"device {device.id} needs the model {device.model_id!r} beside it")
        specs.append(from_objects(device, model))
    return specs


def _sample(driver: type[Driver]) -> Path | None:
    module = sys.modules.get(driver.__module__)
    path = Path(str(getattr(module, "__file__", ""))).with_name("sample.yaml")
    return path if path.is_file() else None


class _Printer:
    """Shows what would be reported, one line per change."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], str] = {}

    def readings(self, id_: str, samples: list[Sample]) -> None:
        for sample in samples:
            if self._last.get((id_, sample.name)) != sample.value:
                self._last[id_, sample.name] = sample.value
                wish = f"   (wanted: {sample.desired})" if sample.desired else ""
                odd = f"   (odd: {sample.anomaly})" if sample.anomaly else ""
                _say(f"{time.strftime('%H:%M:%S')}  {id_}  {sample.name} = {sample.value}{wish}{odd}")

    def state(self, id_: str, state: str) -> None:
        if self._last.get((id_, "")) != state:
            self._last[id_, ""] = state
            _say(f"{time.strftime('%H:%M:%S')}  {id_}  is {state}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def simulate(driver: type[Driver], path: Path | None, *, stop: asyncio.Event | None = None) -> None:
    """Run a driver's devices and print their readings, until a signal comes."""
    runner = Runner(driver, rng=random.Random())
    runner.reports = _Printer()
    for spec in load_specs(driver, path):
        runner.put(spec)
    await supervise([Part(name="devices", run=runner.run)], stop=stop, signals=stop is None)


async def discover(driver: type[Driver], settings: dict[str, str], *, as_json: bool = False) -> None:
    """Print what a driver finds around.  Raises: SkerryError."""
    try:
        found = await driver.discover(Settings(settings))
    except SkerryError:
        raise
    except Exception as error:  # the driver is somebody else's code
        raise DriverError(f"{driver.__name__} cannot look around: {type(error).__name__}: {error}") from error
    if as_json:
        rows = [
            {"identity": a.identity, "name": a.name, "settings": dict(a.settings), "about": dict(a.about)}
            for a in found
        ]
        _say(msgspec.json.encode(rows).decode())
        return
    for around in found:
        _say(_shown(f"{around.identity}  {around.name}".rstrip()))
        for key, text in around.about.items():
            _say(_shown(f"    {key}: {text}"))
    if not found:
        _say("nothing was found")


def _shown(text: str) -> str:
    """What a device calls itself must not move the cursor."""
    return "".join(char if char.isprintable() else "?" for char in text)


# --- checking --------------------------------------------------------------------------------------------------------


class _Collect:
    def __init__(self) -> None:
        self.samples: dict[str, Sample] = {}
        self.got = asyncio.Event()

    def readings(self, id_: str, samples: list[Sample]) -> None:
        self.samples.update({s.name: s for s in samples})
        self.got.set()

    def state(self, id_: str, state: str) -> None: ...


async def check_driver(driver: type[Driver], path: Path | None) -> bool:
    """Put a driver through what the framework will do with it, and print one line per check.  Says whether all passed."""
    good = True
    for spec in load_specs(driver, path):
        _say(f"{driver.__name__}, device {spec.id}")
        for name, check in (
            ("opens, reads each property as its type, closes", _check_reading),
            ("can be opened again after closing", _check_reading),
            ("takes each desired value and reads it back", _check_writing),
            ("raises for a property it does not have", _check_unknown),
            ("runs under the framework and reports", _check_running),
        ):
            try:
                async with asyncio.timeout(3 * CALL_TIMEOUT_S):
                    note = await check(driver, spec)
            except Exception as error:  # the driver is somebody else's code
                good = False
                _say(f"  FAILED  {name}: {type(error).__name__}: {error}")
            else:
                _say(f"  ok      {name}{note}")
    return good


@contextlib.asynccontextmanager
async def _opened(driver: type[Driver], spec: DeviceSpec) -> Any:
    """A poller's own way to a driver, so that the check and the real run agree."""
    poller = Poller(driver, spec, _Collect(), rng=random.Random(0))
    thing = driver()
    thing.id, thing.settings, thing.properties = spec.id, spec.settings, spec.properties

    async def do(method: Any, *args: Any) -> Any:
        return await poller._do(method, *args)

    await do(thing.open)
    try:
        yield thing, do
    finally:
        await do(thing.close)


async def _check_reading(driver: type[Driver], spec: DeviceSpec) -> str:
    silent = 0
    async with _opened(driver, spec) as (thing, do):
        for prop in spec.properties.values():
            try:
                to_text(await do(thing.read, prop), prop.type)
            except NothingYet:
                silent += 1  # a device that sends by itself, and has not yet
            except SkerryError as error:
                raise DriverError(f"{prop.name}: {error}") from error
    return f" ({len(spec.properties)} properties" + (f", {silent} not sent so far)" if silent else ")")


async def _check_writing(driver: type[Driver], spec: DeviceSpec) -> str:
    count = 0
    async with _opened(driver, spec) as (thing, do):
        for prop in spec.properties.values():
            if not prop.writable:
                continue
            value = from_text(prop.desired, prop.type) if prop.desired else await do(thing.read, prop)
            await do(thing.write, prop, value)
            back: Value = await do(thing.read, prop)
            if to_text(back, prop.type) != to_text(value, prop.type):
                raise DriverError(f"{prop.name}: wrote {value!r}, read {back!r}")
            count += 1
    return f" ({count} properties)"


async def _check_unknown(driver: type[Driver], spec: DeviceSpec) -> str:
    async with _opened(driver, spec) as (thing, do):
        try:
            await do(thing.read, Property(name="no-such-property"))
        except Exception:  # any will do; the point is that it does not make up a value
            return ""
    raise DriverError("it returned a value for a property that does not exist")


async def _check_running(driver: type[Driver], spec: DeviceSpec) -> str:
    reports = _Collect()
    poller = Poller(driver, spec, reports, rng=random.Random(0))
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(poller.run())
        try:
            await reports.got.wait()
        finally:
            task.cancel()
    return f" (after {(time.monotonic() - began) * 1000:.0f} ms)"


def manifests(driver: type[Driver], node: str) -> list[dict[str, Any]]:
    """The driver's example as objects for `kubectl apply`.  Raises: DriverError when it has none."""
    if not driver.example:
        raise DriverError(f"{driver.__name__} has no example: a list of a DeviceModel and a Device")
    documents = []
    for thing in driver.example:
        body = {"apiVersion": API_VERSION, **thing}
        if thing.get("kind") == "Device":
            body["spec"] = {**thing["spec"], "nodeName": node}
        documents.append(body)
    return documents
