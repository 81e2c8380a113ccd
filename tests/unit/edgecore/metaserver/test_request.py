"""Paths as an API server reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beehive.errors import ProtocolError
from edgecore.metaserver import options, request
from edgecore.metaserver.request import Info
from edgecore.metaserver.status import ApiError

POD = {"version": "v1", "resource": "pods", "namespace": "a"}


@pytest.mark.parametrize(
    ("method", "target", "info"),
    [
        ("GET", "/api/v1/namespaces/a/pods", Info(verb="list", **POD)),
        ("GET", "/api/v1/namespaces/a/pods/", Info(verb="list", **POD)),
        ("GET", "/api/v1/namespaces/a/pods?watch=1", Info(verb="watch", **POD)),
        ("GET", "/api/v1/namespaces/a/pods?watch=false", Info(verb="list", **POD)),
        ("GET", "/api/v1/watch/namespaces/a/pods", Info(verb="watch", **POD)),
        ("GET", "/api/v1/pods", Info(verb="list", version="v1", resource="pods")),
        ("GET", "/api/v1/namespaces/a/pods/p", Info(verb="get", name="p", **POD)),
        ("GET", "/api/v1/namespaces/a/pods/p/log", Info(verb="get", name="p", subresource="log", **POD)),
        ("GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dp&watch=1",
         Info(verb="watch", name="p", **POD)),
        ("POST", "/api/v1/namespaces/a/pods", Info(verb="create", **POD)),
        ("PUT", "/api/v1/namespaces/a/pods/p/status", Info(verb="update", name="p", subresource="status", **POD)),
        ("PATCH", "/api/v1/namespaces/a/pods/p", Info(verb="patch", name="p", **POD)),
        ("DELETE", "/api/v1/namespaces/a/pods/p", Info(verb="delete", name="p", **POD)),
        ("DELETE", "/api/v1/namespaces/a/pods", Info(verb="deletecollection", **POD)),
        ("GET", "/api/v1/namespaces", Info(verb="list", version="v1", resource="namespaces")),
        ("GET", "/api/v1/namespaces/a",
         Info(verb="get", version="v1", resource="namespaces", namespace="a", name="a")),
        ("GET", "/api/v1/nodes/n", Info(verb="get", version="v1", resource="nodes", name="n")),
        ("GET", "/apis/apps/v1/namespaces/a/deployments",
         Info(verb="list", group="apps", version="v1", resource="deployments", namespace="a")),
        ("GET", "/version", Info(verb="get", path="/version")),
        ("GET", "/apis/apps/v1", Info(verb="get", path="/apis/apps/v1")),
        ("GET", "/api/v1", Info(verb="get", path="/api/v1")),
        ("GET", "/", Info(verb="get", path="/")),
    ],
)  # fmt: skip
def test_what_a_request_asks(method: str, target: str, info: Info) -> None:
    path, query = request.split(target)
    assert request.parse(method, path, query) == info


@pytest.mark.parametrize(
    "target",
    [
        "/api/v1/namespaces/../pods",
        "/api/v1/namespaces/a%2Fb/pods",
        "/api/v1/namespaces/a/pods/..",
        "/api/v1/namespaces/a/pods/p%00",
        "/api/v1/namespaces/a/pods/%2e%2e",
        "/api/v1/namespaces/a/pods/" + "x" * 254,
        "/api/v1/namespaces/a/pods/p/log/more",
        "/api/v1/namespaces/a/po%20ds",
        "/apis/AB/v1/x",
        "/apis/apps/latest/x",
        "/api/v1/namespaces/a//pods",
    ],
)
def test_what_is_no_name_is_refused(target: str) -> None:
    path, query = request.split(target)
    with pytest.raises(ProtocolError):
        request.parse("GET", path, query)


def test_a_long_target_is_refused() -> None:
    with pytest.raises(ProtocolError):
        request.split("/api/v1/pods?labelSelector=" + "a" * request.MAX_TARGET)


@given(st.sampled_from(["GET", "PUT", "DELETE", "X"]), st.text(max_size=60))
def test_any_target_is_read_or_refused(method: str, text: str) -> None:
    try:
        path, query = request.split("/api/v1/" + text)
        info = request.parse(method, path, query)
    except ProtocolError:
        return
    for part in (info.namespace, info.name, info.resource, info.subresource):
        assert "/" not in part
        assert ".." not in part
        assert "\0" not in part


@pytest.mark.parametrize(
    ("query", "watch", "code"),
    [
        ({}, False, 0),
        ({"resourceVersion": "5"}, False, 0),
        ({"resourceVersion": "5", "resourceVersionMatch": "Exact"}, False, 0),
        ({"resourceVersion": "0", "resourceVersionMatch": "NotOlderThan"}, False, 0),
        ({"resourceVersion": "0", "resourceVersionMatch": "Exact"}, False, 422),
        ({"resourceVersionMatch": "Exact"}, False, 422),
        ({"resourceVersion": "5", "resourceVersionMatch": "Newest"}, False, 422),
        ({"resourceVersion": "5", "resourceVersionMatch": "Exact", "continue": "x"}, False, 422),
        ({"resourceVersion": "five"}, False, 400),
        ({"sendInitialEvents": "true"}, False, 422),
        ({"sendInitialEvents": "true"}, True, 422),
        ({"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}, True, 0),
        ({"resourceVersion": "5", "resourceVersionMatch": "NotOlderThan"}, True, 422),
    ],
)
def test_which_versions_may_be_asked_for_together(query: dict[str, str], watch: bool, code: int) -> None:
    found = 0
    try:
        options.check_list(query, watch=watch)
    except ApiError as error:
        found = error.code
    assert found == code


def test_a_list_of_what_is_here_is_an_answer_to_some_versions_only() -> None:
    for query, code, reason in (
        ({}, 0, ""),
        ({"resourceVersion": "3"}, 0, ""),
        ({"resourceVersion": "7", "resourceVersionMatch": "Exact"}, 0, ""),
        ({"resourceVersion": "6", "resourceVersionMatch": "Exact"}, 410, "Expired"),
        ({"resourceVersion": "8", "resourceVersionMatch": "Exact"}, 504, "Timeout"),
        ({"resourceVersion": "6", "resourceVersionMatch": "NotOlderThan"}, 0, ""),
        ({"resourceVersion": "8", "resourceVersionMatch": "NotOlderThan"}, 504, "Timeout"),
    ):
        found, said = 0, ""
        try:
            options.check_held(query, 7)
        except ApiError as error:
            found, said = error.code, error.reason
        assert (found, said) == (code, reason), query
