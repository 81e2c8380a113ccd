"""Which objects belong to which node, and what a node is to be told when one of them changes.  Pure.

A node holds: its Node object, the pods bound to it, the configmaps and secrets that those pods refer to, themselves or
by their service account, and the Services of their namespaces, which become variables in containers (a stock edge has no
use for these, and is not sent them).  `Placement` follows the changes of the caches and answers each with pushes in the
order in which the edge needs them: what a pod refers to goes before the pod.  It is taken back some time after the last pod
that refers to it (`sweep`), since a pod that goes is often followed by another of its kind.

Source: KubeEdge, edgecontroller (message forms, status-only updates are not pushed)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from beehive.delivery import Item, Priority
from beehive.errors import ProtocolError
from beehive.message import Group, Inventory, Message, Op, Source, new
from beehive.resource import parse
from cloudcore.edgecontroller.references import Closure, Ref, closure, pull_secrets, services_of
from cloudcore.identity.authorizer import PodFacts
from cloudcore.objects import EDGE_LABEL, Change, Kind, Object, number, same_substance

log = logging.getLogger(__name__)

Lookup = Callable[[Ref], Object | None]
"""The newest known state of what a pod may refer to."""

PUSHED = frozenset({"configmap", "secret", "service"})
"""Kinds that follow a pod to its node; claims and volumes are asked for."""


@dataclass(frozen=True, slots=True)
class Push:
    """Tell `node` about `item`.   deleted: it is gone, or no longer that node's.   back: the API went back to this."""

    node: str
    item: Object
    deleted: bool = False
    first: bool = False
    back: bool = False

    def delivery(self) -> Item:
        """The frame to deliver, with what decides whether it is news."""
        item = self.item
        operation = Op.DELETE if self.deleted else Op.INSERT if self.first else Op.UPDATE
        if item.kind.kind == "Secret" and not self.deleted:
            operation = Op.UPDATE
        return Item(
            key=item.uid,
            version=item.number,
            message=push_message(item, operation),
            priority=Priority.BULK,
            delete=self.deleted,
            force=item.deleting,
            back=self.back,
        )


def push_message(item: Object, operation: str, *, content: bytes | None = None) -> Message:
    """A pushed object as KubeEdge's edgecontroller writes it; the object goes through as it is."""
    return new(
        source=Source.EDGECONTROLLER,
        group=Group.RESOURCE,
        operation=operation,
        resource=item.path,
        content=item.raw if content is None else content,
        version=item.version,
    )


def tombstone(kind: Kind, namespace: str, name: str, uid: str) -> Object:
    """An object of which only the name and uid are known, to delete it at an edge."""
    content = {"metadata": {"name": name, "namespace": namespace, "uid": uid}}
    return Object(kind, namespace, name, uid, "", msgspec.json.encode(content))


def is_edge(node: Object) -> bool:
    """Whether a Node is ours to serve."""
    return node.labels is not None and EDGE_LABEL in node.labels


class Placement:
    """Who holds what.  Not safe for threads.

    unclear: whether there may be pods on a node, or rights of them, that the caches cannot read: then what these refer to is
    not known, and nothing is taken back."""

    def __init__(self, lookup: Lookup, unclear: Callable[[str], bool] = lambda _: False) -> None:
        self._lookup = lookup
        self._unclear = unclear
        self._unplaced: dict[tuple[str, str], str] = {}  # pods that cannot be understood → their node
        self._vague: set[tuple[str, str]] = set()  # service accounts that cannot
        self._nodes: dict[str, Object] = {}
        self._since: dict[
            str, int
        ] = {}  # uid of a node or pod → the version since which only its status changed
        self._pods: dict[tuple[str, str], tuple[Object, Closure]] = {}
        self._of_node: dict[str, set[tuple[str, str]]] = {}
        self._users: dict[Ref, Counter[str]] = {}  # what is referred to → node → by how many pods
        self._loose: dict[tuple[str, Ref], int] = {}  # held there, but referred to no more → sweeps seen
        self._accounts: dict[tuple[str, str], frozenset[Ref]] = {}
        self._of_account: dict[tuple[str, str], set[tuple[str, str]]] = {}
        self._services: dict[str, dict[str, Object]] = {}  # namespace → name → Service

    # -- answers -------------------------------------------------------------------------------------------------

    def node(self, name: str) -> Object | None:
        """The Node object, if it is an edge's."""
        return self._nodes.get(name)

    def pod(self, namespace: str, name: str) -> PodFacts | None:
        found = self._pods.get((namespace, name))
        return found[1].facts if found else None

    def accounts(self, node: str) -> set[tuple[str, str]]:
        """The service accounts (namespace, name) of the pods bound to `node`."""
        return {self._pods[key][1].account for key in self._of_node.get(node, ())}

    def refers(self, node: str, kind: str, namespace: str, name: str) -> bool:
        ref = services_of(namespace) if kind == "service" else (kind, namespace, name)
        return self._users.get(ref, Counter())[node] > 0

    def holds_back(self, node: str) -> bool:
        """Whether a pod of `node` may refer to what nothing known refers to."""
        return (
            node in self._unplaced.values()
            or bool(self._vague and self._vague & self.accounts(node))
            or self._unclear(node)
        )

    def wanted(self, node: str) -> Iterator[Object]:
        """Everything that `node` should hold, in the order in which it should arrive."""
        if node in self._nodes:
            yield self._nodes[node]
        pods = [self._pods[key] for key in sorted(self._of_node.get(node, ()))]
        seen: set[Ref] = set()
        for pod, found in pods:
            for ref in sorted(self._refs(found) - seen):
                seen.add(ref)
                yield from self._items(ref)
            yield pod

    def _items(self, ref: Ref) -> list[Object]:
        """What is to be pushed for a reference, as far as it is there."""
        kind, namespace, _ = ref
        if kind == "service":
            return list(self._services.get(namespace, {}).values())
        item = self._lookup(ref) if kind in PUSHED else None
        return [item] if item is not None else []

    # -- changes -------------------------------------------------------------------------------------------------

    def node_changed(self, change: Change) -> list[Push]:
        """A Node: only edge nodes count, and only what is not status."""
        new_, name = change.new, change.newest.name
        held = self._nodes.get(name)
        if new_ is None or not is_edge(new_):
            self._nodes.pop(name, None)
            if held is not None:
                self._since.pop(held.uid, None)
            return []
        self._nodes[name] = new_
        if held is not None and same_substance(held, new_) and not change.back:
            return []
        self._since[new_.uid] = new_.number
        return [Push(name, new_, back=change.back)]

    def pod_changed(self, change: Change) -> list[Push]:
        """A pod: bound, changed, or gone.  One that cannot be read is left out and named in the log."""
        new_ = change.new
        if new_ is None or not new_.node:
            return self._pod_gone(change)
        try:
            found = closure(new_)
        except ProtocolError as error:
            log.warning("Cannot place pod %s/%s: %s", new_.namespace, new_.name, error)
            self._unplaced[new_.key] = new_.node
            return []
        self._unplaced.pop(new_.key, None)
        held = self._pods.get(new_.key)
        pushes: list[Push] = []
        if held is not None and held[0].node != new_.node:
            # a binding never changes; the name was used again
            pushes += self._pod_gone(Change(held[0], None))
            held = None
        before = self._refs(held[1]) if held else frozenset()
        self._pods[new_.key] = (new_, found)
        self._of_node.setdefault(new_.node, set()).add(new_.key)
        if held is not None and held[1].account != found.account:
            self._drop_account_user(held[1].account, new_.key)
        self._of_account.setdefault(found.account, set()).add(new_.key)
        pushes += self._count(new_.node, before, self._refs(found))
        if held is None or change.back or not same_substance(held[0], new_):
            self._since[new_.uid] = new_.number
            first = held is None and not new_.deleting
            pushes.append(Push(new_.node, new_, first=first, back=change.back))
        return pushes

    def _pod_gone(self, change: Change) -> list[Push]:
        self._unplaced.pop(change.newest.key, None)
        held = self._pods.pop(change.newest.key, None)
        if held is None:
            return []
        pod, found = held
        self._since.pop(pod.uid, None)
        self._of_node[pod.node].discard(pod.key)
        if not self._of_node[pod.node]:
            del self._of_node[pod.node]
        self._drop_account_user(found.account, pod.key)
        last = change.old if change.old is not None and change.old.uid == pod.uid else pod
        return [Push(pod.node, last, deleted=True), *self._count(pod.node, self._refs(found), frozenset())]

    def config_changed(self, change: Change) -> list[Push]:
        """A configmap or secret: every node with a pod that refers to it is told."""
        item = change.newest
        return self._tell_users((item.kind.wire, item.namespace, item.name), change)

    def service_changed(self, change: Change) -> list[Push]:
        """A Service: every node with a pod in its namespace that wants variables of it is told."""
        item = change.newest
        held = self._services.setdefault(item.namespace, {})
        if change.new is None:
            held.pop(item.name, None)
        else:
            held[item.name] = change.new
        if not held:
            del self._services[item.namespace]
        return self._tell_users(services_of(item.namespace), change)

    def _tell_users(self, ref: Ref, change: Change) -> list[Push]:
        item = change.newest
        users = sorted(self._users.get(ref, ()))
        if change.new is None:
            loose = [node for node, held in self._loose if held == ref]
            if ref[2]:
                for node in loose:
                    del self._loose[node, ref]
            return [Push(node, item, deleted=True) for node in sorted({*users, *loose})]
        return [Push(node, change.new, first=change.old is None, back=change.back) for node in users]

    def account_changed(self, change: Change) -> list[Push]:
        """A service account: its pull secrets follow its pods."""
        key = change.newest.key
        before = self._accounts.get(key, frozenset())
        try:
            after = pull_secrets(change.new) if change.new is not None else frozenset()
        except ProtocolError as error:
            log.warning("Cannot use the pull secrets of service account %s/%s: %s", *key, error)
            self._vague.add(key)
            return []
        self._vague.discard(key)
        if before == after:
            return []
        pods = [self._pods[pod] for pod in sorted(self._of_account.get(key, ()))]
        old = [(pod.node, self._refs(found)) for pod, found in pods]
        if after:
            self._accounts[key] = after
        else:
            self._accounts.pop(key, None)
        pushes: list[Push] = []
        for (node, was), (_, found) in zip(old, pods, strict=True):
            pushes += self._count(node, was, self._refs(found))
        return pushes

    def sweep(self) -> list[Push]:
        """Call now and then: takes back what was not referred to for one whole interval."""
        pushes: list[Push] = []
        for (node, ref), seen in list(self._loose.items()):
            if self.holds_back(node):
                continue
            if seen == 0:
                self._loose[node, ref] = 1
                continue
            del self._loose[node, ref]
            pushes += [Push(node, item, deleted=True) for item in self._items(ref)]
        return pushes

    # -- difference ----------------------------------------------------------------------------------------------

    def claims(self, node: str) -> set[str]:
        """The uids of what `node` may hold: what it should, and what is not taken back yet."""
        loose = (item for held, ref in self._loose if held == node for item in self._items(ref))
        return {item.uid for item in (*self.wanted(node), *loose)}

    def difference(self, node: str, inventory: Inventory) -> tuple[list[Push], list[Object], dict[str, str]]:
        """What to tell a node that holds `inventory`.

        Returns what to push because it is missing there or newer here, what it holds as it is here, and what needs a second
        look (uid → path): what does not belong to it, which is deleted only then, and what it holds in a newer version than
        is known here, which means that we are behind, or that the API went back.  An edge is not told of a status alone, so
        what it holds may be older than what is here and yet the same."""
        pushes: list[Push] = []
        known: list[Object] = []
        ahead: dict[str, str] = {}
        extra = {uid: entry.resource for uid, entry in inventory.objects.items()}
        for item in self.wanted(node):
            entry = inventory.objects.get(item.uid)
            extra.pop(item.uid, None)
            since = self._since.get(item.uid, item.number)
            if entry is not None and number(entry.version) > item.number:
                ahead[item.uid] = item.path
            elif entry is not None and number(entry.version) >= since and not item.deleting:
                known.append(item)
            else:
                pushes.append(Push(node, item, first=entry is None and not item.deleting))
        mine = ahead
        for uid, path in extra.items():
            if path.split("/", 2)[1:2] not in (["pod"], ["configmap"], ["secret"], ["service"]):
                continue
            try:
                parse(path)
            except ProtocolError:
                continue  # nonsense
            mine[uid] = path
        return pushes, known, mine

    # -- counting ------------------------------------------------------------------------------------------------

    def _refs(self, found: Closure) -> frozenset[Ref]:
        return found.refs | self._accounts.get(found.account, frozenset())

    def _drop_account_user(self, account: tuple[str, str], pod: tuple[str, str]) -> None:
        users = self._of_account.get(account)
        if users is not None:
            users.discard(pod)
            if not users:
                del self._of_account[account]

    def _count(self, node: str, before: frozenset[Ref], after: frozenset[Ref]) -> list[Push]:
        """Note that one pod on `node` went from `before` to `after`: what the node newly needs."""
        pushes: list[Push] = []
        for ref in sorted(after - before):
            users = self._users.setdefault(ref, Counter())
            users[node] += 1
            self._loose.pop((node, ref), None)
            if users[node] == 1:
                pushes += [Push(node, item, first=True) for item in self._items(ref)]
        for ref in sorted(before - after):
            users = self._users[ref]
            users[node] -= 1
            if users[node] == 0:
                del users[node]
                if ref[0] in PUSHED:
                    self._loose[node, ref] = 0
            if not users:
                del self._users[ref]
        return pushes
