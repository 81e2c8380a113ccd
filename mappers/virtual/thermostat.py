"""A simulated thermostat.  It needs no hardware, and it is also the smallest complete driver to copy.

Run it on a desk:       mapper run mappers/virtual/thermostat.py --simulate
Check your own copy:    mapper test my_driver.py
Run it on an edge:      mapper run my_driver.py

A driver is one class.  `protocol` is the name that a Device's manifest gives in spec.protocol.protocolName; each Device of
that name on this node gets an object of the class.  The framework calls `read` for each property in its collectCycle and
`write` when a desired value changes, turns values into the types that the DeviceModel names, and keeps the twin up to
date."""

import math
import time
from collections.abc import Mapping

from mappers.framework.driver import Driver, DriverError, Property, Value

BOOST = 2.0  # celsius


class Thermostat(Driver):
    """A room with a heater: its temperature follows the target, quickly at first and then ever slower."""

    protocol = "virtual"

    async def open(self) -> None:
        # self.settings is spec.protocol.configData of the Device.  A real driver would connect here.
        self.ambient = self.settings.number("ambient", 18.0)  # celsius, where the room drifts without heating
        self.time_constant = max(
            self.settings.number("timeConstant", 1.0), 0.001
        )  # seconds to get 63 % of the way
        self.target = self.ambient
        self.temperature = self.ambient
        self.at = time.monotonic()

    async def read(self, prop: Property) -> Value:
        self._live()
        match prop.name:
            case "temperature":
                return round(self.temperature, 2)
            case "target":
                return self.target
            case "heating":
                return self.temperature < self.target - 0.1
        raise DriverError(f"a thermostat has no {prop.name}")

    async def write(self, prop: Property, value: Value) -> None:
        # The value has the property's type and is within its range already.
        if prop.name != "target" or not isinstance(value, float):
            raise DriverError(f"cannot set {prop.name}")
        self._live()
        self.target = value

    async def call(self, method: str, values: Mapping[str, Value]) -> Value:
        if method != "boost":
            raise DriverError(f"a thermostat has no method {method}")
        self._live()
        self.temperature = min(self.temperature + BOOST, 35.0)
        return f"{self.temperature:.1f} celsius now"

    def _live(self) -> None:
        """Let the time since the last look pass in the room."""
        now = time.monotonic()
        rest = math.exp((self.at - now) / self.time_constant)
        self.temperature = self.target + (self.temperature - self.target) * rest
        self.at = now

    # What `mapper test` and `mapper run --simulate` use; the same as deploy/samples/thermostat-*.yaml.
    example = [
        {
            "kind": "DeviceModel",
            "metadata": {"name": "thermostat", "namespace": "default"},
            "spec": {
                "protocol": "virtual",
                "properties": [
                    {"name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly", "unit": "celsius"},
                    {
                        "name": "target",
                        "type": "FLOAT",
                        "accessMode": "ReadWrite",
                        "minimum": "5",
                        "maximum": "35",
                    },
                    {"name": "heating", "type": "BOOLEAN", "accessMode": "ReadOnly"},
                ],
            },
        },
        {
            "kind": "Device",
            "metadata": {"name": "thermostat", "namespace": "default"},
            "spec": {
                "deviceModelRef": {"name": "thermostat"},
                "protocol": {"protocolName": "virtual", "configData": {"timeConstant": 0.5}},
                "stateReport": {"reportToCloud": True, "reportCycle": 5000},
                "methods": [{"name": "boost", "description": "heats at once, by two degrees"}],
                "properties": [
                    {"name": "temperature", "collectCycle": 500, "reportToCloud": True},
                    {
                        "name": "target",
                        "collectCycle": 500,
                        "reportToCloud": True,
                        "desired": {"value": "21.5"},
                    },
                    {"name": "heating", "collectCycle": 1000, "reportToCloud": True},
                ],
            },
        },
    ]
