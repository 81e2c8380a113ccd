"""Pods out of a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgecore.edged.admission import critical
from edgecore.edged.podread import decode_pod
from edgecore.edged.static import MAX_FILE_BYTES, StaticError, StaticPods, make

YAML = b"""apiVersion: v1
kind: Pod
metadata: {name: web, uid: mine, deletionTimestamp: "2026-01-01T00:00:00Z", annotations: {a: b}}
spec: {containers: [{name: c, image: "i:1"}]}
"""


def made(text: bytes = YAML, **fields: Any) -> Any:
    return decode_pod(make(text, node_name="edge-1", is_json=False))


def test_a_file_becomes_a_pod_of_this_node() -> None:
    pod = made()
    assert (pod.name, pod.namespace, pod.spec.node_name) == ("web-edge-1", "default", "edge-1")
    assert pod.metadata.annotations["kubernetes.io/config.source"] == "file"
    assert pod.metadata.annotations["a"] == "b"
    assert not pod.deleting
    assert pod.uid != "mine"
    assert critical(pod)
    assert made().uid == pod.uid
    assert made(YAML + b"# changed").uid != pod.uid


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"- 1",
        b"{",
        b"kind: Pod",
        b"kind: Pod\nmetadata: {name: x}",
        b"kind: List\nmetadata: {}\nspec: {}",
        b"!!python/object/apply:os.getcwd []",
        b"kind: Pod\nmetadata: {name: ../x}\nspec: {containers: [{name: c}]}",
        b"kind: Pod\nmetadata: {name: x}\nspec: {containers: []}",
        b"\xff\xfe",
        b"[" * 5000,
    ],
)
@pytest.mark.parametrize("is_json", [True, False])
def test_what_is_no_pod_is_said(text: bytes, is_json: bool) -> None:
    with pytest.raises(StaticError):
        make(text, node_name="edge-1", is_json=is_json)


@pytest.mark.parametrize(
    "text",
    [
        b"kind: Pod\nmetadata: {name: x, annotations: text}\nspec: {containers: [{name: c}]}",
        b"kind: Pod\nmetadata: {name: x}\nspec: {on: 1, containers: [{name: c}]}",
        b"kind: Pod\nmetadata: {name: x}\nspec: {null: 1, containers: [{name: c}]}",
        b"kind: Pod\nmetadata: {name: x}\nspec: &all {more: *all, containers: [{name: c}]}",
    ],
)
def test_a_file_that_says_what_json_cannot_ends_nothing(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_bytes(YAML)
    (tmp_path / "bad.yaml").write_bytes(text)
    found = StaticPods(tmp_path, "edge-1").read()
    assert [decode_pod(p).name for p in found.pods] == ["web-edge-1"]
    assert "bad.yaml" in found.trouble


def test_a_folder(tmp_path: Path) -> None:
    static = StaticPods(tmp_path / "none", "edge-1")
    assert static.read().pods == ()
    assert static.read().trouble == ""
    static = StaticPods(tmp_path, "edge-1")
    empty = static.signature()
    (tmp_path / "web.yaml").write_bytes(YAML)
    (tmp_path / ".web.yaml.swp").write_bytes(b"{")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "two.json").write_text(
        json.dumps({"kind": "Pod", "metadata": {"name": "two"}, "spec": {"containers": [{"name": "c"}]}})
    )
    assert static.signature() != empty
    found = static.read()
    assert [decode_pod(p).name for p in found.pods] == ["two-edge-1", "web-edge-1"]
    assert found.trouble == ""


def test_a_file_that_cannot_be_read_now_is_what_it_was(tmp_path: Path) -> None:
    static = StaticPods(tmp_path, "edge-1")
    (tmp_path / "web.yaml").write_bytes(YAML)
    before = static.read().pods
    (tmp_path / "web.yaml").write_bytes(YAML[:60])
    found = static.read()
    assert found.pods == before
    assert "cannot use" in found.trouble
    # whoever has not read it before only knows that there is more
    fresh = StaticPods(tmp_path, "edge-1").read()
    assert fresh.pods == ()
    assert "web.yaml" in fresh.trouble
    (tmp_path / "web.yaml").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    assert "more than" in static.read().trouble
    (tmp_path / "web.yaml").unlink()
    assert static.read().pods == ()
