"""Writes while the cloud is away: taken, shown, kept over a restart, sent, and what becomes of conflicts."""

import asyncio
import json
from typing import Any

import pytest

from beehive import application
from beehive.application import Application, Verb
from beehive.mergepatch import merge_patch
from beehive.strategicpatch import strategic_merge
from edgecore.metaserver import offline as offline_module
from edgecore.metaserver import writes
from edgecore.metaserver.http import Answer
from edgecore.metaserver.mirror import Mirror, TooOld
from edgecore.metaserver.objects import Filter
from edgecore.metaserver.offline import OfflineWrites
from edgecore.metaserver.remote import Remote
from edgecore.metaserver.status import ApiError
from tests.unit.edgecore.metaserver.fakes import MAPS, FakeCloud, body, config
from tests.unit.edgecore.metaserver.test_api import CM, Bench, close, run, take


class WritingCloud(FakeCloud):
    """With the checks that an API server makes of a write."""

    def __init__(self) -> None:
        super().__init__()
        self.lose_answers = 0
        self.busy = 0

    def _answer(self, app: Application) -> Application:
        if application.pass_through(app.key):
            return super()._answer(app)
        if self.busy and app.verb not in (Verb.GET, Verb.LIST, Verb.WATCH):
            self.busy -= 1
            return self._no(app, 503, "ServiceUnavailable")
        target = application.parse_key(app.key)
        sent = json.loads(app.body or b"{}")
        meta = sent.get("metadata", {})
        if app.verb == Verb.CREATE:
            named = application.parse_key(app.key.removesuffix("null") + meta["name"])
            if named in self.objects:
                return self._no(app, 409, "AlreadyExists")
        there = self.objects.get(target)
        if there is None or app.verb not in (Verb.UPDATE, Verb.PATCH, Verb.DELETE):
            return super()._answer(app)
        option = json.loads(app.option or b"{}")
        if app.verb == Verb.DELETE:
            if option["preconditions"]["uid"] != there["metadata"]["uid"]:
                return self._no(app, 409, "Conflict")
            return super()._answer(app)
        if app.verb == Verb.UPDATE:
            if (
                meta.get("resourceVersion", there["metadata"]["resourceVersion"])
                != there["metadata"]["resourceVersion"]
            ):
                return self._no(app, 409, "Conflict")
            fresh = sent
        else:
            import base64

            sent = json.loads(base64.b64decode(option["Data"]))
            strategic = option["PatchType"] == writes.STRATEGIC
            fresh = strategic_merge(there, sent, "V1Deployment") if strategic else merge_patch(there, sent)
        self.version += 1
        fresh["metadata"] = fresh["metadata"] | {
            "uid": there["metadata"]["uid"],
            "resourceVersion": str(self.version),
        }
        self.objects[target] = fresh
        return application.approved(app, json.dumps(fresh).encode())

    def _no(self, app: Application, code: int, reason: str) -> Application:
        failure = {
            "kind": "Status",
            "status": "Failure",
            "code": code,
            "reason": reason,
            "message": f"said {reason}",
        }
        return application.rejected(app, json.dumps(failure).encode())


class Stage(Bench):
    """`kinds` are taken offline."""

    def __init__(self, *kinds: str) -> None:
        super().__init__(WritingCloud(), frozenset(kinds or ("configmaps",)))
        self.cloud: WritingCloud

    def go(self, *, online: bool) -> None:
        if online:
            self.cloud.connect()
        else:
            self.cloud.online = False

    async def sent(self) -> None:
        async with asyncio.timeout(20):
            while len(self.offline):
                await asyncio.sleep(0)

    async def see(self, name: str = "a") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((await self.call("GET", f"{CM}/{name}")).body)
        return found

    def has(self, name: str = "a") -> dict[str, Any] | None:
        found = [value for target, value in self.cloud.objects.items() if target.name == name]
        return found[0] if found else None


async def create(stage: Stage, name: str = "a", **data: str) -> Answer:
    value = {"metadata": {"name": name}, "data": data}
    return await stage.call("POST", CM, json.dumps(value).encode())


async def patch(stage: Stage, name: str = "a", **data: str | None) -> Answer:
    return await stage.call(
        "PATCH",
        f"{CM}/{name}",
        json.dumps({"data": data}).encode(),
        content_type="application/merge-patch+json",
    )


def test_a_write_offline_is_taken_shown_and_sent() -> None:
    async def test(stage: Stage) -> None:
        await stage.names(CM)
        stage.go(online=False)
        answer = await create(stage, k="v")
        assert answer.code == 202
        assert answer.headers["warning"].startswith('299 - "accepted on this node only')
        seen = await stage.see()
        assert seen["data"] == {"k": "v"}
        assert seen["metadata"]["annotations"] == {writes.PENDING: "create"}
        assert seen["metadata"]["creationTimestamp"]
        assert await stage.names(CM) == ["a"]
        assert stage.has() is None
        assert stage.offline.describe()["waiting"] == 1
        await patch(stage, more="w")
        stage.go(online=True)
        await stage.sent()
        there = stage.has()
        assert there is not None
        assert there["data"] == {"k": "v", "more": "w"}
        assert not {"annotations", "creationTimestamp"} & set(there["metadata"])
        assert (await stage.see())["metadata"] == there["metadata"]
        # in one request, as the account that wrote
        assert [app.verb for app in stage.cloud.asked if app.verb != Verb.LIST] == [Verb.CREATE, Verb.GET]
        assert (
            stage.store.kept.keys() & {key for key in stage.store.kept if key.startswith("writes")} == set()
        )
        stage.go(online=False)
        assert (await stage.see())["data"] == {"k": "v", "more": "w"}

    play(test)


def test_what_is_not_named_is_refused_with_a_sentence() -> None:
    async def test(stage: Stage) -> None:
        stage.go(online=False)
        error = await stage.refused("POST", "/api/v1/namespaces/web/secrets", b"{}")
        assert (error.code, error.reason) == (503, "ServiceUnavailable")
        assert "offlineWrites" in error.message
        for call in (("PUT", f"{CM}/a/status", b"{}"),):
            assert (await stage.refused(*call)).code == 503
        error = await stage.refused("PATCH", f"{CM}/none", b"{}", content_type="application/merge-patch+json")
        assert error.code == 404
        assert len(stage.offline) == 0

    play(test)


def test_updates_patches_and_deletes_of_what_is_known() -> None:
    async def test(stage: Stage) -> None:
        for name in "abc":
            stage.cloud.put("configmaps", body(name=name, version=101) | {"data": {"k": "old"}})
        await stage.names(CM)
        stage.go(online=False)
        one = await stage.see("a")
        one["data"] = {"k": "new"}
        assert (await stage.call("PUT", f"{CM}/a", json.dumps(one).encode())).code == 202
        # what was read before the first write is not what is there now
        assert (await stage.refused("PUT", f"{CM}/a", json.dumps(one).encode())).code == 409
        again = await stage.see("a")
        again["data"]["more"] = "x"
        await stage.call("PUT", f"{CM}/a", json.dumps(again).encode())
        await patch(stage, "b", k=None, other="y")
        await stage.call("DELETE", f"{CM}/c", b'{"propagationPolicy":"Background"}')
        assert (await stage.refused("GET", f"{CM}/c")).code == 404
        assert (await stage.refused("DELETE", f"{CM}/c")).code == 404
        assert await stage.names(CM) == ["a", "b"]
        assert len(stage.offline) == 3
        stage.go(online=True)
        await stage.sent()
        assert (stage.has("a") or {})["data"] == {"k": "new", "more": "x"}
        assert (stage.has("b") or {})["data"] == {"other": "y"}
        assert stage.has("c") is None
        assert await stage.names(CM) == ["a", "b"]
        assert stage.offline.describe()["dropped"] == {}

    play(test)


def test_the_conflict_rule() -> None:
    async def test(stage: Stage) -> None:
        for name in "abcd":
            stage.cloud.put("configmaps", body(name=name, version=101) | {"data": {"k": "old"}})
        await stage.names(CM)
        stage.go(online=False)
        read = await stage.see("a")
        read["data"] = {"k": "edge"}
        await stage.call("PUT", f"{CM}/a", json.dumps(read).encode())
        blind = {"metadata": {"name": "b"}, "data": {"k": "edge"}}
        await stage.call("PUT", f"{CM}/b", json.dumps(blind).encode())
        await patch(stage, "c", edge="1")
        await stage.call("DELETE", f"{CM}/d")
        await create(stage, "e", k="edge")
        # meanwhile, in the cloud
        for name in "abce":
            stage.cloud.put("configmaps", body(name=name, version=200) | {"data": {"k": "cloud"}})
        stage.cloud.put("configmaps", body(name="d", version=201, uid="another") | {"data": {"k": "cloud"}})
        stage.go(online=True)
        await stage.sent()
        data = {name: (stage.has(name) or {})["data"] for name in "abcde"}
        assert data == {
            "a": {"k": "cloud"},
            "b": {"k": "edge"},
            "c": {"k": "cloud", "edge": "1"},
            "d": {"k": "cloud"},
            "e": {"k": "cloud"},
        }
        # the delete of an object that is gone, by its UID, is done
        told = stage.offline.describe()
        assert told["dropped"] == {"configmaps/AlreadyExists": 1, "configmaps/Conflict": 1}
        assert any("web/a" in line for line in told["lastDropped"])
        # and clients here see what the cloud has
        stage.go(online=False)
        assert {name: (await stage.see(name))["data"] for name in "abcde"} == data

    play(test)


def test_what_waits_survives_a_restart_and_is_sent_once() -> None:
    async def test(stage: Stage) -> None:
        await stage.names(CM)
        stage.go(online=False)
        await create(stage, k="v")
        mirror = Mirror(stage.store)
        remote = Remote(stage.cloud, mirror, "edge-1", monotonic=lambda: 0.0)
        again = OfflineWrites(stage.store, mirror, remote, frozenset({"configmaps"}), wall=lambda: stage.now)
        await mirror.load()
        await again.load()
        assert len(again) == 1
        found = await mirror.get(offline_module.Gvr("", "v1", "configmaps"), "web", "a")
        assert found is not None
        # whoever watches on lists again: what the first process heard and did not tell is in no history
        with pytest.raises(TooOld):
            await mirror.watch(Filter(gvr=MAPS), found.version)
        # the first process sent it, and was killed before it could note that
        stage.cloud.put("configmaps", body(name="a", version=150) | {"data": {"k": "v"}})
        stage.cloud.online = True
        loop = asyncio.get_running_loop()
        task = loop.create_task(again.run())
        async with asyncio.timeout(20):
            while len(again):
                await asyncio.sleep(0)
        task.cancel()
        assert again.describe()["dropped"] == {}

    play(test)


def test_a_busy_cloud_is_asked_again_and_order_is_kept() -> None:
    async def test(stage: Stage) -> None:
        await stage.names(CM)
        stage.go(online=False)
        await create(stage, "a", k="1")
        await create(stage, "b", k="2")
        stage.cloud.busy = 1
        stage.go(online=True)
        await stage.sent()
        made = [
            json.loads(app.body or b"")["metadata"]["name"]
            for app in stage.cloud.asked
            if app.verb == Verb.CREATE
        ]
        assert made == ["a", "a", "b"]
        assert stage.offline.describe()["dropped"] == {}

    play(test)


def test_watches_see_the_write_and_then_what_the_cloud_made_of_it() -> None:
    async def test(stage: Stage) -> None:
        await stage.names(CM)
        stage.go(online=False)
        watch = await stage.call("GET", f"{CM}?watch=true")
        await create(stage, k="v")
        assert await take(watch, 1) == [("ADDED", "a")]
        await patch(stage, k="w")
        assert await take(watch, 1) == [("MODIFIED", "a")]
        await stage.call("DELETE", f"{CM}/a")
        await create(stage, "b", k="v")
        assert await take(watch, 2) == [("DELETED", "a"), ("ADDED", "b")]
        stage.go(online=True)
        await stage.sent()
        assert await take(watch, 1) == [("MODIFIED", "b")]
        await close(watch)

    play(test)


def test_what_comes_from_the_cloud_is_not_shown_over_what_waits() -> None:
    async def test(stage: Stage) -> None:
        await stage.mirror.learn(MAPS, [config("a", 101)])
        stage.go(online=False)
        watch = await stage.call("GET", f"{CM}?watch=true")
        assert await take(watch, 1) == [("ADDED", "a")]
        await patch(stage, k="w")
        assert await take(watch, 1) == [("MODIFIED", "a")]
        await stage.mirror.learn(MAPS, [config("a", 300)])
        assert (await stage.see())["data"] == {"k": "w"}
        await create(stage, "b")
        assert await take(watch, 1) == [("ADDED", "b")]
        await stage.mirror.settle(MAPS, "web", "a")
        assert await take(watch, 1) == [("MODIFIED", "a")]
        assert (await stage.see())["metadata"]["resourceVersion"] == "300"
        await stage.mirror.learn(MAPS, [config("a", 301)])
        assert await take(watch, 1) == [("MODIFIED", "a")]
        await close(watch)

    play(test)


def test_there_is_room_for_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline_module, "MAX_WRITES", 3)

    async def test(stage: Stage) -> None:
        stage.go(online=False)
        for name in "abc":
            await create(stage, name)
        error = await stage.refused("POST", CM, json.dumps({"metadata": {"name": "d"}}).encode())
        assert error.code == 503
        assert "room" in error.message
        # folding needs none
        assert (await patch(stage, "a", k="v")).code == 202
        stage.store.broken = True
        error = await stage.refused(
            "PATCH", f"{CM}/a", b'{"data":{"k":"w"}}', content_type="application/merge-patch+json"
        )
        assert error.code == 503
        assert (await stage.see("a"))["data"] == {"k": "v"}

    play(test)


def test_another_account_does_not_write_on_top() -> None:
    async def test(stage: Stage) -> None:
        stage.go(online=False)
        await create(stage)
        info = offline_module.Info(
            verb="patch", version="v1", resource="configmaps", namespace="web", name="a"
        )
        with pytest.raises(offline_module.ApiError, match="another account"):
            await stage.offline.take(info, {}, writes.MERGE, b"{}", "web:bob")

    play(test)


@pytest.mark.parametrize(
    "sent",
    [
        b"[]",
        b"{",
        b'{"metadata":[]}',
        b'{"metadata":{}}',
        b'{"metadata":{"name":"a/b"}}',
        b'{"metadata":{"name":"a","namespace":"x"}}',
        b"\xff",
    ],
)
def test_a_body_that_is_no_object_is_the_callers_fault(sent: bytes) -> None:
    async def test(stage: Stage) -> None:
        stage.go(online=False)
        assert 400 <= (await stage.refused("POST", CM, sent)).code < 600
        assert len(stage.offline) == 0

    play(test)


def play(test: Any) -> None:
    run(test, Stage)


DEPLOYMENTS = "/apis/apps/v1/namespaces/web/deployments"


def deployment(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": list(containers)}}}}


def test_strategic_patches_are_shown_joined_and_sent_as_one() -> None:
    """What `kubectl set image` and `kubectl set env` send: the cloud's own changes to other containers stay."""

    async def test(stage: Stage) -> None:
        here = application.Target(
            group="apps", version="v1", resource="deployments", namespace="web", name="a"
        )
        body = {
            "kind": "Deployment",
            "apiVersion": "apps/v1",
            "metadata": {"name": "a", "namespace": "web", "uid": "u", "resourceVersion": "5"},
            **deployment({"name": "x", "image": "1"}, {"name": "y", "image": "1"}),
        }
        stage.cloud.objects[here] = body
        await stage.call("GET", f"{DEPLOYMENTS}/a")
        stage.go(online=False)
        patches = (
            deployment({"name": "x", "image": "2"}),
            deployment({"name": "x", "env": [{"name": "A", "value": "b"}]}),
            {"metadata": {"labels": {"l": "m"}}},
        )
        for change in patches:
            form = writes.STRATEGIC if "spec" in change else writes.MERGE
            answer = await stage.call(
                "PATCH", f"{DEPLOYMENTS}/a", json.dumps(change).encode(), content_type=form
            )
            assert answer.code == 202
        seen = json.loads((await stage.call("GET", f"{DEPLOYMENTS}/a")).body)
        want = {"name": "x", "image": "2", "env": [{"name": "A", "value": "b"}]}
        assert seen["spec"]["template"]["spec"]["containers"] == [want, {"name": "y", "image": "1"}]
        assert seen["metadata"]["labels"] == {"l": "m"}
        stage.cloud.objects[here] = {
            **body,
            **deployment({"name": "x", "image": "1"}, {"name": "y", "image": "7"}),
        }
        stage.go(online=True)
        await stage.sent()
        there = stage.has()
        assert there is not None
        assert there["spec"]["template"]["spec"]["containers"] == [want, {"name": "y", "image": "7"}]
        assert (stage.offline.sent, sum(stage.offline.dropped.values())) == (1, 0)

    run(test, lambda: Stage("deployments.apps"))


def test_a_custom_kind_has_no_strategic_patches() -> None:
    async def test(stage: Stage) -> None:
        stage.go(online=False)
        path = "/apis/acme.io/v1/namespaces/web/pumps/a"
        with pytest.raises(ApiError) as refused:
            await stage.call("PATCH", path, b"{}", content_type=writes.STRATEGIC)
        assert refused.value.code == 415

    run(test, lambda: Stage("pumps.acme.io"))


@pytest.mark.parametrize("metadata", ["text", [1], {"annotations": [1]}, {"labels": 3}])
def test_metadata_that_is_none_is_the_callers_fault(metadata: Any) -> None:
    async def test(stage: Stage) -> None:
        stage.go(online=False)
        await create(stage, k="v")
        body = json.dumps({"metadata": metadata}).encode()
        for verb, path, form in (
            ("POST", CM, "application/json"),
            ("PUT", f"{CM}/a", "application/json"),
            ("PATCH", f"{CM}/a", writes.MERGE),
            ("PATCH", f"{CM}/a", writes.STRATEGIC),
        ):
            with pytest.raises(ApiError) as refused:
                await stage.call(verb, path, body, content_type=form)
            assert refused.value.code == 400, (verb, form)
        assert (await stage.see())["data"] == {"k": "v"}

    run(test, Stage)


def test_a_dry_run_shows_what_would_be_and_keeps_nothing() -> None:
    async def test(stage: Stage) -> None:
        stage.go(online=False)
        value = json.dumps({"metadata": {"name": "a"}, "data": {"k": "v"}}).encode()
        answer = await stage.call("POST", f"{CM}?dryRun=All", value)
        assert (answer.code, json.loads(answer.body)["data"]) == (200, {"k": "v"})
        assert "annotations" not in json.loads(answer.body)["metadata"]
        assert "tried on this node only" in answer.headers["warning"]
        assert (await stage.refused("GET", f"{CM}/a")).code == 404
        await create(stage, k="v")
        target, change = f"{CM}/a?dryRun=All", b'{"data":{"k":"w"}}'
        tried = json.loads((await stage.call("PATCH", target, change, content_type=writes.STRATEGIC)).body)
        assert tried["data"] == {"k": "w"}
        assert tried["metadata"] == (await stage.see())["metadata"]
        assert (await stage.call("DELETE", f"{CM}/a", b'{"dryRun":["All"]}')).code == 200
        assert (await stage.see())["data"] == {"k": "v"}
        assert len(stage.offline) == 1

    run(test, Stage)


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("DELETE", "/api/v1/namespaces/web/pods/a", "edgecore restart"),
        ("PATCH", "/api/v1/nodes/e", "labels, taints and cordons"),
        ("POST", "/api/v1/namespaces/web/serviceaccounts/a/token", "sign tokens"),
        ("POST", "/api/v1/namespaces/web/pods/a/eviction", "evicted"),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/web/leases/a", "cannot be written without it"),
        ("PUT", f"{CM}/a/status", "configmaps/status cannot be written"),
    ],
)
def test_what_cannot_be_says_why(method: str, path: str, words: str) -> None:
    async def test(stage: Stage) -> None:
        stage.go(online=False)
        error = await stage.refused(method, path, b"{}", content_type=writes.MERGE)
        assert error.code == 503
        assert words in error.message
        assert "offlineWrites" not in error.message

    run(test, Stage)
