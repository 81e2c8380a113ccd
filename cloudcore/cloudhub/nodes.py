"""The connected nodes: one link each, what waits to be sent on it, and who took over from whom.

A `Link` is used by three: the socket's shell writes what `take` gives, the session says what arrived, and controllers reply,
acknowledge and push.  No method blocks.  What is queued is bounded: pushes by one slot per object, replies and
acknowledgements by what the edge may ask at once."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator

from msgspec.structs import fields, replace

from beehive import clock
from beehive.delivery import Counters, Delivery, Item
from beehive.errors import Refused, SkerryError
from beehive.message import FINAL_REASONS, Failure, Group, Message, Op, Source, new, reply
from beehive.session import CLOSE_POLICY, Close, HubSession
from beehive.succession import Trust
from cloudcore.identity.revocation import Shown

log = logging.getLogger(__name__)

MAX_REPLIES = 4096
"""Frames that wait beside the pushes.  An edge that reads so slowly that this fills is cut off, and starts afresh."""
MAX_ACKS = 4096


def authority_text(trusts: Trust | None, signed_by: str) -> str:
    """What a Node's annotation says of an edge; see AUTHORITY_ANNOTATION."""
    return f"{(trusts.newest if trusts else '') or '-'} {signed_by or '-'}"


class Link:
    """One connection of one node.  `address`: the peer's, for the log.   certificate: what it showed, and signed_by: the hash
    of the authority that signed that.   trusts: what it says of authorities; None for a stock edge."""

    def __init__(
        self,
        session: HubSession,
        *,
        address: str = "",
        certificate: Shown | None = None,
        signed_by: str = "",
        trusts: Trust | None = None,
    ) -> None:
        self.session = session
        self.certificate = certificate
        self.signed_by = signed_by
        self.trusts = trusts
        self.address = address
        self.delivery = Delivery(marks=session.ours)
        self.held: dict[str, int] = {}
        """What an edge of ours holds, by its inventory and by what it acknowledged since: uid → version."""
        self.tolerated: frozenset[str] = frozenset()
        """Of that, what nobody knows and a comparison left where it is."""
        self.digests = 0
        self.disagreed = 0
        """Digests in a row that did not agree."""
        self.wake = asyncio.Event()
        self.ready = False
        """Whether the difference was sent: before that, pushes are part of it."""
        self.devices_ready = False
        self.ping_due = False
        self.closing: Close | None = None
        self.unread = 0
        self._replies: deque[Message] = deque()
        self._acks: list[str] = []
        self._pushes: deque[Message] = deque()
        self._unacked: set[str] = set()
        self._awaited: set[str] = set()
        self._inventory_id = ""
        self.on_deleted: Callable[[Item], None] | None = None
        self.on_acked: Callable[[Item], None] | None = None

    @property
    def node(self) -> str:
        return self.session.node

    @property
    def ours(self) -> bool:
        return self.session.ours

    @property
    def authority(self) -> str:
        """For the Node; see AUTHORITY_ANNOTATION."""
        return authority_text(self.trusts, self.signed_by)

    # -- for controllers -------------------------------------------------------------------------------------------

    def reply(self, message: Message) -> None:
        """Send this frame before pushes, once."""
        if len(self._replies) >= MAX_REPLIES:
            self.close(CLOSE_POLICY, "too slow: answers pile up")
            return
        self._replies.append(message)
        self.wake.set()

    def ack(self, message_id: str) -> None:
        """Tell an edge of ours that this frame of it is finished with.  A stock edge has no such word."""
        if not self.ours or not message_id:
            return
        if len(self._acks) >= MAX_ACKS:
            self.close(CLOSE_POLICY, "too slow: acknowledgements pile up")
            return
        self._acks.append(message_id)
        self.wake.set()

    def refuse(self, message: Message, error: SkerryError) -> None:
        """Tell an edge of ours that this frame counts for nothing, for good.  A stock edge has no such word."""
        if not self.ours or not message.id:
            return
        reason = error.reason if error.reason in FINAL_REASONS else Refused.reason
        content = Failure(reason=reason, message=str(error)[:256])
        self.reply(reply(message, content, source=Source.CLOUDHUB, operation=Op.ERROR))

    def offer(self, item: Item) -> bool:
        """Push an object's state; newest wins per object."""
        taken = self.delivery.offer(item)
        if taken:
            self._unacked.add(item.key)
            self.wake.set()
        return taken

    def forget(self) -> None:
        """What this edge committed is not known any more: everything is to be offered anew."""
        self.delivery = Delivery(counters=self.delivery.counters, marks=self.ours)
        self._unacked.clear()
        self._pushes.clear()

    def ask_inventory(self) -> bool:
        """Ask an edge of ours to say once more what it holds.  Returns whether it was asked."""
        if not self.session.ask():
            return False
        self.reply(
            new(
                source=Source.CLOUDHUB,
                group=Group.RESOURCE,
                operation=Op.INVENTORY,
                resource=f"null/node/{self.node}",
            )
        )
        return True

    def held_version(self, uid: str) -> int:
        """The version of it that the edge holds, or -1."""
        return self.held.get(uid, -1)

    @property
    def settled(self) -> bool:
        """Whether nothing is on its way that changes what the edge holds."""
        return self.ready and not self._unacked and not self._inventory_id

    def await_committed(self, keys: set[str], inventory_id: str) -> None:
        """Acknowledge the inventory when the edge committed everything that it led to."""
        self._inventory_id = inventory_id
        # some may have been committed while the rest was looked for
        self._awaited = keys & self._unacked
        self._check_inventory()

    def close(self, code: int, reason: str) -> None:
        """End this connection."""
        for command in self.session.close(code, reason):
            assert isinstance(command, Close)
            self.closing = command
            self.wake.set()

    # -- for the shell -----------------------------------------------------------------------------------------------

    def acked(self, ids: tuple[str, ...]) -> None:
        """The edge committed these."""
        for message_id in ids:
            item = self.delivery.ack(message_id)
            if item is None:
                continue
            self._unacked.discard(item.key)
            self._awaited.discard(item.key)
            self._note(item)
            if self.on_acked is not None:
                self.on_acked(item)
            if item.delete and self.on_deleted is not None:
                self.on_deleted(item)
        self._check_inventory()
        self.wake.set()

    def declined(self, message_id: str) -> Item | None:
        """The edge can never use this one.  What waits for everything to be committed does not wait for it."""
        item = self.delivery.decline(message_id)
        if item is None:
            return None
        self._unacked.discard(item.key)
        self._awaited.discard(item.key)
        self._check_inventory()
        self.wake.set()
        return item

    def failed(self, message_id: str, now: float) -> Item | None:
        """The edge could not commit this one."""
        item = self.delivery.fail(message_id, now)
        self.wake.set()
        return item

    def _note(self, item: Item) -> None:
        if not self.ours or item.message.route.source == Source.DYNAMICCONTROLLER:
            return  # what applications watch is kept apart
        if item.delete:
            self.held.pop(item.key, None)
        else:
            self.held[item.key] = item.version

    def _check_inventory(self) -> None:
        if self._inventory_id and not self._awaited:
            self.ack(self._inventory_id)
            self._inventory_id = ""

    def take(self, now: float) -> Message | None:
        """The next frame to write: answers, then acknowledgements in one, then pushes."""
        if self._replies:
            return self._replies.popleft()
        if self._acks:
            ids, self._acks = self._acks, []
            return new(
                source=Source.CLOUDHUB,
                group=Group.RESOURCE,
                operation=Op.ACK,
                resource=f"null/node/{self.node}",
                content=ids,
            )
        if not self._pushes:
            self._pushes.extend(self.delivery.take(now))
        return self._pushes.popleft() if self._pushes else None

    def next_wakeup(self) -> float | None:
        return self.delivery.next_wakeup()


class Nodes:
    """Every link that is open, by node name.  The one with the highest session number is the node's."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}
        self._ended = Counters()  # of links that are no more
        self.opened = self.replaced = 0
        self.on_open: list[Callable[[Link], None]] = []

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[Link]:
        return iter(list(self._links.values()))

    def get(self, node: str) -> Link | None:
        return self._links.get(node)

    def number(self, node: str) -> int:
        """Of the link that is open; 0 without one."""
        link = self._links.get(node)
        return link.session.number if link is not None else 0

    def open(self, link: Link) -> bool:
        """Make `link` its node's.  An older one is closed; if the held one is newer, `link` is closed and False returned."""
        held = self._links.get(link.node)
        if held is not None and held is not link:
            if held.session.number > link.session.number:
                self._replace(link, held.session.number)
                return False
            # two first sessions of an unregistered node have the same number: the later connection counts
            self._replace(held, link.session.number)
        self._links[link.node] = link
        self.opened += 1
        for tell in self.on_open:
            tell(link)
        return True

    def closed(self, link: Link) -> None:
        """Forget `link`; the clean-up of an old one never removes its successor."""
        _add(self._ended, link.delivery.counters)
        # these refer to the link, which would then wait for the collector
        link.on_deleted = link.on_acked = None
        if self._links.get(link.node) is link:
            del self._links[link.node]

    def seen_number(self, node: str, number: int) -> None:
        """Some hub gave `node` the session `number`: a link of ours with a lower one is over."""
        link = self._links.get(node)
        if link is not None and number > link.session.number:
            self._replace(link, number)

    def counters(self) -> Counters:
        """What all links together delivered since this hub started."""
        total = replace(self._ended)
        for link in self:
            _add(total, link.delivery.counters)
        return total

    def _replace(self, link: Link, by: int) -> None:
        self.replaced += 1
        commands = link.session.replaced(by) or link.session.close(4001, f"session {by} took over")
        for command in commands:
            assert isinstance(command, Close)
            link.closing = command
            link.wake.set()
        log.info("Session %d of node %s ended: session %d took over", link.session.number, link.node, by)

    def offer(self, node: str, item: Item) -> None:
        """Push to `node` if it is connected here and was told the difference already."""
        link = self._links.get(node)
        if link is not None and link.ready:
            link.offer(item)

    def tick(self, now: float, *, ping_after_s: float) -> None:
        """Call every second: closes links that fell silent, asks the quiet ones for a sign of life."""
        for link in self:
            for command in link.session.tick(now):
                if isinstance(command, Close):
                    link.closing = command
                    link.wake.set()
            if link.ours and now - link.session.last_heard > ping_after_s:
                link.ping_due = True
                link.wake.set()
            due = link.next_wakeup()
            if due is not None and due <= now:
                link.wake.set()


def _add(total: Counters, more: Counters) -> None:
    for each in fields(Counters):
        setattr(total, each.name, getattr(total, each.name) + getattr(more, each.name))


def now() -> float:
    """The hub's clock."""
    return clock.monotonic()
