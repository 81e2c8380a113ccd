import json

from hypothesis import given
from hypothesis import strategies as st

from beehive.apis.decode import ObjectError, decode
from beehive.apis.twins import MembershipUpdate, MsgTwin, StateUpdate, TwinUpdate, status_twin
from tests.vectors_kubeedge import frames


def test_reports_and_membership_of_a_real_pair_are_read() -> None:
    kinds = {"edge_updated": 0, "state/update": 0, "membership": 0}
    for message in [*frames("up"), *frames("down")]:
        resource, content = message["route"]["resource"], message["content"]
        if resource.endswith("/twin/edge_updated"):
            update = decode(json.dumps(content), TwinUpdate)
            assert update.twin
            for name, twin in update.twin.items():
                assert twin is not None
                entry = status_twin(name, twin)
                assert entry.reported is not None
                assert entry.reported.metadata["timestamp"].isdecimal()
                assert entry.reported.metadata["type"] == "string"
            kinds["edge_updated"] += 1
        elif resource.endswith("/state/update"):
            assert decode(content, StateUpdate).device.state == "online"
            kinds["state/update"] += 1
        elif resource == "membership":
            assert decode(json.dumps(content), MembershipUpdate).event_id
            kinds["membership"] += 1
    assert min(kinds.values()) >= 1


@given(st.binary(max_size=100) | st.text(max_size=100))
def test_garbage_raises_only_our_error(data: bytes | str) -> None:
    for kind in (TwinUpdate, StateUpdate, MembershipUpdate):
        try:
            decode(data, kind)
        except ObjectError:
            continue


def test_a_twin_of_null_is_kept_as_a_wish_to_remove_it() -> None:
    assert decode('{"twin": {"a": null, "b": {}}}', TwinUpdate).twin == {"a": None, "b": MsgTwin()}
