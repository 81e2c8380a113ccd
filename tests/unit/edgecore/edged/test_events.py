from __future__ import annotations

import json
from typing import Any

from edgecore.edged.events import BURST, Events, of_node, of_pod
from tests.unit.edgecore.edged.builders import c, make


def made(events: Events, now: float, message: str = "m", reason: str = "Started") -> dict[str, Any] | None:
    raw = events.make("Normal", reason, message, now=now, field=make().field_path("c"))
    return json.loads(raw) if raw is not None else None


def test_an_event_as_a_kubelet_writes_it() -> None:
    event = made(of_pod(make().metadata, "n"), 1000.0)
    assert event is not None
    assert event["involvedObject"] == {
        "kind": "Pod",
        "apiVersion": "v1",
        "namespace": "ns",
        "name": "p",
        "uid": "u",
        "resourceVersion": "",
        "fieldPath": "spec.containers{c}",
    }
    assert event["source"] == {"component": "kubelet", "host": "n"}
    assert event["count"] == 1
    assert event["firstTimestamp"] == event["lastTimestamp"] == "1970-01-01T00:16:40Z"


def test_repeats_are_counted_under_one_name() -> None:
    events = of_pod(make().metadata, "n")
    first = made(events, 1000.0)
    assert made(events, 1001.0) is None
    again = made(events, 1020.0)
    assert first is not None
    assert again is not None
    assert again["metadata"]["name"] == first["metadata"]["name"]
    assert again["count"] == 3
    assert again["firstTimestamp"] == first["firstTimestamp"]


def test_a_flood_is_cut() -> None:
    events = of_pod(make().metadata, "n")
    sent = [made(events, 1000.0, f"m{i}") for i in range(100)]
    assert sum(e is not None for e in sent) == BURST
    assert made(events, 1000.0 + 299, "later") is None
    assert made(events, 1000.0 + 301, "later2") is not None
    names = [e["metadata"]["name"] for e in sent if e is not None]
    assert len(set(names)) == len(names)


def test_messages_are_cut() -> None:
    event = made(of_pod(make().metadata, "n"), 1.0, "x" * 5000)
    assert event is not None
    assert len(event["message"]) == 1024


def test_the_part_of_the_pod() -> None:
    pod = make(c("a"), initContainers=[c("i")], ephemeralContainers=[c("e")])
    assert [pod.field_path(name) for name in "aie"] == [
        "spec.containers{a}",
        "spec.initContainers{i}",
        "spec.ephemeralContainers{e}",
    ]


def test_the_nodes_own_are_about_the_node() -> None:
    made_json = of_node("board").make("Normal", "Starting", "m", now=1000.0)
    assert made_json is not None
    event = json.loads(made_json)
    assert event["involvedObject"] == {"kind": "Node", "name": "board", "uid": "board"}
    assert event["metadata"]["namespace"] == "default"
    assert event["metadata"]["name"].startswith("board.")
