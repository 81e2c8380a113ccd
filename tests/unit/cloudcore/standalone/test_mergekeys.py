"""What both ends know of the types' lists is what the generated types say."""

from beehive.mergekeys import FIELDS, MERGE_KEYS, MODELS, OTHER, PRIMITIVE_MERGE, child
from cloudcore.standalone import coretypes
from cloudcore.standalone.kinds import CORE


def _reachable() -> dict[str, dict[str, str]]:
    """Of each model the fields below which some list merges."""
    shapes = coretypes.shapes()
    fields = {
        model: {
            name: kind.removeprefix("[]")
            for name, kind in shape["f"].items()
            if kind.removeprefix("[]") in shapes
        }
        for model, shape in shapes.items()
    }
    hot = {model for model, _ in (*MERGE_KEYS, *PRIMITIVE_MERGE)}
    while more := {m for m, below in fields.items() if m not in hot and hot & set(below.values())}:
        hot |= more
    return {
        model: {name: kind for name, kind in fields[model].items() if kind in hot}
        for model in hot
        if model in shapes
    }


def test_the_fields_that_lead_to_a_list_that_merges() -> None:
    found = _reachable()
    assert len(found) > 50
    for model, below in found.items():
        names = set(below) | set(FIELDS.get(model, ()))
        assert {name: child(model, name) for name in names} == below, model


def test_each_kind_is_patched_as_its_type() -> None:
    for kind in CORE:
        if kind.model and not kind.virtual and kind.views is None:
            model = MODELS.get((kind.group, kind.plural), OTHER)
            if model != kind.model:
                below = set(coretypes.shapes()[kind.model]["f"])
                assert {child(kind.model, name) for name in below} <= {"V1ObjectMeta", None}, kind
