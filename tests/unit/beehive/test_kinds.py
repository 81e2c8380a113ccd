"""Kinds and plurals."""

import pytest

from beehive import kinds


@pytest.mark.parametrize(
    ("plural", "wire"),
    [
        ("pods", "pod"),
        ("endpoints", "endpoints"),
        ("endpointslices", "endpointslice"),
        ("networkpolicies", "networkpolicy"),
        ("devicestatuses", "devicestatus"),
        ("leases", "leases"),
        ("configmaps", "configmap"),
    ],
)
def test_the_wires_spelling_is_kubeedges(plural: str, wire: str) -> None:
    assert kinds.wire_kind(plural) == wire


def test_rows_agree_with_their_guess_but_for_leases() -> None:
    odd = {row.plural for row in kinds.TABLE if kinds.wire_kind(row.plural) != row.kind.lower()}
    # "…sses" and "…sses"-likes: KubeEdge's rule cuts `es`, which happens to be right for these as well
    assert odd == {"leases"}


def test_a_kind_is_found_by_its_resource_and_by_the_wire() -> None:
    assert kinds.kind_name("", "configmaps") == "ConfigMap"
    assert kinds.kind_name("example.org", "widgets") == "Widget"
    found = kinds.by_wire("device")
    assert found is not None
    assert found.api_version == "devices.kubeedge.io/v1beta1"
    assert kinds.by_wire("nothing") is None
