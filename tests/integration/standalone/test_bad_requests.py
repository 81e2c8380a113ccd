"""What a real API server refuses is refused: with its code and reason, in time, and before memory is taken."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import yarl

from tests.integration.standalone.server import client, control_plane

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
JSON, YAML = "application/json", "application/yaml"
BOMB = "a: &a [x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
)
BODIES: tuple[tuple[str, str, bytes, str, int], ...] = (
    ("deep array", MAPS, b"[" * 200_000, JSON, 400),
    ("deep object", MAPS, b'{"data":' * 5000 + b"1" + b"}" * 5000, JSON, 400),
    ("deep yaml", MAPS, b"[" * 200_000, YAML, 400),
    ("aliases", MAPS, BOMB.encode(), YAML, 400),
    ("not UTF-8", MAPS, b'{"metadata":{"name":"\xff"}}', JSON, 400),
    ("half a character", MAPS, b'{"metadata":{"name":"s"},"data":{"a":"\\ud800"}}', JSON, 400),
    ("no number", MAPS, b'{"metadata":{"name":"n"},"data":{"a":NaN}}', JSON, 400),
    ("array", MAPS, b"[]", JSON, 400),
    ("null", MAPS, b"null", JSON, 400),
    ("nothing", MAPS, b"", JSON, 400),
    ("half", MAPS, b'{"metadata":', JSON, 400),
    ("metadata is a list", MAPS, b'{"metadata":[]}', JSON, 400),
    ("no name", MAPS, b'{"metadata":null}', JSON, 422),
    ("a name with a zero", MAPS, b'{"metadata":{"name":"a\\u0000b"}}', JSON, 422),
    ("spec is a string", PODS, b'{"metadata":{"name":"s"},"spec":"x"}', JSON, 400),
    (
        "a number without end",
        PODS,
        b'{"metadata":{"name":"s"},"spec":{"terminationGracePeriodSeconds":' + b"9" * 400 + b"}}",
        JSON,
        400,
    ),
    ("another kind", MAPS, b'{"kind":"Secret","apiVersion":"v1","metadata":{"name":"s"}}', JSON, 400),
    ("another form", MAPS, b"{}", "text/plain", 415),
    ("too large", MAPS, b'{"data":{"a":"' + b"x" * 3_300_000 + b'"}}', JSON, 413),
)
QUERIES = (
    ("/nothing/here", 404),
    ("/api/v7/pods", 404),
    ("/api/v1/nothings", 404),
    (f"{MAPS}/a/nothing", 404),
    ("/api/v1/namespaces/" + "a" * 60_000, 404),
    ("/api/v1/namespaces/../../etc/passwd", 404),
    (f"{MAPS}?labelSelector=a%20b%20c", 400),
    (f"{MAPS}?fieldSelector=spec.x%3D1", 400),
    (f"{MAPS}?limit=x", 400),
    (f"{MAPS}?resourceVersion=x", 400),
    (f"{MAPS}?watch=true&timeoutSeconds=x", 400),
    (f"{MAPS}?watch=true&resourceVersion=x", 500),
)


def test_bad_bodies_and_questions(tmp_path: Path) -> None:
    async def main() -> None:
        async with control_plane(tmp_path) as plane, client(tmp_path) as session:

            async def ask(
                method: str, path: str, body: bytes | None = None, **headers: str
            ) -> tuple[int, Any]:
                url = yarl.URL(plane.server + path, encoded=True)
                async with session.request(
                    method, url, data=None if body is None else io.BytesIO(body), headers=headers
                ) as answer:
                    text = await answer.text()
                    assert answer.status >= 400 or method != "POST", text[:200]
                    return answer.status, text

            for name, path, body, form, wanted in BODIES:
                code, text = await ask("POST", path, body, **{"Content-Type": form})
                assert code == wanted, (name, text[:300])
                status = json.loads(text)
                assert (status["kind"], status["code"]) == ("Status", code), name
                assert len(status["message"]) < 2000, name
            for path, wanted in QUERIES:
                code, text = await ask("GET", path)
                assert code == wanted, (path[:80], text[:300])
            code, text = await ask("PROPFIND", MAPS)
            assert code == 405
            # after all that it serves as before
            async with session.post(plane.server + MAPS, json={"metadata": {"name": "a"}}) as answer:
                assert answer.status == 201

    asyncio.run(main())


def test_what_is_not_served_is_said_in_a_sentence(tmp_path: Path) -> None:
    async def main() -> None:
        async with control_plane(tmp_path) as plane, client(tmp_path) as session:
            pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
            async with session.post(plane.server + PODS, json=pod) as answer:
                assert answer.status == 201
            for what in ("log", "exec?command=ls", "attach", "portforward", "proxy"):
                async with session.get(f"{plane.server}{PODS}/p/{what}") as answer:
                    body = await answer.json()
                    assert (answer.status, body["reason"]) == (501, "NotImplemented")
                    assert "no way to its nodes" in body["message"]

    asyncio.run(main())


def test_what_is_packed_small_is_not_unpacked_large(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"metadata":{"name":"' + b"x" * 100_000_000, compresslevel=1)

    async def main() -> None:
        async with control_plane(tmp_path) as plane, client(tmp_path) as session:
            headers = {"Content-Type": JSON, "Content-Encoding": "gzip"}
            tracemalloc.start()
            try:
                async with session.post(
                    plane.server + MAPS, data=io.BytesIO(packed), headers=headers
                ) as answer:
                    assert answer.status == 413
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert peak < 50_000_000

    asyncio.run(main())
