"""What is wrong with a container of a pod.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cloudcore.standalone.status import (
    Cause,
    duplicate,
    forbidden_field,
    invalid_value,
    not_found_field,
    required,
    unsupported,
)
from cloudcore.standalone.validation.amounts import on_resources
from cloudcore.standalone.validation.names import DNS_LABEL, LABEL_TEXT

Json = dict[str, Any]

ENV_NAME = re.compile(r"[ -<>-~]+")


def on_container(container: Json, path: str, volumes: set[str], names: set[str]) -> Iterator[Cause]:
    """volumes: names of what may be mounted.   names: of containers before it; gets this one's, too."""
    name = container.get("name", "")
    if not name:
        yield required(f"{path}.name")
    elif not DNS_LABEL.fullmatch(name) or len(name) > 63:
        yield invalid_value(f"{path}.name", name, LABEL_TEXT)
    elif name in names:
        yield duplicate(f"{path}.name", name)
    names.add(name)
    if not container.get("image"):
        yield required(f"{path}.image")
    for index, port in enumerate(container.get("ports") or ()):
        at, number = f"{path}.ports[{index}]", port.get("containerPort", 0)
        if number == 0:
            yield required(f"{at}.containerPort")
        elif not 1 <= number <= 65535:
            yield invalid_value(f"{at}.containerPort", number, "must be between 1 and 65535, inclusive")
        if not 0 <= port.get("hostPort", 0) <= 65535:
            yield invalid_value(f"{at}.hostPort", port["hostPort"], "must be between 1 and 65535, inclusive")
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            yield unsupported(f"{at}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP"))
    for index, variable in enumerate(container.get("env") or ()):
        at = f"{path}.env[{index}]"
        if not variable.get("name"):
            yield required(f"{at}.name")
        elif not ENV_NAME.fullmatch(variable["name"]):
            yield invalid_value(
                f"{at}.name", variable["name"], "a valid environment variable name is printable ASCII"
            )
        source = variable.get("valueFrom")
        if source is not None:
            if variable.get("value"):
                yield invalid_value(f"{at}.valueFrom", "", "may not be specified when `value` is not empty")
            if len(source) != 1:
                yield invalid_value(
                    f"{at}.valueFrom",
                    "",
                    "must specify one of: `fieldRef`, `resourceFieldRef`, "
                    "`configMapKeyRef` or `secretKeyRef`",
                )
    mounted: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        at = f"{path}.volumeMounts[{index}]"
        if not mount.get("name"):
            yield required(f"{at}.name")
        elif mount["name"] not in volumes:
            yield not_found_field(f"{at}.name", mount["name"])
        where = mount.get("mountPath", "")
        if not where:
            yield required(f"{at}.mountPath")
        elif where in mounted:
            yield invalid_value(f"{at}.mountPath", where, "must be unique")
        mounted.add(where)
        sub = mount.get("subPath", "")
        if sub.startswith("/"):
            yield invalid_value(f"{at}.subPath", sub, "must be a relative path")
        if ".." in sub.split("/"):
            yield invalid_value(f"{at}.subPath", sub, "must not contain '..'")
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(probe) is not None:
            yield from _probe(container[probe], f"{path}.{probe}", liveness=probe != "readinessProbe")
    if container.get("imagePullPolicy") not in ("Always", "IfNotPresent", "Never"):
        yield unsupported(
            f"{path}.imagePullPolicy", container.get("imagePullPolicy"), ("Always", "IfNotPresent", "Never")
        )
    yield from on_resources(container, f"{path}.resources")


def _probe(probe: Json, path: str, *, liveness: bool) -> Iterator[Cause]:
    actions = [name for name in ("exec", "httpGet", "tcpSocket", "grpc") if probe.get(name) is not None]
    if not actions:
        yield required(path, "must specify a handler type")
    if len(actions) > 1:
        yield forbidden_field(f"{path}.{actions[1]}", "may not specify more than 1 handler type")
    for name in (
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ):
        if probe.get(name, 0) < 0:
            yield invalid_value(f"{path}.{name}", probe[name], "must be greater than or equal to 0")
    if liveness and probe.get("successThreshold", 1) != 1:
        yield invalid_value(f"{path}.successThreshold", probe["successThreshold"], "must be 1")
    get = probe.get("httpGet")
    if get is not None:
        port = get.get("port")
        if isinstance(port, int) and not 1 <= port <= 65535:
            yield invalid_value(f"{path}.httpGet.port", port, "must be between 1 and 65535, inclusive")
    if probe.get("exec") is not None and not probe["exec"].get("command"):
        yield required(f"{path}.exec.command")
