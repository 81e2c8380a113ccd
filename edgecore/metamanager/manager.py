"""Between the link, the store and the parts of the node: what comes is kept and handed on, what goes up waits here.

Theory of operation.  Frames from the cloud queue up in an inbox.  A worker takes all that is there, lets `process` decide on
each inside one transaction, and only after the commit acknowledges them together and tells the parts.  So a burst costs one
fsync, and an acknowledged object survives a power cut.  While the disk refuses, nothing is acknowledged and the hub sends
again.

Going up, reports lie in `outbox` and are written to the disk as their kind demands; questions wait for their answers in
memory, a bounded time.

It is the `Objects` and `Reports` of edged, the `Uplink` of devicetwin, and the `Peer` of the link."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from beehive import clock, resource
from beehive.errors import Conflict, NotFound, ProtocolError, SkerryError, Unavailable
from beehive.message import (
    Failure,
    Group,
    Inventory,
    InventoryEntry,
    Message,
    Op,
    Source,
    digest,
    new,
    reply,
)
from beehive.session import holding
from edgecore.edgehub.link import Session
from edgecore.errors import Incomplete
from edgecore.metamanager import answers, ondemand, outbox, process, refusals, reports, tokens
from edgecore.metamanager.outbox import Outbox
from edgecore.metamanager.podtokens import PodTokens
from edgecore.metamanager.process import Change, Verdict
from edgecore.metamanager.store import Store
from edgecore.metamanager.tables import Transaction

log = logging.getLogger(__name__)

INBOX = 256
"""Frames waiting to be stored: four windows of the hub, beyond which the link is not read."""

MAX_BATCH = 64
MAX_WAITING = 1024
"""Questions without an answer yet."""

QUERY_S = 60.0
"""KubeEdge's remoteQueryTimeout."""

SAVE_S = 0.5
"""How often the outbox's durable copy follows."""

LAST_S = 2.0
"""How long a stop may take for what was not yet written."""

QUIET_S = 30.0
"""A stock hub that has sent nothing for so long has nothing for a node that just joined.  One of ours says so."""

CONFIRM_S, COMPLETE_S = 0.2, 5.0
"""How often it is looked whether the store became complete, and whether it still is."""

DIGEST_S = 60.0
"""How often the hub is told in short what is held, more or less: a silent difference heals within two of these."""

DAMAGE_S = 5.0
"""How soon it is told when something was found damaged."""

STORE_PART = "metamanager"
"""What the link calls us."""

_DELIVERED_EVENTS = 2000


class Down(Protocol):
    """The link, as far as sending goes."""

    def send(self, message: Message) -> None: ...

    def wake(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one frame of a batch."""

    message: Message
    verdict: Verdict | None = None
    refused: ProtocolError | None = None


class MetaManager:
    """Made before the link exists; `bind` gives it the link, `on_change` and `handlers` the parts.

    on_change: told of every stored object that came, changed or went, after the commit; must not block.
    on_connected: told of a new session; must not block.   greetings: run in each new session, one after the other.
    handlers: by part name ("devicetwin", "eventbus", …), given frames in the order in which they came."""

    def __init__(self, store: Store, node: str, *, query_s: float = QUERY_S) -> None:
        self.store = store
        self.node = node
        self.outbox = Outbox()
        self.tokens = PodTokens(store, self.ask)
        self.report_events = True
        """Whether events of pods and of the node go to the cloud."""
        self.session: Session | None = None
        self.away_since: float | None = None
        """Monotonic seconds when the link was lost, while `connected` is told; None: it was not there before."""
        self.linked_since = 0.0
        self.on_change: list[Callable[[Change], None]] = []
        self.on_connected: list[Callable[[Session], None]] = []
        self.greetings: list[Callable[[], Awaitable[None]]] = []
        self.handlers: dict[str, Callable[[Message], Awaitable[None]]] = {}
        self._link: Down | None = None
        self._query_s = query_s
        self._inbox: asyncio.Queue[tuple[str, Message]] = asyncio.Queue(INBOX)
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        self._fetching: dict[str, asyncio.Task[msgspec.Raw | None]] = {}
        self._delivered: OrderedDict[str, None] = OrderedDict()
        self._saving = asyncio.Lock()
        self._told = False
        self._tidy = False
        self._inventory_id = ""
        self._last_push = 0.0
        self._saved_dropped = 0
        self._saved_session = 0
        # rows dropped at the start are not in any inventory, so the hub sends them again
        self._damaged_before = store.counters.damaged_rows
        self._applying = False
        self._refusing = False
        self._greet = asyncio.Event()
        self._rng = random.Random()
        self._went_back = 0

    def bind(self, link: Down) -> None:
        self._link = link

    async def load(self) -> None:
        """Take over what an earlier process left.  Call once, before anything else."""
        found = await self.store.read(lambda view: view.outbox())
        self.outbox.restore(found, _now_ms(), at_ms=clock.wall_ms())
        counted = await self.store.read(lambda view: view.state(_DROPPED))
        if counted:
            for kind, reason, count in msgspec.json.decode(counted, type=list[tuple[str, str, int]]):
                self.outbox.dropped[kind, reason] += count
        self._saved_dropped = self.outbox.dropped.total()
        number = await self.store.read(lambda view: view.state(_SESSION))
        self._saved_session = int(number or b"0")

    async def run(self) -> None:
        """Store, acknowledge and hand on; keep the outbox on disk.  Never returns."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._apply_forever(), name="meta-apply")
                group.create_task(self._save_forever(), name="meta-save")
                group.create_task(self._confirm_complete(), name="meta-confirm")
                group.create_task(self._greet_forever(), name="meta-greet")
                group.create_task(self._digest_forever(), name="meta-digest")
                group.create_task(self.tokens.run(), name="meta-tokens")
        finally:
            await self._save_last()

    async def _save_last(self) -> None:
        """What waits to be written in company."""
        try:
            async with asyncio.timeout(LAST_S):
                await self.tokens.save()
                await self._save(everything=True)
        except (TimeoutError, Unavailable) as error:
            log.warning("Stopping without the last notes on the disk: %s", error)

    @property
    def online(self) -> bool:
        return self.session is not None

    async def drain(self, limit_s: float) -> None:
        """Wait until the cloud has taken every report, as long as there is a link, at most so long.  Raises nothing."""
        until = clock.monotonic() + limit_s
        # nothing tells when the last is taken
        while self.online and len(self.outbox) and clock.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    # Peer of the link

    async def inventory(self) -> Inventory:
        """Raises: Unavailable."""
        if self.store.damaged:
            await self.store.drop_damaged()
        held = await self.store.read(lambda view: view.held())
        known = await self.store.read(lambda view: view.state(_SESSION))
        objects = {
            uid: InventoryEntry(resource=key, version=str(max(0, version))) for uid, key, version in held
        }
        return Inventory(objects=objects, session=int(known or b"0"))

    def connected(self, current: Session, inventory_id: str) -> None:
        self.session = current
        self.outbox.delivery.pace_s = current.pace_s
        self._inventory_id = inventory_id
        self._told = False
        self._tidy = True
        self._last_push = clock.monotonic()
        self.linked_since = self._last_push
        for tell in self.on_connected:
            tell(current)
        self.away_since = None
        self._greet.set()

    def telling(self, inventory_id: str) -> None:
        self._inventory_id = inventory_id
        self._told = False
        self._tidy = True
        # what is damaged was left out, so the hub sends it again
        self._damaged_before = self.store.counters.damaged_rows

    def disconnected(self) -> None:
        if self.session is not None:
            self.away_since = clock.monotonic()
        self.session = None
        self._inventory_id = ""
        self.outbox.new_session()
        self.tokens.save_soon()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Unavailable("the link was lost before the cloud answered"))
        self._waiting.clear()

    async def forwarded(self, part: str, message: Message) -> None:
        if part == STORE_PART and message.route.source == Source.DYNAMICCONTROLLER:
            # what an application on this node watches is not what this node should run
            part = "metaserver"
        if part not in self.handlers and (answer := reports.declined(part, message, self.node)) is not None:
            self._say(answer)
            return
        if part == STORE_PART or part in self.handlers:
            self._last_push = clock.monotonic()
            await self._inbox.put((part, message))
        else:
            log.debug("x nobody here takes %s for %s", message.route.operation, part)

    def answered(self, message: Message) -> None:
        waiting = self._waiting.pop(message.parent, None)
        if waiting is not None:
            if not waiting.done():
                waiting.set_result(message)
        elif not self._settle(message):
            self._keep_late(message)

    def acked(self, ids: Sequence[str]) -> None:
        for message_id in ids:
            if message_id == self._inventory_id:
                self._told = True
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
        if message.version and kind and kind[0] in _STORED_ANSWERS and not self._inbox.full():
            self._inbox.put_nowait((STORE_PART, _as_update(message)))

    # applying

    async def _apply_forever(self) -> None:
        while True:
            batch = [await self._inbox.get()]
            while len(batch) < MAX_BATCH and not self._inbox.empty():
                batch.append(self._inbox.get_nowait())
            self._applying = True
            try:
                await self._apply(batch)
            finally:
                self._applying = False

    async def _apply(self, batch: list[tuple[str, Message]]) -> None:
        stored = [message for part, message in batch if part == STORE_PART]
        try:
            number = self.session.number if self.session is not None else 0
            outcomes = await self.store.write(
                lambda tx: [_apply_one(tx, message, number) for message in stored]
            )
        except Unavailable as error:
            self._disk_refused(error)
            for message in stored:
                self.refuse(message, error)
            return
        if stored:
            self._disk_took()
        self._acknowledge(outcomes)
        remaining = iter(outcomes)
        for part, message in batch:
            if part == STORE_PART:
                await self._hand_on(next(remaining))
            else:
                await self._hand_to(part, message)

    def _acknowledge(self, outcomes: list[_Outcome]) -> None:
        for outcome in outcomes:
            if outcome.refused is not None:
                log.warning("Refused from the cloud: %s", str(outcome.refused)[:256])
                self.refuse(outcome.message, outcome.refused)
        self.acknowledge([outcome.message for outcome in outcomes if outcome.refused is None])

    async def _hand_on(self, outcome: _Outcome) -> None:
        if outcome.verdict is None or outcome.verdict.change is None:
            return
        change = outcome.verdict.change
        if outcome.message.is_restored:
            self._went_back += 1
            if self._went_back == 1:
                log.warning("The cloud's API went back to an older state: taking older versions from it")
        if change.resource.type in process.TWIN_TYPES and "devicetwin" in self.handlers:
            await self._hand_to("devicetwin", outcome.message)
        for tell in self.on_change:
            tell(change)

    async def _hand_to(self, part: str, message: Message) -> None:
        try:
            await self.handlers[part](message)
        except SkerryError as error:
            log.warning("%s could not use %s: %s", part, message.route.resource, str(error)[:256])
        except Exception as error:
            # the boundary of one frame (P9): the hub sends it again, so a fault in a part would end the daemon each time
            log.error("%s failed on %s: %r", part, message.route.resource, error, exc_info=error)

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Tell the hub that these pushes are committed; of no use, and no harm, when the link has gone meanwhile."""
        if not messages or self.session is None:
            return
        if self.session.ours:
            ids = [message.id for message in messages]
            self._say(
                new(
                    source=Source.METAMANAGER,
                    group=Group.RESOURCE,
                    operation=Op.ACK,
                    resource=f"null/node/{self.node}",
                    content=ids,
                )
            )
        else:
            for message in messages:
                self._say(reply(message))

    def refuse(self, message: Message, error: SkerryError) -> None:
        """Tell the hub that this push cannot be used, or not now."""
        ours = self.session is not None and self.session.ours
        text = str(error)[:256]
        content: object = Failure(reason=error.reason, message=text) if ours else text
        self._say(reply(message, content, source=Source.METAMANAGER, operation=Op.ERROR))

    def _say(self, message: Message) -> None:
        """Send what is of use only in this session."""
        if self._link is None:
            return
        try:
            self._link.send(message)
        except Unavailable:
            log.debug("x %s %s: no link", message.route.operation, message.route.resource)

    async def _confirm_complete(self) -> None:
        """Find out when everything that the cloud wants here is here, whenever that is not known."""
        while True:
            await asyncio.sleep(COMPLETE_S if self.store.complete else CONFIRM_S)
            await self._forget_locked()
            try:
                await self._forget_refusals()
                if self.store.complete or not self._is_confirmed():
                    continue
                await self.store.confirm_complete()
            except Unavailable as error:
                log.warning("Cannot note that the store is complete: %s", error)
                continue
            log.info("The store holds all that the cloud wants on this node")
            for tell in self.on_change:
                tell(Change(resource=resource.make("pod"), uid="", gone=False))

    async def _forget_locked(self) -> None:
        """What a lost key sealed is kept until the hub has sent all that it wants here: the key may come back before."""
        if self.store.counters.locked and self._told and self._inbox.empty() and not self._applying:
            try:
                await self.store.drop_locked()
            except Unavailable as error:
                log.debug("! cannot drop what cannot be opened: %s", error)

    async def _forget_refusals(self) -> None:
        """What the hub did not offer again in this session is wanted no more, nor what only that needed.

        Raises: Unavailable."""
        if not self._told or self.session is None or not self._tidy:
            return
        number = self.session.number
        self._tidy = False

        def work(tx: Transaction) -> None:
            for key, note in tx.states(refusals.PREFIX).items():
                if refusals.read(note).session != number:
                    tx.drop_state(key)
            # what was asked for, for pods that are no more
            for key in ondemand.unused(tx.all_of("pod"), {kind: tx.all_of(kind) for kind in ondemand.KINDS}):
                tx.delete(key)

        await self.store.write(work)

    def _is_confirmed(self) -> bool:
        """Whether the hub said that all is here, or was silent for so long that it has nothing."""
        if self.session is None or self._applying or not self._inbox.empty():
            return False
        if self.store.counters.damaged_rows > self._damaged_before:
            return False  # the hub was told that we hold a row that is damaged: the next session tells better
        if self._told or self.store.set_aside is not None:
            # after damage only the hub's word counts; a stock one does not send again what we once acknowledged
            return self._told
        return clock.monotonic() - self._last_push > QUIET_S

    async def _digest_forever(self) -> None:
        """Tell a hub of ours now and then in short what is here."""
        due = self._next_digest()
        while True:
            await asyncio.sleep(DAMAGE_S)
            if clock.monotonic() < due and not self.store.damaged:
                continue
            if self.session is None or not self.session.ours or self._applying or not self._inbox.empty():
                continue  # soon again
            due = self._next_digest()
            try:
                if self.store.damaged:
                    await self.store.drop_damaged()
                held = await self.store.read(lambda view: view.held())
            except Unavailable as error:
                log.debug("! cannot say what is held: %s", error)
                continue
            found = digest({uid: version for uid, _, version in held})
            self._say(holding(self.node, Op.DIGEST, found))

    def _next_digest(self) -> float:
        # a fleet that came back together must not speak in step
        return clock.monotonic() + DIGEST_S * self._rng.uniform(0.75, 1.25)

    async def _greet_forever(self) -> None:
        while True:
            await self._greet.wait()
            self._greet.clear()
            for greet in self.greetings:
                try:
                    await greet()
                except SkerryError as error:
                    log.warning("A part could not greet the cloud: %s", str(error)[:256])

    # the outbox's copy on disk

    async def _save_forever(self) -> None:
        while True:
            await asyncio.sleep(SAVE_S)
            self.outbox.expire(_now_ms())
            try:
                await self._save()
            except Unavailable as error:
                self._disk_refused(error)
                await asyncio.sleep(5.0)

    async def _save(self, *, everything: bool = False) -> None:
        """Bring the disk up to date.   everything: also what need not be there yet.  Raises: Unavailable."""
        async with self._saving:  # two at once would write the same rows
            change = self.outbox.unsaved(_now_ms(), everything=everything)
            dropped = self.outbox.dropped.total()
            number = self.session.number if self.session is not None else self._saved_session
            if not change and dropped == self._saved_dropped and number == self._saved_session:
                return
            counted = [(kind, reason, count) for (kind, reason), count in sorted(self.outbox.dropped.items())]
            encoded = msgspec.json.encode(counted)

            def work(tx: Transaction) -> None:
                tx.drop_pending(change.drops)
                for pending in change.puts:
                    tx.put_pending(pending)
                if dropped != self._saved_dropped:
                    tx.set_state(_DROPPED, encoded)
                if number != self._saved_session:
                    tx.set_state(_SESSION, b"%d" % number)

            await self.store.write(work)
            self._disk_took()
            self.outbox.saved(change, _now_ms())
            self._saved_dropped = dropped
            self._saved_session = number

    def _disk_refused(self, error: Unavailable) -> None:
        """Said once, however long it lasts: the log may be on the same disk."""
        level = logging.DEBUG if self._refusing else logging.ERROR
        log.log(
            level, "Nothing of the cloud's is acknowledged, and reports are kept in memory only: %s", error
        )
        self._refusing = True

    def _disk_took(self) -> None:
        if self._refusing:
            log.info("The store takes writes again")
        self._refusing = False

    async def _report(self, kind: outbox.Kind, key: str, message: Message) -> None:
        self.outbox.put(kind, key, message, _now_ms(), at_ms=clock.wall_ms())
        if self._link is not None:
            self._link.wake()
        if kind.durability is outbox.Durability.NOW:
            await self._save()

    # questions

    async def request(self, message: Message, timeout_s: float | None = None) -> Message:
        """Send a question over the link; the answer, whatever it says.  Raises: Unavailable."""
        if self._link is None or self.session is None:
            raise Unavailable("cannot reach the cloud: no link")
        if len(self._waiting) >= MAX_WAITING:
            raise Unavailable("cannot reach the cloud: too many questions wait for answers")
        waiting: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[message.id] = waiting
        limit = self._query_s if timeout_s is None else timeout_s
        try:
            self._link.send(message)
            async with asyncio.timeout(limit):
                return await waiting
        except TimeoutError as error:
            raise Unavailable(
                f"the cloud did not answer about {message.route.resource} in {limit:.0f} s"
            ) from error
        finally:
            self._waiting.pop(message.id, None)

    async def ask(self, operation: str, where: str, content: object = None) -> msgspec.Raw | None:
        """A question of the kubelet's kind; the object in the answer.

        Raises: NotFound, Refused, Conflict, Unavailable, ProtocolError."""
        question = new(
            source=Source.EDGED,
            group=Group.META,
            operation=operation,
            resource=where,
            content=msgspec.Raw(b"null") if content is None else content,
        )
        answer = await self.request(question)
        self._thank(answer)
        return answers.read(answer)

    def _thank(self, answer: Message) -> None:
        """A stock hub sends some answers until they are acknowledged; ours counts what is acknowledged as held."""
        if self.session is not None and not self.session.ours and not answer.is_ok:
            self._say(reply(answer))

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

    @property
    def ours(self) -> bool:
        """Whether there is a link, and to a hub of ours."""
        return self.session is not None and self.session.ours

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
            self._thank(answer)
            if kind in ondemand.KINDS:
                # the cloud does not say when one of these is gone
                await self.store.write(lambda tx: tx.delete(where.key))
            return None
        if found is None:
            return None
        update = _as_update(answer, found)
        (outcome,) = await self.store.write(lambda tx: [_apply_one(tx, update, 0)])
        if outcome.refused is not None:
            raise Unavailable(f"cannot use the cloud's answer about {where}: {outcome.refused}")
        self.acknowledge([answer])
        return found

    async def token(self, namespace: str, service_account: str, request: bytes) -> bytes:
        """See PodTokens.get.  Raises: Unavailable."""
        return await self.tokens.get(namespace, service_account, request)

    async def create_pod(self, namespace: str, name: str, pod: bytes) -> None:
        """Make a mirror pod at the API; one that is there is shown to this node anyway.

        Raises: NotFound, Refused, Unavailable, ProtocolError."""
        try:
            await self.ask(Op.INSERT, f"{namespace}/pod/{name}", msgspec.Raw(pod))
        except answers.AlreadyExists:
            return

    # Reports

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


_SESSION = "link.session"
_DROPPED = "outbox.dropped"

_STORED_ANSWERS = frozenset({"configmap", "secret", "persistentvolume", "persistentvolumeclaim"})


def _now_ms() -> int:
    """By the clock that does not jump."""
    return int(clock.monotonic() * 1000)


def _as_update(answer: Message, found: msgspec.Raw | None = None) -> Message:
    """An answer as if its object had been pushed, so that one set of rules stores both."""
    route = msgspec.structs.replace(answer.route, operation=Op.UPDATE)
    return msgspec.structs.replace(answer, route=route, content=answer.content if found is None else found)


def _apply_one(tx: Transaction, message: Message, session: int) -> _Outcome:
    """session: the number of the one that it came in; 0 for what was asked for."""
    note = refusals.key(message)
    try:
        where = process.target(message)
        verdict = process.decide(message, where, tx.get(where.key))
    except ProtocolError as error:
        if note is not None:
            if tx.state(note) is None and len(tx.states(refusals.PREFIX)) >= refusals.MAX_NOTES:
                note = refusals.ANY
            tx.set_state(note, refusals.refusal(message, session, str(error)))
        return _Outcome(message, refused=error)
    if note is not None:
        tx.drop_state(note)
    if verdict.put is not None:
        tx.put(verdict.put)
    if verdict.delete:
        tx.delete(verdict.delete)
        if where.type == "pod" and verdict.change is not None:
            for key in tx.states(tokens.prefix(verdict.change.uid)):
                tx.drop_state(key)
    return _Outcome(message, verdict)
