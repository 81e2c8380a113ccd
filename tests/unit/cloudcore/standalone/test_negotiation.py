"""Bodies in and out."""

from __future__ import annotations

from typing import Any

import pytest

from cloudcore.standalone import negotiation
from cloudcore.standalone.negotiation import Form, load_json, load_object, load_yaml, negotiate
from cloudcore.standalone.status import ApiError

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Form()),
        ("*/*", Form()),
        ("application/json", Form()),
        (f"{TABLE},application/json", Form(shape="Table")),
        ("application/json;as=Table;v=v2;g=meta.k8s.io, application/json", Form()),
        ("application/json;as=Nonsense, application/yaml", Form(yaml=True)),
        ("application/vnd.kubernetes.protobuf, application/json", Form()),
        ("application/yaml;as=Table, */*", Form()),
        ("application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io", Form(aggregated=True)),
        ("application/json;as=APIGroupDiscoveryList;v=v2beta1, application/json", Form()),
    ],
)
def test_the_first_form_that_is_served_is_given(accept: str, form: Form) -> None:
    assert negotiate(accept) == form


@pytest.mark.parametrize(
    "accept", ["text/html", "application/vnd.kubernetes.protobuf", "application/json;as=X", ";"]
)
def test_a_form_that_is_not_served_is_said_so(accept: str) -> None:
    with pytest.raises(ApiError) as caught:
        negotiate(accept)
    assert caught.value.code == 406


def code(data: bytes, content_type: str = "application/json") -> int:
    with pytest.raises(ApiError) as caught:
        load_object(data, content_type, "Pod", duplicates=True)
    return caught.value.code


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"null",
        b'"x"',
        b'{"metadata": []}',
        b'{"a": ' * 5000,
        b"\xff",
        b'{"a": "\xff"}',
    ],
)
def test_what_is_no_object_is_the_clients_fault(data: bytes) -> None:
    assert code(data) == 400


def test_a_type_that_is_not_read() -> None:
    assert code(b"{}", "application/cbor") == 415


def test_fields_that_came_twice_are_named_with_their_place() -> None:
    data = b'{"a": 1, "a": 2, "b": [{"c": 1}, {"c": 1, "c": 2}], "d": {"e": 1, "e": 1, "e": 1}}'
    body, twice = load_object(data, "", "Pod", duplicates=True)
    assert body["a"] == 2
    assert twice == ["a", "b[1].c", "d.e"]
    assert load_object(data, "", "Pod", duplicates=False)[1] == []


def test_yaml_is_read_as_json_would_be() -> None:
    body, _ = load_object(b"a: 2026-01-02\nb: 010\n", "application/yaml", "Pod", duplicates=True)
    assert body["a"] == "2026-01-02"
    body, _ = load_object(
        b"data: {3: a, true: b, 1.5: c}\n2: x\n", "application/yaml", "Pod", duplicates=True
    )
    assert body == {"data": {"3": "a", "true": "b", "1.5": "c"}, "2": "x"}


@pytest.mark.parametrize(
    "data", [b"a: &x 1\nb: *x\n", b"a: [", b"\xff", b"a: " + b"[" * 20000, b"~: x", b"[a]: x"]
)
def test_yaml_that_is_a_trap_or_none(data: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        load_yaml(data)
    assert caught.value.code == 400


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_depth_is_bounded() -> None:
    negotiation.check_depth(nested(negotiation.MAX_DEPTH - 1))
    with pytest.raises(ApiError):
        negotiation.check_depth(nested(negotiation.MAX_DEPTH + 1))
    with pytest.raises(ApiError):
        load_json(b"[" * 500 + b"]" * 500)
