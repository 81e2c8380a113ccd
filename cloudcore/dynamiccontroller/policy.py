"""Gives each node the rights of the service accounts whose pods it runs, and keeps them current.

Level-triggered: whatever changes — a role, a binding, a pod, a link — the wanted state of every connected node is worked out
again, a moment later, and what differs from what that link was told is pushed.  Versions are those of the caches, which
only grow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from beehive import rbac
from beehive.delivery import Item, Priority
from beehive.errors import ProtocolError
from beehive.message import Group, Inventory, Op, Source, new
from beehive.resource import make
from cloudcore.cache import Cache
from cloudcore.cloudhub.nodes import Link, Nodes
from cloudcore.dynamiccontroller import rights
from cloudcore.dynamiccontroller.rights import Name, Policy
from cloudcore.kube import Kube
from cloudcore.objects import Kind, Object, number
from cloudcore.secondlook import Differed

log = logging.getLogger(__name__)

T = TypeVar("T")

SETTLE_S = 0.3
"""A rollout changes many things at once: they are looked at together."""

ROLE = Kind("Role", "roles", rights.GROUP)
CLUSTERROLE = Kind("ClusterRole", "clusterroles", rights.GROUP, namespaced=False)
ROLEBINDING = Kind("RoleBinding", "rolebindings", rights.GROUP)
CLUSTERROLEBINDING = Kind("ClusterRoleBinding", "clusterrolebindings", rights.GROUP, namespaced=False)


class PolicyController:
    """`run` is a supervised part.  accounts: of the pods bound to a node."""

    name = "policycontroller"

    def __init__(
        self,
        kube: Kube,
        nodes: Nodes,
        service_accounts: Cache,
        pods: Cache,
        accounts: Callable[[str], set[Name]],
    ) -> None:
        self.roles = Cache(kube, ROLE)
        self.cluster_roles = Cache(kube, CLUSTERROLE)
        self.bindings = Cache(kube, ROLEBINDING)
        self.cluster_bindings = Cache(kube, CLUSTERROLEBINDING)
        self._service_accounts = service_accounts
        self._nodes = nodes
        self._accounts = accounts
        self._dirty = asyncio.Event()
        self._told: dict[str, tuple[Link, dict[Name, bytes]]] = {}
        self._sent: dict[Name, tuple[int, bytes]] = {}
        for cache in (*self.caches, service_accounts, pods):
            cache.subscribe(lambda _: self._dirty.set())
        nodes.on_open.append(self._on_open)

    @property
    def caches(self) -> list[Cache]:
        """To be run beside this."""
        return [self.roles, self.cluster_roles, self.bindings, self.cluster_bindings]

    def _on_open(self, link: Link) -> None:
        before = link.on_deleted

        def on_deleted(item: Item) -> None:
            if before is not None:
                before(item)
            self._dirty.set()

        link.on_deleted = on_deleted
        self._dirty.set()

    async def differ(self, link: Link, inventory: Inventory) -> Differed:
        """What the node holds of rights that it needs no more is taken back; the rest is pushed by `run`."""
        wanted = self.claims(link.node)
        told = self._told.get(link.node)
        if told is not None and told[0] is link:
            for account in [name for name in told[1] if rights.uid_of(name) not in inventory.objects]:
                # it was told, and holds it no more
                del told[1][account]
                link.delivery.lost(rights.uid_of(account))
        keys: set[str] = set()
        for uid, entry in inventory.objects.items():
            parts = entry.resource.split("/")
            if len(parts) == 3 and parts[1] == rights.WIRE and uid not in wanted:
                keys |= self._take_back(link, (parts[0], parts[2]), uid)
        self._dirty.set()
        return Differed(keys)

    def claims(self, node: str) -> set[str]:
        """The uids of what `node` may hold."""
        return {rights.uid_of(account) for account in self._accounts(node)}

    async def run(self) -> None:
        for cache in self.caches:
            await cache.wait_synced()
        await self._service_accounts.wait_synced()
        while True:
            await self._dirty.wait()
            await asyncio.sleep(SETTLE_S)
            self._dirty.clear()
            self._push_all()

    def _push_all(self) -> None:
        """Tell every link what it was not told yet."""
        policy: Policy | None = None
        specs: dict[Name, bytes] = {}
        for node in [node for node, (link, _) in self._told.items() if self._nodes.get(node) is not link]:
            del self._told[node]
        for link in self._nodes:
            if not link.ready:
                self._dirty.set()  # its difference is being worked out
                continue
            _, told = self._told.setdefault(link.node, (link, {}))
            wanted = self._accounts(link.node)
            for account in wanted:
                if account not in specs:
                    policy = policy or self._policy()
                    specs[account] = self._spec(account, policy)
                if told.get(account) != specs[account]:
                    told[account] = specs[account]
                    self._offer(link, account, specs[account])
            for account in told.keys() - wanted:
                del told[account]
                self._take_back(link, account, rights.uid_of(account))

    def _spec(self, account: Name, policy: Policy) -> bytes:
        found = self._service_accounts.get(*account)
        return rights.spec(account, found.uid if found is not None else "", policy)

    def _version(self) -> int:
        return max((number(cache.version) for cache in (*self.caches, self._service_accounts)), default=0)

    def _offer(self, link: Link, account: Name, body: bytes) -> None:
        # what the caches know need not have come in one order: two states must not go under one version
        if self._sent.get(account, (0, b""))[1] != body:
            self._sent[account] = (max(self._version(), self._sent.get(account, (0, b""))[0] + 1), body)
        key = rights.uid_of(account)
        version = self._sent[account][0]
        if link.held_version(key) > version:
            # another hub's numbers, or those of an API that went back since: this node must take it all the same
            version = link.held_version(key) + 1
        message = new(
            source=Source.POLICYCONTROLLER,
            group=Group.RESOURCE,
            operation=Op.UPDATE,
            resource=str(make(rights.WIRE, account[1], account[0])),
            content=rights.document(account, body, version),
            version=str(version),
        )
        link.offer(Item(key=key, version=version, message=message, priority=Priority.STATUS))

    def _take_back(self, link: Link, account: Name, uid: str) -> set[str]:
        metadata = {"namespace": account[0], "name": account[1], "uid": uid}
        message = new(
            source=Source.POLICYCONTROLLER,
            group=Group.RESOURCE,
            operation=Op.DELETE,
            resource=str(make(rights.WIRE, account[1], account[0])),
            content={"metadata": metadata},
        )
        item = Item(key=uid, version=self._version(), message=message, delete=True)
        return {uid} if link.offer(item) else set()

    def _policy(self) -> Policy:
        return Policy(
            roles={item.key: role for item, role in _decoded(self.roles, rbac.Role)},
            cluster_roles={item.name: role for item, role in _decoded(self.cluster_roles, rbac.Role)},
            bindings=[binding for _, binding in _decoded(self.bindings, rbac.Binding)],
            cluster_bindings=[binding for _, binding in _decoded(self.cluster_bindings, rbac.Binding)],
        )


def _decoded(cache: Cache, as_type: type[T]) -> list[tuple[Object, T]]:
    out = []
    for item in cache:
        try:
            out.append((item, item.decode(as_type)))
        except ProtocolError as error:
            log.warning("Cannot use %s %s/%s: %s", item.kind.kind, item.namespace, item.name, error)
    return out
