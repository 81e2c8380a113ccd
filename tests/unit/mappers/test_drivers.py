"""What all drivers have: a name that finds them, a sample that is right, docs that name each setting."""

import re
from pathlib import Path

import pytest

import mappers
from mappers.framework.builtin import has_driver
from mappers.framework.desk import load_specs
from mappers.framework.runner import load_driver

FOLDER = Path(mappers.__file__).parent
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/driver.py"))


def test_they_are_found() -> None:
    assert {"ble", "modbus", "opcua", "mqtt", "serial", "gpio", "i2c", "onewire", "http", "sysinfo"} <= set(
        NAMES
    )
    assert not has_driver("framework")
    assert not has_driver("../modbus")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "framework"])
def test_a_driver_has_its_sample_and_its_docs(name: str) -> None:
    driver = load_driver(name)
    assert driver.protocol == name
    (spec,) = load_specs(driver, None)
    assert spec.properties
    readme = (FOLDER / name / "README.md").read_text()
    source = "".join(path.read_text() for path in (FOLDER / name).glob("*.py"))
    asked = set(re.findall(r'settings\.(?:text|number|integer|flag|get)\(\s*"(\w+)"', source))
    missing = sorted(key for key in asked if f"`{key}`" not in readme)
    assert missing == []
