"""Asks the API for edges' applications, and watches it for them.

Theory of operation.  An Application is done in the name of whom the edge asks for: a service account, if a pod of that
account is bound to the node, else the node.  The API server judges, as it would if that pod asked itself; public paths are read
as cloudcore.  Answers go back beside the pushes.

A watch becomes a *listener* of its node.  Listeners for the same user and selection, of any number of nodes, share one
*feed*: one watch at the API.  A feed keeps its last events, so that a listener can begin at the version that its edge has
listed; one that is too old is refused with 410 and the edge lists again.  A stock edge gets everything that there is
first, as from KubeEdge's hub.  What a listener sends goes through the node's delivery: newest wins, acknowledged.
Listeners of our edges end with their link, since such an edge tells again what it watches; those of stock edges stay until
they are taken back.

Source: protocol notes on the hub, 6.9."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from beehive import application, clock, kinds
from beehive.application import Application, Options, Target, Verb
from beehive.backoff import Backoff
from beehive.codec import MAX_FRAME_BYTES
from beehive.delivery import Item
from beehive.errors import ProtocolError, Unavailable
from beehive.message import Group, Message, Op, Source, new
from beehive.rbac import User
from beehive.resource import make
from cloudcore.cloudhub.dispatch import LATER, Outcome
from cloudcore.cloudhub.nodes import Link, Nodes
from cloudcore.dynamiccontroller import calls, endpoints
from cloudcore.dynamiccontroller.rights import Name
from cloudcore.errors import ApiError, ApiGone, ApiNotFound, Status
from cloudcore.kube import Kube, WatchEvent
from cloudcore.objects import NODE, Kind, Object, number

log = logging.getLogger(__name__)

MAX_ASKING = 48
"""Requests of one node that are worked on or wait; more are refused.  An edge of ours has 16 on their way at most."""
AT_ONCE = 6
"""... of all nodes together: below the threads that the door to the API has, so that others get through."""
MAX_LISTENERS = 64
"""Of one node."""
MAX_FEEDS = 256
"""Each is a connection to the API and a thread."""
SWEEP_S = 60.0
"""A listener of ours whose node is away for one to two of these is over."""
MAX_PAST = 256
MAX_PAST_BYTES = 1024 * 1024
MAX_ANSWER = MAX_FRAME_BYTES * 3 // 4 - 64 * 1024
"""An answer travels as base64 within one frame."""
SERVICE_S = 30.0
"""How long what is known of a service's topology counts."""


class Accounts(Protocol):
    """Whose pods run where."""

    def accounts(self, node: str) -> set[Name]: ...


@dataclass(frozen=True, slots=True)
class FeedKey:
    """What one watch at the API gives."""

    user: User
    target: Target
    labels: str
    fields: str


@dataclass(slots=True, eq=False)
class Listener:
    """What one Application of one node watches.  `keys`: what was offered to its link's delivery."""

    node: str
    app: Application
    stock: bool
    keys: set[str] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Feed:
    """One watch at the API, and who listens.  `past`: its last events, the oldest first; `floor`: before it nothing is
    known."""

    key: FeedKey
    kind: Kind
    floor: int
    version: str
    past: deque[WatchEvent] = field(default_factory=deque)
    past_bytes: int = 0
    listeners: dict[tuple[str, str], Listener] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None


class DynamicController:
    """`run` is a supervised part; `handle` is the part `dynamiccontroller` of the dispatcher."""

    name = "dynamiccontroller"

    def __init__(self, kube: Kube, nodes: Nodes, accounts: Accounts) -> None:
        self._kube = kube
        self._nodes = nodes
        self._accounts = accounts
        self._asking: Counter[str] = Counter()
        self._asked: asyncio.Queue[tuple[Link, Message]] = asyncio.Queue()  # bounded by MAX_ASKING a node
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._feeds: dict[FeedKey, Feed] = {}
        self._by_app: dict[tuple[str, str], Feed] = {}
        self._group: asyncio.TaskGroup | None = None
        self._rng = random.Random()
        self._topologies: dict[Name, tuple[float, bool]] = {}
        nodes.on_open.append(self._on_open)

    @property
    def feeds(self) -> int:
        """Watches open at the API."""
        return len(self._feeds)

    @property
    def listeners(self) -> int:
        return len(self._by_app)

    def _on_open(self, link: Link) -> None:
        """A new link: an edge of ours tells again what it watches, a stock one expects its listeners to go on."""
        for at in [at for at in self._by_app if at[0] == link.node]:
            listener = self._by_app[at].listeners[at]
            listener.keys.clear()
            self._unlisten(at)
            if listener.stock and self._group is not None:
                self._group.create_task(self._again(listener), name=f"again {link.node}")

    async def _again(self, listener: Listener) -> None:
        """Serve a stock edge's listener afresh, with everything that there is."""
        backoff = Backoff(base_s=1.0)
        while (link := self._nodes.get(listener.node)) is not None:
            try:
                await self._listen(link, listener.app, self._user(listener.node, listener.app))
            except Unavailable as error:
                await asyncio.sleep(max(error.retry_after_s or 0.0, backoff.next_s(self._rng)))
                continue
            except (ApiError, ProtocolError) as error:
                log.info("Cannot go on with a watch of node %s: %s", listener.node, error)
            return

    # -- requests ----------------------------------------------------------------------------------------------------

    async def handle(self, link: Link, message: Message) -> Outcome:
        """Takes the frame; the answer follows."""
        if self._asking[link.node] >= MAX_ASKING:
            raise Unavailable("too many requests of this node are on their way")
        self._asking[link.node] += 1
        self._asked.put_nowait((link, message))
        return LATER

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._sweep(), name="listeners")
            while True:
                link, message = await self._asked.get()
                group.create_task(self._answer(link, message), name=f"application {link.node}")

    async def _sweep(self) -> None:
        """End what is watched for nodes that are away: one of ours tells again, whatever hub it comes to."""
        away: set[tuple[str, str]] = set()
        while True:
            await asyncio.sleep(SWEEP_S)
            gone = {
                at
                for at, feed in self._by_app.items()
                if not feed.listeners[at].stock and self._nodes.get(at[0]) is None
            }
            for at in gone & away:
                self._unlisten(at)
            away = gone - away

    async def _answer(self, link: Link, message: Message) -> None:
        try:
            if message.route.resource == application.SYNC_RESOURCE:
                failed = await self._sync(link, message.decode(dict[str, Application]))
                self._reply(link, message, application.SYNC_RESOURCE, failed)
                return
            app = message.decode(Application)
            # who asks is the connection's node, whatever the frame says
            app = msgspec.structs.replace(app, node=link.node)
            self._reply(link, message, application.ANSWER_RESOURCE, await self._done(link, app))
        except ProtocolError as error:
            log.warning("Cannot read an Application of node %s: %s", link.node, str(error)[:256])
            link.ack(message.id)
        except Exception:
            # the boundary of work for one frame: a fault in it must not end the hub, nor come back for ever
            log.exception("Cannot answer an Application of node %s", link.node)
            link.ack(message.id)
        finally:
            self._asking[link.node] -= 1
            if not self._asking[link.node]:
                del self._asking[link.node]

    def _reply(self, link: Link, message: Message, where: str, content: object) -> None:
        link.reply(
            new(
                source=Source.DYNAMICCONTROLLER,
                group=Group.RESOURCE,
                operation=application.ANSWER_OP,
                resource=where,
                content=content,
                parent=message.id,
            )
        )

    async def _done(self, link: Link, app: Application) -> Application:
        """The Application with its outcome."""
        try:
            user = self._user(link.node, app)
            if app.verb == Verb.WATCH:
                await self._listen(link, app, user)
                return application.approved(app, None)
            answer = await self._call(link, app, user)
            if len(answer) > MAX_ANSWER:
                raise ApiError(
                    _status(413, "RequestEntityTooLarge", f"the answer has {len(answer)} bytes: use limit")
                )
            return application.approved(app, answer)
        except ApiError as error:
            return application.rejected(app, _complete(error.status))
        except ProtocolError as error:
            return application.rejected(app, _complete(_status(400, "BadRequest", str(error)[:512])))

    def _user(self, node: str, app: Application) -> User:
        """In whose name to ask.  Raises ApiError 403: no pod of that account is there."""
        account = app.service_account
        if not account:  # absent (a stock edge) or empty (the node itself)
            return User(name=f"system:node:{node}", groups=("system:nodes",))
        namespace, _, name = account.partition(":")
        if (namespace, name) not in self._accounts.accounts(node):
            log.warning("Node %s asked as account %s, of which it runs no pod", node, account[:128])
            raise ApiError(
                _status(403, "Forbidden", f'node "{node}" runs no pod of service account "{account[:256]}"')
            )
        # the API server adds a service account's groups by itself
        return User(name=f"system:serviceaccount:{namespace}:{name}")

    async def _call(self, link: Link, app: Application, user: User) -> bytes:
        call = calls.make(app)
        public = application.pass_through(app.key) is not None
        async with self._at_once:
            answer = await self._kube.request(
                call.method,
                call.path,
                query=call.query,
                body=call.body,
                content_type=call.content_type,
                timeout_s=application.TIMEOUT_S,
                user=None if public else user,
            )
        if public or app.verb not in (Verb.GET, Verb.LIST):
            return answer
        target = application.parse_key(app.key)
        if not endpoints.concerns(target):
            return answer
        return await self._seen(link.node, answer, stock=app.service_account is msgspec.UNSET)

    # -- endpoints ---------------------------------------------------------------------------------------------------

    async def _seen(self, node: str, body: bytes, *, stock: bool) -> bytes:
        """Endpoints as `node` should see them.  Raises ApiError."""
        found = msgspec.json.decode(body, type=dict[str, object])
        items = found.get("items")
        each = items if isinstance(items, list) else [found]
        services = {endpoints.service_of(item) for item in each if isinstance(item, dict)}
        narrowed = {service for service in services if await self._is_narrow(service)}
        members = await self._group_of(node) if narrowed else frozenset()
        return endpoints.rewrite(
            body, lambda namespace, name: members if (namespace, name) in narrowed else None, stock=stock
        )

    async def _is_narrow(self, service: Name) -> bool:
        known = self._topologies.get(service)
        now = clock.monotonic()
        if known is not None and now - known[0] < SERVICE_S:
            return known[1]
        path = f"/api/v1/namespaces/{service[0]}/services/{service[1]}"
        narrow = False
        try:
            body = await self._kube.request("GET", path)
        except ApiNotFound:
            pass  # endpoints of no service keep all their addresses
        else:
            found = msgspec.json.decode(body, type=_Annotated)
            annotations = found.metadata.annotations or {}
            narrow = annotations.get(endpoints.TOPOLOGY_ANNOTATION) == endpoints.TOPOLOGY_GROUP
        if len(self._topologies) > 4096:
            self._topologies.clear()
        self._topologies[service] = (now, narrow)
        return narrow

    async def _group_of(self, node: str) -> frozenset[str]:
        """The nodes of `node`'s group, or itself alone when it is in none."""
        own = await self._kube.get(NODE, node)
        group = (own.labels or {}).get(endpoints.GROUP_LABEL)
        if not group:
            return frozenset({node})
        page = await self._kube.list_all(NODE, query={"labelSelector": f"{endpoints.GROUP_LABEL}={group}"})
        return frozenset({item.name for item in page.objects} | {item.name for item in page.unread})

    # -- listeners ---------------------------------------------------------------------------------------------------

    async def _listen(self, link: Link, app: Application, user: User) -> None:
        """Begin to send what `app` watches; a listener of the same id is replaced.  Raises ApiError, ProtocolError."""
        target = application.parse_key(app.key)
        options = calls.options_of(app)
        self._unlisten((link.node, app.id))
        mine = sum(1 for node, _ in self._by_app if node == link.node)
        if mine >= MAX_LISTENERS or len(self._feeds) >= MAX_FEEDS:
            raise ApiError(_status(429, "TooManyRequests", "too many watches are open for this node"))
        key, wanted = _feed_key(user, target, options)
        stock = app.service_account is msgspec.UNSET
        listener = Listener(link.node, app, stock)
        if stock:
            await self._listen_stock(key, wanted, listener)
            return
        version = number(options.resource_version)
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._open(key, wanted, options.resource_version)
        if version < feed.floor:
            raise ApiGone(_status(410, "Expired", f"too old resource version: {version} ({feed.floor})"))
        self._add(feed, listener)
        for event in feed.past:
            if number(event.version) > version:
                await self._send(feed, listener, event)

    async def _listen_stock(self, key: FeedKey, wanted: Kind, listener: Listener) -> None:
        """Everything that there is, then what happens."""
        found, version = await self._list(key, wanted)
        feed = self._feeds.get(key) or self._open(key, wanted, version)
        self._add(feed, listener)
        for item in found:
            await self._send(feed, listener, WatchEvent("ADDED", item.version, item))
        for event in feed.past:
            await self._send(feed, listener, event)

    async def _list(self, key: FeedKey, kind: Kind) -> tuple[list[Object], str]:
        async with self._at_once:
            page = await self._kube.list_all(kind, key.target.namespace, query=_query(key), user=key.user)
        return page.objects, page.version

    def _open(self, key: FeedKey, kind: Kind, version: str) -> Feed:
        assert self._group is not None, "requests come only while this runs"
        feed = Feed(key, kind, number(version), version)
        self._feeds[key] = feed
        feed.task = self._group.create_task(self._follow(feed), name=f"feed {key.target.key}")
        return feed

    def _add(self, feed: Feed, listener: Listener) -> None:
        at = (listener.node, listener.app.id)
        feed.listeners[at] = listener
        self._by_app[at] = feed

    def _unlisten(self, at: tuple[str, str]) -> None:
        feed = self._by_app.pop(at, None)
        if feed is None:
            return
        listener = feed.listeners.pop(at)
        link = self._nodes.get(listener.node)
        if link is not None:
            for key in listener.keys:
                link.delivery.drop(key)
        if not feed.listeners:
            self._close(feed)

    def _close(self, feed: Feed) -> None:
        if self._feeds.get(feed.key) is feed:
            del self._feeds[feed.key]
        if feed.task is not None:
            feed.task.cancel()

    async def _follow(self, feed: Feed) -> None:
        backoff = Backoff()
        opened = False
        while True:
            try:
                if opened:
                    await self._check_back(feed)
                opened = True
                async for batch in self._kube.watch(
                    feed.kind,
                    feed.version,
                    feed.key.target.namespace,
                    query=_query(feed.key),
                    user=feed.key.user,
                ):
                    for event in batch:
                        await self._on_event(feed, event)
                    backoff.reset()
                await asyncio.sleep(0.5)
            except Unavailable as error:
                log.info("Cannot watch %s for edges: %s", feed.key.target.key, error)
                await asyncio.sleep(max(error.retry_after_s or 0.0, backoff.next_s(self._rng)))
            except ApiError as error:
                log.info("Watch of %s for edges is over: %s", feed.key.target.key, error)
                self._give_up(feed, error)
                return

    async def _check_back(self, feed: Feed) -> None:
        """Raises ApiGone: the API went back to an older state, and a watch from a version to come would be silent."""
        current = await self._kube.current_version(
            feed.kind, feed.key.target.namespace, query=_query(feed.key), user=feed.key.user
        )
        if number(current) < number(feed.version):
            raise ApiGone(_status(410, "Expired", f"the API went back from {feed.version} to {current}"))

    async def _on_event(self, feed: Feed, event: WatchEvent) -> None:
        if event.version:
            feed.version = event.version
        if event.object is None:
            return
        feed.past.append(event)
        feed.past_bytes += len(event.object.raw)
        while len(feed.past) > MAX_PAST or feed.past_bytes > MAX_PAST_BYTES:
            old = feed.past.popleft()
            assert old.object is not None, "bookmarks are not kept"
            feed.past_bytes -= len(old.object.raw)
            feed.floor = max(feed.floor, number(old.version))
        for listener in list(feed.listeners.values()):
            if not listener.stock and self._nodes.get(listener.node) is None:
                self._unlisten((listener.node, listener.app.id))
                continue
            await self._send(feed, listener, event)

    async def _send(self, feed: Feed, listener: Listener, event: WatchEvent) -> None:
        item = event.object
        link = self._nodes.get(listener.node)
        if item is None or link is None:
            return
        raw = item.raw
        if endpoints.concerns(feed.key.target):
            try:
                raw = await self._seen(listener.node, raw, stock=listener.stock)
            except (ApiError, ProtocolError) as error:
                log.info("Cannot judge the topology of %s/%s: %s", item.namespace, item.name, error)
                return
        gone = event.type == "DELETED"
        operation = Op.DELETE if gone else Op.INSERT if event.type == "ADDED" else Op.UPDATE
        wire = kinds.wire_kind(feed.key.target.resource)
        message = new(
            source=Source.DYNAMICCONTROLLER,
            group=Group.RESOURCE,
            operation=operation,
            resource=str(make(wire, item.name, item.namespace)),
            content=raw,
            version=event.version,
        )
        key = f"{listener.app.id[:16]}/{item.uid}"
        # what left a selection may come back under the same uid: then its end is a state like any other
        final = gone and not feed.key.labels and not feed.key.fields
        listener.keys.add(key)
        if final:
            listener.keys.discard(key)
        link.offer(Item(key=key, version=number(event.version), message=message, delete=final))

    def _give_up(self, feed: Feed, error: ApiError) -> None:
        """Tell our edges that they have to list again; a stock one cannot be told and is served afresh."""
        self._feeds.pop(feed.key, None)
        told: dict[str, dict[str, Application]] = {}
        for at, listener in feed.listeners.items():
            self._by_app.pop(at, None)
            if listener.stock:
                if isinstance(error, ApiGone) and self._group is not None:
                    self._group.create_task(self._again(listener), name=f"again {listener.node}")
                continue
            rejected = application.rejected(listener.app, _complete(error.status))
            told.setdefault(listener.node, {})[listener.app.id] = rejected
        for node, failed in told.items():
            link = self._nodes.get(node)
            if link is not None:
                link.reply(
                    new(
                        source=Source.DYNAMICCONTROLLER,
                        group=Group.RESOURCE,
                        operation=application.ANSWER_OP,
                        resource=application.SYNC_RESOURCE,
                        content=failed,
                    )
                )

    # -- sync --------------------------------------------------------------------------------------------------------

    async def _sync(self, link: Link, wanted: dict[str, Application]) -> dict[str, Application]:
        """Make the node's listeners those of `wanted`; returns the ones that cannot be."""
        if len(wanted) > MAX_LISTENERS:
            raise ProtocolError(f"{len(wanted)} watches are more than {MAX_LISTENERS}")
        for at in [at for at in self._by_app if at[0] == link.node and at[1] not in wanted]:
            self._unlisten(at)
        failed: dict[str, Application] = {}
        for app_id, app in wanted.items():
            if (link.node, app_id) in self._by_app:
                continue
            app = msgspec.structs.replace(app, id=app_id, node=link.node)
            done = await self._done(link, app)
            if done.status != application.State.APPROVED:
                failed[app_id] = done
        return failed


class _Annotations(msgspec.Struct, frozen=True, kw_only=True):
    annotations: dict[str, str] | None = None


class _Annotated(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _Annotations = _Annotations()


def _feed_key(user: User, target: Target, options: Options) -> tuple[FeedKey, Kind]:
    kind = Kind(kinds.kind_name(target.group, target.resource), target.resource, target.group, target.version)
    fields = options.field_selector
    if target.name and "metadata.name" not in fields:
        fields = f"metadata.name={target.name}" + (f",{fields}" if fields else "")
    whole = Target(
        group=target.group, version=target.version, resource=target.resource, namespace=target.namespace
    )
    return FeedKey(user, whole, options.label_selector, fields), kind


def _query(key: FeedKey) -> dict[str, str]:
    found = {"labelSelector": key.labels, "fieldSelector": key.fields}
    return {name: value for name, value in found.items() if value}


def _status(code: int, reason: str, message: str) -> Status:
    return Status(code=code, reason=reason, message=message)


def _complete(status: Status) -> bytes:
    """With the members that make it an object, which a stock edge and its clients expect."""
    found = msgspec.to_builtins(status) | {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
    if found.get("details") is None:
        found.pop("details", None)
    return msgspec.json.encode(found)
