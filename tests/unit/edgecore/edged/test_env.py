from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecore.edged import env
from edgecore.edged.env import Facts, References
from edgecore.edged.errors import Held
from tests.unit.edgecore.edged.builders import c, make

FACTS = Facts(
    node_name="n",
    host_ips=("1.1.1.1", "::1"),
    pod_ips=("10.0.0.9",),
    allocatable={"cpu": 4 * 10**9, "memory": 10**18},
)


def of(*variables: dict[str, Any], refs: References = References(), **fields: Any) -> dict[str, str]:  # noqa: B008
    pod = make(c(env=list(variables), **fields), meta={"labels": {"a": "b"}, "annotations": {"x/y": "z"}})
    return env.environment(pod, pod.spec.containers[0], refs, FACTS)


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("plain", "plain"),
        ("$(A)", "1"),
        ("$(A)$(A)", "11"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(NONE)", "$(NONE)"),
        ("$(A", "$(A"),
        ("$", "$"),
        ("$x", "$x"),
        ("a$", "a$"),
        ("$()", "$()"),
        ("$(A$(A))", "$(A$(A))"),
    ],
)
def test_expand(text: str, out: str) -> None:
    assert env.expand(text, {"A": "1"}) == out


@given(st.text(alphabet="$()AB ", max_size=30))
def test_expanding_never_fails_and_leaves_plain_text_alone(text: str) -> None:
    out = env.expand(text, {})
    if "$" not in text:
        assert out == text


def test_order_and_expansion() -> None:
    refs = References(config_maps={"m": {"X": b"cm", "bad key": b"1", "Y": b"y"}})
    got = of(
        {"name": "A", "value": "$(X)"},
        {"name": "B", "value": "$(C)"},
        {"name": "C", "value": "c"},
        {"name": "X", "value": "own"},
        {"name": "D", "value": "$(X)"},
        refs=refs,
        envFrom=[{"configMapRef": {"name": "m"}}, {"prefix": "P_", "configMapRef": {"name": "m"}}],
    )
    assert got == {
        "X": "own",
        "Y": "y",
        "P_X": "cm",
        "P_Y": "y",
        "A": "cm",
        "B": "$(C)",
        "C": "c",
        "D": "own",
    }


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u"),
        ("metadata.labels['a']", "b"),
        ("metadata.annotations['x/y']", "z"),
        ("metadata.labels['none']", ""),
        ("spec.nodeName", "n"),
        ("status.hostIP", "1.1.1.1"),
        ("status.hostIPs", "1.1.1.1,::1"),
        ("status.podIP", "10.0.0.9"),
    ],
)
def test_fields(path: str, value: str) -> None:
    assert of({"name": "F", "valueFrom": {"fieldRef": {"fieldPath": path}}}) == {"F": value}


@pytest.mark.parametrize(
    ("ref", "value"),
    [
        ({"resource": "limits.cpu"}, "1"),
        ({"resource": "limits.cpu", "divisor": "1m"}, "500"),
        ({"resource": "requests.cpu", "divisor": "1m"}, "500"),
        ({"resource": "limits.memory"}, "1000000000"),
        ({"resource": "requests.memory"}, "0"),
        ({"resource": "limits.memory", "divisor": "0"}, "1000000000"),
    ],
)
def test_resources(ref: dict[str, str], value: str) -> None:
    variable = {"name": "R", "valueFrom": {"resourceFieldRef": ref}}
    assert of(variable, resources={"limits": {"cpu": "500m"}}) == {"R": value}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"configMapKeyRef": {"name": "m", "key": "k"}}, 'configmap "m" not found'),
        ({"secretKeyRef": {"name": "s", "key": "k"}}, "couldn't find key k in secret ns/s"),
        ({"fieldRef": {"fieldPath": "spec.everything"}}, "unsupported fieldPath"),
        ({"resourceFieldRef": {"resource": "limits.love"}}, "unsupported resource"),
        ({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "x"}}, "divisor"),
        ({"resourceFieldRef": {"resource": "limits.cpu", "containerName": "x"}}, "no container"),
    ],
)
def test_what_is_missing_holds_the_container(source: dict[str, Any], says: str) -> None:
    with pytest.raises(Held) as held:
        of({"name": "V", "valueFrom": source}, refs=References(secrets={"s": {}}))
    assert says in str(held.value)
    assert held.value.reason == "CreateContainerConfigError"


def test_what_is_optional_may_be_missing() -> None:
    optional = {"name": "m", "key": "k", "optional": True}
    assert of({"name": "V", "valueFrom": {"configMapKeyRef": optional}}) == {}
    assert (
        of(
            {"name": "V", "valueFrom": {"secretKeyRef": {**optional, "name": "s"}}},
            refs=References(secrets={"s": {}}),
        )
        == {}
    )
    assert of(envFrom=[{"secretRef": {"name": "x", "optional": True}}]) == {}
    with pytest.raises(Held, match="not found"):
        of(envFrom=[{"secretRef": {"name": "x"}}])


def test_objects_are_read_leniently() -> None:
    assert env.secret_data({"data": {"a": "YQ==", "b": "!", "c": 1}, "stringData": {"d": "x"}}) == {
        "a": b"a",
        "d": b"x",
    }
    assert env.config_map_data({"data": {"a": "x", "b": 3}, "binaryData": {"c": "AAE="}}) == {
        "a": b"x",
        "c": b"\0\1",
    }
    assert env.config_map_data({"data": []}) == {}


def test_downward_maps_are_quoted() -> None:
    assert env.format_map({"b": 'q"\\', "a": "x\ny\t"}) == 'a="x\\ny\\t"\nb="q\\"\\\\"'


def test_strict_expansion_refuses_the_unknown() -> None:
    assert env.expand_strict("a/$(A)", {"A": "b"}) == "a/b"
    with pytest.raises(Held, match="not set"):
        env.expand_strict("$(B)", {})


def test_references_are_found_everywhere() -> None:
    pod = make(
        c(
            envFrom=[{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "b"}}],
            env=[
                {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "d", "key": "k"}}},
                {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "e", "key": "k"}}},
            ],
        ),
        volumes=[
            {"name": "v", "configMap": {"name": "f"}},
            {"name": "w", "secret": {"secretName": "g"}},
            {
                "name": "x",
                "projected": {"sources": [{"configMap": {"name": "h"}}, {"secret": {"name": "i"}}]},
            },
        ],
        imagePullSecrets=[{"name": "j"}],
    )
    assert env.references(pod) == ({"a", "d", "f", "h"}, {"b", "e", "g", "i", "j"})


def test_commands_are_expanded() -> None:
    pod = make(c(command=["run", "$(A)"], args=["$(B)", "$$(A)"]))
    assert env.command(pod.spec.containers[0], {"A": "1"}) == (("run", "1"), ("$(B)", "$(A)"))


def test_a_container_without_a_limit_is_told_of_its_pods() -> None:
    pod = make(c(resources={"limits": {"cpu": "1"}}), resources={"limits": {"cpu": "2", "memory": "64Mi"}})
    ask = {name: env.ResourceFieldRef(resource=f"limits.{name}") for name in ("cpu", "memory")}
    told = {name: env.resource_value(pod, pod.spec.containers[0], ref, FACTS) for name, ref in ask.items()}
    assert told == {"cpu": "1", "memory": str(64 * 2**20)}


def test_what_is_binary_is_for_files_and_not_for_variables() -> None:
    data = env.config_map_data({"data": {"a": "1"}, "binaryData": {"raw": "AAE="}})
    refs = References(config_maps={"m": data})
    assert data["raw"] == b"\0\1"
    assert of(refs=refs, envFrom=[{"configMapRef": {"name": "m"}}]) == {"a": "1"}
    key = {"name": "m", "key": "raw"}
    with pytest.raises(Held, match="couldn't find key raw"):
        of({"name": "X", "valueFrom": {"configMapKeyRef": key}}, refs=refs)
    assert of({"name": "X", "valueFrom": {"configMapKeyRef": {**key, "optional": True}}}, refs=refs) == {}
