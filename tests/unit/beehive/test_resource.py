"""The resource grammar: beehive.resource."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive import resource
from beehive.errors import ProtocolError

VECTORS = Path(__file__).parents[2] / "vectors" / "kubeedge" / "hub.jsonl"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("default/pod/web-0", resource.Resource("default", "pod", "web-0")),
        ("null/node/edge-1", resource.Resource("null", "node", "edge-1")),
        ("default/podstatus", resource.Resource("default", "podstatus")),
        (
            "default/event/edge-1.18e9f6f8e1fa009e",
            resource.Resource("default", "event", "edge-1.18e9f6f8e1fa009e"),
        ),
        ("null/clusterrole/system:node", resource.Resource("null", "clusterrole", "system:node")),
        ("node-port/pod/x", resource.Resource("node-port", "pod", "x")),
    ],
)
def test_parse_and_format(path: str, expected: resource.Resource) -> None:
    assert resource.parse(path) == expected
    assert str(expected) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "pod",
        "a/b/c/d",
        "/pod/x",
        "../pod/x",
        "ns/pod/..",
        "ns/pod/a/../b",
        "ns/pod/a\0b",
        "ns/pod/" + "a" * 254,
        "n" * 254 + "/pod/a",
        "NS/pod/a",
        "ns/Pod/a",
        "ns/pod/é",
        "ns/pod/a b",
        "ns/pod/-a",
        "ns/pod/%2e%2e",
        "ns//a",
        "x" * 100_000,
    ],
)
def test_bad_paths_are_refused(path: str) -> None:
    with pytest.raises(ProtocolError):
        resource.parse(path)


@given(st.text(max_size=40))
def test_any_text_parses_to_itself_or_is_refused(path: str) -> None:
    with contextlib.suppress(ProtocolError):
        assert str(resource.parse(path)) == path


def test_trim_cuts_only_the_full_form() -> None:
    assert resource.trim("node/edge-1/default/pod/web") == "default/pod/web"
    assert resource.trim("nodeport-test/pod/x") == "nodeport-test/pod/x"
    assert resource.trim(resource.for_node("n", "null/node/n")) == "null/node/n"


def test_recorded_pushes_of_objects_parse() -> None:
    seen = set()
    for record in map(json.loads, VECTORS.read_text().splitlines()):
        if record["dir"] != "down":
            continue
        route = json.loads(record["text"])["route"]
        if route["group"] == "resource" and route["operation"] in ("insert", "update", "delete"):
            seen.add(resource.parse(route["resource"]).type)
    assert {"pod", "configmap", "node", "device", "devicemodel"} <= seen
