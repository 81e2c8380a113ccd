"""Ports of nodes, and what their status says of them."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from cloudcore.cloudstream.endpoints import OWN_ADDRESSES, Ports, told_port, with_endpoint


def test_every_node_has_a_port_of_its_own_and_keeps_it() -> None:
    ports = Ports(100, 102)
    assert [ports.of("a"), ports.of("b"), ports.of("a")] == [100, 101, 100]
    assert ports.of("c") == 102
    assert ports.of("d") is None
    ports.release("b")
    assert ports.of("d") == 101
    ports.release("nobody")


def test_a_port_that_was_told_before_is_taken_again_if_it_is_free() -> None:
    ports = Ports(100, 105)
    assert ports.of("a", told=104) == 104
    assert ports.of("b", told=104) == 100
    assert ports.of("c", told=9999) == 101


def test_a_port_of_somebody_else_is_never_given_again() -> None:
    ports = Ports(100, 101)
    assert ports.of("a", told=101) == 101
    ports.bad("a")
    assert ports.of("a", told=101) == 100
    assert ports.of("b") is None


def test_the_status_names_the_hub_and_keeps_the_boards_address_aside() -> None:
    patch = {
        "metadata": {"annotations": {"a": "b"}},
        "status": {
            "addresses": [
                {"type": "Hostname", "address": "h"},
                {"type": "InternalIP", "address": "10.0.0.1"},
                {"type": "InternalIP", "address": "fd00::1"},
            ],
            "phase": "x",
        },
    }
    assert with_endpoint(patch, "192.0.2.1", 7) == {
        "metadata": {"annotations": {"a": "b", OWN_ADDRESSES: "10.0.0.1,fd00::1"}},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": "192.0.2.1"},
                {"type": "Hostname", "address": "h"},
            ],
            "phase": "x",
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 7}},
        },
    }
    assert with_endpoint({}, "192.0.2.1", 7) == {
        "status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 7}}}
    }


def test_what_a_node_was_told() -> None:
    assert told_port(b'{"status":{"daemonEndpoints":{"kubeletEndpoint":{"Port":5}}}}') == 5
    assert told_port(b'{"status":{}}') == told_port(b"{}") == told_port(b"garbage") == 0


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["status", "addresses", "type", "address", "metadata", "annotations"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["status", "metadata", "x"]), _JSON, max_size=3))
@example({"status": {"addresses": [1, {"type": "InternalIP", "address": 5}]}})
@example({"status": [1]})
@example({"status": {"addresses": []}, "metadata": {"annotations": [1]}})
def test_whatever_a_node_says_of_itself_is_passed_on(patch: dict[str, Any]) -> None:
    out = with_endpoint(patch, "192.0.2.1", 7)
    assert set(out) <= {*patch, "status", "metadata"}
    assert out.get("x") == patch.get("x")
