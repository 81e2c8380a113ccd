"""The door to the API and the caches behind it, against an API that misbehaves as real ones do."""

from __future__ import annotations

import asyncio
import base64
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes.client import Configuration

from beehive.backoff import Backoff
from beehive.errors import ConfigError, ProtocolError
from cloudcore import cache as caching
from cloudcore import kube
from cloudcore.cache import Cache
from cloudcore.errors import (
    ApiConflict,
    ApiError,
    ApiExists,
    ApiGone,
    ApiNotFound,
    ApiRefused,
    ApiUnavailable,
)
from cloudcore.kube import Kube
from cloudcore.objects import POD, Change
from tests.fakes.api import FakeApi, Reply, event, listed, pod, serving, status

HOLD = Reply(lines=[], then="hold")


def with_api(api: FakeApi, test: Callable[[Kube], Awaitable[None]]) -> None:
    async def go(url: str) -> None:
        configuration = Configuration()
        configuration.host = url
        configuration.retries = False
        client = Kube(configuration, threads=2)
        try:
            async with asyncio.timeout(30):
                await test(client)
        finally:
            await client.close()

    with serving(api):
        asyncio.run(go(api.url))


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (404, "NotFound", ApiNotFound),
        (409, "AlreadyExists", ApiExists),
        (409, "Conflict", ApiConflict),
        (410, "Expired", ApiGone),
        (403, "Forbidden", ApiRefused),
        (422, "Invalid", ApiRefused),
        (401, "Unauthorized", ApiUnavailable),
        (429, "TooManyRequests", ApiUnavailable),
        (500, "InternalError", ApiUnavailable),
        (503, "ServiceUnavailable", ApiUnavailable),
    ],
)
def test_failures_become_our_errors_and_keep_the_status(code: int, reason: str, kind: type[ApiError]) -> None:
    async def test(client: Kube) -> None:
        with pytest.raises(kind) as failed:
            await client.get(POD, "x", "ns")
        assert (failed.value.status.code, failed.value.status.reason) == (code, reason)

    with_api(FakeApi([Reply(status=code, body=status(code, reason))]), test)


def test_retry_after_is_kept() -> None:
    async def test(client: Kube) -> None:
        with pytest.raises(ApiUnavailable) as failed:
            await client.get(POD, "x", "ns")
        assert failed.value.retry_after_s == 7

    with_api(FakeApi([Reply(status=429, body=status(429, "x"), headers={"Retry-After": "7"})]), test)


def test_a_proxys_page_is_a_failure_too() -> None:
    async def test(client: Kube) -> None:
        with pytest.raises(ApiUnavailable, match="Bad gateway"):
            await client.get(POD, "x", "ns")

    with_api(FakeApi([Reply(status=502, body=b"<html>Bad gateway</html>")]), test)


def test_nobody_there_is_unavailable() -> None:
    async def go() -> None:
        configuration = Configuration()
        configuration.host = "http://127.0.0.1:1"
        client = Kube(configuration, threads=1)
        with pytest.raises(ApiUnavailable):
            await client.get(POD, "x", "ns")
        await client.close()

    asyncio.run(go())


def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube, "MAX_BODY_BYTES", 1000)

    async def test(client: Kube) -> None:
        with pytest.raises(ApiUnavailable, match="over 1000 bytes"):
            await client.get(POD, "x", "ns")

    with_api(FakeApi([Reply(body=b"x" * 100_000)]), test)


def test_names_are_no_paths() -> None:
    for name in ("../x", "a/b", "a?b", "a%2fb", "..", "a\nb"):
        with pytest.raises(ProtocolError):
            POD.path("ns", name)


def test_a_list_comes_in_pages_and_items_get_their_kind() -> None:
    api = FakeApi([listed(5, pod("a", 1), token="more"), listed(5, pod("b", 2))])

    async def test(client: Kube) -> None:
        page = await client.list_all(POD)
        assert [(o.name, o.node) for o in page.objects] == [("a", "a"), ("b", "a")]
        assert page.version == "5"
        assert page.objects[0].raw.startswith(b'{"kind":"Pod","apiVersion":"v1",')
        assert api.seen[1][2]["continue"] == ["more"]

    with_api(api, test)


def test_an_item_that_cannot_be_read_is_told_apart_from_one_that_is_not_there() -> None:
    async def test(client: Kube) -> None:
        page = await client.list_all(POD)
        assert [o.name for o in page.objects] == ["b"]
        assert [(found.key, found.uid, found.node) for found in page.unread] == [
            (None, "", ""),
            (("ns", "odd"), "u-odd", "a"),
            (("ns", "lost"), "u-lost", None),
        ]

    api = FakeApi(
        [listed(5, {"metadata": 7}, odd("odd", 1), {**pod("lost", 1), "spec": {"nodeName": 7}}, pod("b", 2))]
    )
    with_api(api, test)


def odd(name: str, version: int) -> dict[str, Any]:
    """A pod that cannot be read, but for who it is."""
    item = pod(name, version)
    return {**item, "metadata": {**item["metadata"], "labels": {"a": 7}}}


@pytest.mark.usefixtures("quick")
def test_what_cannot_be_read_any_more_is_not_gone() -> None:
    api = FakeApi(
        [listed(10, pod("a", 1), pod("b", 2)), listed(50, odd("a", 40), pod("end", 42))],
        [Reply(status=410, body=status(410, "Gone")), HOLD],
    )
    assert follow(api, "end@42") == [("add", "a@1"), ("add", "b@2"), ("gone", "-b"), ("add", "end@42")]


@pytest.mark.usefixtures("quick")
def test_no_absence_is_believed_while_one_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "BLIND_S", 0.2)
    nameless = {"metadata": {"name": 7}}
    api = FakeApi(
        [
            listed(10, pod("a", 1), pod("b", 2)),
            *[listed(50, nameless, pod("b", 2), pod("c", 42))] * 2,
            listed(51, pod("b", 2), pod("c", 42), pod("end", 51)),
        ],
        [Reply(status=410, body=status(410, "Gone")), HOLD],
    )
    told = follow(api, "end@51")
    assert told == [("add", "a@1"), ("add", "b@2"), ("add", "c@42"), ("gone", "-a"), ("add", "end@51")]


@pytest.mark.usefixtures("quick")
def test_a_change_that_cannot_be_read_leaves_what_was_known_and_a_deletion_is_found() -> None:
    api = FakeApi(
        [listed(10, pod("a", 1), pod("b", 2), pod("c", 3)), listed(60, pod("b", 2), pod("end", 60))],
        [
            Reply(
                lines=[
                    event("MODIFIED", odd("a", 11)),
                    event("DELETED", odd("a", 12)),
                    event("DELETED", {"metadata": {"name": 7}}),
                ],
                then="hold",
            ),
            HOLD,
        ],
    )
    told = follow(api, "end@60")[3:]
    assert told == [("gone", "-a"), ("gone", "-c"), ("add", "end@60")]


def follow(api: FakeApi, until: str) -> list[tuple[str, str]]:
    """Run a cache until an object of that name and version (`name@version`, `-name` for gone) was told; all that was."""
    told: list[tuple[str, str]] = []

    async def test(client: Kube) -> None:
        cache = Cache(client, POD)
        reached = asyncio.Event()

        def on_change(change: Change) -> None:
            what = f"{change.new.name}@{change.new.version}" if change.new else f"-{change.newest.name}"
            told.append(("add" if change.old is None else "gone" if change.new is None else "change", what))
            if what == until:
                reached.set()

        cache.subscribe(on_change)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(cache.run())
            await reached.wait()
            assert cache.synced
            task.cancel()

    with_api(api, test)
    return told


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "QUICK_S", 0.01)
    monkeypatch.setattr(caching, "CONFIRM_S", 0.01)
    monkeypatch.setattr(Backoff, "next_s", lambda self, rng: 0.01)


def test_changes_are_told_as_they_come() -> None:
    lines = [
        event("ADDED", pod("b", 11)),
        event("MODIFIED", pod("a", 12)),
        {"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": "20"}}},
        event("DELETED", pod("b", 21)),
        event("ADDED", pod("end", 22)),
    ]
    told = follow(FakeApi([listed(10, pod("a", 1))], [Reply(lines=lines, then="hold")]), "end@22")
    assert told == [("add", "a@1"), ("add", "b@11"), ("change", "a@12"), ("gone", "-b"), ("add", "end@22")]


@pytest.mark.usefixtures("quick")
def test_after_a_cut_the_watch_goes_on_from_the_last_version() -> None:
    api = FakeApi(
        [listed(10)],
        [
            Reply(lines=[event("ADDED", pod("a", 11))], then="cut"),
            Reply(status=500, body=status(500, "InternalError")),
            Reply(lines=[b'{"type":"ADD'], then="end"),
            Reply(lines=[event("ADDED", pod("end", 12))], then="hold"),
        ],
    )
    assert follow(api, "end@12") == [("add", "a@11"), ("add", "end@12")]
    watches = [query["resourceVersion"] for _, _, query, _ in api.seen if "watch" in query]
    assert watches == [["10"], ["11"], ["11"], ["11"]]
    assert sum("watch" not in query and query["limit"] != ["1"] for _, _, query, _ in api.seen) == 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "gone",
    [
        Reply(lines=[{"type": "ERROR", "object": status(410, "Expired")}]),
        Reply(status=410, body=status(410, "Gone")),
    ],
)
def test_what_was_missed_comes_out_of_the_difference(gone: Reply) -> None:
    after = listed(50, pod("kept", 1), pod("changed", 40), pod("replaced", 41, uid="other"), pod("end", 42))
    api = FakeApi(
        [listed(10, pod("kept", 1), pod("changed", 2), pod("lost", 3), pod("replaced", 4)), after],
        [gone, HOLD],
    )
    told = follow(api, "end@42")[4:]
    assert told == [
        ("gone", "-lost"),
        ("change", "changed@40"),
        ("gone", "-replaced"),
        ("add", "replaced@41"),
        ("add", "end@42"),
    ]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("cut", [Reply(lines=[], then="cut"), Reply(lines=[], then="end")])
def test_an_api_that_was_restored_is_listed_again_and_what_is_older_now_is_told(cut: Reply) -> None:
    """Its watch from a version that is still to come would be silent."""
    back = {**pod("same", 30), "metadata": {**pod("same", 30)["metadata"], "labels": {"now": "other"}}}
    api = FakeApi(
        [
            listed(50, pod("a", 40), pod("kept", 3), pod("young", 45), pod("same", 30)),
            listed(20, pod("a", 12), pod("kept", 3), back, pod("end", 20)),
        ],
        [cut, HOLD],
        versions=[20],
    )
    assert follow(api, "end@20")[4:] == [
        ("gone", "-young"),
        ("change", "a@12"),
        ("change", "same@30"),
        ("add", "end@20"),
    ]


@pytest.mark.usefixtures("quick")
def test_an_event_of_the_past_is_a_sign_of_it_too() -> None:
    api = FakeApi(
        [listed(50, pod("a", 40)), listed(20, pod("a", 12), pod("end", 20))],
        [Reply(lines=[event("MODIFIED", pod("a", 12))], then="hold"), HOLD],
    )
    assert follow(api, "end@20") == [("add", "a@40"), ("change", "a@12"), ("add", "end@20")]


@pytest.mark.usefixtures("quick")
def test_absence_is_believed_only_when_it_is_read_twice() -> None:
    empty, back = listed(50), listed(51, pod("a", 1), pod("end", 50))
    api = FakeApi(
        [listed(10, pod("a", 1)), empty, back],
        [Reply(status=410, body=status(410, "Gone")), HOLD],
    )
    assert follow(api, "end@50") == [("add", "a@1"), ("add", "end@50")]


@pytest.mark.usefixtures("quick")
def test_a_watch_that_falls_silent_is_given_up_and_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy may keep a connection open to an API that is gone."""
    monkeypatch.setattr(kube, "WATCH_S", (0, 0))
    monkeypatch.setattr(kube, "WATCH_GRACE_S", 0.3)
    api = FakeApi(
        [listed(10, pod("a", 1))],
        [
            Reply(lines=[event("MODIFIED", pod("a", 11))], then="hold"),
            Reply(lines=[event("ADDED", pod("end", 12))], then="hold"),
        ],
    )
    assert follow(api, "end@12") == [("add", "a@1"), ("change", "a@11"), ("add", "end@12")]
    watches = [query["resourceVersion"] for _, _, query, _ in api.seen if "watch" in query]
    assert watches[:2] == [["10"], ["11"]]


@pytest.mark.usefixtures("quick")
def test_an_api_that_has_too_much_to_do_is_left_alone_for_as_long_as_it_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        await real(0)

    monkeypatch.setattr(caching.asyncio, "sleep", sleep)
    busy = Reply(status=429, body=status(429, "TooManyRequests"), headers={"Retry-After": "7"})
    api = FakeApi([busy, listed(10)], [busy, Reply(lines=[event("ADDED", pod("end", 12))], then="hold")])
    assert follow(api, "end@12") == [("add", "end@12")]
    assert waited == [7.0, 7.0]


@pytest.mark.usefixtures("quick")
def test_an_api_that_is_away_at_first_is_waited_for() -> None:
    api = FakeApi(
        [
            Reply(status=503, body=b"starting"),
            Reply(status=404, body=b"404 page not found"),
            listed(1, pod("a", 1)),
        ],
        [HOLD],
    )
    assert follow(api, "a@1") == [("add", "a@1")]


def test_a_kubeconfig_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "config"
    for text in (None, "", "[]", "clusters: 7", "{"):
        if text is not None:
            path.write_text(text)
        with pytest.raises(ConfigError, match="cannot use the kubeconfig"):
            kube.load(str(path))


def test_no_kubeconfig_at_all_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no kubeconfig: set KUBECONFIG"):
        kube.load()


def test_an_api_that_is_away_is_told_in_words() -> None:
    error = urllib3.exceptions.NewConnectionError(
        urllib3.connection.HTTPSConnection("127.0.0.1", 6443),
        "Failed to establish a new connection: [Errno 111] Connection refused",
    )
    assert kube._short(error) == "no connection to 127.0.0.1:6443: Connection refused"


def test_a_write_that_nobody_waits_for_any_more_is_not_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node's link ends while its status is on its way to a slow API; by its next link it sends a newer one."""
    began, go_on = threading.Event(), threading.Event()
    written: list[bytes] = []

    def blocking(self: Kube, method: str, path: str, query: object, body: bytes, *_: object) -> bytes:
        if body == b"old":
            began.set()
            assert go_on.wait(60)
        written.append(body)
        return b"{}"

    monkeypatch.setattr(Kube, "_blocking", blocking)

    async def story() -> None:
        client = Kube(Configuration(host="https://127.0.0.1:1"), threads=4)
        try:
            old = asyncio.ensure_future(client.request("PATCH", "/a", body=b"old"))
            assert await asyncio.to_thread(began.wait, 60)
            old.cancel()
            await asyncio.wait([old])
            new = asyncio.ensure_future(client.request("PATCH", "/a", body=b"new"))
            # what is about something else does not wait
            await client.request("PATCH", "/b", body=b"other")
            assert not new.done()
            go_on.set()
            await new
            assert not client._abandoned
        finally:
            go_on.set()
            await client.close()

    asyncio.run(story())
    assert written == [b"other", b"old", b"new"]


def test_no_key_of_a_kubeconfig_is_left_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    held = base64.b64encode(b"a key").decode()
    path = tmp_path / "kubeconfig"
    path.write_text(
        "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],"
        f" clusters: [{{name: c, cluster: {{server: 'https://x', certificate-authority-data: {held}}}}}],"
        f" users: [{{name: u, user: {{client-certificate-data: {held}, client-key-data: {held}}}}}]}}"
    )
    for _ in range(2):
        found = kube.load(str(path))
        assert [p.name for p in tmp_path.iterdir()] == ["kubeconfig"]
        for name in ("ssl_ca_cert", "cert_file", "key_file"):
            assert Path(getattr(found, name)).read_bytes() == b"a key"
    own = tmp_path / "own.key"
    own.write_text("another")
    path.write_text(path.read_text().replace(f"client-key-data: {held}", f"client-key: {own}"))
    assert kube.load(str(path)).key_file == str(own)
    assert own.exists()
