"""Answer the requests of the Kubernetes API: from the cloud while it is there, from the store when it is not.

| verb                          | online                                     | offline                              |
|-------------------------------|--------------------------------------------|--------------------------------------|
| get                           | the cloud's answer, which is kept          | what is held or was asked for        |
| log, exec … of a pod here     | from its file, by the runtime              | the same                             |
| list                          | the cloud's answer, which is kept          | the same, selected here              |
| watch                         | from here; the hub keeps it fresh          | from here                            |
| create, update, patch, delete | the cloud's answer                         | 202 for kinds that the operator      |
|                               |                                            | named (`offline`), else 503          |
| discovery, version, schemas   | the cloud's answer, which is kept          | what was kept, or a table of ours    |
| healthz, livez, readyz        | `ok`: whether this API answers             | the same                             |

A cloud that does not answer in time counts as offline for that request."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Protocol
from urllib.parse import parse_qsl

import msgspec

from beehive import application
from beehive.application import Target, Verb
from beehive.errors import NotFound, ProtocolError, Refused, Unavailable
from beehive.message import UNREADABLE
from beehive.selectors import BadSelector
from edgecore.metaserver import (
    discovery,
    measured,
    objects,
    options,
    request,
    reviews,
    schemas,
    status,
    table,
)
from edgecore.metaserver.access import OWNER, Access, Caller
from edgecore.metaserver.columns import Columns
from edgecore.metaserver.http import Answer, Pipe, Request
from edgecore.metaserver.measured import Measures
from edgecore.metaserver.mirror import Mirror, TooOld, Watch
from edgecore.metaserver.objects import Filter, Gvr, Page
from edgecore.metaserver.offline import OfflineWrites
from edgecore.metaserver.ports import Held, Logs, Store
from edgecore.metaserver.remote import Remote, Scope
from edgecore.metaserver.request import Info, Query
from edgecore.metaserver.status import ApiError

log = logging.getLogger(__name__)

PATH_NOTE = "path"
MAX_PATH_BODY = 2 * 1024 * 1024
"""A discovery document that is kept; the whole schema (/openapi/v2) is 4 MiB and is not."""

SMALL = 16
"""Objects in a list that is sent with its length; more are sent in pieces."""
MAX_LISTS = 4
"""Lists that are made at once; others wait.  One may take as much memory as everything else here."""
MAX_WATCHES = 128
MAX_WATCHES_PER_CALLER = 32
WATCH_S = (1800, 3600)
"""How long a watch lives that does not say: as at an API server, spread."""
BOOKMARK_S = 60.0
FIRST_S = application.TIMEOUT_S
"""How long the first events of a watch wait for the cloud's."""

_WAITS = '299 - "accepted on this node only: sent when the cloud can be reached, and dropped if the cloud refuses it then"'
_TRIED = '299 - "tried on this node only: the cloud may refuse it, or fill in more"'
_STREAMS = frozenset({"exec", "attach", "portforward"})
_HEALTH = frozenset({"/healthz", "/livez", "/readyz"})


class _Kind(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    kind: str = ""


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    object: msgspec.Raw


class _Deleted(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    deletion_timestamp: str | None = None
    finalizers: list[str] | None = None


class _DeleteAnswer(msgspec.Struct, frozen=True, kw_only=True):
    kind: str = ""
    metadata: _Deleted = _Deleted()


class Streams(Protocol):
    """exec, attach and port-forward of pods that run on this node."""

    async def open(
        self,
        what: str,
        namespace: str,
        name: str,
        uid: str,
        query: Sequence[tuple[str, str]],
        method: str,
        headers: Sequence[tuple[str, str]],
    ) -> Pipe:
        """Raises NotFound, Refused, Unavailable."""
        ...


class Api:
    """The handler of the HTTP server."""

    def __init__(
        self,
        access: Access,
        mirror: Mirror,
        remote: Remote,
        store: Store,
        offline: OfflineWrites,
        *,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        rng: random.Random | None = None,
    ) -> None:
        self._access = access
        self._mirror = mirror
        self._remote = remote
        self._store = store
        self._offline = offline
        self.logs: Logs | None = None
        self.streams: Streams | None = None
        self.measures: Measures | None = None
        """Set where pods run."""
        self._monotonic = monotonic
        self._wall = wall
        self._rng = rng or random.Random()
        self._columns = Columns(remote, store, monotonic=monotonic)
        self._watching: Counter[str] = Counter()
        self._listing = asyncio.Semaphore(MAX_LISTS)

    async def handle(self, asked: Request) -> Answer:
        """Raises ApiError; everything else that is expected becomes one."""
        try:
            path, query = request.split(asked.target)
            info = request.parse(asked.method, path, query)
        except ProtocolError as error:
            raise status.bad_request(str(error)) from error
        try:
            caller = (
                OWNER if asked.local else await self._access.authenticate(asked.headers.get("authorization"))
            )
            await self._access.authorize(caller, info)
            _check_accept(asked.headers.get("accept", ""))
            log.debug("< %s %s %s", caller.user.name, info.verb, asked.target[:256])
            if info.path:
                return await self._plain(info)
            return await self._resource(asked, caller, info, query)
        except BadSelector as error:
            raise status.bad_request(str(error)) from error
        except ProtocolError as error:
            raise status.internal(f"the cloud's answer cannot be used: {error}") from error
        except Unavailable as error:
            raise status.unavailable(str(error)) from error

    async def _resource(self, asked: Request, caller: Caller, info: Info, query: Query) -> Answer:
        # what of each object goes with its row, for a client that wants a table
        if (info.group, info.resource) == ("", "pods") and info.subresource in _STREAMS:
            return await self._open(asked, info)
        rows = query.get("includeObject", "Metadata") if table.wanted(asked.headers.get("accept", "")) else ""
        if info.group == measured.GROUP:
            return await self._measured(caller, info, query, rows)
        match info.verb:
            case "get":
                return await self._get(caller, info, query, rows)
            case "list":
                return await self._list(caller, info, query, rows)
            case "watch":
                return await self._watch(caller, info, query, rows)
            case "create" | "update" | "patch" | "delete":
                return await self._write(asked, caller, info, query)
            case _:
                raise status.method_not_allowed()

    # -- what is no resource -------------------------------------------------------------------------------------

    async def _plain(self, info: Info) -> Answer:
        path = application.pass_through(info.path)
        if path is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource", details={})
        if info.verb not in ("get", "head"):
            raise status.method_not_allowed()
        if path in _HEALTH:
            return Answer(body=b"ok", content_type="text/plain; charset=utf-8")
        note = PATH_NOTE + path
        try:
            body = await self._remote.fetch(path)
        except Unavailable as error:
            kept = await self._store.note(note) or await self._document(path)
            if kept is None:
                raise status.unavailable(f"{path} is not kept on this node: {error}") from error
            return Answer(body=kept)
        if len(body) <= MAX_PATH_BODY and await self._store.note(note) != body:
            await self._keep_path(note, body)
        return Answer(body=body)

    async def _document(self, path: str) -> bytes | None:
        """What can be said of a path that was never asked for while the cloud answered."""
        if path == schemas.ROOT:
            groups = await self._store.note(f"{PATH_NOTE}/apis") or discovery.document("/apis")
            return schemas.root(groups or b"")
        if of := schemas.resources_path(path):
            resources = await self._store.note(PATH_NOTE + of) or discovery.document(of)
            return schemas.group(of, resources) if resources else None
        return discovery.document(path)

    async def _keep_path(self, note: str, body: bytes) -> None:
        try:
            await self._store.write_notes({note: body})
        except Unavailable as error:
            log.warning("Cannot keep %s for later: %s", note, error)

    # -- reading -------------------------------------------------------------------------------------------------

    async def _get(self, caller: Caller, info: Info, query: Query, rows: str) -> Answer:
        gvr = Gvr(info.group, info.version, info.resource)
        if (info.group, info.resource, info.subresource) == ("", "pods", "log") and self.logs is not None:
            held = await self._store.held_one("pod", info.namespace, info.name)
            if held is not None:
                return await self._log(self.logs, held, info, query)
        try:
            body = await self._ask(
                caller, _target(info), Verb.GET, options.for_get(query), subresource=info.subresource
            )
        except ApiError as error:
            if error.code == 404 and not info.subresource:
                await self._forget(gvr, info)
            raise
        except Unavailable as error:
            if info.subresource:
                raise
            found = await self._mirror.get(gvr, _where(info), info.name)
            if found is None:
                raise status.not_found(info) from error
            return Answer(body=await self._shape(caller, gvr, found.value, rows))
        if info.subresource:
            return Answer(body=body)
        await self._learn(gvr, body)
        return Answer(body=await self._shape(caller, gvr, body, rows))

    async def _measured(self, caller: Caller, info: Info, query: Query, rows: str) -> Answer:
        """metrics.k8s.io: the cloud knows all nodes, this node knows itself."""
        if info.verb not in ("get", "list"):
            raise status.method_not_allowed()
        gvr = Gvr(info.group, info.version, info.resource)
        option = options.for_get(query) if info.verb == "get" else options.for_list(query)
        try:
            body = await self._ask(caller, _target(info), info.verb, option)
        except (Unavailable, ApiError) as error:
            # a cluster without a metrics-server says that there is no such group, or that nobody answers for it
            if self.measures is None or (isinstance(error, ApiError) and error.code not in (404, 503)):
                raise
            wanted = _filter(measured.source(gvr), info, query)
            found, _ = await self._mirror.select(wanted)
            kept = [item for item in found if not info.name or item.name == info.name]
            items = measured.items(gvr, kept, *await self.measures.read())
            if info.verb == "get" and not items:
                raise status.not_found(info) from error
            body = measured.list_body(gvr, items) if info.verb == "list" else msgspec.json.encode(items[0])
        if not rows:
            return Answer(body=body)
        values = measured.rows(body) if info.verb == "list" else [body]
        return Answer(body=table.table(gvr, values, version=0, now=self._wall(), include=rows))

    async def _log(self, logs: Logs, held: Held, info: Info, query: Query) -> Answer:
        try:
            pieces = await logs.read(info.namespace, info.name, held.uid, query)
        except NotFound as error:
            raise ApiError(404, "NotFound", str(error), details={}) from error
        except Refused as error:
            raise status.bad_request(str(error)) from error
        return Answer(stream=_Stream(_begun(pieces)), content_type="text/plain; charset=utf-8")

    async def _open(self, asked: Request, info: Info) -> Answer:
        """exec, attach or port-forward of a pod here: nothing of it goes through the cloud."""
        if "upgrade" not in asked.headers:
            raise status.bad_request("Upgrade request required")
        held = await self._store.held_one("pod", info.namespace, info.name)
        if held is None or self.streams is None:
            text = f'pod "{info.name}" does not run on this node: {info.subresource} of it needs the API of the cloud'
            raise ApiError(404, "NotFound", text, details={})
        query = parse_qsl(asked.target.partition("?")[2], keep_blank_values=True)
        try:
            pipe = await self.streams.open(
                info.subresource,
                info.namespace,
                info.name,
                held.uid,
                query,
                asked.method,
                asked.fields,
            )
        except NotFound as error:
            raise ApiError(404, "NotFound", str(error), details={}) from error
        except Refused as error:
            if error.reason == "Forbidden":
                raise ApiError(403, "Forbidden", str(error), details={}) from error
            raise status.bad_request(str(error)) from error
        except Unavailable as error:
            raise status.internal(str(error)) from error
        if pipe.status == 101:
            return Answer(code=101, pipe=pipe)
        pipe.close()
        raise ApiError(
            pipe.status, "BadRequest", pipe.text.decode("utf-8", "replace").strip()[:512], details={}
        )

    async def _shape(self, caller: Caller, gvr: Gvr, value: bytes, rows: str, *, head: bool = True) -> bytes:
        """One object, or its row.  Raises ProtocolError."""
        found = objects.read(value, gvr) if rows else None
        if found is None:
            return value
        custom = await self._columns.of(gvr, caller.account)
        now = self._wall()
        return table.table(
            gvr, [found.value], version=found.version, now=now, include=rows, head=head, custom=custom
        )

    async def _list(self, caller: Caller, info: Info, query: Query, rows: str) -> Answer:
        gvr = Gvr(info.group, info.version, info.resource)
        wanted = _filter(gvr, info, query)
        options.check_list(query, watch=False)
        asked = options.for_list(query)
        async with self._listing:
            return await self._made_list(caller, info, wanted, query, asked, rows)

    async def _made_list(
        self, caller: Caller, info: Info, wanted: Filter, query: Query, asked: bytes, rows: str
    ) -> Answer:
        gvr = wanted.gvr
        target = Target(
            group=info.group, version=info.version, resource=info.resource, namespace=info.namespace
        )
        try:
            body = await self._ask(caller, target, Verb.LIST, asked)
        except Unavailable:
            here = await self._page(wanted, query)
            if rows:
                return await self._table(caller, gvr, here, rows)
            pieces = objects.list_body(gvr, here)
            if len(here.objects) <= SMALL:
                return Answer(body=b"".join(pieces))
            return Answer(stream=_Stream(self._pieces(pieces)))
        page = objects.read_list(body, gvr)
        whole = not page.more and not query.get("continue")
        try:
            await self._mirror.learn(gvr, page.objects, within=wanted if whole else None)
        except Unavailable as error:
            log.warning("Cannot keep the list of %s for later: %s", gvr, error)
        else:
            self._mirror.told(page.version)
        return await self._table(caller, gvr, page, rows) if rows else Answer(body=body)

    async def _page(self, wanted: Filter, query: Query) -> Page:
        """What is here, or a part of it.  Raises ApiError 410: a list that was begun cannot be gone on with."""
        found, version = await self._mirror.select(wanted)
        options.check_held(query, version)
        # "anything will do" is answered whole, as by an API server's cache
        limit = (
            0 if query.get("resourceVersion") == "0" else max(0, options.read_integer(query, "limit") or 0)
        )
        try:
            return objects.page(
                found,
                version,
                state=self._mirror.history.seq,
                limit=limit,
                token=query.get("continue", ""),
            )
        except ProtocolError as error:
            raise ApiError(410, "Expired", f"The provided continue parameter is too old: {error}") from error

    async def _table(self, caller: Caller, gvr: Gvr, page: Page, rows: str) -> Answer:
        custom = await self._columns.of(gvr, caller.account)
        values = (item.value for item in page.objects)
        now = self._wall()
        made = table.table(
            gvr, values, version=page.version, now=now, more=page.more, include=rows, custom=custom
        )
        return Answer(body=made)

    async def _pieces(self, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
        """A list on its way counts as one that is made, until its client has read it."""
        yield b""  # from here on the finally runs whatever happens
        async with self._listing:
            for piece in pieces:
                yield piece

    async def _ask(
        self, caller: Caller, target: Target, verb: str, option: bytes, *, subresource: str = ""
    ) -> bytes:
        """Raises ApiError; Unavailable also when the cloud will not tell the node: its owner sees what is here all the same."""
        try:
            return await self._remote.ask(
                target, verb, option=option, subresource=subresource, account=caller.account
            )
        except ApiError as error:
            if caller.owner and error.code == 403:
                raise Unavailable(error.message) from error
            raise

    async def _learn(self, gvr: Gvr, body: bytes) -> None:
        found = objects.read(body, gvr)
        if found is None:
            return
        try:
            await self._mirror.learn(gvr, [found])
        except Unavailable as error:
            log.warning("Cannot keep an object of %s for later: %s", gvr, error)

    async def _forget(self, gvr: Gvr, info: Info) -> None:
        try:
            await self._mirror.forget(gvr, _where(info), info.name)
        except Unavailable as error:
            log.warning("Cannot forget an object of %s: %s", gvr, error)

    # -- watching ------------------------------------------------------------------------------------------------

    async def _watch(self, caller: Caller, info: Info, query: Query, rows: str) -> Answer:
        gvr = Gvr(info.group, info.version, info.resource)
        wanted = _filter(gvr, info, query)
        options.check_list(query, watch=True)
        version = options.read_version(query)
        seconds = options.read_integer(query, "timeoutSeconds") or self._rng.randint(*WATCH_S)
        name = caller.user.name
        if self._watching.total() >= MAX_WATCHES or self._watching[name] >= MAX_WATCHES_PER_CALLER:
            raise status.too_many("too many watches are open on this node")
        scope = self._remote.follow(wanted, caller.account)
        self._watching[name] += 1
        try:
            if version is None and self._remote.online and not scope.ready.is_set():
                await _at_most(scope.ready, FIRST_S)
            initial = request.flag(query, "sendInitialEvents")
            watch = await self._mirror.watch(wanted, None if initial else version, initial=initial)
        except TooOld as error:
            self._end(name, scope)
            line = objects.event("ERROR", status.expired(str(version), error.oldest).body())
            return Answer(body=line)
        except BaseException:
            self._end(name, scope)
            raise
        marks = request.flag(query, "allowWatchBookmarks")
        lines: AsyncIterator[bytes] = _Stream(self._events(watch, scope, name, float(seconds), marks=marks))
        return Answer(stream=_Stream(self._rows(caller, gvr, lines, rows)) if rows else lines)

    async def _rows(
        self, caller: Caller, gvr: Gvr, lines: AsyncIterator[bytes], rows: str
    ) -> AsyncIterator[bytes]:
        """Events whose objects are tables of one row; the first has the columns."""
        head = True
        try:
            yield b""  # from here on the finally runs whatever happens
            async for line in lines:
                event = msgspec.json.decode(line, type=_Event)
                if event.type in ("ADDED", "MODIFIED", "DELETED"):
                    shown = await self._shape(caller, gvr, bytes(event.object), rows, head=head)
                    line = objects.event(event.type, shown)
                    head = False
                yield line
        finally:
            close = getattr(lines, "aclose", None)
            if close is not None:
                await close()

    async def _events(
        self, watch: Watch, scope: Scope, name: str, seconds: float, *, marks: bool
    ) -> AsyncIterator[bytes]:
        ends = self._monotonic() + seconds
        try:
            yield b""  # from here on the finally runs whatever happens
            while (left := ends - self._monotonic()) > 0:
                try:
                    async with asyncio.timeout(min(left, BOOKMARK_S)):
                        line = await watch.queue.get()
                except TimeoutError:
                    if marks and not watch.closed:
                        yield self._mirror.bookmark(watch.filter.gvr)
                    continue
                if line is None:
                    return
                yield line
        finally:
            self._mirror.unwatch(watch)
            self._end(name, scope)

    def _end(self, name: str, scope: Scope) -> None:
        self._remote.unfollow(scope)
        self._watching[name] -= 1
        if not self._watching[name]:
            del self._watching[name]

    # -- writing -------------------------------------------------------------------------------------------------

    async def _write(self, asked: Request, caller: Caller, info: Info, query: Query) -> Answer:
        if reviews.is_one(info):
            answer = await reviews.answer(self._access, caller, info, _as_json(asked.body))
            return Answer(code=201, body=answer)
        form = asked.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if not self._remote.online or self._offline.waits(info):
            code, answer = await self._offline.take(info, query, form, _as_json(asked.body), caller.account)
            return Answer(code=code, body=answer, headers={"warning": _WAITS if code == 202 else _TRIED})
        gvr = Gvr(info.group, info.version, info.resource)
        verb, subresource, body, code = info.verb, info.subresource, None, 200
        if verb == "patch":
            option = options.for_patch(info, query, form, asked.body)
            subresource = ""
        elif verb == "delete":
            option = options.for_delete(query, asked.body)
        else:
            body = _object(form, asked.body)
            kind = "CreateOptions" if verb == "create" else "UpdateOptions"
            option = options.for_write(query, kind)
            if verb == "create":
                code = 201
            else:
                verb, subresource = options.update_verb(info)
        answer = await self._remote.ask(
            _target(info), verb, option=option, body=body, subresource=subresource, account=caller.account
        )
        if not info.subresource and not query.get("dryRun"):
            await self._after(gvr, info, answer)
        if not answer:
            answer = b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}'
        return Answer(code=code, body=answer)

    async def _after(self, gvr: Gvr, info: Info, answer: bytes) -> None:
        """Keep what a write made of an object that is kept."""
        if info.verb != "delete":
            if answer and objects.is_named(answer):
                await self._learn(gvr, answer)
            return
        try:
            found = msgspec.json.decode(answer or b"{}", type=_DeleteAnswer)
        except UNREADABLE as error:
            raise ProtocolError(f"cannot read the answer to a delete: {error}") from error
        if found.kind in ("", "Status"):
            if not answer or found.metadata.finalizers is None:
                await self._forget(gvr, info)
        elif not found.metadata.finalizers and found.metadata.deletion_timestamp is None:
            await self._forget(gvr, info)


class _Stream:
    """An async generator whose `finally` runs even when nobody ever read from it."""

    def __init__(self, inner: AsyncIterator[bytes]) -> None:
        self._inner = inner
        self._begun = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._begun:
            self._begun = True
            await anext(self._inner)
        return await anext(self._inner)

    async def aclose(self) -> None:
        if not self._begun:
            self._begun = True
            await anext(self._inner)
        close = getattr(self._inner, "aclose", None)
        if close is not None:
            await close()


async def _begun(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        yield b""  # from here on the finally runs whatever happens
        async for piece in pieces:
            yield piece
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


async def _at_most(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        log.debug("! the cloud's state is not here yet: the store's is shown")


def _target(info: Info) -> Target:
    return Target(
        group=info.group,
        version=info.version,
        resource=info.resource,
        namespace=_where(info),
        name=info.name,
    )


def _where(info: Info) -> str:
    """The namespace of the object: a Namespace itself has none, though its path seems to say so."""
    return "" if info.resource == "namespaces" and not info.group else info.namespace


def _filter(gvr: Gvr, info: Info, query: Query) -> Filter:
    return Filter.parse(gvr, info.namespace, query.get("labelSelector", ""), query.get("fieldSelector", ""))


def _as_json(body: bytes) -> bytes:
    """What typed Go clients send as protobuf is read here as JSON.  Raises ApiError 400."""
    if not body.startswith(application.PROTOBUF_MARK):
        return body
    from beehive import protobuf  # its table is 1 MB, and most clients send JSON

    try:
        return msgspec.json.encode(protobuf.decode(body))
    except protobuf.BadProtobuf as error:
        raise status.bad_request(f"the object provided is unrecognized: {error}") from error


def _object(form: str, body: bytes) -> bytes:
    """A body that can be passed on: JSON, or protobuf, of which only the mark is looked at.  Raises ApiError 400, 415."""
    if form == application.PROTOBUF and body.startswith(application.PROTOBUF_MARK):
        return body
    if form not in ("application/json", "*/*", ""):
        raise status.unsupported_media_type(f"application/json, {application.PROTOBUF}")
    try:
        msgspec.json.decode(body, type=_Kind)
    except UNREADABLE as error:
        raise status.bad_request(
            f"the object provided is unrecognized: couldn't get version/kind; json parse error: {error}"
        ) from error
    return body


def _check_accept(accept: str) -> None:
    """Raises ApiError 406: only JSON is spoken here.  A client that would like a table first gets the plain object."""
    forms = [part.split(";")[0].strip().lower() for part in accept.split(",")]
    if accept and not {"application/json", "application/*", "*/*", "text/plain"} & set(forms):
        raise status.not_acceptable()
