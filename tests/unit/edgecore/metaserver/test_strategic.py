"""Two strategic patches as one do what the two did in turn."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive.strategicpatch import names, strategic_merge
from edgecore.metaserver import strategic
from edgecore.metaserver.strategic import CannotJoin, from_merge_patch, join

NAMES = st.sampled_from("abc")
ENV = st.lists(
    st.fixed_dictionaries({"name": NAMES, "value": NAMES}), max_size=3, unique_by=lambda item: item["name"]
)
TEXTS = st.dictionaries(NAMES, NAMES, max_size=2)


def containers(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(items, max_size=3, unique_by=lambda item: item.get("name"))


BASE = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.fixed_dictionaries(
            {}, optional={"labels": TEXTS, "finalizers": st.lists(NAMES, max_size=3, unique=True)}
        ),
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "nodeSelector": TEXTS,
                "containers": containers(
                    st.fixed_dictionaries(
                        {"name": NAMES}, optional={"image": NAMES, "env": ENV, "args": st.lists(NAMES)}
                    )
                ),
            },
        ),
    },
)


def maybe_null(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | items


CHANGES = maybe_null(st.dictionaries(NAMES, maybe_null(NAMES), max_size=2)) | st.builds(
    lambda found, directive: {**found, "$patch": directive}, TEXTS, st.sampled_from(["replace", "delete"])
)
ENV_CHANGES = maybe_null(
    st.lists(
        st.fixed_dictionaries({"name": NAMES, "value": NAMES})
        | st.builds(lambda n: {"name": n, "$patch": "delete"}, NAMES),
        max_size=3,
        unique_by=lambda item: item["name"],
    )
)
ITEM = (
    st.fixed_dictionaries(
        {"name": NAMES},
        optional={"image": maybe_null(NAMES), "env": ENV_CHANGES, "args": maybe_null(st.lists(NAMES))},
    )
    | st.builds(lambda name: {"name": name, "$patch": "delete"}, NAMES)
    | st.builds(
        lambda name, image: {"name": name, "image": image, "$retainKeys": ["name", "image"]}, NAMES, NAMES
    )
)


def _with_order(spec: dict[str, Any], order: list[str], replaced: bool) -> dict[str, Any]:
    found = dict(spec)
    items = found.get("containers")
    if items and replaced:
        found["containers"] = [
            {"$patch": "replace"},
            *(item for item in items if item.get("$patch") != "delete"),
        ]
    elif items and order:
        listed = [item["name"] for item in items if item.get("$patch") != "delete"]
        found["$setElementOrder/containers"] = [
            {"name": n} for n in listed + [n for n in order if n not in listed]
        ]
    return found


SPEC = st.builds(
    _with_order,
    st.fixed_dictionaries({}, optional={"nodeSelector": CHANGES, "containers": maybe_null(containers(ITEM))}),
    st.lists(NAMES, unique=True),
    st.booleans(),
)
METADATA = st.builds(
    lambda found, add, gone: (
        found
        | ({"finalizers": [n for n in add if n not in gone]} if add else {})
        | ({"$deleteFromPrimitiveList/finalizers": gone} if gone else {})
    ),
    st.fixed_dictionaries({}, optional={"labels": CHANGES}),
    st.lists(NAMES, max_size=2, unique=True),
    st.lists(NAMES, max_size=2, unique=True),
)
PATCH = st.fixed_dictionaries({}, optional={"metadata": METADATA, "spec": SPEC})


def _bare(value: Any) -> Any:
    """Without what is empty, which a removal from what is not there leaves in one order only, and sets sorted."""
    if isinstance(value, dict):
        found = {key: _bare(item) for key, item in value.items()}
        if "finalizers" in found:
            found["finalizers"] = sorted(found["finalizers"])
        return {key: item for key, item in found.items() if item not in ({}, None, [])}
    return [_bare(item) for item in value] if isinstance(value, list) else value


@given(BASE, PATCH, PATCH)
def test_one_does_what_the_two_did_in_turn(base: Any, first: Any, second: Any) -> None:
    in_turn = strategic_merge(strategic_merge(base, first, "V1Pod"), second, "V1Pod")
    both = join(first, second, in_turn, "V1Pod")
    assert _bare(strategic_merge(base, both, "V1Pod")) == _bare(in_turn)


@given(BASE, PATCH, PATCH, PATCH)
def test_three_become_one_as_well(base: Any, first: Any, second: Any, third: Any) -> None:
    two = strategic_merge(strategic_merge(base, first, "V1Pod"), second, "V1Pod")
    three = strategic_merge(two, third, "V1Pod")
    joined = join(join(first, second, two, "V1Pod"), third, three, "V1Pod")
    assert _bare(strategic_merge(base, joined, "V1Pod")) == _bare(three)


@given(BASE, PATCH, PATCH)
def test_the_items_of_a_patch_stand_in_the_order_it_says(base: Any, first: Any, second: Any) -> None:
    """What an API server checks before it merges."""
    in_turn = strategic_merge(strategic_merge(base, first, "V1Pod"), second, "V1Pod")
    spec = join(first, second, in_turn, "V1Pod").get("spec") or {}
    order = spec.get("$setElementOrder/containers")
    if order is not None:
        left = iter(names(order, "name"))
        kept = [item for item in spec.get("containers") or () if item.get("$patch") != "delete"]
        assert all(name in left for name in names(kept, "name"))


def test_another_item_of_the_cloud_s_list_stays() -> None:
    def pod(*items: dict[str, Any]) -> dict[str, Any]:
        return {"spec": {"containers": list(items)}}

    base = pod({"name": "a"}, {"name": "b"})
    first, second = pod({"name": "a", "image": "1"}), pod({"name": "a", "env": [{"name": "x", "value": "y"}]})
    after = strategic_merge(strategic_merge(base, first, "V1Pod"), second, "V1Pod")
    both = join(first, second, after, "V1Pod")
    assert both == pod({"name": "a", "image": "1", "env": [{"name": "x", "value": "y"}]})
    in_the_cloud = pod({"name": "a"}, {"name": "c", "image": "new"})
    assert names(strategic_merge(in_the_cloud, both, "V1Pod")["spec"]["containers"], "name") == ["a", "c"]


def test_a_list_that_is_removed_needs_no_order() -> None:
    first = {
        "spec": {"containers": [{"name": "a", "image": "1"}], "$setElementOrder/containers": [{"name": "a"}]}
    }
    assert join(first, {"spec": {"containers": None}}, {"spec": {}}, "V1Pod") == {
        "spec": {"containers": None}
    }


def test_what_cannot_be_said() -> None:
    with pytest.raises(CannotJoin):
        join({"$retainKeys": ["spec"], "spec": {}}, {"spec": {}}, {}, "V1Pod")
    with pytest.raises(CannotJoin):
        join({"metadata": {"finalizers": None}}, {"metadata": {"finalizers": ["a"]}}, {}, "V1Pod")
    with pytest.raises(CannotJoin):
        from_merge_patch({"metadata": {"finalizers": ["a"]}}, "V1Pod")


def test_a_merge_patch_replaces_lists() -> None:
    patch = {"spec": {"containers": [{"name": "a"}], "tolerations": [1], "nodeSelector": {"a": None}}}
    made = from_merge_patch(patch, "V1Pod")
    base = {"spec": {"containers": [{"name": "b"}], "nodeSelector": {"a": "b"}}}
    assert strategic_merge(base, made, "V1Pod") == {
        "spec": {"containers": [{"name": "a"}], "tolerations": [1], "nodeSelector": {}}
    }
    assert made["spec"]["containers"][0] == {strategic.DIRECTIVE: "replace"}
