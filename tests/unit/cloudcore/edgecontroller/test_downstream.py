from __future__ import annotations

from typing import Any

import msgspec

from beehive.message import Inventory, InventoryEntry, Op
from cloudcore.edgecontroller.downstream import Placement, Push
from cloudcore.edgecontroller.references import Ref, closure
from cloudcore.objects import (
    CONFIGMAP,
    EDGE_LABEL,
    NODE,
    POD,
    SECRET,
    SERVICE,
    SERVICEACCOUNT,
    Change,
    Kind,
    Object,
    read,
)


class World:
    """The caches, as a dictionary, and the placement that follows them."""

    def __init__(self) -> None:
        self.version = 0
        self.held: dict[tuple[str, str], Object] = {}
        self.placement = Placement(self.lookup)

    def lookup(self, ref: Ref) -> Object | None:
        return self.held.get((ref[0], ref[2]))

    def make(self, kind: Kind, name: str, uid: str = "", meta: Any = None, **body: Any) -> Object:
        self.version += 1
        metadata = {
            "name": name,
            "namespace": "ns" if kind.namespaced else "",
            "uid": uid or f"{kind.wire}-{name}",
            "resourceVersion": str(self.version),
            **(meta or {}),
        }
        return read(kind, msgspec.json.encode({"metadata": metadata, **body}))

    def put(self, item: Object) -> list[tuple[str, str, str]]:
        key = (item.kind.wire, item.name)
        change = Change(self.held.get(key), item)
        self.held[key] = item
        return shown(self.tell(change))

    def drop(self, kind: Kind, name: str) -> list[tuple[str, str, str]]:
        return shown(self.tell(Change(self.held.pop((kind.wire, name)), None)))

    def tell(self, change: Change) -> list[Push]:
        handlers = {
            "Pod": self.placement.pod_changed,
            "Node": self.placement.node_changed,
            "ServiceAccount": self.placement.account_changed,
            "Service": self.placement.service_changed,
        }
        return handlers.get(change.newest.kind.kind, self.placement.config_changed)(change)

    def pod(self, name: str = "web", node: str = "a", uid: str = "", meta: Any = None, **spec: Any) -> Object:
        return self.make(POD, name, uid, meta, spec={"nodeName": node, "containers": [], **spec})


def shown(pushes: list[Push]) -> list[tuple[str, str, str]]:
    return [
        (push.node, push.delivery().message.route.operation, push.delivery().message.route.resource)
        for push in pushes
    ]


def uses(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "configMap": {"name": name}} for name in names]


def test_everything_that_a_pod_can_refer_to_is_found() -> None:
    def env(kind: str, name: str) -> dict[str, Any]:
        return {"name": "E", "valueFrom": {kind: {"name": name, "key": "k"}}}

    spec: dict[str, Any] = {
        "nodeName": "a",
        "serviceAccountName": "robot",
        "containers": [{"env": [env("configMapKeyRef", "c1"), env("secretKeyRef", "s1")]}],
        "initContainers": [{"envFrom": [{"configMapRef": {"name": "c2"}}, {"secretRef": {"name": "s2"}}]}],
        "ephemeralContainers": [{"envFrom": [{"secretRef": {"name": "s3"}}]}],
        "imagePullSecrets": [{"name": "s4"}],
        "volumes": [
            {"name": "v1", "configMap": {"name": "c3"}},
            {"name": "v2", "secret": {"secretName": "s5"}},
            {"name": "v3", "persistentVolumeClaim": {"claimName": "p1"}},
            {"name": "v4", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
            {
                "name": "v5",
                "projected": {
                    "sources": [
                        {"configMap": {"name": "c4"}},
                        {"secret": {"name": "s6"}},
                        {"serviceAccountToken": {"audience": "vault", "expirationSeconds": 900}},
                        {"serviceAccountToken": {"path": "token"}},
                    ]
                },
            },
            {"name": "v6", "emptyDir": {}},
        ],
    }
    found = closure(World().make(POD, "web", spec=spec))
    names = {(kind, name) for kind, _, name in found.refs}
    assert names == {
        *(("configmap", f"c{i}") for i in range(1, 5)),
        *(("secret", f"s{i}") for i in range(1, 7)),
        ("persistentvolumeclaim", "p1"),
        ("persistentvolumeclaim", "web-v4"),
        ("service", ""),
    }
    assert found.facts.tokens == {"vault": 900, "": 3600}
    assert found.account == ("ns", "robot")


def test_the_services_of_a_namespace_follow_its_pods() -> None:
    world = World()
    web = world.make(SERVICE, "web")
    assert world.put(web) == [], "nobody is there who would be told of it"
    assert world.put(world.pod("quiet", enableServiceLinks=False)) == [("a", Op.INSERT, "ns/pod/quiet")]
    assert world.put(world.pod("one")) == [
        ("a", Op.INSERT, "ns/service/web"),
        ("a", Op.INSERT, "ns/pod/one"),
    ]
    assert world.put(world.make(SERVICE, "db")) == [("a", Op.INSERT, "ns/service/db")]
    assert world.put(world.make(SERVICE, "db")) == [("a", Op.UPDATE, "ns/service/db")]
    assert world.drop(SERVICE, "db") == [("a", Op.DELETE, "ns/service/db")]
    assert world.placement.refers("a", "service", "ns", "web")
    assert not world.placement.refers("b", "service", "ns", "web")
    empty = Inventory(objects={})
    assert "service-web" in {push.item.uid for push in world.placement.difference("a", empty)[0]}
    # a node that missed the delete of one is looked at again
    held = {"service-db": InventoryEntry("ns/service/db", "1")}
    assert world.placement.difference("a", Inventory(objects=held))[2] == {"service-db": "ns/service/db"}
    world.drop(POD, "one")
    assert "service-web" in world.placement.claims("a"), "not before its sweep"
    assert shown(world.placement.sweep()) == []
    assert shown(world.placement.sweep()) == [("a", Op.DELETE, "ns/service/web")]


def test_a_pod_comes_after_what_it_refers_to() -> None:
    world = World()
    world.put(world.make(CONFIGMAP, "settings"))
    assert world.put(world.pod(volumes=uses("settings", "later"))) == [
        ("a", Op.INSERT, "ns/configmap/settings"),
        ("a", Op.INSERT, "ns/pod/web"),
    ]
    assert world.put(world.make(CONFIGMAP, "later")) == [("a", Op.INSERT, "ns/configmap/later")]
    assert world.put(world.make(CONFIGMAP, "settings", data={"a": "b"})) == [
        ("a", Op.UPDATE, "ns/configmap/settings")
    ]
    assert world.put(world.make(CONFIGMAP, "unused")) == []
    assert world.placement.refers("a", "configmap", "ns", "settings")
    assert not world.placement.refers("b", "configmap", "ns", "settings")


def test_a_status_alone_is_not_pushed_but_a_deletion_mark_is() -> None:
    world = World()
    world.put(world.pod())
    changed = world.make(POD, "web", spec={"nodeName": "a", "containers": []}, status={"phase": "Running"})
    assert world.put(changed) == []
    marked = world.pod(meta={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    assert world.put(marked) == [("a", Op.UPDATE, "ns/pod/web")]


def test_a_pod_that_goes_is_deleted_and_its_things_later() -> None:
    world = World()
    world.put(world.make(SECRET, "key"))
    world.put(world.pod(imagePullSecrets=[{"name": "key"}]))
    assert world.drop(POD, "web") == [("a", Op.DELETE, "ns/pod/web")]
    assert not world.placement.refers("a", "secret", "ns", "key")
    assert shown(world.placement.sweep()) == []
    assert shown(world.placement.sweep()) == [("a", Op.DELETE, "ns/secret/key")]
    assert shown(world.placement.sweep()) == []


def test_a_successor_keeps_what_the_old_pod_had() -> None:
    world = World()
    world.put(world.make(SECRET, "key"))
    world.put(world.pod(imagePullSecrets=[{"name": "key"}]))
    world.drop(POD, "web")
    world.placement.sweep()
    world.put(world.pod(uid="second", imagePullSecrets=[{"name": "key"}]))
    assert [shown(world.placement.sweep()) for _ in range(3)] == [[], [], []]


def test_a_thing_that_goes_while_loose_is_taken_back_at_once() -> None:
    world = World()
    world.put(world.make(SECRET, "key"))
    world.put(world.pod(imagePullSecrets=[{"name": "key"}]))
    world.drop(POD, "web")
    assert world.drop(SECRET, "key") == [("a", Op.DELETE, "ns/secret/key")]
    assert [shown(world.placement.sweep()) for _ in range(2)] == [[], []]


def test_an_accounts_pull_secrets_follow_its_pods() -> None:
    world = World()
    world.put(world.make(SECRET, "pull"))
    world.put(world.pod(serviceAccountName="robot"))
    account = world.make(SERVICEACCOUNT, "robot", imagePullSecrets=[{"name": "pull"}])
    assert world.put(account) == [("a", Op.UPDATE, "ns/secret/pull")]
    assert world.placement.refers("a", "secret", "ns", "pull")
    world.put(world.make(SERVICEACCOUNT, "robot"))
    assert not world.placement.refers("a", "secret", "ns", "pull")


def test_pods_without_node_and_unreadable_pods_go_nowhere() -> None:
    world = World()
    assert world.put(world.pod(node="")) == []
    assert world.put(world.make(POD, "odd", spec={"nodeName": "a", "volumes": 7})) == []


def test_only_edge_nodes_and_only_their_substance() -> None:
    world = World()
    assert world.put(world.make(NODE, "a")) == []
    labels = {"labels": {EDGE_LABEL: ""}}
    assert world.put(world.make(NODE, "a", meta=labels)) == [("a", Op.UPDATE, "null/node/a")]
    assert world.put(world.make(NODE, "a", meta=labels, status={"x": 1})) == []


def test_the_difference_sends_what_is_newer_and_names_what_is_too_much() -> None:
    world = World()
    world.put(world.make(CONFIGMAP, "settings"))
    world.put(world.pod("same", volumes=uses("settings")))
    world.put(world.pod("newer"))
    world.put(world.pod("missing"))
    world.put(world.pod("elsewhere", node="b"))
    version = world.held["pod", "same"].version
    inventory = Inventory(
        objects={
            "pod-same": InventoryEntry("ns/pod/same", version),
            "pod-newer": InventoryEntry("ns/pod/newer", "1"),
            "pod-gone": InventoryEntry("ns/pod/gone", "7"),
            "pod-elsewhere": InventoryEntry("ns/pod/elsewhere", "7"),
            "x": InventoryEntry("ns/device/room", "7"),
            "y": InventoryEntry("../../etc", "7"),
        }
    )
    pushes, known, extra = world.placement.difference("a", inventory)
    assert shown(pushes) == [
        ("a", Op.INSERT, "ns/pod/missing"),
        ("a", Op.UPDATE, "ns/pod/newer"),
        ("a", Op.INSERT, "ns/configmap/settings"),
    ]
    assert [item.name for item in known] == ["same"]
    assert extra == {"pod-gone": "ns/pod/gone", "pod-elsewhere": "ns/pod/elsewhere"}


def test_nothing_is_left_of_what_is_gone() -> None:
    world = World()
    for name in ("one", "two"):
        world.put(world.pod(name, volumes=uses("settings")))
    for name in ("one", "two"):
        world.drop(POD, name)
    for _ in range(3):
        world.placement.sweep()
    tables = ("_pods", "_of_node", "_users", "_loose", "_of_account")
    assert [len(getattr(world.placement, table)) for table in tables] == [0] * 5


def test_an_edge_that_missed_a_status_only_holds_the_same() -> None:
    world = World()
    world.put(world.make(NODE, "a", meta={"labels": {EDGE_LABEL: ""}}))
    world.put(world.pod())
    told = {item.uid: InventoryEntry(item.path, item.version) for item in world.placement.wanted("a")}
    assert len(told) == 2
    session = {"skerry.dev/session": "9", "cloudcore": "10.0.0.1"}
    world.put(
        world.make(NODE, "a", meta={"labels": {EDGE_LABEL: ""}, "annotations": session}, status={"x": 1})
    )
    world.put(world.make(POD, "web", spec={"nodeName": "a", "containers": []}, status={"phase": "Running"}))
    pushes, known, extra = world.placement.difference("a", Inventory(objects=told))
    assert (pushes, extra) == ([], {})
    assert {item.name for item in known} == {"a", "web"}
    world.put(world.pod(meta={"labels": {"app": "web"}}))
    pushes, known, _ = world.placement.difference("a", Inventory(objects=told))
    assert shown(pushes) == [("a", Op.UPDATE, "ns/pod/web")]
    assert [item.name for item in known] == ["a"]


def test_an_edge_hears_what_others_say_of_a_pods_readiness_gates() -> None:
    world = World()

    def gated(**status: str) -> Object:
        conditions = [{"type": kind, "status": value} for kind, value in status.items()]
        spec = {"nodeName": "a", "containers": [], "readinessGates": [{"conditionType": "gate"}]}
        return world.make(POD, "web", spec=spec, status={"conditions": conditions})

    world.put(gated(Ready="False"))
    assert world.put(gated(Ready="True")) == []
    assert world.put(gated(Ready="True", gate="True")) == [("a", Op.UPDATE, "ns/pod/web")]
    assert world.put(gated(Ready="False", gate="True")) == []


def test_nothing_is_taken_back_while_a_pod_of_the_node_cannot_be_understood() -> None:
    world = World()
    world.put(world.make(CONFIGMAP, "one"))
    world.put(world.pod(volumes=uses("one")))
    world.put(world.pod("odd", volumes="not a list"))
    world.drop(POD, "web")
    for _ in range(3):
        assert world.placement.sweep() == []
    assert world.placement.holds_back("a")
    assert not world.placement.holds_back("b")
    world.put(world.pod("odd"))
    assert [shown(world.placement.sweep()) for _ in range(2)] == [[], [("a", "delete", "ns/configmap/one")]]


def test_an_account_that_cannot_be_understood_keeps_its_secrets() -> None:
    world = World()
    world.put(world.make(SECRET, "pull"))
    world.put(world.make(SERVICEACCOUNT, "default", imagePullSecrets=[{"name": "pull"}]))
    world.put(world.pod())
    assert world.put(world.make(SERVICEACCOUNT, "default", imagePullSecrets=7)) == []
    assert world.placement.refers("a", "secret", "ns", "pull")
    assert world.placement.holds_back("a")
