"""Mirror pods: what the cloud is shown of pods that only this machine's folder knows.

A static pod runs whatever the cloud says; its mirror is an object at the API with another UID that nothing runs.  Which
mirrors to make and to delete is planned here (pure); `Mirrors` keeps them in step and hands statuses on to them.

Source: kubelet, pod/mirror_client.go, kubelet.go (tryReconcileMirrorPods).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from beehive.errors import NotFound, Refused, SkerryError
from edgecore.edged.errors import BadPod
from edgecore.edged.podread import decode_key
from edgecore.edged.ports import Objects, Reports

log = logging.getLogger(__name__)

MIRROR = "kubernetes.io/config.mirror"
HASH = "kubernetes.io/config.hash"
# A deletion that was asked for and has not come back as done is asked for again.
AGAIN_S = 60.0

Key = tuple[str, str]
CreatePod = Callable[[str, str, bytes], Awaitable[None]]
"""Namespace, name and JSON of a pod to create at the API.  One that is there already is no fault.  Raises SkerryError."""


class Mirror(msgspec.Struct, frozen=True, kw_only=True):
    """One at the API.  of: hash of the static pod that it shows."""

    uid: str
    of: str
    deleting: bool


class Create(msgspec.Struct, frozen=True, kw_only=True):
    key: Key


class Delete(msgspec.Struct, frozen=True, kw_only=True):
    key: Key
    uid: str


Action = Create | Delete


def split(pods: Iterable[msgspec.Raw]) -> tuple[list[msgspec.Raw], dict[Key, Mirror]]:
    """Pods to run, and mirrors, which are never run, whoever made them."""
    run: list[msgspec.Raw] = []
    mirrors: dict[Key, Mirror] = {}
    for raw in pods:
        found = _read(bytes(raw)) if MIRROR.encode() in bytes(raw) else None
        if found is None:
            run.append(raw)
        else:
            mirrors[found[0]] = found[1]
    return run, mirrors


def _read(raw: bytes) -> tuple[Key, Mirror] | None:
    try:
        meta = decode_key(raw)
    except BadPod:
        return None
    of = meta.annotations.get(MIRROR)
    if of is None:
        return None
    return (meta.namespace, meta.name), Mirror(uid=meta.uid, of=of, deleting=bool(meta.deletion_timestamp))


def plan(static: Mapping[Key, str], mirrors: Mapping[Key, Mirror], *, sure: bool) -> list[Action]:
    """What to do so that each static pod (key -> hash) has its mirror and no other one is left.

    sure: whether these are all static pods there are; otherwise none is deleted for want of one.
    """
    actions: list[Action] = []
    for key, mirror in sorted(mirrors.items()):
        stale = key in static and static[key] != mirror.of
        if mirror.deleting or stale or (sure and key not in static):
            actions.append(Delete(key=key, uid=mirror.uid))
    actions += [Create(key=key) for key in sorted(static) if key not in mirrors]
    return actions


def make(static: bytes, *, node_name: str, node_uid: str) -> bytes:
    """The mirror of a static pod (as JSON), to be created at the API."""
    pod: dict[str, Any] = msgspec.json.decode(static)
    given: dict[str, Any] = pod["metadata"]
    meta: dict[str, Any] = {k: given[k] for k in ("name", "namespace", "labels", "annotations") if k in given}
    meta["annotations"] = {**meta["annotations"], MIRROR: meta["annotations"][HASH]}
    meta["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "Node", "name": node_name, "uid": node_uid, "controller": True}
    ]
    return msgspec.json.encode({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod["spec"]})


class Mirrors:
    """Reports of static pods, and the mirrors that carry them.  Nothing is said of a pod that has no mirror."""

    def __init__(self, objects: Objects, reports: Reports, create_pod: CreatePod, node_name: str) -> None:
        self._objects = objects
        self._create_pod = create_pod
        self._reports = reports
        self._node_name = node_name
        self._mirrors: dict[Key, Mirror] = {}
        self._statuses: dict[Key, bytes] = {}
        self._asked: dict[str, float] = {}
        self._trouble = ""

    # -- Reports, for the workers of static pods

    async def pod_status(self, namespace: str, name: str, uid: str, status: bytes) -> None:
        """Of the mirror, now or as soon as there is one."""
        del uid
        self._statuses[namespace, name] = status
        mirror = self._mirrors.get((namespace, name))
        if mirror is not None and not mirror.deleting:
            await self._reports.pod_status(namespace, name, mirror.uid, status)

    async def pod_gone(self, namespace: str, name: str, uid: str) -> None:
        """Its mirror goes when the folder says so."""
        del uid
        self._statuses.pop((namespace, name), None)

    async def event(self, event: bytes) -> None:
        """Events are about a name: while there is a mirror they are about that."""
        if self._mirrors:
            await self._reports.event(event)

    # -- keeping in step

    async def step(
        self, static: Sequence[bytes], mirrors: Mapping[Key, Mirror], *, sure: bool, now: float
    ) -> bool:
        """One comparison; True when all is as it should be.  now: monotonic seconds."""
        fresh = {k for k, m in mirrors.items() if self._mirrors.get(k) != m and not m.deleting}
        self._mirrors = dict(mirrors)
        # one that was made and is gone again is made anew at once; one that never appeared is not
        made = {"/".join((*key, m.of)) for key, m in mirrors.items()}
        self._asked = {w: at for w, at in self._asked.items() if now - at < AGAIN_S and w not in made}
        by_key = {}
        for raw in static:
            meta = decode_key(raw)
            by_key[meta.namespace, meta.name] = (meta.annotations.get(HASH, ""), raw)
        actions = plan({k: v[0] for k, v in by_key.items()}, mirrors, sure=sure)
        try:
            for key in sorted(fresh & self._statuses.keys()):
                await self._reports.pod_status(*key, mirrors[key].uid, self._statuses[key])
            for action in actions:
                what = (
                    action.uid
                    if isinstance(action, Delete)
                    else "/".join((*action.key, by_key[action.key][0]))
                )
                if now - self._asked.get(what, -AGAIN_S) < AGAIN_S:
                    continue
                if isinstance(action, Create):
                    await self._create(action.key, by_key[action.key][1])
                else:
                    await self._reports.pod_gone(*action.key, action.uid)
                self._asked[what] = now
        except SkerryError as err:
            level = logging.DEBUG if str(err) == self._trouble else logging.INFO
            log.log(level, "Static pods are not shown at the API yet: %s", str(err)[:256])
            self._trouble = str(err)
            return False
        self._trouble = ""
        return not actions

    async def _create(self, key: Key, static: bytes) -> None:
        node = await self._objects.get("node", "", self._node_name)
        uid = msgspec.json.decode(node, type=_Node).metadata.uid if node is not None else ""
        if not uid:
            raise NotFound(f"this node ({self._node_name}) is not known at the API")
        wanted = make(static, node_name=self._node_name, node_uid=uid)
        try:
            await self._create_pod(*key, wanted)
        except Refused as err:
            # it names something of the API's, say: it runs all the same
            log.info("Static pod %s/%s is not shown at the API: %s", *key, str(err)[:256])


class _Meta(msgspec.Struct, frozen=True, kw_only=True):
    uid: str = ""


class _Node(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _Meta = _Meta()
