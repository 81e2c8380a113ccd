"""What is refused of pods and runtime classes."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cloudcore.standalone.validation import pods

SMALL = {"requests": {"cpu": "1", "memory": "1Mi"}, "limits": {"cpu": "1", "memory": "1Mi"}}
LARGE = {"requests": {"cpu": "2", "memory": "2Mi"}, "limits": {"cpu": "2", "memory": "2Mi"}}


def pod(resources: Any = None, **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "i", "imagePullPolicy": "Always", "resources": resources or SMALL}
    whole = {"containers": [container], "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", **spec}
    return {"metadata": {"name": "p"}, "spec": whole}


def running(shown: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "c", **({"resources": shown} if shown is not None else {})}]}


@pytest.mark.parametrize(
    ("change", "shown", "words"),
    [
        ({"resources": LARGE}, SMALL, []),
        ({"resources": {**LARGE, "requests": SMALL["requests"]}}, SMALL, ["QOS Class"]),
        ({"resources": LARGE, "image": "other"}, SMALL, ["only cpu and memory"]),
        (
            {"resources": {**LARGE, "requests": {"cpu": "3", "memory": "2Mi"}}},
            SMALL,
            ["QOS", "less than or equal"],
        ),
        ({"resources": LARGE}, None, ["without support for resize"]),
    ],
)
def test_a_resize_changes_cpu_and_memory_only(change: Any, shown: Any, words: list[str]) -> None:
    old = pod() | {"status": running(shown)}
    body = copy.deepcopy(old)
    body["spec"]["containers"][0] |= change
    told = [cause.text for cause in pods.on_resize(body, old)]
    assert len(told) == len(words), told
    for word in words:
        assert any(word in text for text in told), told


@pytest.mark.parametrize(
    ("names", "spec", "faults"),
    [
        (("kernel.shm_rmid_forced", "net/ipv4/ip_forward"), {}, 0),
        (("foo-", "bar..", "", "Upper.case"), {}, 4),
        (("a.b", "a/b"), {}, 1),
        (("net.core.somaxconn",), {"hostNetwork": True}, 1),
        (("kernel.shmmax",), {"hostIPC": True}, 1),
    ],
)
def test_names_of_sysctls(names: tuple[str, ...], spec: dict[str, Any], faults: int) -> None:
    context = {"sysctls": [{"name": name, "value": "1"} for name in names]}
    told = list(pods.pod_spec(pod(securityContext=context, **spec)["spec"], "spec"))
    assert len(told) == faults, told


def test_a_resize_leaves_the_pod_as_a_whole() -> None:
    whole = {"limits": {"cpu": "2", "memory": "2Mi"}, "requests": {"cpu": "2", "memory": "2Mi"}}
    old = pod() | {"status": running(SMALL)}
    old["spec"]["resources"] = whole
    body = copy.deepcopy(old)
    body["spec"]["resources"]["limits"]["cpu"] = "3"
    assert any("only cpu and memory" in cause.text for cause in pods.on_resize(body, old))
