"""What the hub does, and refuses, for edges' applications: a real cloudcore, edges that say what a test wants."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec

from beehive import application
from beehive.application import Application, State
from beehive.message import Message, Op, Source, new
from beehive.rbac import ServiceAccountAccess
from cloudcore.objects import POD
from tests.fakes import edge
from tests.integration.link.cloud import Cloud, node_body, pod_body
from tests.integration.metaserver.stage import (
    BINDING,
    CONFIGMAP,
    NODE,
    NODE_KIND,
    RBAC,
    ROLE,
    Stage,
    config_map,
)

MAPS = "/core/v1/configmaps/default/null"
ANN = "default:ann"


def frame(content: object, where: str = application.NULL) -> Message:
    return new(
        source=Source.METASERVER,
        group=Source.DYNAMICCONTROLLER,
        operation=application.NULL,
        resource=where,
        content=content,
    )


def asked(
    verb: str,
    key: str = MAPS,
    *,
    account: str | None = ANN,
    body: Any = None,
    node: str = NODE,
    **option: Any,
) -> Application:
    return application.make(
        node=node,
        key=key,
        verb=verb,
        option=json.dumps(option).encode(),
        body=json.dumps(body).encode() if body is not None else None,
        service_account=account,
    )


async def apply(link: edge.Edge, app: Application) -> Application:
    answer = await link.ask(frame(app))
    assert answer.route.operation == application.ANSWER_OP
    assert answer.route.resource == application.ANSWER_RESOURCE
    return answer.decode(Application)


def status(done: Application) -> dict[str, Any]:
    assert done.status == State.REJECTED
    found: dict[str, Any] = msgspec.json.decode(done.error.status)
    assert found["kind"] == "Status"
    return found


async def furnished(stage: Stage, cloud: Cloud) -> edge.Identity:
    identity = await cloud.node(NODE)
    await stage.account(cloud)
    return identity


def test_the_hub_asks_as_the_pods_account_and_as_nobody_else(tmp_path: Path) -> None:
    async def story() -> None:
        stage = Stage(tmp_path)
        async with stage.cloud() as cloud:
            one = await furnished(stage, cloud)
            two = await cloud.node("edge-2")
            await cloud.create(NODE_KIND, node_body("edge-2"))
            await cloud.create(CONFIGMAP, config_map("greeting", text="hello"))
            async with edge.connected(cloud.hub, one) as link, edge.connected(cloud.hub, two) as other:
                listed = await apply(link, asked("list"))
                assert listed.status == State.APPROVED
                names = [item["metadata"]["name"] for item in json.loads(listed.answer or b"")["items"]]
                assert "greeting" in names
                found = await apply(link, asked("get", "/core/v1/configmaps/default/greeting"))
                assert json.loads(found.answer or b"")["data"] == {"text": "hello"}
                missing = status(await apply(link, asked("get", "/core/v1/configmaps/default/absent")))
                assert (missing["code"], missing["reason"]) == (404, "NotFound")
                assert missing["details"]["name"] == "absent"

                # beyond the account's rights: other kinds, other namespaces, more rights for itself, new kinds
                role = {"apiGroup": RBAC, "kind": "ClusterRole", "name": "cluster-admin"}
                me = {"kind": "ServiceAccount", "name": "ann", "namespace": "default"}
                escalation = {
                    "apiVersion": f"{RBAC}/v1",
                    "kind": "ClusterRoleBinding",
                    "metadata": {"name": "mine"},
                    "roleRef": role,
                    "subjects": [me],
                }
                for app in (
                    asked("list", "/core/v1/secrets/default/null"),
                    asked("list", "/core/v1/configmaps/kube-system/null"),
                    asked("list", "/core/v1/configmaps/null/null"),
                    asked("create", f"/{RBAC}/v1/clusterrolebindings/null/null", body=escalation),
                    asked("watch", "/core/v1/secrets/default/null", resourceVersion="1"),
                    asked("list", account=""),
                    asked("list", account=None),
                    asked("list", account="kube-system:default"),
                    asked("list", account="default:nobody"),
                ):
                    if app.verb == "watch":
                        # the API says so when the watch is opened, a moment after the listener is
                        assert (await apply(link, app)).status == State.APPROVED
                        await link.until(
                            lambda e: any(
                                m.route.resource == application.SYNC_RESOURCE and app.id in m.decode(dict)  # noqa: B023
                                for m in e.pushes
                            )
                        )
                        continue
                    assert status(await apply(link, app))["code"] == 403, app

                # another node cannot borrow the account, nor the name
                assert status(await apply(other, asked("list")))["code"] == 403
                assert status(await apply(other, asked("list", account="", node=NODE)))["code"] == 403
                for key in ("/metrics", "/core/v1/pods/../x/null", "/version/../metrics", "/core/v1/pods"):
                    assert status(await apply(link, asked("get", key)))["code"] == 400
                keys = await apply(link, asked("get", "/openid/v1/jwks", account=""))
                assert json.loads(keys.answer or b"")["keys"]

    asyncio.run(story())


def test_a_watch_goes_on_where_the_list_ended_until_it_is_taken_back(tmp_path: Path) -> None:
    async def story() -> None:
        stage = Stage(tmp_path)
        async with stage.cloud() as cloud:
            identity = await furnished(stage, cloud)
            await cloud.create(CONFIGMAP, config_map("before"))
            async with edge.connected(cloud.hub, identity) as link:
                version = json.loads((await apply(link, asked("list"))).answer or b"")["metadata"][
                    "resourceVersion"
                ]
                await cloud.create(CONFIGMAP, config_map("between"))
                watch = asked("watch", resourceVersion=version)
                assert (await apply(link, watch)).status == State.APPROVED
                await link.until(lambda e: e.pushed(Op.INSERT, "default/configmap/between"))
                await cloud.patch(CONFIGMAP, "before", {"data": {"a": "b"}})
                await link.until(lambda e: e.pushed(Op.UPDATE, "default/configmap/before"))
                (pushed,) = link.pushed(Op.UPDATE, "default/configmap/before")
                assert pushed.route.source == Source.DYNAMICCONTROLLER
                assert pushed.version == pushed.decode(dict)["metadata"]["resourceVersion"]
                await cloud.api.delete(CONFIGMAP, "between", "default")
                await link.until(lambda e: e.pushed(Op.DELETE, "default/configmap/between"))
                assert not link.pushed(Op.INSERT, "default/configmap/before")
                # taken back
                answer = await link.ask(frame({}, application.SYNC_RESOURCE))
                assert answer.decode(dict) == {}
                await cloud.create(CONFIGMAP, config_map("after"))
                await asyncio.sleep(0.5)
                assert not link.pushed(Op.INSERT, "default/configmap/after")
                # asked for again by the sync itself
                answer = await link.ask(frame({watch.id: watch}, application.SYNC_RESOURCE))
                assert answer.decode(dict) == {}
                await link.until(lambda e: e.pushed(Op.INSERT, "default/configmap/after"))

    asyncio.run(story())


def test_a_stock_edge_asks_as_its_node_and_gets_what_a_node_may_see(tmp_path: Path) -> None:
    async def story() -> None:
        stage = Stage(tmp_path)
        async with stage.cloud() as cloud:
            identity = await furnished(stage, cloud)
            async with edge.connected(cloud.hub, identity, ours=False) as link:
                own = await apply(link, asked("get", "/core/v1/pods/default/p", account=None))
                assert json.loads(own.answer or b"")["metadata"]["name"] == "p"
                assert status(await apply(link, asked("list", account=None)))["reason"] == "Forbidden"
                assert status(await apply(link, asked("watch", account=None)))["reason"] == "Forbidden"
                answer = await link.ask(frame({}, application.SYNC_RESOURCE))
                assert answer.decode(dict) == {}

    asyncio.run(story())


def rights(link: edge.Edge) -> ServiceAccountAccess | None:
    pushed = link.pushed(Op.UPDATE, "default/serviceaccountaccess/ann")
    return pushed[-1].decode(ServiceAccountAccess) if pushed else None


def test_rights_follow_the_pods_and_the_bindings(tmp_path: Path) -> None:
    async def story() -> None:
        stage = Stage(tmp_path)
        async with stage.cloud() as cloud:
            identity = await furnished(stage, cloud)
            async with edge.connected(cloud.hub, identity) as link:
                await link.until(lambda e: (found := rights(e)) and found.spec.access_role_binding)
                first = rights(link)
                assert first is not None
                assert first.spec.service_account_uid
                rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]
                await cloud.patch(ROLE, "ann", {"rules": rules})
                await link.until(
                    lambda e: (
                        [rule.verbs for access in rights(e).spec.access_role_binding for rule in access.rules]
                        == [("get",)]
                    )
                )
                await cloud.api.delete(BINDING, "ann", "default")
                await link.until(lambda e: not rights(e).spec.access_role_binding)
                versions = [
                    int(m.version) for m in link.pushed(Op.UPDATE, "default/serviceaccountaccess/ann")
                ]
                assert versions == sorted(set(versions))
                await cloud.api.delete(POD, "p", "default", options=b'{"gracePeriodSeconds":0}')
                await link.until(lambda e: e.pushed(Op.DELETE, "default/serviceaccountaccess/ann"))
            # what it holds and needs no more is taken back at the next session, too
            held = dict(link.held)
            uid = first.metadata.uid
            held[uid] = edge.InventoryEntry("default/serviceaccountaccess/ann", "1")
            async with edge.connected(cloud.hub, identity, held=held) as link:
                await link.until(lambda e: e.pushed(Op.DELETE, "default/serviceaccountaccess/ann"))
                assert uid not in link.held

    asyncio.run(story())


def test_nonsense_does_not_end_the_link(tmp_path: Path) -> None:
    async def story() -> None:
        stage = Stage(tmp_path)
        async with stage.cloud() as cloud:
            identity = await furnished(stage, cloud)
            async with edge.connected(cloud.hub, identity) as link:
                for content in (5, {"ID": 5}, {"Verb": "get"}, [], "x"):
                    await link.send(frame(content))
                    await link.send(frame(content, application.SYNC_RESOURCE))
                assert (await apply(link, asked("list"))).status == State.APPROVED

    asyncio.run(story())


def test_pods_of_a_busy_node(tmp_path: Path) -> None:
    """A list that is larger than a frame is refused with a sentence, not by a broken link."""

    async def story() -> None:
        stage = Stage(tmp_path)
        async with stage.cloud() as cloud:
            identity = await furnished(stage, cloud)
            for number in range(9):
                await cloud.create(CONFIGMAP, config_map(f"big-{number}", text="x" * 900_000))
            await cloud.create(POD, pod_body("q", NODE, serviceAccountName="ann"))
            async with edge.connected(cloud.hub, identity) as link:
                assert status(await apply(link, asked("list")))["code"] == 413
                page = await apply(link, asked("list", limit=2))
                assert page.status == State.APPROVED
                assert json.loads(page.answer or b"")["metadata"]["continue"]

    asyncio.run(story())
