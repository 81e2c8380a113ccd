"""`mapper udev` and the kernel's own events: veth in a network namespace, a loop device, and a real API server."""

import asyncio
import contextlib
import io
import json
import os
import random
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.ports import free_port

pytest.importorskip("pyudev")

import deploy
from mappers.udev.app import Options, load_rules, run
from mappers.udev.report import Api, Reporter
from mappers.udev.rules import candidate
from mappers.udev.tracker import Change, Kind
from tests.integration.mappers.support import until
from tests.integration.standalone.server import client, control_plane
from tests.unit.mappers.udev.hardware import ftdi

root = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2")
CRDS = Path(deploy.__file__).parent / "crds"


def rule(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "skerry.dev/v1alpha1",
        "kind": "HardwareRule",
        "metadata": {"name": name},
        "spec": spec,
    }


def write(path: Path, *documents: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump_all(documents))
    return path


class Lines:
    """A `mapper udev` in network and mount namespaces of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def next(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            found: dict[str, Any] = json.loads(await self.process.stdout.readline())
        return found

    async def quiet(self, seconds: float) -> None:
        assert self.process.stdout is not None
        heard = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                heard = await self.process.stdout.readline()
        assert heard == b""

    async def ip(self, *arguments: str) -> None:
        inside = ("nsenter", "-t", str(self.process.pid), "-n", "ip", *arguments)
        process = await asyncio.create_subprocess_exec(*inside)
        assert await process.wait() == 0


@contextlib.asynccontextmanager
async def watched(rules: Path, *options: str) -> AsyncIterator[Lines]:
    command = 'mount -t sysfs sysfs /sys && exec "$@"'
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--net", "--mount", "sh", "-c", command, "sh"),
        *(sys.executable, "-m", "mappers.cli", "udev", "--rules", str(rules), "--node", "edge-1", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=Path(deploy.__file__).parents[1],
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(20):
            line = await process.stderr.readline()
        assert b"Watching" in line, line + await process.stderr.read(4000)
        yield Lines(process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()
    assert process.returncode == 0


@root
def test_a_network_device_comes_goes_and_is_the_same_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        rules = write(tmp_path / "r.yaml", rule("ports", match={"subsystem": "net", "name": "va*"}))
        create = ("link", "add", "va0", "address", "02:00:00:00:00:0a", "type", "veth", "peer", "name", "vb0")
        async with watched(rules, "--settle", "0.1", "--grace", "0.6", "--source", "kernel") as lines:
            await lines.ip(*create)
            plugged = await lines.next()
            assert plugged["event"] == "plugged"
            spec = plugged["candidate"]["spec"]
            assert spec["identity"] == "net::02:00:00:00:00:0a"
            assert "device" not in plugged
            await lines.ip("link", "delete", "va0")
            await lines.ip(*create)  # a bounce
            await lines.quiet(1)
            await lines.ip("link", "delete", "va0")
            unplugged = await lines.next()
            assert (unplugged["event"], unplugged["candidate"]["status"]) == (
                "unplugged",
                {"phase": "Absent"},
            )
            await lines.ip(*(word.replace("va0", "va7") for word in create))
            again = await lines.next()
            assert again["event"] == "plugged"
            assert again["candidate"]["metadata"] == plugged["candidate"]["metadata"]
            await lines.ip("link", "set", "va7", "name", "other")
            assert (await lines.next())["event"] == "unplugged"

    asyncio.run(scenario())


@root
@pytest.mark.skipif(not shutil.which("losetup"), reason="needs losetup")
def test_a_loop_device_with_a_file_in_it(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1024 * 1024))

    async def losetup(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            "losetup", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        if process.returncode != 0:
            pytest.skip(f"no loop devices here: {err.decode()}")
        return out.decode().strip()

    async def scenario() -> None:
        match = {"subsystem": "block", "attributes": {"loop/backing_file": str(image)}}
        rules = write(tmp_path / "r.yaml", rule("disks", match=match, template=TEMPLATE))
        attached = ""
        async with watched(rules, "--settle", "0.1", "--grace", "0.2") as lines:
            try:
                attached = await losetup("--find", "--show", str(image))
                plugged = await lines.next()
                assert plugged["candidate"]["spec"]["devNode"] == attached
                assert plugged["device"]["spec"]["protocol"]["configData"]["serialPort"] == attached
            finally:
                if attached:
                    await losetup("--detach", attached)
            assert (await lines.next())["event"] == "unplugged"

    asyncio.run(scenario())


TEMPLATE = {
    "deviceModelRef": {"name": "meter"},
    "protocol": {"protocolName": "modbus", "configData": {"serialPort": "${devnode}"}},
}


def test_what_is_there_at_the_start_is_found() -> None:
    async def scenario(folder: Path) -> None:
        rules = write(folder / "r.yaml", rule("lo", match={"subsystem": "net", "name": "lo"}))
        out, stop = io.StringIO(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            options = Options(node="edge-1", rules=rules, settle_s=0.01)
            group.create_task(run(options, out=out, stop=stop))
            await until(lambda: out.getvalue().endswith("\n"))
            stop.set()
        assert json.loads(out.getvalue())["candidate"]["spec"]["identity"] == "virtual/net/lo"

    import tempfile

    with tempfile.TemporaryDirectory() as name:
        asyncio.run(scenario(Path(name)))


def test_candidates_and_devices_reach_an_api_server(tmp_path: Path) -> None:
    async def scenario() -> None:
        state = tmp_path / "cloud"
        manifests = [CRDS / "hardware.yaml", CRDS / "devices.yaml"]
        async with control_plane(state, manifests=manifests) as plane, client(state) as session:
            url = plane.server
            token = await _token(session, url)
            api = Api(url=url, token=token, ca=str(state / "pki" / "api-ca.crt"))
            hardware = f"{url}/apis/skerry.dev/v1alpha1/namespaces/default"
            devices = f"{url}/apis/devices.kubeedge.io/v1beta1/namespaces/default/devices"
            made = rule("meter", match={"subsystem": "tty", "vendor": "0403"}, template=TEMPLATE)
            async with session.post(f"{hardware}/hardwarerules", json=made) as answer:
                assert answer.status == 201, await answer.text()
            from mappers.udev import rules

            found = await asyncio.to_thread(api.rules)
            wanted = rules.parse(found)
            reporter = Reporter(api, "edge-1", rng=random.Random(1), look_s=0.1)
            first = candidate(wanted, ftdi(0))
            moved = candidate(wanted, ftdi(3))
            assert first is not None
            assert moved is not None

            async def get(where: str) -> list[dict[str, Any]]:
                async with session.get(where) as answer:
                    items: list[dict[str, Any]] = (await answer.json())["items"]
                    return items

            async def eventually(where: str, good: Any) -> dict[str, Any]:
                async with asyncio.timeout(30):
                    while True:
                        items = await get(where)
                        if len(items) == 1 and good(items[0]):
                            return items[0]
                        await asyncio.sleep(0.05)

            async with asyncio.TaskGroup() as group:
                task = group.create_task(reporter.run())
                reporter.put(Change(kind=Kind.PLUGGED, candidate=first))
                where = f"{hardware}/devicecandidates"
                shown = await eventually(where, lambda c: c.get("status") == {"phase": "Present"})
                assert shown["spec"]["accepted"] is False
                await asyncio.sleep(0.3)
                assert await get(devices) == []
                name = shown["metadata"]["name"]
                headers = {"Content-Type": "application/merge-patch+json"}
                body = json.dumps({"spec": {"accepted": True}})
                async with session.patch(f"{where}/{name}", data=body, headers=headers) as answer:
                    assert answer.status == 200
                device = await eventually(devices, lambda d: True)
                assert device["spec"]["nodeName"] == "edge-1"
                reporter.put(Change(kind=Kind.UNPLUGGED, candidate=first))
                await eventually(where, lambda c: c["status"] == {"phase": "Absent"})
                reporter.put(Change(kind=Kind.PLUGGED, candidate=moved))

                def back(d: dict[str, Any]) -> bool:
                    return bool(d["spec"]["protocol"]["configData"]["serialPort"] == "/dev/ttyUSB3")

                again = await eventually(devices, back)
                assert again["metadata"]["uid"] == device["metadata"]["uid"]
                shown = await eventually(where, lambda c: c["status"] == {"phase": "Present"})
                assert shown["spec"]["accepted"] is True
                task.cancel()

    asyncio.run(scenario())


async def _token(session: Any, url: str) -> str:
    """Of a service account that may do everything."""
    accounts = f"{url}/api/v1/namespaces/default/serviceaccounts"
    async with session.post(accounts, json={"metadata": {"name": "udev"}}) as answer:
        assert answer.status == 201
    binding = {
        "metadata": {"name": "udev"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "udev", "namespace": "default"}],
    }
    bindings = f"{url}/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    async with session.post(bindings, json=binding) as answer:
        assert answer.status == 201, await answer.text()
    async with session.post(f"{accounts}/udev/token", json={"spec": {}}) as answer:
        assert answer.status == 201, await answer.text()
        token: str = (await answer.json())["status"]["token"]
    return token


def test_a_server_that_is_away_or_refuses(tmp_path: Path) -> None:
    from beehive.errors import ConfigError, Unavailable

    with pytest.raises(Unavailable):
        Api(url=f"http://127.0.0.1:{free_port()}").rules()
    with pytest.raises(ConfigError):
        load_rules(tmp_path / "none.yaml")
