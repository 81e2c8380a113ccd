"""Applications against recorded frames."""

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive import application
from beehive.application import Application, Options, State, Target
from beehive.errors import ProtocolError
from tests import vectors_kubeedge as vectors


def recorded(direction: str) -> list[dict]:
    return [
        frame["content"]
        for frame in vectors.frames(direction)
        if "dynamiccontroller" in (frame["route"].get("group"), frame["route"].get("source"))
        and isinstance(frame.get("content"), dict)
        and "Verb" in frame["content"]
    ]


def test_there_are_recordings() -> None:
    assert len(recorded("up")) >= 7
    assert len(recorded("down")) >= 7


def test_ours_reads_and_writes_what_was_recorded() -> None:
    for frame in recorded("up") + recorded("down"):
        app = msgspec.json.decode(msgspec.json.encode(frame), type=Application)
        assert msgspec.json.decode(msgspec.json.encode(app)) == frame


def test_our_ids_are_those_of_a_stock_edge() -> None:
    for frame in recorded("up"):
        made = application.make(
            node=frame["Nodename"],
            key=frame["Key"],
            verb=frame["Verb"],
            option=base64.b64decode(frame["Option"]),
            body=base64.b64decode(frame["ReqBody"]) if frame["ReqBody"] else None,
        )
        assert made.id == frame["ID"]
        assert msgspec.json.decode(msgspec.json.encode(made)) == frame


def test_an_account_makes_another_id() -> None:
    one = application.make(node="n", key="/core/v1/pods/a/null", verb="list")
    two = application.make(node="n", key="/core/v1/pods/a/null", verb="list", service_account="a:b")
    assert one.id != two.id
    assert msgspec.json.decode(msgspec.json.encode(two))["ServiceAccount"] == "a:b"


def test_a_watchs_option_is_read() -> None:
    frame = next(item for item in recorded("up") if item["Verb"] == "watch")
    options = msgspec.json.decode(base64.b64decode(frame["Option"]), type=Options)
    assert options.resource_version_match == "NotOlderThan"


def test_a_rejection_is_passed_on_whole() -> None:
    frame = next(item for item in recorded("down") if item["Status"] == "Rejected")
    request = application.make(
        node="vec-edge", key=frame["Key"], verb="get", option=base64.b64decode(frame["Option"])
    )
    status = msgspec.json.encode(frame["Error"]["ErrStatus"])
    assert msgspec.json.decode(msgspec.json.encode(application.rejected(request, status))) == frame


def test_an_approval_carries_the_body() -> None:
    request = application.make(node="n", key="/version", verb="get")
    answered = msgspec.json.decode(msgspec.json.encode(application.approved(request, b"{}")))
    assert (answered["Status"], answered["RespBody"]) == (State.APPROVED, "e30=")


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("/core/v1/pods/default/null", "/api/v1/namespaces/default/pods"),
        ("/core/v1/nodes/null/edge-1", "/api/v1/nodes/edge-1"),
        ("/apps/v1/deployments/null/null", "/apis/apps/v1/deployments"),
        (
            "/rbac.authorization.k8s.io/v1/clusterroles/null/system:node",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
        ),
    ],
)
def test_keys_become_paths(key: str, path: str) -> None:
    target = application.parse_key(key)
    assert target.path == path
    assert target.key == key


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/core/v1/pods/default",
        "/core/v1/pods/default/../x",
        "/core/v1/pods/../null",
        "/core/v1/pods/a/b/c",
        "/core/v1/pods/A/null",
        "/core/v1/pods/a/..",
        "/core/v1/pods/a/x%2fy",
        "/core/v1/po?s/a/null",
        "/core/vx/pods/a/null",
        "/co re/v1/pods/a/null",
        "/core/v1/pods/a/" + "x" * 300,
        "/core/v1/pods/a/x\0",
    ],
)
def test_bad_keys_are_refused(key: str) -> None:
    with pytest.raises(ProtocolError):
        application.parse_key(key)


@given(st.text(max_size=80))
def test_any_text_is_a_key_or_refused(text: str) -> None:
    try:
        target = application.parse_key(text)
    except ProtocolError:
        return
    assert isinstance(target, Target)
    assert target.key == text


@pytest.mark.parametrize(
    "path",
    ["/version", "/healthz/", "/api", "/api/v1", "/apis/", "/apis/apps", "/apis/apps/v1", "/openapi/v3",
     "/openid/v1/jwks", "/openapi/v3/api/v1", "/openapi/v3/apis/apps/v1"],
)  # fmt: skip
def test_discovery_passes(path: str) -> None:
    assert application.pass_through(path) == (path.rstrip("/") or path)


@pytest.mark.parametrize(
    "path",
    ["/", "", "/metrics", "/api/v1/pods", "/apis/apps/v1/x", "/openapi/v3/apis", "/openapi/v3/apis/apps/v1/x",
     "/version/../metrics", "/api/..", "/api/v1?x=1", "/logs", "/api/v1/namespaces"],
)  # fmt: skip
def test_nothing_else_passes(path: str) -> None:
    assert application.pass_through(path) is None
