from __future__ import annotations

import pytest

from cloudcore.standalone.selectors import BadSelector, from_object, parse_fields, parse_labels, to_text


@pytest.mark.parametrize(
    ("text", "labels", "want"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "c"}, False),
        ("a!=b", {}, True),
        ("a!=b", {"a": "b"}, False),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("a in (b, c)", {"a": "c"}, True),
        ("a notin (b,c)", {"a": "c"}, False),
        ("a notin (b,c)", {}, True),
        ("a=b,c=d", {"a": "b"}, False),
        ("example.com/a=b", {"example.com/a": "b"}, True),
        ("a=", {"a": ""}, True),
        ("n>3", {"n": "4"}, True),
        ("n<3", {"n": "x"}, False),
    ],
)
def test_labels(text: str, labels: dict[str, str], want: bool) -> None:
    assert parse_labels(text).matches(labels) is want


@pytest.mark.parametrize("text", ["a in (", "=b", "a b", "a=b,", "a in b", "a>x", "a in (b", "(", "_=x"])
def test_bad_labels(text: str) -> None:
    with pytest.raises(BadSelector):
        parse_labels(text)


def test_fields() -> None:
    supported = frozenset({"spec.nodeName", "status.phase"})
    selector = parse_fields("spec.nodeName=n,status.phase!=Running", supported)
    assert selector.matches({"spec.nodeName": "n", "status.phase": "Pending"})
    assert not selector.matches({"spec.nodeName": "n", "status.phase": "Running"})
    assert selector.single("spec.nodeName") == "n"
    with pytest.raises(BadSelector, match=r"field label not supported: spec\.nope"):
        parse_fields("spec.nope=a", supported)
    with pytest.raises(BadSelector):
        parse_fields("nothing", supported)


def test_label_selector_objects() -> None:
    selector = {
        "matchLabels": {"a": "b"},
        "matchExpressions": [{"key": "c", "operator": "In", "values": ["d"]}],
    }
    parsed = from_object(selector)
    assert parsed is not None
    assert parsed.matches({"a": "b", "c": "d"})
    assert not parsed.matches({"a": "b"})
    assert from_object(None) is None
    assert to_text(selector) == "a=b,c in (d)"
    with pytest.raises(BadSelector):
        from_object({"matchExpressions": [{"key": "c", "operator": "Nope"}]})
