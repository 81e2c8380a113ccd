"""Requests and answers, with a hub and a store in memory."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import pytest

from edgecore.metaserver import access as access_module
from edgecore.metaserver import api as api_module
from edgecore.metaserver.access import Access
from edgecore.metaserver.api import Api
from edgecore.metaserver.http import Answer, Request
from edgecore.metaserver.mirror import Mirror
from edgecore.metaserver.offline import OfflineWrites
from edgecore.metaserver.remote import Remote
from edgecore.metaserver.status import ApiError
from tests.unit.edgecore.metaserver.fakes import FakeCloud, FakeStore, Op, body, push
from tests.unit.edgecore.metaserver.test_jwt import ISSUER, NOW, claims, jwk, token

CM = "/api/v1/namespaces/web/configmaps"


class Bench:
    """An API in front of fakes.  `now` is the wall clock."""

    def __init__(self, cloud: FakeCloud | None = None, offline: frozenset[str] = frozenset()) -> None:
        self.store, self.cloud = FakeStore(), cloud or FakeCloud()
        self.now = NOW
        self.mirror = Mirror(self.store)
        self.remote = Remote(self.cloud, self.mirror, "edge-1", monotonic=self._monotonic)
        self.access = Access(
            self.store,
            fetch=self.remote.fetch,
            online=lambda: self.remote.online,
            wall=lambda: self.now,
            monotonic=self._monotonic,
        )
        self.offline = OfflineWrites(self.store, self.mirror, self.remote, offline, wall=lambda: self.now)
        self.api = Api(
            self.access,
            self.mirror,
            self.remote,
            self.store,
            self.offline,
            monotonic=self._monotonic,
            wall=lambda: self.now,
        )

    def _monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def call(
        self,
        method: str,
        target: str,
        content: bytes = b"",
        *,
        bearer: str | None = None,
        local: bool = True,
        **headers: str,
    ) -> Answer:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        if bearer is not None:
            named["authorization"] = f"Bearer {bearer}"
        return await self.api.handle(
            Request(method=method, target=target, headers=named, body=content, client="x", local=local)
        )

    async def refused(self, *arguments: Any, **more: Any) -> ApiError:
        with pytest.raises(ApiError) as caught:
            await self.call(*arguments, **more)
        return caught.value

    async def names(self, target: str, **more: Any) -> list[str]:
        answer = await self.call("GET", target, **more)
        return [item["metadata"]["name"] for item in json.loads(answer.body)["items"]]


def run(test: Callable[[Any], Awaitable[None]], make: Callable[[], Bench] | None = None) -> None:
    async def main() -> None:
        bench = (make or Bench)()
        await bench.mirror.load()
        await bench.access.load()
        loop = asyncio.get_running_loop()
        parts = (bench.mirror.run(), bench.remote.run(), bench.offline.run())
        tasks = [loop.create_task(part) for part in parts]
        try:
            await test(bench)
        finally:
            for task in tasks:
                task.cancel()

    asyncio.run(main())


async def take(answer: Answer, count: int) -> list[tuple[str, str]]:
    assert answer.stream is not None
    out = []
    for _ in range(count):
        async with asyncio.timeout(30):
            found = json.loads(await anext(answer.stream))
        out.append((found["type"], found["object"].get("metadata", {}).get("name", "")))
    return out


async def close(answer: Answer) -> None:
    assert answer.stream is not None
    await answer.stream.aclose()  # type: ignore[attr-defined]


def test_a_list_is_kept_for_when_the_cloud_is_gone() -> None:
    async def test(bench: Bench) -> None:
        bench.cloud.put("configmaps", body(name="a", version=101))
        bench.cloud.put("configmaps", body(name="b", version=102, color="red"))
        assert await bench.names(CM) == ["a", "b"]
        bench.cloud.online = False
        assert await bench.names(CM) == ["a", "b"]
        assert await bench.names(f"{CM}?labelSelector=color%3Dred") == ["b"]
        assert await bench.names(f"{CM}?fieldSelector=metadata.name%3Da") == ["a"]
        assert await bench.names("/api/v1/configmaps") == ["a", "b"]
        answer = json.loads((await bench.call("GET", CM)).body)
        assert answer["kind"] == "ConfigMapList"
        assert answer["metadata"]["resourceVersion"] == "102"
        one = json.loads((await bench.call("GET", f"{CM}/a")).body)
        assert (one["kind"], one["apiVersion"]) == ("ConfigMap", "v1")

    run(test)


def test_a_get_is_kept_and_a_404_forgets() -> None:
    async def test(bench: Bench) -> None:
        bench.cloud.put("configmaps", body(name="a", version=101))
        await bench.call("GET", f"{CM}/a")
        bench.cloud.objects.clear()
        assert (await bench.refused("GET", f"{CM}/a")).code == 404
        bench.cloud.online = False
        gone = await bench.refused("GET", f"{CM}/a")
        assert json.loads(gone.body())["message"] == 'configmaps "a" not found'

    run(test)


def test_what_the_node_holds_is_there_without_having_been_asked_for() -> None:
    async def test(bench: Bench) -> None:
        bench.cloud.online = False
        bench.store.hold("pod", body("Pod", "p", version=7))
        assert await bench.names("/api/v1/pods") == ["p"]
        assert await bench.names("/api/v1/namespaces/other/pods") == []

    run(test)


def test_a_silent_cloud_counts_as_gone() -> None:
    async def test(bench: Bench) -> None:
        bench.store.hold("pod", body("Pod", "p", version=7))

        async def never(message: object, *, timeout_s: float) -> None:
            from beehive.errors import Unavailable

            raise Unavailable("no answer")

        bench.cloud.request = never  # type: ignore[assignment,method-assign]
        assert await bench.names("/api/v1/pods") == ["p"]

    run(test)


def test_a_list_without_the_cloud_comes_in_parts_if_wanted() -> None:
    async def test(bench: Bench) -> None:
        for number in range(5):
            bench.cloud.put("configmaps", body(name=f"c{number}", version=101 + number))
        await bench.names(CM)
        bench.cloud.online = False
        seen: list[str] = []
        token, left = "", []
        while True:
            answer = json.loads((await bench.call("GET", f"{CM}?limit=2&continue={token}")).body)
            seen += [item["metadata"]["name"] for item in answer["items"]]
            left.append(answer["metadata"].get("remainingItemCount", 0))
            token = quote(answer["metadata"].get("continue", ""))
            if not token:
                break
            last = token
        assert (seen, left) == (["c0", "c1", "c2", "c3", "c4"], [3, 1, 0])
        assert len(await bench.names(f"{CM}?limit=2&resourceVersion=0")) == 5
        # what was begun cannot be gone on with once something changed, nor with the cloud's token
        bench.cloud.online = True
        bench.cloud.put("configmaps", body(name="c9", version=120))
        await bench.names(CM)
        bench.cloud.online = False
        for token in (last, "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NX0", "%00"):
            refused = await bench.refused("GET", f"{CM}?limit=2&continue={token}")
            assert (refused.code, refused.reason) == (410, "Expired")

    run(test)


def test_a_watch_goes_on_from_a_list_and_through_a_cut() -> None:
    async def test(bench: Bench) -> None:
        bench.cloud.put("configmaps", body(name="a", version=101))
        listed = json.loads((await bench.call("GET", CM)).body)
        version = listed["metadata"]["resourceVersion"]
        watch = await bench.call("GET", f"{CM}?watch=1&resourceVersion={version}")
        await asyncio.sleep(0.05)
        await bench.remote.pushed(push(Op.INSERT, "configmap", body(name="b", version=103)))
        await bench.remote.pushed(push(Op.UPDATE, "configmap", body(name="a", version=104)))
        assert await take(watch, 2) == [("ADDED", "b"), ("MODIFIED", "a")]
        assert len(bench.cloud.acknowledged) == 2
        bench.cloud.online = False
        # meanwhile: a is gone, c came
        bench.cloud.objects.clear()
        bench.cloud.put("configmaps", body(name="b", version=103))
        bench.cloud.put("configmaps", body(name="c", version=106))
        bench.cloud.connect()
        assert await take(watch, 2) == [("DELETED", "a"), ("ADDED", "c")]
        await close(watch)
        assert bench.mirror.watches == 0

    run(test)


def test_two_watches_of_one_thing_share_a_listener_which_starts_where_its_list_ended() -> None:
    async def test(bench: Bench) -> None:
        bench.cloud.put("configmaps", body(name="a", version=101))
        one = await bench.call("GET", f"{CM}?watch=1")
        two = await bench.call("GET", f"{CM}?watch=1&timeoutSeconds=5")
        assert await take(one, 1) == await take(two, 1) == [("ADDED", "a")]
        watches = [app for app in bench.cloud.asked if app.verb == "watch"]
        assert len(watches) == 1
        assert json.loads(watches[0].option or b"")["resourceVersion"] == "101"
        assert bench.remote.scopes == 1
        await asyncio.sleep(1.2)
        assert list(bench.cloud.synced[-1]) == [watches[0].id]
        await close(one)
        await close(two)

    run(test)


def test_a_scope_that_the_hub_gave_up_is_followed_again() -> None:
    async def test(bench: Bench) -> None:
        watch = await bench.call("GET", f"{CM}?watch=1")
        await asyncio.sleep(0.05)
        app = next(app for app in bench.cloud.asked if app.verb == "watch")
        from beehive import application
        from beehive.message import Source, new

        gone = new(source=Source.DYNAMICCONTROLLER, group="resource", operation=application.ANSWER_OP,
                   resource=application.SYNC_RESOURCE, content={app.id: app})  # fmt: skip
        bench.cloud.put("configmaps", body(name="late", version=110))
        await bench.remote.pushed(gone)
        assert await take(watch, 1) == [("ADDED", "late")]
        await close(watch)

    run(test)


def test_leaving_a_selection_is_not_being_deleted() -> None:
    async def test(bench: Bench) -> None:
        bench.cloud.put("configmaps", body(name="a", version=101, color="red"))
        every = await bench.call("GET", f"{CM}?watch=1")
        red = await bench.call("GET", f"{CM}?watch=1&labelSelector=color%3Dred")
        assert await take(every, 1) == await take(red, 1) == [("ADDED", "a")]
        bench.cloud.put("configmaps", body(name="a", version=105))
        await bench.remote.pushed(push(Op.DELETE, "configmap", body(name="a", version=105, color="red")))
        assert await take(red, 1) == [("DELETED", "a")]
        assert await take(every, 1) == [("MODIFIED", "a")]
        await close(every)
        await close(red)

    run(test)


def test_an_unknown_version_is_gone_and_said_as_an_event() -> None:
    async def test(bench: Bench) -> None:
        bench.cloud.online = False
        answer = await bench.call("GET", f"{CM}?watch=1&resourceVersion=7")
        found = json.loads(answer.body)
        assert (found["type"], found["object"]["code"], found["object"]["reason"]) == (
            "ERROR",
            410,
            "Expired",
        )

    run(test)


def test_bookmarks_come_while_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "BOOKMARK_S", 0.01)

    async def test(bench: Bench) -> None:
        bench.cloud.online = False
        watch = await bench.call("GET", f"{CM}?watch=1&allowWatchBookmarks=true&timeoutSeconds=5")
        assert await take(watch, 1) == [("BOOKMARK", "")]
        await close(watch)
        silent = await bench.call("GET", f"{CM}?watch=1&timeoutSeconds=1")
        assert silent.stream is not None
        with pytest.raises(StopAsyncIteration):
            await anext(silent.stream)

    run(test)


def test_watches_are_counted_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "MAX_WATCHES_PER_CALLER", 2)

    async def test(bench: Bench) -> None:
        bench.cloud.online = False
        open_ = [await bench.call("GET", f"{CM}?watch=1") for _ in range(2)]
        assert (await bench.refused("GET", f"{CM}?watch=1")).code == 429
        await close(open_[0])  # never read from
        open_[0] = await bench.call("GET", f"{CM}?watch=1")
        for watch in open_:
            await close(watch)

    run(test)


def test_writes_go_through_online_and_are_told_off_offline() -> None:
    async def test(bench: Bench) -> None:
        content = json.dumps(
            {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "n", "namespace": "web"}}
        )
        made = await bench.call("POST", CM, content.encode())
        assert made.code == 201
        app = bench.cloud.asked[-1]
        assert (app.verb, app.key) == ("create", "/core/v1/configmaps/web/null")
        deleted = await bench.call("DELETE", f"{CM}/n?propagationPolicy=Background")
        assert json.loads(deleted.body)["status"] == "Success"
        bench.cloud.online = False
        failure = await bench.refused("POST", CM, content.encode())
        assert (failure.code, failure.reason) == (503, "ServiceUnavailable")
        assert "cloud" in failure.message
        assert (await bench.refused("GET", f"{CM}/n")).code == 404  # the delete was noticed

    run(test)


def test_a_patch_is_carried_as_it_is() -> None:
    async def test(bench: Bench) -> None:
        bench.cloud.put("configmaps", body(name="a", version=101))
        await bench.call(
            "PATCH", f"{CM}/a?fieldManager=x&force=true", b"- op", content_type="application/apply-patch+yaml"
        )
        option = json.loads(bench.cloud.asked[-1].option or b"")
        assert option == {"Name": "a", "PatchType": "application/apply-patch+yaml", "Data": "LSBvcA==",
                          "Options": {"fieldManager": "x", "force": True}, "Subresources": []}  # fmt: skip
        assert (await bench.refused("PATCH", f"{CM}/a", b"{}", content_type="text/x")).code == 415

    run(test)


def test_what_the_api_server_refuses_is_passed_on_word_for_word() -> None:
    async def test(bench: Bench) -> None:
        bench.cloud.rejection = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                                 "reason": "Invalid", "code": 422, "message": "no", "details": {"causes": []}}  # fmt: skip
        failure = await bench.refused("POST", CM, b'{"kind":"ConfigMap"}')
        assert failure.code == 422
        assert json.loads(failure.body()) == bench.cloud.rejection

    run(test)


@pytest.mark.parametrize(
    ("method", "target", "content", "headers", "code"),
    [
        ("POST", CM, b"{", {}, 400),
        ("POST", CM, b"[" * 100_000, {}, 400),
        ("POST", CM, b"a: b", {"content_type": "application/yaml"}, 415),
        ("GET", f"{CM}?labelSelector=a+in+(", b"", {}, 400),
        ("GET", f"{CM}?fieldSelector=spec.nope%3Da", b"", {}, 400),
        ("GET", f"{CM}?limit=x", b"", {}, 400),
        ("GET", f"{CM}?resourceVersion=abc", b"", {}, 400),
        ("GET", CM, b"", {"accept": "application/vnd.kubernetes.protobuf"}, 406),
        ("GET", "/nothing/here", b"", {}, 404),
        ("GET", "/metrics", b"", {}, 404),
        ("POST", "/version", b"", {}, 405),
        ("DELETE", CM, b"", {}, 405),
        ("OPTIONS", f"{CM}/a", b"", {}, 405),
        ("GET", "/api/v1/namespaces/../pods", b"", {}, 400),
    ],
)
def test_bad_requests(method: str, target: str, content: bytes, headers: dict[str, str], code: int) -> None:
    async def test(bench: Bench) -> None:
        failure = await bench.refused(method, target, content, **headers)
        assert failure.code == code
        assert json.loads(failure.body())["kind"] == "Status"

    run(test)


def test_discovery_is_kept_and_else_made_up() -> None:
    async def test(bench: Bench) -> None:
        bench.cloud.paths["/version"] = b'{"major":"1"}'
        bench.cloud.paths["/apis"] = b'{"kind":"APIGroupList","groups":[]}'
        for path in ("/version", "/apis/"):
            await bench.call("GET", path)
        bench.cloud.online = False
        assert (await bench.call("GET", "/version")).body == b'{"major":"1"}'
        assert json.loads((await bench.call("GET", "/apis")).body)["groups"] == []
        core = json.loads((await bench.call("GET", "/api/v1")).body)
        assert "pods" in [item["name"] for item in core["resources"]]
        assert (await bench.refused("GET", "/openapi/v2")).code == 503
        assert (await bench.call("GET", "/healthz")).body == b"ok"

    run(test)


def test_the_owner_of_the_machine_sees_what_is_here_whatever_the_cloud_lets_the_node_see() -> None:
    async def test(bench: Bench) -> None:
        bench.store.hold("pod", body("Pod", "p", version=7))
        bench.cloud.rejection = {"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no"}
        assert await bench.names("/api/v1/pods") == ["p"]
        assert (await bench.call("GET", "/api/v1/namespaces/web/pods/p")).code == 200
        assert (await bench.refused("DELETE", "/api/v1/namespaces/web/pods/p")).code == 403

    run(test)


# -- who may -----------------------------------------------------------------------------------------------------------


def rights(*rules: dict[str, Any], uid: str = "u1") -> dict[str, Any]:
    subject = {"kind": "ServiceAccount", "name": "ann", "namespace": "web"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    return body("ServiceAccountAccess", "ann", version=5, api_version="policy.kubeedge.io/v1alpha1") | {
        "spec": {
            "serviceAccount": {"metadata": {"name": "ann", "namespace": "web"}},
            "serviceAccountUid": uid,
            "accessRoleBinding": [
                {
                    "roleBinding": {"metadata": {"namespace": "web"}, "roleRef": role, "subjects": [subject]},
                    "rules": list(rules),
                }
            ],
        }
    }


READ_MAPS = {"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["configmaps"]}


def publish(bench: Bench) -> None:
    bench.cloud.paths["/.well-known/openid-configuration"] = json.dumps({"issuer": ISSUER}).encode()
    bench.cloud.paths["/openid/v1/jwks"] = json.dumps({"keys": [jwk()]}).encode()


def hold(bench: Bench, *rules: dict[str, Any]) -> None:
    bench.store.hold("serviceaccountaccess", rights(*rules))
    bench.store.hold("pod", body("Pod", "p", version=7, uid="u2"))


def test_a_pods_token_opens_what_its_account_may_also_offline() -> None:
    async def test(bench: Bench) -> None:
        publish(bench)
        hold(bench, READ_MAPS)
        bench.cloud.put("configmaps", body(name="a", version=101))
        assert await bench.names(CM, local=False, bearer=token()) == ["a"]
        assert bench.cloud.asked[-1].service_account == "web:ann"
        bench.cloud.online = False
        assert await bench.names(CM, local=False, bearer=token()) == ["a"]
        failure = await bench.refused("GET", "/api/v1/namespaces/web/secrets", local=False, bearer=token())
        assert failure.code == 403
        assert failure.message == (
            'secrets is forbidden: User "system:serviceaccount:web:ann" cannot list resource "secrets" '
            'in API group "" in the namespace "web"'
        )
        assert (await bench.refused("GET", "/api/v1/configmaps", local=False, bearer=token())).code == 403
        assert (await bench.refused("POST", CM, b"{}", local=False, bearer=token())).code == 403
        assert (await bench.call("GET", "/api/v1", local=False, bearer=token())).code == 200

    run(test)


@pytest.mark.parametrize("online", [True, False])
def test_an_account_may_ask_what_it_may(online: bool) -> None:
    async def test(bench: Bench) -> None:
        publish(bench)
        hold(bench, READ_MAPS)
        await bench.call("GET", CM, local=False, bearer=token())
        bench.cloud.online = online
        for verb, allowed in (("list", True), ("delete", False)):
            what = {"verb": verb, "resource": "configmaps", "namespace": "web"}
            review = json.dumps({"spec": {"resourceAttributes": what}}).encode()
            path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
            answer = json.loads((await bench.call("POST", path, review, local=False, bearer=token())).body)
            assert answer["status"]["allowed"] is allowed
            assert answer["spec"]["resourceAttributes"] == what

    run(test)


def test_keys_survive_a_restart_without_a_link() -> None:
    async def test(bench: Bench) -> None:
        publish(bench)
        await bench.access.refresh()
        hold(bench, READ_MAPS)
        bench.cloud.online = False
        again = Access(bench.store, fetch=bench.remote.fetch, online=lambda: False, wall=lambda: NOW,
                       monotonic=lambda: 0.0)  # fmt: skip
        await again.load()
        caller = await again.authenticate(f"Bearer {token()}")
        assert caller.account == "web:ann"

    run(test)


@pytest.mark.parametrize(
    "bad",
    [
        "x",
        "a.b.c",
        token(claims(iss="https://other")),
        token(claims(aud=["other"])),
        token(claims(exp=NOW - 100)),
        token(claims(sub="system:serviceaccount:web:bob")),
        token(kid="unknown"),
        token()[:-8] + "AAAAAAAA",
        token(claims(**{"kubernetes.io": {"namespace": "web", "serviceaccount": {"name": "ann", "uid": "u1"},
                                          "pod": {"name": "p", "uid": "another"}}})),
        token(claims(**{"kubernetes.io": {"namespace": "web", "serviceaccount": {"name": "ann", "uid": "old"},
                                          "pod": {"name": "p", "uid": "u2"}}})),
        token(claims(sub="system:serviceaccount:web:eve",
                     **{"kubernetes.io": {"namespace": "web", "serviceaccount": {"name": "eve", "uid": "u9"}}})),
    ],
)  # fmt: skip
def test_tokens_that_count_for_nothing(bad: str) -> None:
    async def test(bench: Bench) -> None:
        publish(bench)
        hold(bench, READ_MAPS)
        failure = await bench.refused("GET", CM, local=False, bearer=bad)
        assert failure.code == 401
        assert json.loads(failure.body())["message"] == "Unauthorized"

    run(test)


def test_an_expired_token_counts_while_nobody_can_renew_it() -> None:
    async def test(bench: Bench) -> None:
        publish(bench)
        hold(bench, READ_MAPS)
        await bench.call("GET", CM, local=False, bearer=token())
        bench.now = NOW + 86_400
        assert (await bench.refused("GET", CM, local=False, bearer=token())).code == 401
        bench.cloud.online = False
        assert (await bench.call("GET", CM, local=False, bearer=token())).code == 200
        bench.store.drop("pod", "web", "p")
        assert (await bench.refused("GET", CM, local=False, bearer=token())).code == 401

    run(test)


@pytest.mark.parametrize("online", [True, False])
def test_a_clock_that_is_years_behind_refuses_no_pods_token(online: bool) -> None:
    async def test(bench: Bench) -> None:
        publish(bench)
        hold(bench, READ_MAPS)
        await bench.call("GET", CM, local=False, bearer=token())
        bench.now = 60.0
        bench.cloud.online = online
        assert (await bench.call("GET", CM, local=False, bearer=token())).code == 200
        bench.store.drop("pod", "web", "p")
        assert (await bench.refused("GET", CM, local=False, bearer=token())).code == 401

    run(test)


def test_without_keys_only_a_token_that_came_through_here_counts() -> None:
    async def test(bench: Bench) -> None:
        hold(bench, READ_MAPS)
        assert (await bench.refused("GET", CM, local=False, bearer=token())).code == 401
        bench.store.tokens = [b"another", token().encode()]
        assert (await bench.call("GET", CM, local=False, bearer=token())).code == 200

    run(test)


def test_a_stock_hub_is_not_asked_for_what_it_does_not_know() -> None:
    async def test(bench: Bench) -> None:
        publish(bench)
        hold(bench, READ_MAPS)
        bench.cloud.ours = False
        bench.store.tokens = [token().encode()]
        assert (await bench.call("GET", CM, local=False, bearer=token())).code == 200
        assert b"fieldValidation" in (await bench.call("GET", "/openapi/v3/api/v1")).body
        assert (await bench.refused("GET", "/openapi/v3/apis/acme.io/v1")).code == 503
        assert {app.key for app in bench.cloud.asked} == {"/core/v1/configmaps/web/null"}

    run(test)


def test_nobody_sees_little() -> None:
    async def test(bench: Bench) -> None:
        bench.cloud.paths["/version"] = b"{}"
        for path in ("/healthz", "/version"):
            assert (await bench.call("GET", path, local=False)).code == 200
        for path in (CM, "/api/v1", "/apis"):
            failure = await bench.refused("GET", path, local=False)
            assert failure.code == 403
            assert 'User "system:anonymous"' in failure.message
        assert (await bench.refused("GET", CM, local=False, authorization="Basic eDp5")).code == 403

    run(test)


def test_a_new_key_of_the_issuer_is_fetched() -> None:
    async def test(bench: Bench) -> None:
        publish(bench)
        hold(bench, READ_MAPS)
        bench.cloud.paths["/openid/v1/jwks"] = json.dumps({"keys": [jwk(kid="old")]}).encode()
        await bench.access.refresh()
        publish(bench)
        bench.access._asked_at -= access_module.REFRESH_S
        assert (await bench.call("GET", CM, local=False, bearer=token())).code == 200

    run(test)


def test_a_long_list_comes_in_pieces() -> None:
    async def test(bench: Bench) -> None:
        bench.cloud.online = False
        for number in range(200):
            bench.store.hold(
                "pod", body("Pod", f"p{number:03}", version=number + 1) | {"spec": {"x": "y" * 1000}}
            )
        for _ in range(2 * api_module.MAX_LISTS):  # a list that was read, or not, makes room for the next
            answer = await bench.call("GET", "/api/v1/pods")
            assert answer.stream is not None
            pieces = [piece async for piece in answer.stream]
            assert len(pieces) > 2
            assert max(map(len, pieces)) < 2 * 64 * 1024
            assert len(json.loads(b"".join(pieces))["items"]) == 200
            unread = await bench.call("GET", "/api/v1/pods")
            await close(unread)

    run(test)


TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


@pytest.mark.parametrize("online", [True, False])
def test_kubectl_gets_its_table(online: bool) -> None:
    async def test(bench: Bench) -> None:
        bench.store.hold("pod", body("Pod", "p", version=101))
        bench.cloud.put("pods", body("Pod", "p", version=101))
        bench.cloud.online = online
        found = json.loads((await bench.call("GET", "/api/v1/pods", accept=TABLE)).body)
        assert found["kind"] == "Table"
        assert [row["cells"][0] for row in found["rows"]] == ["p"]
        one = json.loads((await bench.call("GET", "/api/v1/namespaces/web/pods/p", accept=TABLE)).body)
        assert [column["name"] for column in one["columnDefinitions"]][:2] == ["Name", "Ready"]
        watch = await bench.call("GET", "/api/v1/pods?watch=1", accept=TABLE)
        assert watch.stream is not None
        first = json.loads(await anext(watch.stream))
        assert (first["type"], first["object"]["kind"]) == ("ADDED", "Table")
        bench.store.hold("pod", body("Pod", "p", version=102))
        second = json.loads(await anext(watch.stream))
        assert (second["type"], second["object"]["columnDefinitions"]) == ("MODIFIED", [])
        assert second["object"]["metadata"]["resourceVersion"] == "102"
        await close(watch)
        assert bench.mirror.watches == 0

    run(test)


def test_what_an_account_may_do_is_listed_link_or_no_link() -> None:
    async def test(bench: Bench) -> None:
        publish(bench)
        hold(bench, READ_MAPS)
        for online in (True, False):
            bench.cloud.online = online
            path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
            review = b'{"spec":{"namespace":"web"}}'
            answer = json.loads((await bench.call("POST", path, review, local=False, bearer=token())).body)
            assert answer["kind"] == "SelfSubjectRulesReview"
            granted = [
                rule for rule in answer["status"]["resourceRules"] if "configmaps" in rule["resources"]
            ]
            assert "list" in granted[0]["verbs"]
            owner = json.loads((await bench.call("POST", path, review)).body)
            assert owner["status"]["resourceRules"][0]["verbs"] == ["*"]
            failure = await bench.refused("POST", path, b"[", local=False, bearer=token())
            assert failure.code == 400

    run(test)


SUMMARY = {
    "node": {
        "nodeName": "edge-1",
        "cpu": {"time": "2030-01-01T00:00:00Z", "usageNanoCores": 250_000_000},
        "memory": {"workingSetBytes": 2 << 20},
    },
    "pods": [
        {
            "podRef": {"name": "a", "namespace": "web", "uid": "u-a"},
            "cpu": {"time": "2030-01-01T00:00:00Z", "usageNanoCores": 5},
            "containers": [
                {"name": "c", "cpu": {"usageNanoCores": 5}, "memory": {"workingSetBytes": 1 << 20}}
            ],
        }
    ],
}


class FakeMeasures:
    async def read(self) -> tuple[bytes, float]:
        return json.dumps(SUMMARY).encode(), 1.5


def test_measures_are_the_clouds_and_without_it_the_nodes_own() -> None:
    async def test(bench: Bench) -> None:
        metrics = "/apis/metrics.k8s.io/v1beta1"
        bench.store.hold("pod", body(kind="Pod", name="a", app="x"))
        bench.store.hold("pod", body(kind="Pod", name="elsewhere"))
        bench.cloud.online = False
        assert (await bench.refused("GET", f"{metrics}/pods")).code == 503
        bench.api.measures = FakeMeasures()
        for target in (f"{metrics}/pods", f"{metrics}/namespaces/web/pods?labelSelector=app%3Dx"):
            found = json.loads((await bench.call("GET", target)).body)
            assert found["kind"] == "PodMetricsList"
            (item,) = found["items"]
            assert (item["metadata"]["name"], item["metadata"]["labels"]) == ("a", {"app": "x"})
            assert item["containers"] == [{"name": "c", "usage": {"cpu": "5n", "memory": "1024Ki"}}]
        one = json.loads((await bench.call("GET", f"{metrics}/namespaces/web/pods/a")).body)
        assert (one["kind"], one["window"]) == ("PodMetrics", "1.500s")
        assert (await bench.refused("GET", f"{metrics}/namespaces/web/pods/elsewhere")).code == 404
        assert (await bench.refused("GET", f"{metrics}/pods?watch=1")).code == 405
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
        rows = json.loads((await bench.call("GET", f"{metrics}/pods", accept=accept)).body)["rows"]
        assert rows[0]["cells"][0] == "a"

    run(test)


def test_without_the_cloud_clients_hear_that_fields_are_checked_later() -> None:
    async def test(bench: Bench) -> None:
        bench.cloud.online = False
        root = json.loads((await bench.call("GET", "/openapi/v3")).body)["paths"]
        assert {"api/v1", "apis/apps/v1"} <= set(root)
        found = json.loads((await bench.call("GET", root["apis/apps/v1"]["serverRelativeURL"])).body)
        patch = found["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
        assert patch["x-kubernetes-group-version-kind"]["kind"] == "Deployment"

    run(test)
