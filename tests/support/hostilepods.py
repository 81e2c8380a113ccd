"""Pods as somebody clumsy or hostile would write them: one that uses every field, with some of them replaced."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

PROBE = {
    "initialDelaySeconds": 1,
    "timeoutSeconds": 1,
    "periodSeconds": 5,
    "successThreshold": 1,
    "failureThreshold": 3,
    "terminationGracePeriodSeconds": 3,
}
CONTAINER = {
    "name": "c",
    "image": "skerry.test/busybox:1",
    "imagePullPolicy": "IfNotPresent",
    "command": ["sh", "-c", "trap 'exit 0' TERM; $(A)"],
    "args": ["$(A)", "b"],
    "workingDir": "/tmp",
    "ports": [{"containerPort": 80, "hostPort": 0, "protocol": "TCP", "name": "http", "hostIP": "127.0.0.1"}],
    "envFrom": [
        {"prefix": "P_", "configMapRef": {"name": "m", "optional": True}},
        {"secretRef": {"name": "s", "optional": True}},
    ],
    "env": [
        {"name": "A", "value": "b"},
        {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
        {"name": "D", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k", "optional": True}}},
        {"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
    ],
    "resources": {
        "requests": {"cpu": "10m", "memory": "1Mi", "ephemeral-storage": "1Mi"},
        "limits": {"cpu": "1", "memory": "10Mi", "ephemeral-storage": "1Gi"},
    },
    "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
    "restartPolicy": "Always",
    "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}],
    "volumeMounts": [
        {"name": "e", "mountPath": "/e", "subPath": "a/b", "mountPropagation": "None"},
        {"name": "h", "mountPath": "/h", "readOnly": True},
        {"name": "e", "mountPath": "/f", "subPathExpr": "$(A)"},
        {"name": "p", "mountPath": "/p"},
        {"name": "d", "mountPath": "/d"},
        {"name": "m", "mountPath": "/m"},
    ],
    "livenessProbe": {**PROBE, "exec": {"command": ["true"]}},
    "readinessProbe": {
        **PROBE,
        "httpGet": {
            "port": "http",
            "path": "/",
            "scheme": "HTTP",
            "httpHeaders": [{"name": "a", "value": "b"}],
        },
    },
    "startupProbe": {**PROBE, "tcpSocket": {"port": 80, "host": ""}},
    "lifecycle": {
        "postStart": {"exec": {"command": ["true"]}},
        "preStop": {"sleep": {"seconds": 1}},
    },
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "securityContext": {
        "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
        "privileged": False,
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "procMount": "Default",
        "seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"},
        "appArmorProfile": {"type": "RuntimeDefault"},
    },
    "stdin": True,
    "tty": False,
}
PLAIN = {key: CONTAINER[key] for key in ("image", "imagePullPolicy", "command")}
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "hostile",
        "namespace": "default",
        "uid": "u-1",
        "generation": 1,
        "labels": {"app": "x"},
        "annotations": {"a": "b"},
        "creationTimestamp": "2026-01-01T00:00:00Z",
    },
    "spec": {
        "containers": [CONTAINER],
        "initContainers": [{**PLAIN, "name": "i", "restartPolicy": "Always"}],
        "ephemeralContainers": [{**PLAIN, "name": "debug", "targetContainerName": "c"}],
        "volumes": [
            {"name": "e", "emptyDir": {"medium": "", "sizeLimit": "1Mi"}},
            {"name": "h", "hostPath": {"path": "/tmp", "type": "Directory"}},
            {"name": "m", "configMap": {"name": "m", "optional": True, "defaultMode": 420}},
            {
                "name": "s",
                "secret": {
                    "secretName": "s",
                    "optional": True,
                    "items": [{"key": "k", "path": "a/b", "mode": 256}],
                },
            },
            {
                "name": "d",
                "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]},
            },
            {
                "name": "p",
                "projected": {
                    "defaultMode": 420,
                    "sources": [
                        {
                            "serviceAccountToken": {
                                "path": "token",
                                "expirationSeconds": 3600,
                                "audience": "x",
                            }
                        },
                        {"configMap": {"name": "m", "optional": True, "items": [{"key": "k", "path": "k"}]}},
                        {
                            "downwardAPI": {
                                "items": [
                                    {
                                        "path": "c",
                                        "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"},
                                    }
                                ]
                            }
                        },
                    ],
                },
            },
            {"name": "x", "image": {"reference": "x:1", "pullPolicy": "Never"}},
            {"name": "v", "csi": {"driver": "d.example.com", "volumeAttributes": {"a": "b"}}},
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 1,
        "activeDeadlineSeconds": 1000,
        "dnsPolicy": "None",
        "dnsConfig": {
            "nameservers": ["127.0.0.1"],
            "searches": ["a.b"],
            "options": [{"name": "ndots", "value": "5"}],
        },
        "serviceAccountName": "default",
        "hostNetwork": False,
        "hostPID": False,
        "shareProcessNamespace": True,
        "securityContext": {
            "runAsUser": 1000,
            "supplementalGroups": [1, 2],
            "fsGroup": 1000,
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "imagePullSecrets": [{"name": "pull"}],
        "hostname": "h",
        "subdomain": "s",
        "setHostnameAsFQDN": True,
        "hostAliases": [{"ip": "127.0.0.1", "hostnames": ["x"]}],
        "priority": 0,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
        "overhead": {"cpu": "1m", "memory": "1Mi"},
        "os": {"name": "linux"},
        "readinessGates": [{"conditionType": "a"}],
    },
}

ODD_NUMBERS = (-1, 0, 1, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 1.5)
ODD_TEXTS = (
    "",
    "\0",
    "a\0b",
    ".",
    "..",
    "/",
    "//",
    "../../etc",
    "/../etc",
    "a/../../b",
    "..data",
    "a" * 300,
    "/" + "a" * 5000,
    "a\nb",
    "é",
    "\U0001f600",
    "\ud800",
    "-1",
    "1e99",
    "9E",
    "99999999999999999999Ei",
    "1n",
    "$(A)",
    "$(",
    "Always",
    "Localhost",
    "localhost/../../x",
    "metadata.annotations['a/b']",
    "metadata.labels['",
    "limits.hugepages-2Mi",
    "requests.memory",
    "127.0.0.1:99999",
    "[::1",
    "x:y:z@",
)
ODD_SHAPES: tuple[Any, ...] = (
    None,
    True,
    False,
    [],
    {},
    [None],
    [[]],
    {"": ""},
    ["", "\0"],
    {"a": None},
    {"name": "c"},
)


def _get(obj: Any, place: tuple[Any, ...]) -> Any:
    for step in place:
        obj = obj[step]
    return obj


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += _places(inner, (*at, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            found += _places(inner, (*at, i))
    return found


PLACES = _places(POD)
# who a pod is stays readable more often than not: everything behind it is what is tried
_WEIGHED = [p for p in PLACES if p[0] == "spec" and len(p) > 1] * 4 + PLACES

_LEAVES = [p for p in PLACES if p[0] == "spec" and not isinstance(_get(POD, p), (dict, list))]

values = (
    st.sampled_from(ODD_TEXTS)
    | st.sampled_from(ODD_NUMBERS)
    | st.sampled_from(ODD_SHAPES)
    | st.text(max_size=20)
    | st.integers()
)


def _put(obj: Any, place: tuple[Any, ...], value: Any) -> None:
    for step in place[:-1]:
        try:
            obj = obj[step]
        except (KeyError, IndexError, TypeError):
            # what was replaced above it has no such part
            return
    if isinstance(obj, dict) or (
        isinstance(obj, list) and isinstance(place[-1], int) and place[-1] < len(obj)
    ):
        obj[place[-1]] = value


@st.composite
def pods(draw: st.DrawFn) -> dict[str, Any]:
    """A pod with up to six odd values in it."""
    pod: dict[str, Any] = copy.deepcopy(POD)
    for _ in range(draw(st.integers(1, 6))):
        _put(pod, draw(st.sampled_from(_WEIGHED)), draw(values))
    return pod


def odd(rng: random.Random, number: int, folder: str, *, most: int = 3) -> dict[str, Any]:
    """One of them with a name and UID of its own (unless those are what is odd) and its path of the machine in `folder`."""
    pod: dict[str, Any] = copy.deepcopy(POD)
    pod["metadata"] |= {"name": f"hostile-{number}", "uid": f"u-{number}"}
    pod["spec"]["volumes"][1]["hostPath"]["path"] = folder
    # no driver is there
    del pod["spec"]["volumes"][-1]
    for _ in range(rng.randint(min(1, most), most)):
        place = rng.choice(_LEAVES)
        _put(pod, place, rng.choice(_like(_get(POD, place))))
    return pod


def _like(value: Any) -> Sequence[Any]:
    """Odd values of the same kind: what is of another is refused before it is looked at."""
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int):
        return [n for n in ODD_NUMBERS if isinstance(n, int)]
    return ODD_TEXTS if isinstance(value, str) else ODD_SHAPES


def encoded(pod: dict[str, Any]) -> bytes:
    """As it would come over the wire; half characters stay what they are."""
    return json.dumps(pod).encode()
