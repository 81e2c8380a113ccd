from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive.protobuf import BadProtobuf, decode


def field(number: int, data: bytes) -> bytes:
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


def envelope(version: str, kind: str, raw: bytes) -> bytes:
    return b"k8s\0" + field(1, field(1, version.encode()) + field(2, kind.encode())) + field(2, raw)


def test_a_config_map() -> None:
    metadata = field(1, b"a") + field(3, b"") + field(11, field(1, b"l") + field(2, b"v"))
    data = field(1, b"k") + field(2, b"v")
    found = decode(envelope("v1", "ConfigMap", field(1, metadata) + field(2, data)))
    assert found == {
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": {"name": "a", "labels": {"l": "v"}},
        "data": {"k": "v"},
    }


def test_zeros_that_mean_something_are_kept() -> None:
    spec = bytes([1 << 3, 0])
    found = decode(envelope("apps/v1", "Deployment", field(2, spec + bytes([5 << 3, 0]))))
    assert found["spec"] == {"replicas": 0}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"k8s\0\xff",
        envelope("v1", "Nope", b""),
        envelope("v1", "ConfigMap", b"\x0a\x7f"),
        envelope("v1", "ConfigMap", bytes([15 << 3, 1])),
    ],
)
def test_what_cannot_be_read(data: bytes) -> None:
    with pytest.raises(BadProtobuf):
        decode(data)


@given(st.binary(max_size=60))
def test_rubbish_is_refused_or_read_but_never_more(data: bytes) -> None:
    with contextlib.suppress(BadProtobuf):
        assert decode(envelope("v1", "Pod", data))["kind"] == "Pod"
