"""Between the link, the store and the parts of the node: what comes is kept and handed on, what goes up waits here.

What comes down `applying` stores, acknowledges and hands on; whether that is all, `agreement` finds out with the hub.  Going
up, reports lie in `outbox`, whose copy on the disk `saver` keeps as their kind demands; questions wait in `asking`.

It is the `Objects` and `Reports` of edged, the `Uplink` of devicetwin, and the `Peer` of the link."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from beehive import clock, resource
from beehive.errors import Conflict, NotFound, SkerryError, Unavailable
from beehive.message import Group, Inventory, Message, Op, Source, new
from edgecore.edgehub.session import Session
from edgecore.errors import Incomplete
from edgecore.metamanager import answers, ondemand, outbox, refusals, reports
from edgecore.metamanager.agreement import Agreement
from edgecore.metamanager.applying import STORE_PART, Applying, apply_one
from edgecore.metamanager.asking import QUERY_S, Asking
from edgecore.metamanager.line import Down, Line
from edgecore.metamanager.outbox import Outbox
from edgecore.metamanager.podtokens import PodTokens
from edgecore.metamanager.rows import PartState
from edgecore.metamanager.saver import Saver, now_ms
from edgecore.metamanager.store import Store
from edgecore.metamanager.trouble import DiskTrouble

log = logging.getLogger(__name__)

LAST_S = 2.0
"""How long a stop may take for what was not yet written."""

_DELIVERED_EVENTS = 2000


class MetaManager:
    """Made before the link exists; `bind` gives it the link, `on_change` and `handlers` the parts.

    on_change, handlers: see Applying.
    on_connected: told of a new session; must not block.   greetings: run in each new session, one after the other."""

    def __init__(self, store: Store, node: str, *, query_s: float = QUERY_S) -> None:
        self.store = store
        self.node = node
        self.outbox = Outbox()
        self.report_events = True
        """Whether events of pods and of the node go to the cloud."""
        self.away_since: float | None = None
        """Monotonic seconds when the link was lost, while `connected` is told; None: it was not there before."""
        self.linked_since = 0.0
        self.on_connected: list[Callable[[Session], None]] = []
        self.greetings: list[Callable[[], Awaitable[None]]] = []
        self._line = Line(node)
        trouble = DiskTrouble()
        self._saver = Saver(store, self.outbox, self._line, trouble)
        self._applying = Applying(store, self._line, trouble)
        self.on_change = self._applying.on_change
        self.handlers = self._applying.handlers
        self._agreement = Agreement(store, self._line, self._applying)
        self._asking = Asking(self._line, query_s)
        self.tokens = PodTokens(store, self.ask)
        self._delivered: OrderedDict[str, None] = OrderedDict()
        self._greet = asyncio.Event()

    def bind(self, link: Down) -> None:
        self._line.bind(link)

    def corner(self, part: str) -> PartState:
        """Where a part of the node keeps what it wants to find again."""
        return PartState(self.store, self._saver, part)

    async def load(self) -> None:
        """Take over what an earlier process left.  Call once, before anything else."""
        await self._saver.load()

    async def run(self) -> None:
        """Store, acknowledge and hand on; keep the outbox on disk.  Never returns."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._applying.run(), name="meta-apply")
                group.create_task(self._saver.run(), name="meta-save")
                group.create_task(self._agreement.confirm(), name="meta-confirm")
                group.create_task(self._greet_forever(), name="meta-greet")
                group.create_task(self._agreement.digest(), name="meta-digest")
                group.create_task(self.tokens.run(), name="meta-tokens")
        finally:
            await self._save_last()

    async def _save_last(self) -> None:
        """What waits to be written in company."""
        try:
            async with asyncio.timeout(LAST_S):
                await self.tokens.save()
                await self._saver.save(everything=True)
        except (TimeoutError, Unavailable) as error:
            log.warning("Stopping without the last notes on the disk: %s", error)

    @property
    def session(self) -> Session | None:
        """None while there is no link."""
        return self._line.session

    @property
    def online(self) -> bool:
        return self.session is not None

    @property
    def ours(self) -> bool:
        """Whether there is a link, and to a hub of ours."""
        return self._line.ours

    async def drain(self, limit_s: float) -> None:
        """Wait until the cloud has taken every report, as long as there is a link, at most so long.  Raises nothing."""
        until = clock.monotonic() + limit_s
        # nothing tells when the last is taken
        while self.online and len(self.outbox) and clock.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    # Peer of the link

    async def inventory(self) -> Inventory:
        """Raises: Unavailable."""
        return await self._agreement.inventory()

    def connected(self, current: Session, inventory_id: str) -> None:
        self._line.session = current
        self.outbox.delivery.pace_s = current.pace_s
        self._agreement.begins(inventory_id)
        self.linked_since = clock.monotonic()
        for tell in self.on_connected:
            tell(current)
        self.away_since = None
        self._greet.set()

    def telling(self, inventory_id: str) -> None:
        self._agreement.telling(inventory_id)

    def disconnected(self) -> None:
        if self.session is not None:
            self.away_since = clock.monotonic()
        self._line.session = None
        self._agreement.ended()
        self.outbox.new_session()
        self.tokens.save_soon()
        self._asking.lost()

    async def forwarded(self, part: str, message: Message) -> None:
        if part == STORE_PART and message.route.source == Source.DYNAMICCONTROLLER:
            # what an application on this node watches is not what this node should run
            part = "metaserver"
        if part not in self.handlers and (answer := reports.declined(part, message, self.node)) is not None:
            self._line.say(answer)
            return
        if part == STORE_PART or part in self.handlers:
            self._agreement.pushed()
            await self._applying.put(part, message)
        else:
            log.debug("x nobody here takes %s for %s", message.route.operation, part)

    def answered(self, message: Message) -> None:
        if not self._asking.answered(message) and not self._settle(message):
            self._keep_late(message)

    def acked(self, ids: Sequence[str]) -> None:
        for message_id in ids:
            self._agreement.acked(message_id)
            self.outbox.acked(message_id)

    def take(self, now: float) -> list[Message]:
        return self.outbox.take(now)

    def written(self, message: Message) -> None:
        if message.route.resource.split("/")[1:2] == ["event"]:
            self._delivered[message.route.resource] = None
            if len(self._delivered) > _DELIVERED_EVENTS:
                self._delivered.popitem(last=False)
        if self.session is not None and not self.session.ours:
            self.outbox.written(message)

    def next_wakeup(self) -> float | None:
        return self.outbox.next_wakeup()

    def _settle(self, message: Message) -> bool:
        """Whether `message` answers a report.  What that means for the report is done."""
        if not message.parent:
            return False
        try:
            answers.read(message)
        except (NotFound, Conflict) as error:
            if self.outbox.is_final(message.parent):  # gone, or another object by now: what was wanted
                return self.outbox.acked(message.parent)
            return self.outbox.refused(message.parent, error.reason)
        except Unavailable as error:
            log.debug("! the cloud could not take %s: %s", message.route.resource, error)
            return self.outbox.failed(message.parent, clock.monotonic())
        except SkerryError as error:
            found = self.outbox.refused(message.parent, error.reason)
            if found:
                log.warning("The cloud refused %s: %s", message.route.resource, error)
            return found
        return self.outbox.acked(message.parent)

    def _keep_late(self, message: Message) -> None:
        """An answer that nobody waits for any more may hold an object, and the hub counts it as delivered."""
        kind = message.route.resource.split("/")[1:2]
        if message.version and kind and kind[0] in _STORED_ANSWERS:
            self._applying.put_if_room(_as_update(message))

    async def _greet_forever(self) -> None:
        while True:
            await self._greet.wait()
            self._greet.clear()
            for greet in self.greetings:
                try:
                    await greet()
                except SkerryError as error:
                    log.warning("A part could not greet the cloud: %s", str(error)[:256])

    # questions and answers

    async def request(self, message: Message, timeout_s: float | None = None) -> Message:
        """Send a question over the link; the answer, whatever it says.  Raises: Unavailable."""
        return await self._asking.request(message, timeout_s)

    async def ask(self, operation: str, where: str, content: object = None) -> msgspec.Raw | None:
        """A question of the kubelet's kind; the object in the answer.

        Raises: NotFound, Refused, Conflict, Unavailable, ProtocolError."""
        return await self._asking.ask(operation, where, content)

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Tell the hub that these pushes are committed."""
        self._line.acknowledge(messages)

    def refuse(self, message: Message, error: SkerryError) -> None:
        """Tell the hub that this push cannot be used, or not now."""
        self._line.refuse(message, error)

    # Objects

    async def pods(self) -> list[msgspec.Raw]:
        """Raises: Incomplete while the store may lack some, Unavailable (the disk)."""
        rows, refused = await self.store.read(lambda view: (view.all_of("pod"), view.states(refusals.PREFIX)))
        found = [msgspec.Raw(row.value) for row in rows]
        # wanted, and nothing is known of them but that
        found += refusals.stubs(refused, {row.uid for row in rows})
        if not self.store.complete:
            raise Incomplete("the cloud has not yet confirmed what belongs on this node", found)
        return found

    async def known(self, kind: str, namespace: str = "") -> list[msgspec.Raw]:
        """All stored objects of a type, complete or not.  Raises: Unavailable."""
        return [
            msgspec.Raw(row.value) for row in await self.store.read(lambda view: view.all_of(kind, namespace))
        ]

    async def get(self, kind: str, namespace: str, name: str) -> msgspec.Raw | None:
        """Raises: Unavailable (the disk)."""
        key = resource.make(kind, name, namespace).key
        row = await self.store.read(lambda view: view.get(key))
        return msgspec.Raw(row.value) if row else None

    async def fetch(self, kind: str, namespace: str, name: str, *, fresh: bool = False) -> msgspec.Raw | None:
        """Local first, else from the cloud, which is then stored.  Raises: Unavailable, Refused.

        fresh: the other way round, for what the cloud does not send when it changes."""
        found = await self.get(kind, namespace, name)
        if found is None or not fresh:
            return found if found is not None else await self._fetch(kind, namespace, name)
        try:
            return await self._fetch(kind, namespace, name)
        except Unavailable as error:
            log.debug("! %s %s/%s is as it was stored: %s", kind, namespace, name, error)
            return found

    async def _fetch(self, kind: str, namespace: str, name: str) -> msgspec.Raw | None:
        where = resource.parse(resource.make(kind, name, namespace).key)
        question = new(
            source=Source.EDGED, group=Group.META, operation=Op.QUERY, resource=where.key, content=None
        )
        answer = await self.request(question)
        try:
            found = answers.read(answer)
        except NotFound:
            self._line.thank(answer)
            if kind in ondemand.KINDS:
                # the cloud does not say when one of these is gone
                await self.store.write(lambda tx: tx.delete(where.key))
            return None
        if found is None:
            return None
        update = _as_update(answer, found)
        (outcome,) = await self.store.write(lambda tx: [apply_one(tx, update, 0)])
        if outcome.refused is not None:
            raise Unavailable(f"cannot use the cloud's answer about {where}: {outcome.refused}")
        self.acknowledge([answer])
        return found

    async def token(self, namespace: str, service_account: str, request: bytes) -> bytes:
        """See PodTokens.get.  Raises: Unavailable."""
        return await self.tokens.get(namespace, service_account, request)

    async def expanded(self, namespace: str, name: str, uid: str) -> None:
        """A claim's volume has its size here by now.  Raises: NotFound, Refused, Unavailable, ProtocolError."""
        if not self.ours:
            raise Unavailable("no link to a cloud that takes it")
        await self.ask(Op.UPDATE, f"{namespace}/claimstatus/{name}", {"metadata": {"uid": uid}})

    async def create_pod(self, namespace: str, name: str, pod: bytes) -> None:
        """Make a mirror pod at the API; one that is there is shown to this node anyway.

        Raises: NotFound, Refused, Unavailable, ProtocolError."""
        try:
            await self.ask(Op.INSERT, f"{namespace}/pod/{name}", msgspec.Raw(pod))
        except answers.AlreadyExists:
            return

    # Reports

    async def _report(self, kind: outbox.Kind, key: str, message: Message) -> None:
        self.outbox.put(kind, key, message, now_ms(), at_ms=clock.wall_ms())
        self._line.wake()
        if kind.durability is outbox.Durability.NOW:
            await self._saver.save()

    async def pod_status(self, namespace: str, name: str, uid: str, status: bytes) -> None:
        """Raises: Unavailable (queued, but only in memory), ProtocolError."""
        message = reports.pod_status(namespace, name, uid, status)
        await self._report(outbox.POD, reports.pod_key(uid), message)

    async def pod_gone(self, namespace: str, name: str, uid: str) -> None:
        """Raises: Unavailable (queued, but only in memory), ProtocolError."""
        message = reports.pod_gone(namespace, name, uid)
        await self._report(outbox.POD_GONE, reports.pod_key(uid), message)

    async def event(self, event: bytes) -> None:
        """Raises: Unavailable (queued, but only in memory), ProtocolError."""
        if not self.report_events:
            return
        where = reports.event_path(event)
        operation = Op.UPDATE if where in self._delivered else Op.INSERT
        message = reports.up(operation, where, msgspec.Raw(event))
        await self._report(outbox.EVENT, f"event/{where}", message)

    async def node_status(self, patch: bytes) -> None:
        """The newest patch of this node's status; made again after a restart, so never written to disk."""
        message = reports.up(Op.PATCH, f"null/nodepatch/{self.node}", patch.decode())
        await self._report(outbox.NODE, "node/status", message)

    # Uplink

    async def send(self, message: Message, *, coalesce: str) -> None:
        """A report of devicetwin; it replaces an unsent one of the same key.  Raises: nothing."""
        await self._report(outbox.TWIN, f"twin/{coalesce}", message)


_STORED_ANSWERS = frozenset({"configmap", "secret", "persistentvolume", "persistentvolumeclaim"})


def _as_update(answer: Message, found: msgspec.Raw | None = None) -> Message:
    """An answer as if its object had been pushed, so that one set of rules stores both."""
    route = msgspec.structs.replace(answer.route, operation=Op.UPDATE)
    return msgspec.structs.replace(answer, route=route, content=answer.content if found is None else found)
