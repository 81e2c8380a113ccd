"""The environment, command and arguments of a container.  Pure.

Source: kubelet_pods.go makeEnvironmentVariables; third_party/forked/golang/expansion for $(VAR).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

import msgspec

from edgecore.edged import quantity
from edgecore.edged.errors import Held
from edgecore.edged.pod import Container, EnvVarSource, Pod, ResourceFieldRef
from edgecore.edged.resources import whole_limits

CONFIG_ERROR = "CreateContainerConfigError"

# A variable name that a kubelet takes from a whole configmap or secret; others are left out with an event.
_ENV_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*\Z")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']{1,320})'\]\Z")


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the environment may tell a container of where it runs.

    allocatable: nano-units by resource name, used where a limit is asked for that is not set.
    service: what finds the Kubernetes API from inside; whatever the pod itself says wins.
    """

    node_name: str = ""
    host_ips: tuple[str, ...] = ()
    pod_ips: tuple[str, ...] = ()
    allocatable: Mapping[str, int] = msgspec.field(default_factory=dict)
    service: Mapping[str, str] = msgspec.field(default_factory=dict)


class References(msgspec.Struct, frozen=True, kw_only=True):
    """The configmaps and secrets that a pod names, by name; a missing one is None or absent.  Values are bytes."""

    config_maps: Mapping[str, Mapping[str, bytes] | None] = msgspec.field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, bytes] | None] = msgspec.field(default_factory=dict)


class Binary(bytes):
    """A value of a ConfigMap's `binaryData`: it is for files, never for variables (kubelet_pods.go)."""


def config_map_data(obj: Mapping[str, object]) -> dict[str, bytes]:
    """`data` and `binaryData` of a ConfigMap as bytes.  What is not text is left out."""
    data = {k: v.encode() for k, v in _strings(obj.get("data")).items()}
    data.update({key: Binary(value) for key, value in _decoded(obj.get("binaryData")).items()})
    return data


def secret_data(obj: Mapping[str, object]) -> dict[str, bytes]:
    """`data` of a Secret as bytes; `stringData` too, which only a hand-written object has."""
    data = _decoded(obj.get("data"))
    data.update({k: v.encode() for k, v in _strings(obj.get("stringData")).items()})
    return data


def _strings(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        return {}
    return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, str)}


def _decoded(value: object) -> dict[str, bytes]:
    out = {}
    for key, text in _strings(value).items():
        try:
            out[key] = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            continue
    return out


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace $(NAME) by its value; `$$` is a `$`; an unknown name stays as it is written."""
    if "$" not in text:
        return text
    out: list[str] = []
    i = 0
    while i < len(text):
        if text[i] != "$" or i + 1 == len(text):
            out.append(text[i])
            i += 1
        elif text[i + 1] == "$":
            out.append("$")
            i += 2
        elif text[i + 1] == "(":
            end = text.find(")", i + 2)
            if end < 0:
                out.append("$(")
                i += 2
            else:
                name = text[i + 2 : end]
                out.append(env.get(name, f"$({name})"))
                i = end + 1
        else:
            out.append(text[i : i + 2])
            i += 2
    return "".join(out)


def expand_strict(text: str, env: Mapping[str, str]) -> str:
    """Like expand, for subPathExpr, where an unknown name holds the container.  Raises Held."""
    for name in re.findall(r"(?<!\$)\$\(([^)]*)\)", text):
        if name not in env:
            raise Held(CONFIG_ERROR, f"subPathExpr: variable {name[:64]!r} is not set")
    return expand(text, env)


def environment(pod: Pod, container: Container, refs: References, facts: Facts) -> dict[str, str]:
    """The variables of a container, in order of first definition; later definitions win.

    Raises Held (CreateContainerConfigError) when something that is not optional is missing.
    """
    env: dict[str, str] = dict(facts.service)
    for source in container.env_from:
        if source.config_map_ref is not None:
            ref = source.config_map_ref
            data = _source("configmap", ref.name, refs.config_maps, optional=ref.optional)
        elif source.secret_ref is not None:
            ref = source.secret_ref
            data = _source("secret", ref.name, refs.secrets, optional=ref.optional)
        else:
            continue
        for key in sorted(data):
            name = source.prefix + key
            if _ENV_NAME.match(name) and not isinstance(data[key], Binary):
                env[name] = _text(data[key], name)
    # $(NAME) sees envFrom and what stands above it in the list
    for variable in container.env:
        if variable.value_from is None:
            env[variable.name] = expand(variable.value, env)
            continue
        value = _from_source(pod, container, variable.value_from, refs, facts)
        if value is not None:
            env[variable.name] = value
    return env


def command(container: Container, env: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """command and args with $(NAME) replaced; empty ones mean the image's own."""
    return (
        tuple(expand(part, env) for part in container.command),
        tuple(expand(part, env) for part in container.args),
    )


def _source(
    kind: str,
    name: str,
    objects: Mapping[str, Mapping[str, bytes] | None],
    *,
    optional: bool,
) -> Mapping[str, bytes]:
    data = objects.get(name)
    if data is None:
        if optional:
            return {}
        raise Held(CONFIG_ERROR, f'{kind} "{name}" not found')
    return data


def _text(value: bytes, name: str) -> str:
    if b"\0" in value:
        raise Held(CONFIG_ERROR, f"variable {name[:64]!r}: value holds a NUL byte")
    return value.decode("utf-8", "replace")


def _from_source(
    pod: Pod, container: Container, source: EnvVarSource, refs: References, facts: Facts
) -> str | None:
    for kind, ref, objects in (
        ("configmap", source.config_map_key_ref, refs.config_maps),
        ("secret", source.secret_key_ref, refs.secrets),
    ):
        if ref is None:
            continue
        data = objects.get(ref.name)
        if data is None:
            if ref.optional:
                return None
            raise Held(CONFIG_ERROR, f'{kind} "{ref.name}" not found')
        if isinstance(data.get(ref.key, Binary()), Binary):
            if ref.optional:
                return None
            raise Held(CONFIG_ERROR, f"couldn't find key {ref.key} in {kind} {pod.namespace}/{ref.name}")
        return _text(data[ref.key], ref.key)
    if source.field_ref is not None:
        return field_value(pod, source.field_ref.field_path, facts)
    if source.resource_field_ref is not None:
        return resource_value(pod, container, source.resource_field_ref, facts)
    return None


def field_value(pod: Pod, path: str, facts: Facts) -> str:
    """What a fieldRef names.  Raises Held for a path that a kubelet does not know."""
    meta = pod.metadata
    plain = {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "spec.nodeName": pod.spec.node_name or facts.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name,
        "status.hostIP": facts.host_ips[0] if facts.host_ips else "",
        "status.hostIPs": ",".join(facts.host_ips),
        "status.podIP": facts.pod_ips[0] if facts.pod_ips else "",
        "status.podIPs": ",".join(facts.pod_ips),
    }
    if path in plain:
        return plain[path]
    if path in ("metadata.labels", "metadata.annotations"):
        return format_map(meta.labels if path == "metadata.labels" else meta.annotations)
    match = _SUBSCRIPT.match(path)
    if match is None:
        raise Held(CONFIG_ERROR, f"fieldRef: unsupported fieldPath {path[:64]!r}")
    values = meta.labels if match[1] == "labels" else meta.annotations
    return values.get(match[2], "")


def format_map(values: Mapping[str, str]) -> str:
    """Labels or annotations as a downward API file holds them: key="value", sorted, one a line."""
    return "\n".join(f"{key}={_quote(values[key])}" for key in sorted(values))


def _quote(text: str) -> str:
    out = ['"']
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif char == "\n":
            out.append("\\n")
        elif char == "\t":
            out.append("\\t")
        elif char == "\r":
            out.append("\\r")
        elif ord(char) < 0x20 or ord(char) == 0x7F:
            out.append(f"\\x{ord(char):02x}")
        else:
            out.append(char)
    out.append('"')
    return "".join(out)


def resource_value(pod: Pod, container: Container | None, ref: ResourceFieldRef, facts: Facts) -> str:
    """What a resourceFieldRef names, divided and rounded up.  Raises Held."""
    target = container
    if ref.container_name:
        try:
            target = pod.container(ref.container_name)
        except KeyError:
            raise Held(CONFIG_ERROR, f"resourceFieldRef: no container {ref.container_name[:64]!r}") from None
    if target is None:
        raise Held(CONFIG_ERROR, "resourceFieldRef: containerName is needed here")
    kind, _, name = ref.resource.partition(".")
    if kind not in ("limits", "requests") or name not in ("cpu", "memory", "ephemeral-storage"):
        raise Held(CONFIG_ERROR, f"resourceFieldRef: unsupported resource {ref.resource[:64]!r}")
    amounts: Mapping[str, str | int | float] = getattr(target.resources, kind)
    if name in amounts:
        value = quantity.parse(amounts[name])
    elif kind == "requests" and name in target.resources.limits:
        value = quantity.parse(target.resources.limits[name])
    elif kind == "limits":
        # what it may use at the most: all that its pod may, or all that pods may
        value = whole_limits(pod).get(name) or facts.allocatable.get(name, 0)
    else:
        value = 0
    try:
        divisor = quantity.parse(ref.divisor)
    except ValueError as err:
        raise Held(CONFIG_ERROR, f"resourceFieldRef: divisor: {err}") from err
    if divisor <= 0:
        divisor = quantity.NANO
    return str(-(-value // divisor))


def references(pod: Pod) -> tuple[set[str], set[str]]:
    """Names of the configmaps and secrets that the pod's environment and volumes mention, pull secrets included."""
    config_maps: set[str] = set()
    secrets: set[str] = {ref.name for ref in pod.spec.image_pull_secrets}
    for c in pod.every_container():
        _container_references(c, config_maps, secrets)
    for volume in pod.spec.volumes:
        if volume.config_map is not None:
            config_maps.add(volume.config_map.name)
        if volume.secret is not None:
            secrets.add(volume.secret.secret_name)
        for source in volume.projected.sources if volume.projected is not None else ():
            if source.config_map is not None:
                config_maps.add(source.config_map.name)
            if source.secret is not None:
                secrets.add(source.secret.name)
    return config_maps - {""}, secrets - {""}


def _container_references(c: Container, config_maps: set[str], secrets: set[str]) -> None:
    for source in c.env_from:
        if source.config_map_ref is not None:
            config_maps.add(source.config_map_ref.name)
        if source.secret_ref is not None:
            secrets.add(source.secret_ref.name)
    for variable in c.env:
        if variable.value_from is None:
            continue
        if variable.value_from.config_map_key_ref is not None:
            config_maps.add(variable.value_from.config_map_key_ref.name)
        if variable.value_from.secret_key_ref is not None:
            secrets.add(variable.value_from.secret_key_ref.name)
