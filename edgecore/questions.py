"""What the daemon answers on its local socket: the state of the node for whoever stands in front of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from beehive import clock
from beehive.errors import NotFound, ProtocolError
from edgecore.edged.manager import RunningPod
from edgecore.edgehub.identity import Identity
from edgecore.edgehub.link import Link
from edgecore.local import Question
from edgecore.metamanager import refusals
from edgecore.metamanager.manager import MetaManager
from edgecore.version import VERSION

KINDS = {"pods": "pod", "nodes": "node", "devices": "device", "configmaps": "configmap"}
"""What may be asked for, and its type on the wire.  Secrets are not among them: nobody needs them on a screen."""


CALL_LIMIT_S = 8.0
"""How long a method may take that is called here: the socket's own limit is 10 s."""


class Pods(Protocol):
    """edged, as far as it is asked."""

    async def running_pods(self) -> list[RunningPod]: ...

    def unhold(self, namespace: str, name: str) -> bool: ...


class Twins(Protocol):
    """devicetwin, as far as it is asked."""

    def devices(self) -> list[dict[str, Any]]: ...

    def history(self, id_: str) -> Mapping[str, list[tuple[int, str]]]: ...

    def dropped(self) -> Mapping[tuple[str, str], int]: ...

    async def call(self, id_: str, method: str, values: Mapping[str, str], timeout_s: float) -> str: ...


class LocalApi(Protocol):
    """The metaserver, as far as it is asked."""

    @property
    def writes(self) -> Writes: ...


class Writes(Protocol):
    """What was written while the cloud was away."""

    def describe(self) -> dict[str, Any]: ...


class Questions:
    """edged, link, identity, twins, local_api: None where the part is off.   hardware: says what is plugged in.
    last_end: how the run before ended, if not in order."""

    def __init__(
        self,
        meta: MetaManager,
        *,
        edged: Pods | None,
        link: Link | None,
        identity: Identity | None,
        twins: Twins | None = None,
        hardware: Question | None = None,
        local_api: LocalApi | None = None,
        last_end: str = "",
    ) -> None:
        self._last_end = last_end
        self._hardware = hardware
        self._meta = meta
        self._edged = edged
        self._link = link
        self._twins = twins
        self._local_api = local_api
        self._identity = identity
        self._began = clock.monotonic()

    def by_verb(self) -> dict[str, Question]:
        verbs: dict[str, Question] = {
            "get": self.get,
            "status": self.status,
            "history": self.history,
            "call": self.call,
        }
        if self._edged is not None:
            verbs["unhold"] = self.unhold
        if self._hardware is not None:
            verbs["hardware"] = self._hardware
        return verbs

    async def get(self, question: Mapping[str, Any]) -> Any:
        """Objects as the cloud gave them; pods also as they run here, devices with their twins."""
        kind = KINDS.get(str(question.get("kind")))
        if kind is None:
            raise NotFound(f"there are no {question.get('kind')!r} here, only {', '.join(KINDS)}")
        objects = await self._meta.known(kind)
        answer: dict[str, Any] = {"items": objects}
        if kind == "pod" and self._edged is not None:
            answer["running"] = [
                {
                    "uid": pod.uid,
                    "namespace": pod.namespace,
                    "name": pod.name,
                    "phase": pod.phase,
                    "ip": pod.ip,
                    "ready": pod.ready,
                    "restarts": pod.restarts,
                    "status": pod.status,
                }
                for pod in await self._edged.running_pods()
            ]
        if kind == "device" and self._twins is not None:
            answer["twins"] = self._twins.devices()
        return answer

    async def unhold(self, question: Mapping[str, Any]) -> Any:
        """Let a pod start that was sent on hold."""
        namespace, name = str(question.get("namespace")), str(question.get("pod"))
        assert self._edged is not None, "asked only where pods run"
        if not self._edged.unhold(namespace, name):
            raise NotFound(f"there is no pod {namespace[:64]}/{name[:64]} here that is on hold")
        return {}

    def _turned(self) -> float:
        """When the link came or went; while there was none yet, when the daemon began."""
        if self._meta.session is not None:
            return self._meta.linked_since
        return self._began if self._meta.away_since is None else self._meta.away_since

    async def history(self, question: Mapping[str, Any]) -> Any:
        """The last readings of a device, by property: [ms since 1970, value], oldest first."""
        id_ = str(question.get("device"))
        if self._twins is None:
            raise NotFound("there are no devices here: the part is off")
        if not any(device["id"] == id_ for device in self._twins.devices()):
            raise NotFound(f"there is no device {id_[:128]!r} here")
        return {"device": id_, "properties": self._twins.history(id_)}

    async def call(self, question: Mapping[str, Any]) -> Any:
        """Do a method of a device; what it returned."""
        id_, method, values = str(question.get("device")), str(question.get("method")), question.get("values")
        if self._twins is None:
            raise NotFound("there are no devices here: the part is off")
        if not isinstance(values, dict) or not all(isinstance(text, str) for text in values.values()):
            raise ProtocolError("the values of a call are texts by property")
        return {"result": await self._twins.call(id_, method, values, CALL_LIMIT_S)}

    async def status(self, question: Mapping[str, Any]) -> Any:
        """How the node and its parts are."""
        meta, link = self._meta, self._link
        held, refused = await meta.store.read(lambda view: (len(view.held()), view.states(refusals.PREFIX)))
        counters = meta.store.counters
        session = meta.session
        return {
            "node": meta.node,
            "version": VERSION,
            "upSeconds": int(clock.monotonic() - self._began),
            "cloud": {
                "connected": session is not None,
                "forSeconds": int(clock.monotonic() - self._turned()),
                "address": session.address if session else "",
                "session": session.number if session else 0,
                "kubeedge": session is not None and not session.ours,
                "lastError": link.last_error if link is not None and session is None else "",
                "certificateEnds": self._identity.not_after if self._identity else None,
            },
            "lastEnd": self._last_end,
            "clockAheadSeconds": int(clock.ahead_s()),
            "outbox": {
                "waiting": len(meta.outbox),
                "bytes": meta.outbox.bytes_held,
                "dropped": {
                    f"{kind}/{reason}": n for (kind, reason), n in sorted(meta.outbox.dropped.items())
                },
            },
            "devicesDropped": {
                f"{way}/{reason}": n
                for (way, reason), n in sorted((self._twins.dropped() if self._twins else {}).items())
            },
            "store": {
                "complete": meta.store.complete,
                "objects": held,
                "refused": {
                    key.removeprefix(refusals.PREFIX): refusals.read(note).why
                    for key, note in refused.items()
                },
                "commits": counters.commits,
                "failures": counters.failures,
                "writtenBytes": dict(counters.written.copy()),
                "damagedRows": counters.damaged_rows,
                "lockedRows": counters.locked,
                "key": meta.store.key_source,
                "keyFault": meta.store.key_fault,
                "setAside": str(meta.store.set_aside) if meta.store.set_aside else "",
            },
            "offlineWrites": self._local_api.writes.describe() if self._local_api is not None else None,
            "pods": len(await self._edged.running_pods()) if self._edged is not None else 0,
        }


def as_json(value: Any) -> str:
    """For people and `jq`."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
