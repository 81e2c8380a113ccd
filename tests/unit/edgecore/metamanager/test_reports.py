"""The frames that parts send up."""

import json

import pytest

from beehive.errors import ProtocolError
from edgecore.metamanager import reports


def test_a_status_is_a_patch_in_a_string() -> None:
    message = reports.pod_status("default", "web", "u1", b'{"phase":"Running","podIPs":[{"ip":"1.2.3.4"}]}')
    assert (message.route.source, message.route.group) == ("edged", "meta")
    assert message.route.resource == "default/podpatch/web"
    patch = json.loads(message.decode(str))
    assert patch["metadata"] == {"uid": "u1"}
    assert patch["status"] == {
        "phase": "Running",
        "reason": None,
        "message": None,
        "podIPs": [{"$patch": "replace"}, {"ip": "1.2.3.4"}],
    }


def test_texts_that_are_there_stay_and_empty_lists_empty() -> None:
    patch = json.loads(reports.pod_patch("u", b'{"reason":"Evicted","podIPs":[]}'))
    assert patch["status"]["reason"] == "Evicted"
    assert patch["status"]["podIPs"] == [{"$patch": "replace"}]


def test_conditions_lose_their_old_texts_and_those_of_others_are_left_alone() -> None:
    status = {
        "conditions": [
            {"type": "Ready", "status": "True"},
            {"type": "PodResizePending", "status": "True", "reason": "Infeasible"},
            {"type": "example.com/gate", "status": "True"},
        ],
        "hostIPs": [{"ip": "192.0.2.1"}],
    }
    patch = json.loads(reports.pod_patch("u", json.dumps(status).encode()))["status"]
    assert patch["conditions"] == [
        {"type": "Ready", "status": "True", "reason": None, "message": None},
        {"type": "PodResizePending", "status": "True", "reason": "Infeasible", "message": None},
        {"$patch": "delete", "type": "PodResizeInProgress"},
    ]
    assert patch["hostIPs"] == [{"$patch": "replace"}, {"ip": "192.0.2.1"}]


def test_conditions_that_are_none() -> None:
    assert json.loads(reports.pod_patch("u", b'{"conditions":null}'))["status"]["conditions"] != []
    with pytest.raises(ProtocolError):
        reports.pod_patch("u", b'{"conditions":[1]}')


def test_an_end_names_its_uid() -> None:
    message = reports.pod_gone("default", "web", "u1")
    assert (message.route.operation, message.route.resource) == ("delete", "default/pod/web")
    assert message.decode(dict) == {"gracePeriodSeconds": 0, "preconditions": {"uid": "u1"}}


def test_events_go_where_they_belong() -> None:
    assert reports.event_path(b'{"metadata":{"name":"web.17a","namespace":"n"}}') == "n/event/web.17a"
    assert reports.event_path(b'{"metadata":{"name":"x"}}') == "default/event/x"


@pytest.mark.parametrize(
    "event", [b"", b"[]", b"{}", b'{"metadata":{"name":"a/b"}}', b'{"metadata":{"name":"..x"}}']
)
def test_an_event_without_a_good_name_is_refused(event: bytes) -> None:
    with pytest.raises(ProtocolError):
        reports.event_path(event)


def test_bad_names_and_statuses_are_refused() -> None:
    with pytest.raises(ProtocolError):
        reports.pod_status("default", "../x", "u", b"{}")
    with pytest.raises(ProtocolError):
        reports.pod_status("default", "x", "u", b"[]")
