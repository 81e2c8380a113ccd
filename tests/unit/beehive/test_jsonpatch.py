"""JSON patches."""

from typing import Any

import pytest

from beehive.jsonpatch import PatchError, PatchFailed, json_patch


def test_json_patch_operations() -> None:
    body: dict[str, Any] = {"a": [1, 2], "b": {"c/d": 1}}
    steps = [
        {"op": "add", "path": "/a/-", "value": 3},
        {"op": "add", "path": "/a/0", "value": 0},
        {"op": "remove", "path": "/b/c~1d"},
        {"op": "copy", "from": "/a", "path": "/b/copy"},
        {"op": "move", "from": "/a", "path": "/z"},
        {"op": "replace", "path": "/z/0", "value": 9},
        {"op": "test", "path": "/z", "value": [9, 1, 2, 3]},
    ]
    assert json_patch(body, steps) == {"b": {"copy": [0, 1, 2, 3]}, "z": [9, 1, 2, 3]}
    assert body == {"a": [1, 2], "b": {"c/d": 1}}


@pytest.mark.parametrize(
    "step",
    [
        {"op": "remove", "path": "/absent"},
        {"op": "replace", "path": "/absent", "value": 1},
        {"op": "test", "path": "/a", "value": 2},
        {"op": "test", "path": "/a", "value": True},
        {"op": "add", "path": "/a/b/c", "value": 1},
        {"op": "add", "path": "/list/9", "value": 1},
        {"op": "add", "path": "no-slash", "value": 1},
        {"op": "add", "path": "/x"},
        {"op": "nonsense", "path": "/a"},
        {"op": "remove", "path": ""},
    ],
)
def test_json_patches_that_do_not_fit(step: dict[str, Any]) -> None:
    with pytest.raises(PatchFailed):
        json_patch({"a": 1, "list": []}, [step])


@pytest.mark.parametrize("index", ["--1", "-1", "²", "9" * 5000, "1_0", "+1", " 1", "x", "", "-"])
def test_an_index_that_is_none_does_not_fit(index: str) -> None:
    with pytest.raises(PatchFailed) as caught:
        json_patch([1, 2], [{"op": "remove", "path": f"/{index}"}])
    assert len(str(caught.value)) < 200


def test_a_json_patch_must_be_a_list() -> None:
    bodies: list[Any] = [{}, [1], "x", None]
    for body in bodies:
        with pytest.raises(PatchError):
            json_patch({}, body)
