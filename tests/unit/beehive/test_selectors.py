"""Label and field selectors."""

import pytest

from beehive import selectors

LABELS = {"app": "web", "tier": "edge", "n": "5"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier=edge", True),
        ("app!=web", False),
        ("zone!=a", True),
        ("app in (web, api)", True),
        ("app notin (web)", False),
        ("app", True),
        ("!app", False),
        ("!zone", True),
        ("n>4", True),
        ("n<4", False),
        ("zone>4", False),
        ("app=", False),
    ],
)
def test_labels(text: str, *, matches: bool) -> None:
    assert selectors.parse_labels(text).matches(LABELS) is matches


@pytest.mark.parametrize("text", ["a in (", "a=b,", "=b", "a in b", "a b", "-x=1", "a>x", "(", "a=b c=d"])
def test_bad_labels(text: str) -> None:
    with pytest.raises(selectors.BadSelector):
        selectors.parse_labels(text)


def test_fields() -> None:
    supported = selectors.supported_fields(("", "pods"))
    selector = selectors.parse_fields("spec.nodeName=e1,metadata.name!=a", supported)
    assert selector.matches({"spec.nodeName": "e1", "metadata.name": "b"})
    assert not selector.matches({"spec.nodeName": "e1", "metadata.name": "a"})
    assert selector.single("spec.nodeName") == "e1"
    assert selector.single("metadata.name") is None


@pytest.mark.parametrize("text", ["spec.nope=a", "spec.nodeName", "a"])
def test_bad_fields(text: str) -> None:
    with pytest.raises(selectors.BadSelector):
        selectors.parse_fields(text, selectors.supported_fields(("", "pods")))


def test_values_are_read_from_an_object() -> None:
    pod = {"spec": {"nodeName": "e1", "hostNetwork": True}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}}
    found = selectors.field_values(("", "pods"), pod)
    assert found["spec.nodeName"] == "e1"
    assert found["spec.hostNetwork"] == "true"
    assert found["status.podIPs"] == "10.0.0.1"
    assert found["status.phase"] == ""
