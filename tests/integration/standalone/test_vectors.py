"""Replay what a real API server was asked, in order, and compare the answers.

Names, uids, times and versions differ in every cluster and are normalized.  Each answer that differs on purpose stands in
DIFFERENT with its reason; the table of all of them is printed, and a new mismatch fails."""

from __future__ import annotations

import asyncio
import io
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import yarl

from tests.integration.standalone.server import client, control_plane

VECTORS = Path(__file__).parents[2] / "vectors" / "apiserver"
ORDER = ("errors", "objects", "pods", "apply", "crd", "nodes", "auth", "discovery")
UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
AGE = re.compile(r"\d+s")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")

TTL = "node.alpha.kubernetes.io/ttl is a hint to kubelets that cache; nothing here reads it"
FEWER = "fewer kinds are served, and only those listed work"
PORT = "another address"
DIFFERENT: dict[str, str] = {
    "pods: strategic: immutable field": "the text ends in a diff of Go structs",
    "nodes: node status patch": "a node that never said it is ready keeps its taint until our controller saw it ready",
    "nodes: table nodes": TTL,
    "nodes: cordon": TTL,
    "nodes: events new group": "the first of all events is another one here",
    "auth: self subject review": "another administrator",
    "auth: openid": "tokens are signed with ES256",
    "discovery: get /version": "another server",
    "discovery: get /api": PORT,
    "discovery: get /apis": FEWER,
    "discovery: get /api/v1": FEWER,
    "discovery: get /livez?verbose": "another server's checks",
    "discovery: aggregated core": FEWER,
    "discovery: aggregated groups": FEWER,
}

MOMENTARY = ("Deployment", "Table")
"""Kinds of answers in `apply` whose status and revision are those of the moment that a controller got to: they are
compared without them."""


def without_moment(body: Any) -> Any:
    """The same answer without what a controller writes at a time of its own."""
    for item in (body, *(row["object"] for row in body.get("rows") or ())):
        item.pop("status", None)
        (item["metadata"].get("annotations") or {}).pop("deployment.kubernetes.io/revision", None)
        if item["metadata"].get("annotations") == {}:
            del item["metadata"]["annotations"]
    return body


def normal(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        found = {}
        for key, item in value.items():
            if (
                key in ("managedFields", "remainingItemCount", "storageVersionHash", "description")
                or item is None
            ):
                continue
            if key in (
                "resourceVersion",
                "continue",
                "ca.crt",
                "clusterIP",
                "clusterIPs",
                "lastHeartbeatTime",
                "kubernetes.io/description",
            ):
                found[key] = f"<{key}>"
            else:
                found[key] = normal(item, key)
        return found
    if isinstance(value, list):
        return [normal(item, name) for item in value]
    if isinstance(value, str):
        if AGE.fullmatch(value):
            return "<age>"
        value = UID.sub("<uid>", value)
        value = TIME.sub("<time>", value)
        value = re.sub(r"kube-api-access-\w{5}", "kube-api-access-x", value)
        value = re.sub(r"\b(gen|e)-\w{5}\b", r"\1-x", value)
        return re.sub(r'(current: |ReplicaSet \\?"?d-|replica set \\?"?d-)[0-9a-z]+', r"\1x", value)
    return value


def differences(want: Any, got: Any, path: str = "") -> list[str]:
    if isinstance(want, dict) and isinstance(got, dict):
        found = []
        for key in sorted({*want, *got}):
            if key not in want:
                found.append(f"+{path}.{key}={json.dumps(got[key])[:80]}")
            elif key not in got:
                found.append(f"-{path}.{key}={json.dumps(want[key])[:80]}")
            else:
                found += differences(want[key], got[key], f"{path}.{key}")
        return found
    if isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        return [
            line
            for i, (a, b) in enumerate(zip(want, got, strict=True))
            for line in differences(a, b, f"{path}[{i}]")
        ]
    return [] if want == got else [f"{path}: want {json.dumps(want)[:300]} got {json.dumps(got)[:300]}"]


def learn(want: Any, got: Any, names: dict[str, str]) -> None:
    """Which of our uids, versions and continue tokens stand for the recorded ones."""
    if isinstance(want, dict) and isinstance(got, dict):
        for key in want.keys() & got.keys():
            if (
                key in ("uid", "resourceVersion", "continue")
                and isinstance(want[key], str)
                and len(want[key]) > 1
            ):
                names[want[key]] = got[key]
            learn(want[key], got[key], names)
    elif isinstance(want, list) and isinstance(got, list):
        for one, other in zip(want, got, strict=False):
            learn(one, other, names)


async def replay(
    session: aiohttp.ClientSession,
    server: str,
    row: dict[str, Any],
    token: list[str],
    names: dict[str, str],
    *,
    momentary: bool = False,
) -> list[str]:
    request, want = row["request"], row["response"]
    body = request["body"]
    if body == "a ConfigMap of about 3.3 MB":
        body = {"metadata": {"name": "big"}, "data": {"a": "x" * 3_300_000}}
    elif body == "a ConfigMap whose data is 1.1 MB":
        body = {"metadata": {"name": "big"}, "data": {"a": "x" * 1_100_000}}
    text = None if body is None else body if isinstance(body, str) else json.dumps(body)
    path = request["path"]
    for old, new in names.items():
        path = path.replace(f"continue={old}", f"continue={new}")
        if text is not None:
            text = text.replace(f'"{old}"', f'"{new}"')
    data = None if text is None else io.BytesIO(text.replace("<jwt>", token[0]).encode())
    headers = {"User-Agent": "vectors", "Accept": request["accept"] or "*/*"}
    if request["content_type"]:
        headers["Content-Type"] = request["content_type"]
    url = yarl.URL(server + path, encoded=True)
    async with session.request(request["method"], url, data=data, headers=headers) as answer:
        text = await answer.text()
        try:
            got: Any = json.loads(text)
        except ValueError:
            got = text
        if (
            isinstance(got, dict)
            and (got.get("status") or {})
            and isinstance(got["status"], dict)
            and got["status"].get("token")
        ):
            token[0] = got["status"]["token"]
            got["status"]["token"] = "<jwt>"
        learn(want["body"], got, names)
        found = (
            [] if answer.status == want["status"] else [f"status: want {want['status']} got {answer.status}"]
        )
        wanted_headers = {k: v for k, v in want["headers"].items() if k != "content-type"}
        for name, value in wanted_headers.items():
            if answer.headers.get(name) != value:
                found.append(f"header {name}: want {value} got {answer.headers.get(name)}")
        if want["headers"].get("content-type") != answer.headers.get("content-type", "").replace(
            "; charset=utf-8", "; charset=utf-8"
        ):
            found.append(
                f"content-type: want {want['headers'].get('content-type')} got {answer.headers.get('content-type')}"
            )
    recorded, answered = normal(want["body"]), json.loads(json.dumps(normal(got)).replace(token[0], "<jwt>"))
    if momentary and want["body"].get("kind") in MOMENTARY:
        recorded, answered = without_moment(recorded), without_moment(answered)
    return found + differences(recorded, answered)


def test_recorded_exchanges(tmp_path: Path, capsys: Any) -> None:
    results: list[tuple[str, str, list[str]]] = []

    async def run() -> None:
        async with control_plane(tmp_path) as plane, client(tmp_path) as session:
            await session.post(plane.server + "/api/v1/namespaces", json={"metadata": {"name": "vec"}})
            await asyncio.sleep(0.3)
            names: dict[str, str] = {}
            token = ["no-token-yet"]
            for name in (*ORDER, "namespace"):
                for line in (VECTORS / f"{name}.jsonl").read_text().splitlines():
                    row = json.loads(line)
                    if row["case"] in ("get crd", "create: default, prune, status dropped", "after delete"):
                        await asyncio.sleep(0.3)
                    found = await replay(session, plane.server, row, token, names, momentary=name == "apply")
                    results.append((name, row["case"], found))

    asyncio.run(run())
    good = sum(not found for _, _, found in results)
    with capsys.disabled():
        print(f"\n{good} of {len(results)} recorded answers match")
        for file, case, found in results:
            if found:
                reason = DIFFERENT.get(f"{file}: {case}", "")
                print(f"  {file}: {case}: {reason or 'UNEXPECTED'}")
                if not reason:
                    for line in found[:6]:
                        print(f"      {line}")
    unexpected = [
        f"{file}: {case}" for file, case, found in results if found and f"{file}: {case}" not in DIFFERENT
    ]
    assert not unexpected


WATCH_PAUSE_S = 1
"""How long each replayed watch stays open; what it is to see has happened before."""


async def watched(session: aiohttp.ClientSession, server: str, path: str) -> list[Any]:
    """The events of one watch, or its refusal in the form the recording has."""
    path = re.sub(r"timeoutSeconds=\d+", f"timeoutSeconds={WATCH_PAUSE_S}", path)
    async with session.get(yarl.URL(server + path, encoded=True)) as answer:
        if answer.status != 200:
            return [{"body": await answer.json(), "status": answer.status}]
        return [json.loads(line) async for line in answer.content]


def without_numbers(events: Any) -> Any:
    """Versions in the text of a refusal differ in every cluster."""
    return json.loads(re.sub(r"too old resource version: 1 \(\d+\)", "too old: 1", json.dumps(events)))


def test_recorded_watches(tmp_path: Path, capsys: Any) -> None:
    rows = [json.loads(line) for line in (VECTORS / "watch.jsonl").read_text().splitlines()]
    seen: dict[str, list[Any]] = {}

    async def history(session: aiohttp.ClientSession, maps: str) -> str:
        """Do what was done while the recording was made; the version before it."""

        async def send(method: str, name: str = "", body: Any = None) -> Any:
            headers = {"User-Agent": "vectors"}
            if method == "PATCH":
                headers["Content-Type"] = "application/merge-patch+json"
            url = f"{maps}/{name}" if name else maps
            async with session.request(method, url, json=body, headers=headers) as answer:
                assert answer.status in (200, 201), await answer.text()
                return await answer.json()

        before = await send("POST", body={"metadata": {"generateName": "gen-"}})
        await send("POST", body={"metadata": {"name": "w1", "labels": {"s": "in"}}})
        await send("POST", body={"metadata": {"name": "w2"}})
        await send("PATCH", "w2", {"metadata": {"labels": {"s": "in"}}})
        await send("PATCH", "w1", {"data": {"a": "b"}})
        await send("PATCH", "w1", {"metadata": {"labels": None}})
        await send("DELETE", "w2")
        await send("DELETE", "w1")
        return str(before["metadata"]["resourceVersion"])

    async def run() -> None:
        async with control_plane(tmp_path) as plane, client(tmp_path) as session:
            await session.post(plane.server + "/api/v1/namespaces", json={"metadata": {"name": "vec"}})
            maps = plane.server + "/api/v1/namespaces/vec/configmaps"
            async with asyncio.timeout(30):
                while (await session.get(f"{maps}/kube-root-ca.crt")).status != 200:
                    await asyncio.sleep(0.05)
            version = await history(session, maps)

            async def one(row: dict[str, Any]) -> None:
                path = row["watch"].replace("resourceVersion=3193", f"resourceVersion={version}")
                seen[row["case"]] = await watched(session, plane.server, path)

            async with asyncio.TaskGroup() as group:
                for row in rows:
                    if not row["case"].startswith("version 1"):
                        group.create_task(one(row))
        # after a restart the events of before are gone, as after a compaction
        async with control_plane(tmp_path) as plane, client(tmp_path) as session:
            for row in rows:
                if row["case"].startswith("version 1"):
                    seen[row["case"]] = await watched(session, plane.server, row["watch"])

    asyncio.run(run())
    found = {
        row["case"]: differences(
            without_numbers(normal(row["events"])), without_numbers(normal(seen[row["case"]]))
        )
        for row in rows
    }
    with capsys.disabled():
        print(f"\n{sum(not lines for lines in found.values())} of {len(rows)} recorded watches match")
        for case, lines in found.items():
            for line in lines[:6]:
                print(f"  {case}: {line}")
    assert not any(found.values())
