"""The writes that wait for the cloud: kept durably, shown to the node's clients, sent in turn when the link is back.

Theory of operation.  A write is durable and shown before its client is answered.  The queue is sent from its front, one at a
time; while one is on its way no other is taken, so that nothing is folded into what the cloud may have already.  What the cloud
refuses for good is dropped, counted and logged, and clients are shown what the cloud has.  The rules are in `writes`."""

from __future__ import annotations

import asyncio
import logging
import random
import string
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from beehive import application, clock, kinds, resource
from beehive.application import Target
from beehive.backoff import Backoff
from beehive.errors import ProtocolError, Unavailable
from beehive.jsonpatch import PatchError, PatchFailed
from beehive.message import UNREADABLE
from edgecore.metaserver import objects, options, status, writes
from edgecore.metaserver.mirror import Mirror
from edgecore.metaserver.objects import Gvr, Object
from edgecore.metaserver.ports import Store
from edgecore.metaserver.remote import Remote
from edgecore.metaserver.request import Info, Query
from edgecore.metaserver.status import ApiError
from edgecore.metaserver.writes import CannotApply, Clash, Json, Write

log = logging.getLogger(__name__)

PREFIX = "writes/"
COUNTED = "writes-dropped"
MAX_WRITES = 1024
MAX_BYTES = 8 * 1024 * 1024
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that say nothing about the write itself."""
LAST = 16
"""Dropped writes that are remembered by name."""
_OPTIONS = ("fieldManager", "fieldValidation", "force", "gracePeriodSeconds", "propagationPolicy")


@dataclass(frozen=True, slots=True)
class _There:
    """What the cloud has of an object.   told: whether it said so; if not, nothing follows from `found`."""

    found: Object | None
    told: bool


def _was_done(write: Write, there: _There) -> bool:
    if not there.told:
        return False
    if there.found is None:
        return write.verb == "delete"
    return writes.is_done(write, writes.read_object(there.found.value))


class OfflineWrites:
    """See the module.  `load` once after the mirror, then `run` beside it.   kinds: `plural` or `plural.group` each."""

    def __init__(
        self,
        store: Store,
        mirror: Mirror,
        remote: Remote,
        kinds: frozenset[str],
        *,
        wall: Callable[[], float],
        rng: random.Random | None = None,
    ) -> None:
        self.kinds = kinds
        self.dropped: Counter[tuple[str, str]] = Counter()
        """(kind, reason) of what the cloud refused, ever."""
        self.last: deque[str] = deque(maxlen=LAST)
        self.sent = 0
        self._store = store
        self._mirror = mirror
        self._remote = remote
        self._wall = wall
        self._rng = rng or random.Random()
        self._waiting: dict[int, Write] = {}
        self._bytes = 0
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        remote.on_connected.append(self._connected)

    async def load(self) -> None:
        """Take over what an earlier process kept.  Raises Unavailable (the disk)."""
        for key, value in sorted((await self._store.notes(PREFIX)).items()):
            try:
                write = msgspec.json.decode(value, type=Write)
            except UNREADABLE as error:
                log.error("Cannot read the write that waits as %s: %s", key, error)
                continue
            self._waiting[write.seq] = write
            self._bytes += len(value)
            await self._show(write)
        # a client that was told one of these versions may have missed what came between that and the end of that process
        self._mirror.history.forget()
        counted = await self._store.note(COUNTED)
        if counted:
            for kind, reason, count in msgspec.json.decode(counted, type=list[tuple[str, str, int]]):
                self.dropped[kind, reason] += count

    async def _connected(self) -> None:
        self._wake.set()

    # -- what is told --------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._waiting)

    def describe(self) -> Json:
        """For `edgecore status`."""
        oldest = min((write.at_ms for write in self._waiting.values()), default=0)
        return {
            "kinds": sorted(self.kinds),
            "waiting": len(self._waiting),
            "oldestSeconds": int(self._wall() - oldest / 1000) if oldest else 0,
            "sent": self.sent,
            "dropped": {f"{kind}/{reason}": count for (kind, reason), count in sorted(self.dropped.items())},
            "lastDropped": list(self.last),
        }

    def waits(self, info: Info) -> bool:
        """Whether a write to that object waits: another must not overtake it."""
        return self._of(Gvr(info.group, info.version, info.resource), _where(info), info.name) is not None

    # -- taking --------------------------------------------------------------------------------------------------

    async def take(self, info: Info, query: Query, form: str, body: bytes, account: str) -> tuple[int, bytes]:
        """Keep a write until the cloud is back.  The code and body of its answer.

        Raises ApiError, Unavailable (the disk), ProtocolError."""
        kind = writes.kind_name(info.group, info.resource)
        scale = info.subresource == "scale" and info.verb in ("patch", "update")
        if kind not in self.kinds or (info.subresource and not scale):
            raise status.unavailable(writes.why_not(info, kind))
        if info.verb == "delete":
            query = query | _delete_options(body)
        async with self._lock:
            try:
                if scale:
                    return await self._scale(info, query, form, body, account)
                return await self._take(info, query, form, body, account)
            except PatchFailed as error:
                raise status.does_not_fit(str(error)) from error
            except PatchError as error:
                raise status.bad_request(str(error)) from error
            except CannotApply as error:
                raise status.unavailable(
                    f"the cloud cannot be reached from this node now: {error}"
                ) from error
            except Clash as error:
                raise status.conflict(info, str(error)) from error

    async def _scale(
        self, info: Info, query: Query, form: str, body: bytes, account: str
    ) -> tuple[int, bytes]:
        """A write of `scale`, as one of the object's `spec.replicas`."""
        known = await self._mirror.get(Gvr(info.group, info.version, info.resource), _where(info), info.name)
        if known is None:
            raise status.not_found(info)
        now = writes.read_object(known.value)
        scale = writes.scale_of(now)
        patched = info.verb == "patch"
        scale = writes.apply_patch(form, body, scale, _SCALES).shown if patched else writes.read_object(body)
        patch = writes.encoded({"spec": {"replicas": writes.replicas(scale)}})
        plain = replace(info, verb="patch", subresource="")
        code, shown = await self._take(plain, query, writes.MERGE, bytes(patch), account)
        return code, msgspec.json.encode(writes.scale_of(writes.read_object(shown)))

    async def _take(
        self, info: Info, query: Query, form: str, body: bytes, account: str
    ) -> tuple[int, bytes]:
        gvr, namespace = Gvr(info.group, info.version, info.resource), _where(info)
        sent = writes.read_object(body) if info.verb in ("create", "update") else {}
        name = info.name or self._name(sent, info)
        known = await self._mirror.get(gvr, namespace, name)
        before = self._of(gvr, namespace, name)
        if info.verb == "patch" and form == writes.STRATEGIC and kinds.is_custom(info.group):
            raise status.unsupported_media_type("application/json-patch+json, application/merge-patch+json")
        if info.verb == "patch" and form == writes.APPLY:
            body = msgspec.json.encode(writes.read_apply(body))
            if known is None and before is None:
                sent = writes.read_object(body)
                info = replace(info, verb="create")
        if info.verb == "create" and (known is not None or before is not None):
            raise status.already_exists(info, name)
        if info.verb != "create" and known is None:
            raise status.not_found(info)
        version = self._mirror.history.version + 1
        after = Write(
            seq=max(self._waiting, default=0) + 1,
            verb=info.verb,  # type: ignore[arg-type]
            group=info.group,
            version=info.version,
            resource=info.resource,
            namespace=namespace,
            name=name,
            account=account,
            at_ms=int(self._wall() * 1000),
            base=str(known.version) if known is not None else "",
            query={key: query[key] for key in _OPTIONS if query.get(key)},
        )
        patched, shown = None, None
        uid = known.uid if known is not None else str(uuid.uuid4())
        if info.verb == "delete":
            after = msgspec.structs.replace(after, uid=uid)
        else:
            if info.verb == "patch":
                assert known is not None, "checked above"
                now = writes.read_object(known.value)
                made = writes.apply_patch(form, body, now, gvr)
                sent = patched = made.shown
                after = msgspec.structs.replace(after, body=writes.encoded(made.body), form=made.form)
                if form == writes.APPLY and writes.stays_apply(before, query.get("fieldManager", "")):
                    after = msgspec.structs.replace(after, form=writes.APPLY)
                claimed = _claimed(made.body)
            else:
                after = msgspec.structs.replace(after, body=msgspec.Raw(body))
                claimed = _claimed(sent)
                sent.setdefault("metadata", {})
                if info.verb == "create" and not info.name:
                    sent["metadata"] = {**sent["metadata"], "name": name}
                    after = msgspec.structs.replace(after, body=writes.encoded(sent))
            _check_metadata(sent)
            if claimed and known is not None:
                if claimed != str(known.version):
                    raise status.conflict(
                        info, "the object has been modified; please apply your changes to the latest version"
                    )
                after = msgspec.structs.replace(after, conditional=True)
                if info.verb == "patch":
                    # a version in a patch is the cloud's to check; folded, only an update can carry it
                    after = msgspec.structs.replace(after, verb="update", body=writes.encoded(sent))
            verb = "create" if before is not None and before.verb == "create" else info.verb
            first = before.at_ms if before is not None else after.at_ms
            shown = writes.show(
                sent,
                gvr,
                verb=verb,
                version=version,
                uid=uid,
                namespace=namespace,
                name=name,
                born=clock.rfc3339(datetime.fromtimestamp(first // 1000, UTC)) if verb == "create" else "",
            )
            after = msgspec.structs.replace(after, shown=writes.encoded(shown))
        folded = writes.fold(before, after, patched)
        if query.get("dryRun"):
            return 200, msgspec.json.encode(_tried(shown, known)) if shown is not None else _TRIED
        await self._keep(before, folded)
        if folded is None:
            await self._mirror.settle(gvr, namespace, name)
        else:
            await self._show(folded)
        self._wake.set()
        return 202, msgspec.json.encode(shown) if shown is not None else _ACCEPTED

    def _name(self, sent: Json, info: Info) -> str:
        """Raises ApiError."""
        metadata = sent.get("metadata")
        if not isinstance(metadata, dict):
            raise status.bad_request("the object has no metadata")
        if metadata.get("namespace", info.namespace) != info.namespace:
            raise status.bad_request("the namespace of the object is not the one of the request")
        name = metadata.get("name") or ""
        if not name and isinstance(metadata.get("generateName"), str):
            name = metadata["generateName"] + "".join(
                self._rng.choices(string.ascii_lowercase + string.digits, k=5)
            )
        if not isinstance(name, str) or not application.is_segment(name) or len(name) > resource.MAX_NAME:
            raise status.bad_request("the object's name is not one")
        return name

    def _of(self, gvr: Gvr, namespace: str, name: str) -> Write | None:
        return next((w for w in self._waiting.values() if w.where == (gvr, namespace, name)), None)

    async def _keep(self, before: Write | None, after: Write | None) -> None:
        """Raises ApiError (no room), Unavailable (the disk)."""
        old = len(msgspec.json.encode(before)) if before is not None else 0
        encoded = msgspec.json.encode(after) if after is not None else b""
        if after is not None and (
            (before is None and len(self._waiting) >= MAX_WRITES)
            or self._bytes + len(encoded) - old > MAX_BYTES
        ):
            raise status.unavailable(
                f"{len(self._waiting)} writes wait for the cloud already, and there is room for no more"
            )
        notes: dict[str, bytes | None] = {}
        if before is not None:
            notes[_key(before)] = None
        if after is not None:
            notes[_key(after)] = encoded
        await self._store.write_notes(notes)
        if before is not None:
            self._waiting.pop(before.seq, None)
        if after is not None:
            self._waiting[after.seq] = after
        self._bytes += len(encoded) - old

    async def _show(self, write: Write) -> None:
        found = objects.read(bytes(write.shown), write.gvr) if write.verb != "delete" else None
        await self._mirror.overlay(write.gvr, write.namespace, write.name, found)

    # -- sending -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Never returns."""
        backoff = Backoff()
        while True:
            self._wake.clear()
            wait = None
            if self._waiting and self._remote.online:
                try:
                    while self._waiting:
                        await self._send_first()
                    backoff.reset()
                except (Unavailable, ProtocolError) as error:
                    wait = backoff.next_s(self._rng)
                    log.debug("! writes wait on: %s", error)
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _send_first(self) -> None:
        """Raises Unavailable: it stays."""
        async with self._lock:
            write = self._waiting[min(self._waiting)]
            reason, text = "", ""
            try:
                there = _There(await self._send(write), told=True)
            except ApiError as error:
                if error.code in RETRIED:
                    raise Unavailable(str(error)) from error
                there = await self._look(write)
                if not _was_done(write, there):
                    reason, text = error.reason or str(error.code), error.message
            await self._settle(write, there, reason, text)

    async def _send(self, write: Write) -> Object | None:
        """What the cloud made of it; None after a delete.  Raises ApiError, Unavailable."""
        option, body = b"{}", writes.to_send(write)
        match write.verb:
            case "create":
                option = options.for_write(write.query, "CreateOptions")
            case "update":
                option = options.for_write(write.query, "UpdateOptions")
            case "patch":
                info = Info(verb="patch", name=write.name)
                option = options.for_patch(info, write.query, write.form, bytes(write.body))
            case "delete":
                made: dict[str, Any] = msgspec.json.decode(options.for_delete(write.query, b""))
                option = msgspec.json.encode({**made, "preconditions": {"uid": write.uid}})
        target = _target(write, named=write.verb != "create")
        answer = await self._remote.ask(target, write.verb, option=option, body=body, account=write.account)
        if write.verb == "delete" or not answer:
            return None
        return objects.read(answer, write.gvr)

    async def _look(self, write: Write) -> _There:
        """What the cloud has.  Raises Unavailable."""
        try:
            answer = await self._remote.ask(_target(write, named=True), "get", account=write.account)
        except ApiError as error:
            if error.code in RETRIED:
                raise Unavailable(str(error)) from error
            return _There(None, told=error.code == 404)
        return _There(objects.read(answer, write.gvr), told=True)

    async def _settle(self, write: Write, there: _There, reason: str, text: str) -> None:
        """Raises Unavailable (the disk)."""
        notes: dict[str, bytes | None] = {_key(write): None}
        if reason:
            kind = writes.kind_name(write.group, write.resource)
            self.dropped[kind, reason] += 1
            counted = [(kind, why, count) for (kind, why), count in sorted(self.dropped.items())]
            notes[COUNTED] = msgspec.json.encode(counted)
            what = f"{write.verb} of {kind} {write.namespace}/{write.name}"
            self.last.append(f"{what}: {text[:256]}")
            log.warning("Written while the cloud was away, and dropped: %s: %s", what, text[:256])
        try:
            await self._store.write_notes(notes)
        except Unavailable:
            if reason:
                self.dropped[kind, reason] -= 1
                self.last.pop()
            raise
        self._waiting.pop(write.seq)
        self._bytes -= len(msgspec.json.encode(write))
        self.sent += not reason
        if there.found is not None:
            await self._mirror.learn(write.gvr, [there.found])
        elif there.told:
            await self._mirror.forget(write.gvr, write.namespace, write.name)
        await self._mirror.settle(write.gvr, write.namespace, write.name)


def _check_metadata(body: Json) -> None:
    """Raises ApiError 400."""
    metadata = body.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise status.bad_request("the object's metadata is no object")
    for name in ("labels", "annotations"):
        if not isinstance(metadata.get(name) or {}, dict):
            raise status.bad_request(f"the object's {name} are no object")


def _claimed(body: Json) -> str:
    """The version that a write says it is of.  Raises ApiError 400."""
    metadata = body.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise status.bad_request("the object's metadata is no object")
    return str(metadata.get("resourceVersion") or "")


_SCALES = Gvr("autoscaling", "v1", "scales")
_TRIED = b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}'
_ACCEPTED = b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":202}'


def _tried(shown: Json, known: Object | None) -> Json:
    """What a write would show, without what would only come of keeping it."""
    metadata = dict(shown["metadata"])
    before = writes.read_object(known.value).get("metadata") or {} if known is not None else {}
    if writes.PENDING not in (before.get("annotations") or {}):
        annotations = {key: value for key, value in metadata["annotations"].items() if key != writes.PENDING}
        metadata.pop("annotations")
        metadata |= {"annotations": annotations} if annotations else {}
    if known is not None:
        metadata["resourceVersion"] = str(known.version)
    return shown | {"metadata": metadata}


def _delete_options(body: bytes) -> Query:
    """What is heeded of DeleteOptions; the object's UID is always a precondition.  Raises ProtocolError."""
    found = writes.read_object(body) if body else {}
    return {
        key: str(found[key])
        for key in ("gracePeriodSeconds", "propagationPolicy", "dryRun")
        if found.get(key) not in (None, [])
    }


def _key(write: Write) -> str:
    return f"{PREFIX}{write.seq:012d}"


def _target(write: Write, *, named: bool) -> Target:
    return Target(
        group=write.group,
        version=write.version,
        resource=write.resource,
        namespace=write.namespace,
        name=write.name if named else "",
    )


def _where(info: Info) -> str:
    return "" if info.resource == "namespaces" and not info.group else info.namespace
