"""A driver as a wheel: what pip installs and the supervisor finds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mappers.framework.errors import DriverError
from mappers.framework.package import wheel
from mappers.framework.runner import load_driver

FILE = 'class Mine:\n    protocol = "my-bus"\n'


def test_pip_installs_it_and_its_protocol_is_found(tmp_path: Path) -> None:
    name, content = wheel("my_bus", FILE, "my-bus", "1.2")
    assert name == "skerry_driver_my_bus-1.2-py3-none-any.whl"
    assert wheel("my_bus", FILE, "my-bus", "1.2")[1] == content
    (tmp_path / name).write_bytes(content)
    target = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-qq",
        "--disable-pip-version-check",
        "--no-index",
        "--no-deps",
    ]
    subprocess.run([*pip, "--target", str(target), str(tmp_path / name)], check=True, timeout=120)
    look = (
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        "from pathlib import Path\n"
        "from mappers.supervise.drivers import Drivers\n"
        "print(Drivers(Path('/nonexistent')).find('my-bus').name)\n"
        "import my_bus\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", look], check=True, timeout=60, capture_output=True, text=True
    )
    assert told.stdout.strip() == "my_bus"


@pytest.mark.parametrize(
    ("module", "protocol", "version"),
    [
        ("my-bus", "x", "1"),
        ("m", "a=b", "1"),
        ("m", "", "1"),
        ("m", "x", "one"),
        ("m", "a\nb", "1"),
        ("../m", "x", "1"),
    ],
)
def test_what_could_not_be_installed_is_refused(module: str, protocol: str, version: str) -> None:
    with pytest.raises(DriverError):
        wheel(module, FILE, protocol, version)


def test_a_drivers_example_becomes_manifests() -> None:
    from mappers.framework.desk import manifests

    driver = load_driver("mappers/virtual/thermostat.py")
    model, device = manifests(driver, "edge-7")
    assert model["apiVersion"] == device["apiVersion"] == "devices.kubeedge.io/v1beta1"
    assert device["spec"]["nodeName"] == "edge-7"
    assert "nodeName" not in driver.example[1]["spec"]
