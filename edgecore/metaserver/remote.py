"""Ask the Kubernetes API through the hub, and follow what is watched.

Theory of operation.  A request is an Application and its answer.  A *scope* is what one account watches: a resource, a
namespace, selectors.  All local watches of one scope share it, and it stays a minute after the last, since clients close
and open.  While the link is there a scope is listed, so that what was missed shows as a difference, and then watched from
that list's version; the hub pushes what changes.  After each reconnect, when the hub gives a scope up, and now and then
for safety, it is listed again. The hub is told the set of scopes after each change, so that it keeps no listener that
nobody needs.

Source: protocol notes on the hub, 6.9."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from beehive import application, kinds
from beehive.application import Application, State, Target, Verb
from beehive.backoff import Backoff
from beehive.errors import NotFound, ProtocolError, SkerryError, Unavailable
from beehive.message import Message, Op, Source, new
from edgecore.metaserver import objects, status
from edgecore.metaserver.mirror import Mirror
from edgecore.metaserver.objects import Filter, Gvr, Object
from edgecore.metaserver.ports import Cloud
from edgecore.metaserver.status import ApiError

log = logging.getLogger(__name__)

MAX_ASKING = 16
"""Requests on their way at once; more wait."""
MAX_SCOPES = 64
LINGER_S = 60.0
RESYNC_S = 6 * 3600.0
"""A scope that heard nothing wrong is listed again after this, for safety only: pushes are acknowledged, and each new link
lists. More often would cost an idle node its budget of traffic."""
REFUSED_S = 60.0
MAX_PUSHES = 256
MAX_BATCH = 64


class _Pushed(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    api_version: str = ""
    kind: str = ""


@dataclass(slots=True, eq=False)
class Scope:
    """See the module.  `ready` is set once the state is the cloud's."""

    filter: Filter
    account: str
    users: int = 0
    last_used: float = 0.0
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    again: asyncio.Event = field(default_factory=asyncio.Event)
    application: Application | None = None
    failed: ApiError | None = None
    task: asyncio.Task[None] | None = None

    @property
    def target(self) -> Target:
        gvr = self.filter.gvr
        return Target(
            group=gvr.group, version=gvr.version, resource=gvr.plural, namespace=self.filter.namespace
        )


_ScopeKey = tuple[Gvr, str, str, str, str]


class Remote:
    """See the module.  `run` beside it; `pushed` is the handler for frames of the hub's dynamiccontroller."""

    def __init__(self, cloud: Cloud, mirror: Mirror, node: str, *, monotonic: Callable[[], float]) -> None:
        self._cloud = cloud
        self._mirror = mirror
        self._node = node
        self._monotonic = monotonic
        self._asking = asyncio.Semaphore(MAX_ASKING)
        self._scopes: dict[_ScopeKey, Scope] = {}
        self._pushes: asyncio.Queue[Message] = asyncio.Queue(MAX_PUSHES)
        self._changed = asyncio.Event()
        self._new: asyncio.Queue[Scope] = asyncio.Queue()
        self._rng = random.Random()
        self.on_connected: list[Callable[[], Awaitable[None]]] = []
        """Called in turn after the link has come."""
        self._came = asyncio.Event()
        cloud.on_connected(self._connected)

    @property
    def online(self) -> bool:
        return self._cloud.online

    @property
    def scopes(self) -> int:
        return len(self._scopes)

    def _connected(self) -> None:
        self._came.set()
        self._changed.set()
        for scope in self._scopes.values():
            scope.again.set()

    async def run(self) -> None:
        """Never returns.  After a fault it may be called again."""
        for scope in self._scopes.values():
            if scope.task is not None:
                scope.task = None
                self._new.put_nowait(scope)
        self._changed.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._apply_forever(), name="metaserver-pushes")
            group.create_task(self._tell_forever(), name="metaserver-sync")
            group.create_task(self._greet_forever(), name="metaserver-greet")
            while True:
                scope = await self._new.get()
                scope.task = group.create_task(self._follow(scope), name=f"metaserver {scope.filter.gvr}")

    async def _greet_forever(self) -> None:
        while True:
            await self._came.wait()
            self._came.clear()
            for greet in self.on_connected:
                try:
                    await greet()
                except SkerryError as error:
                    log.info("After the link came: %s", error)

    # -- asking --------------------------------------------------------------------------------------------------

    async def ask(
        self,
        target: Target | str,
        verb: str,
        *,
        option: bytes = b"{}",
        body: bytes | None = None,
        subresource: str = "",
        account: str = "",
    ) -> bytes:
        """The body of the API's answer, perhaps empty.  `target`: or a path to pass through.

        Raises ApiError: what the API server, or the hub in its name, answered.  Unavailable: the cloud cannot be asked."""
        request = application.make(
            node=self._node,
            key=target if isinstance(target, str) else target.key,
            verb=verb,
            option=option,
            body=body,
            subresource=subresource,
            service_account=account,
        )
        return await self._apply(request)

    async def fetch(self, path: str) -> bytes:
        """Pass a path through as the node.  Raises ApiError, Unavailable."""
        if application.is_ours(path) and self._cloud.online and not self._cloud.ours:
            raise Unavailable(f"this hub does not pass {path}")
        return await self.ask(path, Verb.GET)

    async def _apply(self, request: Application) -> bytes:
        if not self._cloud.online:
            raise Unavailable("the cloud cannot be reached from this node now")
        async with self._asking:
            answer = await self._cloud.request(
                _message(application.NULL, request), timeout_s=application.TIMEOUT_S
            )
        if answer.route.operation == Op.ERROR:
            raise Unavailable(f"the hub could not pass the request on: {answer.text()[:256]}")
        found = answer.decode(Application)
        if found.status == State.APPROVED:
            return found.answer or b""
        raise status.relayed(bytes(found.error.status), found.reason)

    # -- following -----------------------------------------------------------------------------------------------

    def follow(self, wanted: Filter, account: str) -> Scope:
        """Keep what `wanted` selects fresh from now on.  Raises Unavailable: too many scopes."""
        key = (wanted.gvr, wanted.namespace, wanted.raw_labels, wanted.raw_fields, account)
        scope = self._scopes.get(key)
        if scope is None:
            if len(self._scopes) >= MAX_SCOPES and not self._drop_idle():
                raise Unavailable(f"{MAX_SCOPES} different things are watched on this node already")
            scope = self._scopes[key] = Scope(wanted, account)
            self._new.put_nowait(scope)
        scope.users += 1
        return scope

    def unfollow(self, scope: Scope) -> None:
        scope.users -= 1
        scope.last_used = self._monotonic()

    def _drop_idle(self) -> bool:
        idle = min(
            (item for item in self._scopes.items() if item[1].users == 0),
            key=lambda item: item[1].last_used,
            default=None,
        )
        if idle is None or idle[1].task is None:
            return False
        self._drop(idle[0])
        return True

    def _drop(self, key: _ScopeKey) -> None:
        scope = self._scopes.pop(key)
        if scope.task is not None:
            scope.task.cancel()
        self._changed.set()

    async def _follow(self, scope: Scope) -> None:
        backoff = Backoff()
        while True:
            scope.again.clear()
            pause = RESYNC_S
            if self._cloud.online:
                try:
                    await self._sync(scope)
                    scope.ready.set()
                    backoff.reset()
                except ApiError as error:
                    scope.failed = error
                    scope.ready.set()
                    pause = REFUSED_S if error.code != 410 else backoff.next_s(self._rng)
                    log.info("Cannot follow %s: %s", scope.filter.gvr, error)
                except (Unavailable, ProtocolError) as error:
                    pause = backoff.next_s(self._rng)
                    log.debug("! cannot follow %s: %s", scope.filter.gvr, error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await scope.again.wait()

    async def _sync(self, scope: Scope) -> None:
        """List, learn, watch from there.  Raises ApiError, Unavailable, ProtocolError."""
        wanted = scope.filter
        selection = {"labelSelector": wanted.raw_labels, "fieldSelector": wanted.raw_fields}
        selection = {key: value for key, value in selection.items() if value}
        body = await self.ask(
            scope.target, Verb.LIST, option=msgspec.json.encode(selection), account=scope.account
        )
        page = objects.read_list(body, wanted.gvr)
        await self._mirror.learn(wanted.gvr, page.objects, within=wanted)
        self._mirror.told(page.version)
        # one id for one scope, whatever version it starts from: a second replaces the first at the hub
        request = application.make(
            node=self._node,
            key=scope.target.key,
            verb=Verb.WATCH,
            option=msgspec.json.encode(selection | {"watch": True}),
            service_account=scope.account,
        )
        option = msgspec.json.encode(selection | {"watch": True, "resourceVersion": str(page.version)})
        request = msgspec.structs.replace(request, option=option)
        await self._apply(request)
        scope.failed = None
        if scope.application is None or scope.application.id != request.id:
            self._changed.set()
        scope.application = request

    async def _tell_forever(self) -> None:
        """Say which scopes there are, a little after each change and connection; drop those that nobody uses."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S / 2):
                    await self._changed.wait()
            now = self._monotonic()
            for key, scope in list(self._scopes.items()):
                if scope.users == 0 and scope.task is not None and now - scope.last_used > LINGER_S:
                    self._drop(key)
            if not self._changed.is_set():
                continue
            await asyncio.sleep(1.0)
            self._changed.clear()
            if not self._cloud.online:
                continue
            try:
                await self._tell()
            except Unavailable as error:
                log.debug("! the hub did not hear what is watched: %s", error)
                self._changed.set()
                await asyncio.sleep(5.0)
            except ProtocolError as error:
                log.info("The hub's answer about what is watched cannot be read: %s", error)

    async def _tell(self) -> None:
        kept = {
            scope.application.id: scope.application
            for scope in self._scopes.values()
            if scope.application is not None
        }
        answer = await self._cloud.request(
            _message(application.SYNC_RESOURCE, kept), timeout_s=application.TIMEOUT_S
        )
        if answer.route.operation != Op.ERROR:
            self._given_up(answer)

    def _given_up(self, message: Message) -> None:
        """The hub names the scopes that it cannot follow any more."""
        failed = message.decode(dict[str, Application])
        for scope in self._scopes.values():
            if scope.application is not None and scope.application.id in failed:
                scope.application = None
                scope.again.set()

    # -- what the hub pushes -------------------------------------------------------------------------------------

    async def pushed(self, message: Message) -> None:
        """Take a frame of the dynamiccontroller; waits while too many are not stored yet."""
        await self._pushes.put(message)

    async def _apply_forever(self) -> None:
        while True:
            batch = [await self._pushes.get()]
            while len(batch) < MAX_BATCH and not self._pushes.empty():
                batch.append(self._pushes.get_nowait())
            self._cloud.acknowledge(await self._apply_batch(batch))

    async def _apply_batch(self, batch: list[Message]) -> list[Message]:
        """The frames that are committed.  Neighbours of one resource share a commit."""
        done: list[Message] = []
        for gvr, neighbours in itertools.groupby(self._read(batch), key=lambda item: item[1]):
            items = [(message, found) for message, _, found in neighbours]
            try:
                if gvr is not None:
                    await self._keep(gvr, items)
            except Unavailable as error:
                # not acknowledged: the hub sends it again
                log.warning("Cannot keep what the cloud pushed: %s", error)
            else:
                done += [message for message, _ in items]
        return done

    def _read(self, batch: list[Message]) -> Iterator[tuple[Message, Gvr | None, Object | None]]:
        for message in batch:
            operation = message.route.operation
            try:
                if operation == application.ANSWER_OP:
                    if message.route.resource == application.SYNC_RESOURCE:
                        self._given_up(message)
                    continue
                if operation not in (Op.INSERT, Op.UPDATE, Op.DELETE):
                    raise ProtocolError(
                        f"operation {operation!r} on {message.route.resource[:256]} is not known here"
                    )
                gvr = self._gvr(message)
                found = objects.read(bytes(message.content), gvr) if gvr is not None else None
            except ProtocolError as error:
                log.warning("Refused from the cloud: %s", str(error)[:256])
                self._cloud.refuse(message, error)
                continue
            # without a gvr it is of a scope that is gone meanwhile: taken, for nobody wants it again
            yield message, gvr, found

    async def _keep(self, gvr: Gvr, items: list[tuple[Message, Object | None]]) -> None:
        fresh: list[Object] = []
        for message, found in items:
            if found is None:
                continue
            if message.route.operation != Op.DELETE:
                fresh.append(found)
                continue
            await self._mirror.learn(gvr, fresh)
            fresh = []
            current = await self._check_gone(gvr, found)
            if current is None:
                await self._mirror.forget(gvr, found.namespace, found.name, found.uid, found.value)
            else:
                fresh.append(current)
        await self._mirror.learn(gvr, fresh)

    async def _check_gone(self, gvr: Gvr, found: Object) -> Object | None:
        """An object that leaves one scope's selection is deleted there, but perhaps not from the others: ask.

        None when it is gone, or nobody can tell."""
        scopes = [scope for scope in self._scopes.values() if scope.filter.gvr == gvr]
        narrow = next((scope for scope in scopes if scope.filter.narrow), None)
        if narrow is None or len(scopes) < 2:
            return None
        target = Target(
            group=gvr.group,
            version=gvr.version,
            resource=gvr.plural,
            namespace=found.namespace,
            name=found.name,
        )
        with contextlib.suppress(Unavailable, ApiError, NotFound):
            body = await self.ask(target, Verb.GET, account=narrow.account)
            return objects.read(body, gvr)
        return None

    def _gvr(self, message: Message) -> Gvr | None:
        found = message.decode(_Pushed)
        parts = message.route.resource.split("/")
        wire = parts[1] if len(parts) == 3 else ""
        for scope in self._scopes.values():
            gvr = scope.filter.gvr
            if wire in gvr.wires and found.api_version in ("", gvr.api_version):
                return gvr
        row = kinds.by_wire(wire)
        if row is not None and found.api_version in ("", row.api_version):
            return Gvr(row.group, row.version, row.plural)
        return None


def _message(where: str, content: object) -> Message:
    return new(
        source=Source.METASERVER,
        group=Source.DYNAMICCONTROLLER,
        operation=application.NULL,
        resource=where,
        content=content,
    )
