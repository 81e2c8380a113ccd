"""Devices that pods claim: found by name in the pod's own namespace, given to one pod, given again when they are elsewhere."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edgecore.edged import admission, claims
from edgecore.edged.claims import HostDevice
from edgecore.edged.errors import Held
from edgecore.edged.pod import Pod
from edgecore.edged.podread import decode_pod

USB0 = HostDevice(path="/dev/ttyUSB0", major=188, minor=0)
USB3 = HostDevice(path="/dev/ttyUSB3", major=188, minor=3)


def pod(*devices: str, namespace: str = "default", name: str = "a") -> Pod:
    limits: dict[str, Any] = {f"{claims.PREFIX}{device}": "1" for device in devices}
    container = {"name": "c", "image": "i", "resources": {"limits": {**limits, "cpu": "1"}}}
    return decode_pod(
        msgspec.json.encode(
            {
                "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}"},
                "spec": {"containers": [container], "nodeName": "n"},
            }
        )
    )


def find(namespace: str, name: str) -> HostDevice | str:
    return (
        USB0 if (namespace, name) == ("default", "meter") else f"device {namespace}/{name} is not plugged in"
    )


def test_a_container_gets_what_it_claims_and_nothing_else() -> None:
    wants = pod("meter")
    (container,) = wants.spec.containers
    assert claims.resolve(wants, container, find) == [("/dev/skerry/meter", USB0)]
    plain = pod()
    assert claims.resolve(plain, plain.spec.containers[0], find) == []


@pytest.mark.parametrize("wants", [pod("other"), pod("meter", namespace="elsewhere"), pod("../sda")])
def test_what_is_not_there_holds_it_back(wants: Pod) -> None:
    with pytest.raises(Held, match="not plugged in"):
        claims.resolve(wants, wants.spec.containers[0], find)


def test_one_pod_at_a_time() -> None:
    first, second = pod("meter"), pod("meter", "camera", name="b")
    assert claims.taken(second, [first]) == "meter"
    assert claims.taken(second, [pod("meter", namespace="elsewhere"), pod()]) == ""
    room = admission.Room(max_pods=10)
    refused = admission.decide(second, [first], room).refused
    assert refused is not None
    assert (refused.reason, "meter" in refused.message) == ("OutOfDevices", True)
    assert admission.decide(second, [], room).refused is None


def test_a_device_elsewhere_is_a_reason_to_start_again_and_one_away_is_none() -> None:
    wants = pod("meter")
    (container,) = wants.spec.containers
    stamp = claims.stamp([("/dev/skerry/meter", USB0)])
    assert claims.moved(wants, container, stamp, find) == ""
    assert claims.moved(wants, container, stamp, lambda *_: "away") == ""
    assert "another device node" in claims.moved(wants, container, stamp, lambda *_: USB3)
    plain = pod()
    assert claims.moved(plain, plain.spec.containers[0], "", find) == ""


def test_the_node_counts_what_is_plugged_in() -> None:
    assert claims.capacity({"meter": 1, "camera": 0, "x" * 64: 1}) == {
        "devices.skerry.dev/meter": "1",
        "devices.skerry.dev/camera": "0",
    }
