"""A store and a hub in memory."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from beehive import application
from beehive.application import Application, State, Target, Verb
from beehive.errors import ProtocolError, Unavailable
from beehive.message import Message, Op, Source, new
from edgecore.metaserver.objects import Gvr, Object, read
from edgecore.metaserver.ports import Held, HeldChange

PODS = Gvr("", "v1", "pods")
MAPS = Gvr("", "v1", "configmaps")


def body(
    kind: str = "ConfigMap",
    name: str = "a",
    namespace: str = "web",
    version: int = 1,
    uid: str = "",
    api_version: str = "v1",
    **labels: str,
) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name, "uid": uid or f"u-{name}", "resourceVersion": str(version)}
    if namespace:
        meta["namespace"] = namespace
    if labels:
        meta["labels"] = labels
    return {"kind": kind, "apiVersion": api_version, "metadata": meta}


def encoded(**more: Any) -> bytes:
    return json.dumps(body(**more)).encode()


def config(name: str, version: int, namespace: str = "web", uid: str = "", **labels: str) -> Object:
    found = read(encoded(name=name, version=version, namespace=namespace, uid=uid, **labels), MAPS)
    assert found is not None
    return found


class FakeStore:
    """Keeps everything in dictionaries; `broken` makes writes fail."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], Held] = {}
        self.kept: dict[str, bytes] = {}
        self.listeners: list[Callable[[HeldChange], None]] = []
        self.commits = 0
        self.tokens: list[bytes] = []
        self.broken = False

    async def held(self, kind: str, namespace: str = "") -> list[Held]:
        return [row for key, row in sorted(self.rows.items()) if key[0] == kind and namespace in ("", key[1])]

    async def held_one(self, kind: str, namespace: str, name: str) -> Held | None:
        return self.rows.get((kind, namespace, name))

    def subscribe(self, listener: Callable[[HeldChange], None]) -> None:
        self.listeners.append(listener)

    async def notes(self, prefix: str) -> dict[str, bytes]:
        return {key: value for key, value in self.kept.items() if key.startswith(prefix)}

    async def note(self, key: str) -> bytes | None:
        return self.kept.get(key)

    async def pod_tokens(self) -> list[bytes]:
        return self.tokens

    async def write_notes(self, notes: Mapping[str, bytes | None]) -> None:
        if self.broken:
            raise Unavailable("the disk is full")
        self.commits += 1
        for key, value in notes.items():
            if value is None:
                self.kept.pop(key, None)
            else:
                self.kept[key] = value

    def hold(self, kind: str, value: dict[str, Any]) -> None:
        meta = value["metadata"]
        namespace, name = meta.get("namespace", ""), meta["name"]
        self.rows[kind, namespace, name] = Held(
            kind=kind,
            namespace=namespace,
            name=name,
            uid=meta.get("uid", ""),
            version=int(meta.get("resourceVersion", "-1")),
            value=json.dumps(value).encode(),
        )
        self._tell(kind, namespace, name, meta.get("uid", ""), gone=False)

    def drop(self, kind: str, namespace: str, name: str) -> None:
        row = self.rows.pop((kind, namespace, name))
        self._tell(kind, namespace, name, row.uid, gone=True)

    def _tell(self, kind: str, namespace: str, name: str, uid: str, *, gone: bool) -> None:
        for listener in self.listeners:
            listener(HeldChange(kind=kind, namespace=namespace, name=name, uid=uid, gone=gone))


class FakeCloud:
    """A hub before an API server that holds a few objects by path."""

    def __init__(self) -> None:
        self.online = True
        self.ours = True
        self.silent = False
        self.objects: dict[Target, dict[str, Any]] = {}
        self.paths: dict[str, bytes] = {}
        self.version = 100
        self.asked: list[Application] = []
        self.synced: list[dict[str, Application]] = []
        self.give_up: dict[str, Application] = {}
        self.acknowledged: list[Message] = []
        self.refused: list[Message] = []
        self.listeners: list[Callable[[], None]] = []
        self.rejection: dict[str, Any] | None = None

    def on_connected(self, listener: Callable[[], None]) -> None:
        self.listeners.append(listener)

    def connect(self) -> None:
        self.online = True
        for listener in self.listeners:
            listener()

    def acknowledge(self, messages: Sequence[Message]) -> None:
        self.acknowledged += messages

    def refuse(self, message: Message, error: ProtocolError) -> None:
        self.refused.append(message)

    def put(self, plural: str, value: dict[str, Any], group: str = "", version: str = "v1") -> None:
        meta = value["metadata"]
        target = Target(
            group=group,
            version=version,
            resource=plural,
            namespace=meta.get("namespace", ""),
            name=meta["name"],
        )
        self.objects[target] = value
        self.version = max(self.version, int(meta["resourceVersion"]))

    async def request(self, message: Message, *, timeout_s: float) -> Message:
        await asyncio.sleep(0)
        if self.silent:
            await asyncio.sleep(timeout_s)
        if not self.online or self.silent:
            raise Unavailable("no link")
        if message.route.resource == application.SYNC_RESOURCE:
            self.synced.append(message.decode(dict[str, Application]))
            return self._reply(message, self.give_up)
        app = message.decode(Application)
        self.asked.append(app)
        if self.rejection is not None:
            return self._reply(message, application.rejected(app, json.dumps(self.rejection).encode()))
        return self._reply(message, self._answer(app))

    def _reply(self, message: Message, content: object) -> Message:
        return new(
            source=Source.DYNAMICCONTROLLER,
            group="resource",
            operation=application.ANSWER_OP,
            resource=application.ANSWER_RESOURCE,
            content=content,
            parent=message.id,
        )

    def _answer(self, app: Application) -> Application:
        if application.pass_through(app.key):
            if app.key in self.paths:
                return application.approved(app, self.paths[app.key])
            return application.rejected(
                app, b'{"code":404,"reason":"NotFound","message":"no","status":"Failure"}'
            )
        target = application.parse_key(app.key)
        if app.verb == Verb.WATCH:
            return application.approved(app, None)
        if app.verb == Verb.LIST:
            labels = json.loads(app.option or b"{}").get("labelSelector", "")
            wanted = dict(part.split("=") for part in labels.split(",") if part)
            items = [
                value
                for at, value in self.objects.items()
                if (at.group, at.version, at.resource) == (target.group, target.version, target.resource)
                and target.namespace in ("", at.namespace)
                and wanted.items() <= value["metadata"].get("labels", {}).items()
            ]
            bare = [{k: v for k, v in item.items() if k not in ("kind", "apiVersion")} for item in items]
            meta = {"resourceVersion": str(self.version)}
            return application.approved(
                app, json.dumps({"kind": "XList", "metadata": meta, "items": bare}).encode()
            )
        if app.verb == Verb.CREATE:
            self.version += 1
            value = json.loads(app.body or b"{}")
            value["metadata"] |= {
                "resourceVersion": str(self.version),
                "uid": f"u-{value['metadata']['name']}",
            }
            self.put(target.resource, value, target.group, target.version)
            return application.approved(app, json.dumps(value).encode())
        if target not in self.objects:
            missing = {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404,
                       "message": f'{target.resource} "{target.name}" not found'}  # fmt: skip
            return application.rejected(app, json.dumps(missing).encode())
        if app.verb == Verb.DELETE:
            del self.objects[target]
            return application.approved(app, None)
        return application.approved(app, json.dumps(self.objects[target]).encode())


def push(operation: str, wire: str, value: dict[str, Any]) -> Message:
    meta = value["metadata"]
    return new(
        source=Source.DYNAMICCONTROLLER,
        group="resource",
        operation=operation,
        resource=f"{meta.get('namespace', 'null')}/{wire}/{meta['name']}",
        content=value,
        version=meta["resourceVersion"],
    )


def lines(queue: "asyncio.Queue[bytes | None]") -> list[tuple[str, str, str]]:
    """What a watch has waiting: (type, name, version)."""
    out = []
    while not queue.empty():
        line = queue.get_nowait()
        if line is None:
            out.append(("END", "", ""))
            continue
        found = msgspec.json.decode(line)
        meta = found["object"]["metadata"]
        out.append((found["type"], meta.get("name", ""), meta.get("resourceVersion", "")))
    return out


__all__ = [
    "MAPS",
    "PODS",
    "FakeCloud",
    "FakeStore",
    "Op",
    "State",
    "body",
    "config",
    "encoded",
    "lines",
    "push",
]
