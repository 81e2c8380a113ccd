"""Hardware that is there becomes a device by one rule and one word: its driver is started, and a pod gets its device node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.skerry import Skerry, eventually

# Nearly every Linux has this one, no container has it by itself, and to open it does nothing.
FUSE = Path("/dev/fuse")
RULE = {
    "apiVersion": "skerry.dev/v1alpha1",
    "kind": "HardwareRule",
    "metadata": {"name": "filer", "namespace": "default"},
    "spec": {
        "match": {"subsystem": "misc", "name": "fuse"},
        "template": {
            "deviceModelRef": {"name": "filer"},
            "protocol": {"protocolName": "filer", "configData": {"path": "${devnode}"}},
        },
    },
}
MODEL = {
    "apiVersion": "devices.kubeedge.io/v1beta1",
    "kind": "DeviceModel",
    "metadata": {"name": "filer", "namespace": "default"},
    "spec": {
        "protocol": "filer",
        "properties": [{"name": "node", "type": "STRING", "accessMode": "ReadOnly"}],
    },
}
DRIVER = """
import os
from mappers.framework.driver import Driver

class Filer(Driver):
    protocol = "filer"

    def read(self, prop):
        found = os.stat(self.settings.text("path")).st_rdev
        return f"{os.major(found)}:{os.minor(found)}"
"""


def apply(trial: Skerry, *things: dict[str, Any]) -> None:
    trial.kubectl("apply", "-f", "-", stdin=json.dumps({"kind": "List", "apiVersion": "v1", "items": things}))


def pod(name: str, image: str, device: str, claims: bool) -> dict[str, Any]:
    look = f"if (: < /dev/skerry/{device}) 2>/dev/null; then /bin/stat -c %t:%T /dev/skerry/{device}; else echo no; fi"
    container: dict[str, Any] = {
        "name": "c",
        "image": image,
        "command": [
            "/bin/sh",
            "-c",
            f"{look}; /bin/sleep 3600",
        ],
    }
    if claims:
        container["resources"] = {"limits": {f"devices.skerry.dev/{device}": "1"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }


@pytest.fixture
def cleaned(trial: Skerry) -> Iterator[None]:
    yield
    trial.kubectl("delete", "pod", "with", "without", "second", "--ignore-not-found")
    trial.kubectl("delete", "hardwarerule", "filer", "--ignore-not-found")
    for kind in ("device", "devicecandidate"):
        trial.kubectl("delete", kind, "-l", "skerry.dev/hardware-rule=filer")
    trial.kubectl("delete", "devicemodel", "filer", "--ignore-not-found")
    (trial.home / "drivers" / "filer.py").unlink(missing_ok=True)


@pytest.mark.skipif(not FUSE.is_char_device(), reason=f"there is no {FUSE}")
@pytest.mark.usefixtures("cleaned")
def test_from_a_rule_to_a_reading_and_a_pod(trial: Skerry) -> None:
    (trial.home / "drivers" / "filer.py").write_text(DRIVER)
    apply(trial, RULE, MODEL)

    def candidate() -> str:
        lines = [line.split() for line in trial.run("device", "candidates").stdout.splitlines()[1:]]
        names = [line[0] for line in lines if line[0].startswith("filer-") and "Present" in line]
        return names[0] if names else ""

    name = eventually(candidate, "a candidate")
    assert f"{name} is device {name}" in trial.run("device", "accept", "filer").stdout

    def reads() -> bool:
        found = trial.get("devicestatus", name).get("status") or {}
        told = {twin["propertyName"]: twin["reported"]["value"] for twin in found.get("twins", ())}
        return told == {"node": "10:229"} and found.get("state") == "online"

    eventually(reads, "a reading by the driver that was started")

    (image,) = {container["image"] for found in trial.pods() for container in found["spec"]["containers"]}
    apply(trial, pod("with", image, name, True), pod("without", image, name, False))

    def says(name: str) -> list[str]:
        return trial.kubectl("logs", name, check=False).stdout.splitlines()

    # in hexadecimal
    eventually(lambda: says("with") == ["a:e5"], "the pod's device")
    eventually(lambda: says("without") == ["no"], "no device for the other pod")
    # one pod at a time
    apply(trial, pod("second", image, name, True))

    def waits() -> bool:
        found = trial.get("pod", "second")
        text = json.dumps(found["status"])
        return "Insufficient devices.skerry.dev" in text

    eventually(waits, "the second pod to wait")
