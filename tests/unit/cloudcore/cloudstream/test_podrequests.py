"""What becomes of a client's request for a pod's subresource."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloudcore.cloudstream.podrequests import BadRequest, PodRequest, pod_request


def pod(*containers: str, node: str = "edge-1", phase: str = "Running", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {"nodeName": node, "containers": [{"name": c} for c in containers or ("c",)], **spec},
        "status": {"phase": phase},
    }


def ask(what: str, query: list[tuple[str, str]] | None = None, **fields: Any) -> PodRequest:
    body = fields.pop("pod", None) or pod()
    return pod_request(body, what, query or [], upgrade=fields.pop("upgrade", what != "log"))


def test_log_passes_its_options_and_no_others() -> None:
    request = ask(
        "log", [("follow", "true"), ("tailLines", "5"), ("insecureSkipTLSVerifyBackend", "true"), ("x", "y")]
    )
    assert request.path == "/containerLogs/default/web/c?follow=true&tailLines=5"
    assert (request.verb, request.node, request.container) == ("logs", "edge-1", "c")
    assert ask("log", pod=pod(node="")).node == ""


def test_exec_passes_its_streams_as_a_kubelet_names_them() -> None:
    query = [
        ("command", "sh"),
        ("command", "-c"),
        ("command", "a b&c"),
        ("stdin", "true"),
        ("stdout", "true"),
    ]
    request = ask("exec", query)
    assert request.path == "/exec/default/web/c?input=1&output=1&command=sh&command=-c&command=a+b%26c"
    assert (request.stdin, request.stdout, request.stderr, request.tty) == (True, True, False, False)
    tty = ask("exec", [*query, ("stderr", "true"), ("tty", "true")])
    assert (tty.stderr, tty.tty) == (False, True)


def test_attach_without_streams_means_the_outputs() -> None:
    assert ask("attach").path == "/attach/default/web/c?output=1&error=1"


def test_port_forward_passes_ports() -> None:
    assert ask("portforward", [("ports", "80")]).path == "/portForward/default/web?port=80"
    assert ask("portforward").path == "/portForward/default/web"


def test_init_and_ephemeral_containers_can_be_named() -> None:
    body = pod(initContainers=[{"name": "i"}], ephemeralContainers=[{"name": "e"}])
    assert ask("log", [("container", "i")], pod=body).container == "i"
    assert ask("log", [("container", "e")], pod=body).container == "e"


@pytest.mark.parametrize(
    ("what", "query", "body", "text"),
    [
        ("log", [("container", "x")], pod(), "container x is not valid for pod web"),
        (
            "log",
            [],
            pod("a", "b", initContainers=[{"name": "i"}]),
            "a container name must be specified for pod web, choose one of: [a b] or one of the init containers: [i]",
        ),
        ("exec", [("command", "x")], pod(node=""), "pod web does not have a host assigned"),
        ("portforward", [], pod(node=""), "pod web does not have a host assigned"),
        (
            "exec",
            [("command", "x"), ("stdout", "true")],
            pod(phase="Succeeded"),
            "cannot exec into a container in a completed pod; current phase is Succeeded",
        ),
        ("exec", [("stdout", "true")], pod(), "you must specify at least one command for the container"),
        (
            "exec",
            [("command", "x"), ("stdout", "false"), ("stderr", "false")],
            pod(),
            "you must specify at least 1 of stdin, stdout, stderr",
        ),
    ],
)
def test_refusals_have_the_api_servers_texts(
    what: str, query: list[tuple[str, str]], body: dict[str, Any], text: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        ask(what, query, pod=body)
    assert str(caught.value) == text


@pytest.mark.parametrize("what", ["exec", "attach", "portforward"])
def test_streams_need_an_upgrade(what: str) -> None:
    with pytest.raises(BadRequest, match="Upgrade request required"):
        ask(what, [("command", "x"), ("stdout", "true")], upgrade=False)


def test_names_cannot_change_the_path() -> None:
    body = pod("../../x?y")
    body["metadata"]["name"] = "a/../b"
    assert ask("log", pod=body).path == "/containerLogs/default/a%2F..%2Fb/..%2F..%2Fx%3Fy"


@given(
    st.sampled_from(["log", "exec", "attach", "portforward"]),
    st.lists(
        st.tuples(
            st.sampled_from(["container", "command", "port", "ports", "stdin", "stdout", "tty", "tailLines"]),
            st.text(alphabet=st.characters(exclude_categories=()), max_size=20),
        ),
        max_size=5,
    ),
)
@example("log", [("tailLines", "\udcff")])
def test_any_query_becomes_a_path_or_is_refused(what: str, query: list[tuple[str, str]]) -> None:
    try:
        request = ask(what, query)
    except BadRequest:
        return
    assert request.path.isascii()
    assert not set(request.path) & set(" \r\n#")
