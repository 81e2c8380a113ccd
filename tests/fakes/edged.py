"""Objects, Reports and State of edged in memory, as metamanager provides them."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import msgspec

from beehive.errors import Unavailable
from edgecore.edged.status import timestamp


class FakeObjects:
    """What a node should run; offline=True refuses what is not here."""

    def __init__(self) -> None:
        self.wanted: dict[str, bytes] = {}
        self.store: dict[tuple[str, str, str], bytes] = {}
        self.offline = False
        self.unknown = False
        self.tokens: list[dict[str, Any]] = []
        self.token_s = 0.0
        self.grown: list[tuple[str, str, str]] = []

    def want(self, pod: dict[str, Any]) -> None:
        self.wanted[pod["metadata"]["uid"]] = json.dumps(pod).encode()

    def put(self, kind: str, obj: dict[str, Any]) -> None:
        meta = obj["metadata"]
        self.store[(kind, meta.get("namespace", "default"), meta["name"])] = json.dumps(obj).encode()

    async def pods(self) -> list[msgspec.Raw]:
        if self.unknown:
            raise Unavailable("the list is not known yet")
        return [msgspec.Raw(raw) for raw in self.wanted.values()]

    async def get(self, kind: str, namespace: str, name: str) -> msgspec.Raw | None:
        raw = self.store.get((kind, namespace, name))
        return msgspec.Raw(raw) if raw is not None else None

    async def known(self, kind: str, namespace: str) -> list[msgspec.Raw]:
        return [msgspec.Raw(raw) for key, raw in sorted(self.store.items()) if key[:2] == (kind, namespace)]

    async def fetch(self, kind: str, namespace: str, name: str, *, fresh: bool = False) -> msgspec.Raw | None:
        del fresh  # what is here is what the cloud has
        found = await self.get(kind, namespace, name)
        if found is None and self.offline:
            raise Unavailable("offline")
        return found

    async def expanded(self, namespace: str, name: str, uid: str) -> None:
        if self.offline:
            raise Unavailable("offline")
        key = ("persistentvolumeclaim", namespace, name)
        claim = json.loads(self.store[key])
        volume = json.loads(self.store["persistentvolume", "", claim["spec"]["volumeName"]])
        claim["status"] |= {"capacity": volume["spec"]["capacity"], "conditions": []}
        self.store[key] = json.dumps(claim).encode()
        self.grown.append((namespace, name, uid))

    async def token(self, namespace: str, service_account: str, request: bytes) -> bytes:
        if self.offline:
            raise Unavailable("offline")
        asked = json.loads(request)
        self.tokens.append(asked)
        asked["status"] = {
            "token": f"token-{len(self.tokens)}-{service_account}",
            "expirationTimestamp": timestamp(time.time() + self.token_s)
            if self.token_s
            else "2999-01-01T00:00:00Z",
        }
        return json.dumps(asked).encode()


class FakeReports:
    """Keeps what was reported; `changed` wakes those who wait for it."""

    def __init__(self) -> None:
        self.statuses: dict[str, dict[str, Any]] = {}
        self.history: list[tuple[str, dict[str, Any]]] = []
        self.gone: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.changed = asyncio.Event()

    async def pod_status(self, namespace: str, name: str, uid: str, status: bytes) -> None:
        self.statuses[uid] = json.loads(status)
        self.history.append((uid, json.loads(status)))
        self.changed.set()

    async def pod_gone(self, namespace: str, name: str, uid: str) -> None:
        self.gone.append(uid)
        self.changed.set()

    async def event(self, event: bytes) -> None:
        self.events.append(json.loads(event))
        self.changed.set()

    def reasons(self, kind: str = "Pod") -> list[str]:
        return [e["reason"] for e in self.events if e["involvedObject"]["kind"] == kind]


class FakeState:
    """Rows in a dict."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}

    async def load(self, key: str) -> bytes | None:
        return self.rows.get(key)

    async def save(self, key: str, value: bytes) -> None:
        self.rows[key] = value

    async def drop(self, key: str) -> None:
        self.rows.pop(key, None)
