"""What a stock edge was recorded to send, sent to our hub: every answer has the shape that a stock hub gave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from beehive.message import Header, Message, Op, Route, Source, raw
from cloudcore.objects import CONFIGMAP, SECRET
from tests.fakes import edge
from tests.integration.link.cloud import Process, pod_body, process, using
from tests.vectors_kubeedge import frames

NODE_NAME = "vec-edge"
ANSWERED = {
    ("node", "insert"),
    ("nodepatch", "patch"),
    ("podpatch", "patch"),
    ("lease", "insert"),
    ("lease", "update"),
    ("lease", "query"),
    ("configmap", "query"),
    ("secret", "query"),
    ("serviceaccounttoken", "query"),
    ("pod", "delete"),
}


@pytest.fixture(scope="module")
def cloudcore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with process(tmp_path_factory.mktemp("cloud")) as running:
        yield running


def shape(content: Any) -> str:
    """Which of the catalogue's forms a content has."""
    if content == "OK":
        return "OK"
    if isinstance(content, dict):
        if set(content) == {"Object", "Err"}:
            return "ObjectResp"
        if set(content) == {"ErrStatus"}:
            return "ErrStatus"
        return "object"
    return type(content).__name__


def as_message(frame: dict[str, Any]) -> Message:
    route = {key: frame["route"].get(key, "") for key in ("source", "group", "operation", "resource")}
    header = Header(msg_id=frame["header"]["msg_id"], timestamp=frame["header"]["timestamp"])
    return Message(header=header, route=Route(**route), content=raw(frame["content"]))


def recorded() -> tuple[list[dict[str, Any]], dict[str, set[str]]]:
    """One request of each kind, and the shapes of the stock answers to that kind."""
    answers = {f["header"].get("parent_msg_id"): f for f in frames("down")}
    requests: dict[tuple[str, str], dict[str, Any]] = {}
    shapes: dict[str, set[str]] = {}
    for frame in frames("up"):
        if frame["route"].get("source") != Source.EDGED or frame["header"].get("parent_msg_id"):
            continue
        parts = frame["route"]["resource"].split("/")
        kind = (parts[1], frame["route"]["operation"])
        if kind not in ANSWERED:
            continue
        requests.setdefault(kind, frame)
        answer = answers.get(frame["header"]["msg_id"])
        if answer is not None:
            shapes.setdefault("/".join(kind), set()).add(shape(answer["content"]))
    return list(requests.values()), shapes


def test_each_kind_of_request_is_answered_in_the_stock_hubs_form(cloudcore: Process) -> None:
    requests, shapes = recorded()
    assert len(requests) >= 7, "the recording lost its requests"

    async def go() -> None:
        async with using(cloudcore) as cloud, asyncio.timeout(30):
            identity = await cloud.node(NODE_NAME)
            async with edge.connected(cloud.hub, identity, ours=False) as link:
                for frame in requests:
                    message = as_message(frame)
                    namespace, kind, name = frame["route"]["resource"].split("/")
                    if kind in ("configmap", "secret") and namespace == "default":
                        wanted = CONFIGMAP if kind == "configmap" else SECRET
                        if name != "kube-root-ca.crt":
                            await cloud.create(wanted, {"metadata": {"name": name}})
                        volume = (
                            {"name": "v", "configMap": {"name": name}}
                            if kind == "configmap"
                            else {"name": "v", "secret": {"secretName": name}}
                        )
                        await cloud.api.create(*_pod(f"uses-{kind}", volumes=[volume]), namespace="default")
                        await link.until(lambda it, kind=kind: f"default/pod/uses-{kind}" in it.paths())
                    answer = await link.ask(message)
                    key = f"{kind}/{frame['route']['operation']}"
                    assert answer.route.source == Source.EDGECONTROLLER, key
                    assert answer.route.group == "resource", key
                    assert answer.route.operation == Op.RESPONSE, key
                    assert answer.route.resource == frame["route"]["resource"], key
                    got = shape(json.loads(bytes(answer.content)))
                    # objects of the recording's cluster are not all here: then the failure must have its form
                    failure = "ObjectResp" if shapes.get(key) == {"ObjectResp"} else "ErrStatus"
                    assert got in shapes.get(key, set()) | {failure}, key

    asyncio.run(go())


def _pod(name: str, **spec: Any) -> tuple[Any, bytes]:
    from cloudcore.objects import POD

    body = {"apiVersion": "v1", "kind": "Pod", **pod_body(name, NODE_NAME, **spec)}
    return POD, json.dumps(body).encode()
