"""Applications as requests to the API server."""

import base64
import json
from typing import Any

import msgspec
import pytest

from beehive import application
from beehive.application import Application
from beehive.errors import ProtocolError
from cloudcore.dynamiccontroller import calls
from cloudcore.dynamiccontroller.calls import Call
from tests import vectors_kubeedge as vectors


def app(verb: str, key: str = "/core/v1/pods/web/p", option: Any = None, **more: Any) -> Application:
    return application.make(node="n", key=key, verb=verb, option=json.dumps(option or {}).encode(), **more)


MAPS = "/core/v1/configmaps/web/null"


@pytest.mark.parametrize(
    ("given", "call"),
    [
        (app("get"), Call(method="GET", path="/api/v1/namespaces/web/pods/p")),
        (app("get", subresource="log"), Call(method="GET", path="/api/v1/namespaces/web/pods/p/log")),
        (app("get", "/version"), Call(method="GET", path="/version")),
        (app("get", "/openid/v1/jwks"), Call(method="GET", path="/openid/v1/jwks")),
        (
            app("list", MAPS, {"labelSelector": "a=b", "limit": 5, "continue": "x", "resourceVersion": "0"}),
            Call(method="GET", path="/api/v1/namespaces/web/configmaps",
                 query={"labelSelector": "a=b", "limit": "5", "continue": "x", "resourceVersion": "0"}),
        ),
        (
            app("create", MAPS, {"fieldManager": "m", "dryRun": ["All"]}, body=b"{}"),
            Call(method="POST", path="/api/v1/namespaces/web/configmaps",
                 query={"fieldManager": "m", "dryRun": "All"}, body=b"{}"),
        ),
        (
            app("create", MAPS, body=b"k8s\0\n"),
            Call(method="POST", path="/api/v1/namespaces/web/configmaps", body=b"k8s\0\n",
                 content_type="application/vnd.kubernetes.protobuf"),
        ),
        (
            app("create", "/core/v1/pods/web/p", subresource="eviction", body=b"{}"),
            Call(method="POST", path="/api/v1/namespaces/web/pods/p/eviction", body=b"{}"),
        ),
        (app("updatestatus", body=b"{}"),
         Call(method="PUT", path="/api/v1/namespaces/web/pods/p/status", body=b"{}")),
        (app("delete", option={"gracePeriodSeconds": 0}),
         Call(method="DELETE", path="/api/v1/namespaces/web/pods/p", body=b'{"gracePeriodSeconds": 0}')),
        (
            app("patch", option={"Name": "p", "PatchType": "application/merge-patch+json",
                                 "Data": base64.b64encode(b"{}").decode(), "Options": {"force": True},
                                 "Subresources": ["status"]}),
            Call(method="PATCH", path="/api/v1/namespaces/web/pods/p/status", query={"force": "true"}, body=b"{}",
                 content_type="application/merge-patch+json"),
        ),
    ],
)  # fmt: skip
def test_what_is_asked(given: Application, call: Call) -> None:
    assert calls.make(given) == call


@pytest.mark.parametrize(
    "given",
    [
        app("get", "/metrics"),
        app("get", "/version/../metrics"),
        app("create", "/version", body=b"{}"),
        app("get", MAPS),
        app("connect"),
        app("create", MAPS),
        app("update"),
        app("get", subresource="../x"),
        app("get", subresource="log?x"),
        app("patch", option={"PatchType": "text/plain"}),
        app("patch", option={"Name": "other", "PatchType": "application/merge-patch+json"}),
        app("patch", option={"PatchType": "application/merge-patch+json", "Subresources": ["a", "b"]}),
        app("list", MAPS, {"limit": "x"}),
        app("delete", option=[]).__class__(id="x", key="/core/v1/pods/web/p", verb="delete", option=b"[]"),
        app("get", "/core/v1/pods/web/a%2fb"),
    ],
)
def test_what_is_refused(given: Application) -> None:
    with pytest.raises(ProtocolError):
        calls.make(given)


def test_every_recorded_request_can_be_asked() -> None:
    seen = 0
    for frame in vectors.frames("up"):
        content = frame.get("content")
        if isinstance(content, dict) and content.get("Verb") not in (None, "watch"):
            calls.make(msgspec.json.decode(json.dumps(content), type=Application))
            seen += 1
    assert seen >= 6
