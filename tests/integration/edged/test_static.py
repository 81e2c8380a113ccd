"""Pods out of a folder run without a cloud, and only the folder ends them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from msgspec.structs import replace

from edgecore.edged.manager import Edged
from tests.integration.edged.bench import Bench, container, pod
from tests.integration.edged.test_faults import on_fake


def text(name: str) -> str:
    obj = pod(name, container())
    return json.dumps(obj)


def line(agent: Edged, name: str) -> tuple[str, str]:
    worker = agent.find("default", f"{name}-edge-1")
    return (worker.pod.uid, worker.status.phase) if worker is not None else ("", "")


def test_a_folder_of_pods(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        folder = tmp_path / "static"
        folder.mkdir()
        b.config = replace(b.config, static_dir=folder)
        # nothing is known of what the cloud wants
        b.objects.unknown = True
        (folder / "one.json").write_text(text("one"))
        async with b.edged() as agent:
            await b.until(lambda: line(agent, "one")[1] == "Running", "running without a cloud")
            uid = line(agent, "one")[0]
            b.objects.unknown = False
            other = b.want(pod("other"))
            await b.running(other)
            # the cloud is not told of a pod that it would want deleted
            assert uid not in b.reports.statuses
            first = (await b.containers(uid))[0].id
            (folder / "one.json").write_text(text("one")[:50])
            agent.notify("pod", "", "")
            await asyncio.sleep(2.5)
            assert (await b.containers(uid))[0].id == first, "a half-written file ends nothing"
        async with b.edged() as agent:
            await asyncio.sleep(2.5)
            assert (await b.containers(uid))[0].id == first, "nor does it end what an earlier agent started"
            (folder / "one.json").write_text(text("one"))
            agent.notify("pod", "", "")
            await b.until(lambda: line(agent, "one")[1] == "Running", "adopted")
            assert (await b.containers(uid))[0].id == first
            (folder / "one.json").unlink()
            agent.notify("pod", "", "")
            await b.until(lambda: agent.worker(uid) is None, "ended")
            assert await b.containers(uid) == []
            assert b.ready(other)

    on_fake(tmp_path, story)


def test_the_api_shows_a_mirror_of_it(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        folder = tmp_path / "static"
        folder.mkdir()
        b.config = replace(b.config, static_dir=folder)
        b.objects.store["node", "", "edge-1"] = b'{"metadata":{"name":"edge-1","uid":"n1"}}'
        made = 0

        async def create_pod(namespace: str, name: str, raw: bytes) -> None:
            nonlocal made
            made += 1
            obj = json.loads(raw)
            obj["metadata"]["uid"] = f"mirror-{made}"
            b.want(obj)

        b.create_pod = create_pod
        (folder / "one.json").write_text(text("one"))
        async with b.edged() as agent:
            await b.until(lambda: b.ready("mirror-1"), "shown as ready")
            uid = line(agent, "one")[0]
            # shown twice, run once
            assert [s.uid for s in await b.cri.list_sandboxes()] == [uid]
            assert uid not in b.reports.statuses
            # deleted at the API: another one is made, and the pod does not notice
            first = (await b.containers(uid))[0].id
            b.delete(json.loads(b.objects.wanted["mirror-1"]))
            await b.until(lambda: b.reports.gone == ["mirror-1"], "its deletion is confirmed")
            b.unwant("mirror-1")
            await b.until(lambda: b.ready("mirror-2"), "there is another")
            assert [c.id for c in await b.containers(uid)] == [first]
            (folder / "one.json").unlink()
            agent.notify("pod", "", "")
            await b.until(lambda: b.reports.gone == ["mirror-1", "mirror-2"], "gone with its file")
            await b.until(lambda: agent.worker(uid) is None, "ended")

    on_fake(tmp_path, story)


def test_a_changed_file_waits_for_what_it_said_before(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        folder = tmp_path / "static"
        folder.mkdir()
        b.config = replace(b.config, static_dir=folder)
        (folder / "one.json").write_text(text("one"))
        async with b.edged() as agent:
            await b.until(lambda: line(agent, "one")[1] == "Running", "running")
            uid = line(agent, "one")[0]
            changed = json.loads(text("one"))
            changed["spec"]["hostname"] = "other"
            (folder / "one.json").write_text(json.dumps(changed))
            agent.notify("pod", "", "")
            await b.until(lambda: line(agent, "one")[0] not in ("", uid), "the new one")
            # never both at once: they have the same name, and perhaps the same ports
            assert await b.containers(uid) == []
            await b.until(lambda: line(agent, "one")[1] == "Running", "running anew")

    on_fake(tmp_path, story)
