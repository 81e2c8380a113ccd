"""Objects as the local API keeps them: edgecore.metaserver.objects."""

from __future__ import annotations

import pytest

from beehive.errors import ProtocolError
from edgecore.metaserver import objects
from edgecore.metaserver.objects import Gvr

PODS = Gvr("", "v1", "pods")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"7",
        b"[]",
        b'{"metadata":{}}',
        b'{"metadata":{"name":"p"},"status":{"con\xa9tainer":1}}',
        b'{"metadata":{"name":"p"},"status":"\xff"}',
        b'{"metadata":{"name":"p"},"spec":' + b"[" * 100_000,
    ],
)
def test_what_cannot_be_read_to_its_end_is_no_object(value: bytes) -> None:
    """Whoever lists it later reads all of it, together with all others."""
    with pytest.raises(ProtocolError):
        objects.read(value, PODS)
    if value != b'{"metadata":{}}':
        with pytest.raises(ProtocolError):
            objects.is_named(value)
    with pytest.raises(ProtocolError):
        objects.read_list(b'{"metadata":{},"items":[' + value + b"7]}", PODS)


def test_an_item_of_a_list_gets_its_kind() -> None:
    found = objects.read(b'{"metadata":{"name":"p","resourceVersion":"7"}}', PODS)
    assert found is not None
    assert (found.name, found.version) == ("p", 7)
    assert found.value == b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","resourceVersion":"7"}}'
