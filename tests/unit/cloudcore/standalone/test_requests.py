"""What a request line asks for."""

from __future__ import annotations

import pytest

from cloudcore.standalone.requests import Target, parse_target, whole_number, write_options
from cloudcore.standalone.status import ApiError


def target(verb: str, plural: str, **fields: str) -> Target:
    return Target(**{"verb": verb, "group": "", "version": "v1", "plural": plural, **fields})


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("GET /api/v1/pods", target("list", "pods")),
        ("GET /api/v1/pods?watch=1", target("watch", "pods")),
        ("GET /api/v1/pods?watch=false", target("list", "pods")),
        ("GET /api/v1/watch/pods", target("watch", "pods")),
        ("GET /api/v1/namespaces/a/pods/b", target("get", "pods", namespace="a", name="b")),
        ("GET /api/v1/namespaces/a/pods/b?watch=true", target("watch", "pods", namespace="a", name="b")),
        (
            "GET /api/v1/namespaces/a/pods/b/log?watch=true",
            target("get", "pods", namespace="a", name="b", subresource="log"),
        ),
        ("DELETE /api/v1/namespaces/a/pods", target("deletecollection", "pods", namespace="a")),
        ("DELETE /api/v1/namespaces/a/pods/b", target("delete", "pods", namespace="a", name="b")),
        ("GET /api/v1/namespaces", target("list", "namespaces")),
        ("GET /api/v1/namespaces/a", target("get", "namespaces", namespace="a", name="a")),
        (
            "PUT /api/v1/namespaces/a/finalize",
            target("update", "namespaces", namespace="a", name="a", subresource="finalize"),
        ),
        ("GET /api/v1/namespaces/a/status", target("get", "namespaces", namespace="a", name="a", subresource="status")),
        ("PATCH /apis/apps/v1/namespaces/a/deployments/b/scale",
         target("patch", "deployments", group="apps", namespace="a", name="b", subresource="scale")),
        ("GET /api/v1/nodes/n/proxy/a/b", target("get", "nodes", name="n", subresource="proxy", rest="a/b")),
        ("OPTIONS /api/v1/pods", target("", "pods")),
        ("GET /api/v1", None),
        ("GET /apis/apps/v1", None),
        ("GET /healthz", None),
        ("GET /", None),
    ],
)  # fmt: skip
def test_a_path_names_a_resource(line: str, found: Target | None) -> None:
    method, _, rest = line.partition(" ")
    path, _, query = rest.partition("?")
    options = dict(item.split("=", 1) for item in query.split("&")) if query else {}
    assert parse_target(method, path, options) == found


def test_options_of_a_write() -> None:
    plain = write_options({}, "kubectl/v1.30 (linux)")
    assert (plain.dry_run, plain.field_manager, plain.field_validation, plain.force) == (
        False,
        "kubectl",
        "Warn",
        False,
    )
    given = write_options(
        {"dryRun": "All", "fieldManager": "m", "fieldValidation": "Strict", "force": "true"}, "x"
    )
    assert (given.dry_run, given.field_manager, given.field_validation, given.force) == (
        True,
        "m",
        "Strict",
        True,
    )
    assert write_options({}, "").field_manager == "unknown"


@pytest.mark.parametrize(
    "query",
    [
        {"dryRun": "Some"},
        {"fieldValidation": "strict"},
        {"fieldManager": "a\nb"},
        {"fieldManager": "x" * 129},
    ],
)
def test_options_that_are_none_are_refused(query: dict[str, str]) -> None:
    with pytest.raises(ApiError) as caught:
        write_options(query, "x")
    assert caught.value.code == 422


@pytest.mark.parametrize("text", ["x", "1.5", "--5", "²", "9" * 5000, "-", "1_0"])
def test_a_count_that_is_none_is_the_clients_fault(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        whole_number({"limit": text}, "limit")
    assert caught.value.code == 400
    assert len(str(caught.value)) < 300


def test_a_count() -> None:
    assert [whole_number({"n": text}, "n") for text in ("", "0", "-3", "500")] == [None, 0, -3, 500]
    assert whole_number({}, "n") is None
