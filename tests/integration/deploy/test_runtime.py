"""A real containerd of our own: filled, used, and cleaned up after, also when it was killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import machine, preflight, runtime
from deploy.home import Home, choose_pod_subnet
from deploy.images import BUSYBOX_IMAGE, PAUSE_IMAGE
from deploy.processes import Daemon
from edgecore.edged.cri import Cri
from edgecore.edged.runtime import ContainerConfig, PortMapping, SandboxConfig
from tests.e2e import footprint
from tests.e2e.skerry import missing

pytestmark = pytest.mark.root


class Runtime:
    """The pieces that `skerry up` and `skerry down` are made of, without the rest of Skerry."""

    def __init__(self, home: Home) -> None:
        self.home = home
        home.root.mkdir()
        self.snapshotter = preflight.choose_snapshotter(home.root)
        self.daemon = Daemon("containerd", pid_file=home.run / "containerd.pid", log=home.log("containerd"))
        plugins = preflight.find_cni_plugins()
        assert plugins is not None
        subnet = choose_pod_subnet(home, machine.routed_networks())
        runtime.write_files(home, subnet, cni_bin_dir=plugins, snapshotter=self.snapshotter)

    def start(self) -> None:
        self.daemon.start(["containerd", "--config", self.home.containerd / "config.toml"])
        deadline = time.monotonic() + 20
        while not runtime.answers(self.home):
            self.daemon.check()
            assert time.monotonic() < deadline, self.daemon.tail()
            time.sleep(0.05)

    def run_pod(self, host_port: int) -> int:
        """A pod that serves a page on a host port; the host port."""

        async def run() -> None:
            cri = Cri(str(self.home.containerd_socket))
            try:
                sandbox = SandboxConfig(
                    name="p",
                    namespace="default",
                    uid="u",
                    attempt=0,
                    ports=(PortMapping(container_port=80, host_port=host_port, protocol="TCP", host_ip=""),),
                    cgroup_parent=f"/{self.home.cgroup}/podu",
                )
                identifier = await cri.run_sandbox(sandbox)
                command = ("/bin/httpd", "-f", "-p", "80", "-h", "/etc")
                web = ContainerConfig(name="c", attempt=0, image=BUSYBOX_IMAGE, command=command)
                await cri.start_container(await cri.create_container(identifier, web, sandbox))
            finally:
                cri.close()

        asyncio.run(run())
        return host_port


@pytest.fixture
def made(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """A containerd that runs; afterwards the machine must look as before."""
    if reason := missing():
        pytest.skip(reason)
    root = Path(tempfile.mkdtemp(prefix="sk-", dir="/tmp"))
    home = Home.at(root / "h")
    before, looked = runtime.look(), footprint.look(home.root)
    container = Runtime(home)
    try:
        container.start()
        yield container
    finally:
        if container.daemon.pid() is not None:
            runtime.remove_pods(home)
            container.daemon.stop()
        problems = runtime.clean_up(home, before)
        shutil.rmtree(root)
    assert problems == []
    assert footprint.left_behind(looked, home.root) == {}


def test_images_are_imported_once(made: Runtime) -> None:
    assert runtime.import_images(made.home, snapshotter=made.snapshotter) == 2
    assert runtime.import_images(made.home, snapshotter=made.snapshotter) == 0
    listed = machine.run(["ctr", "-a", made.home.containerd_socket, "-n", "k8s.io", "images", "ls", "-q"])
    assert {PAUSE_IMAGE, BUSYBOX_IMAGE} <= set(listed.split())


def test_a_pod_with_a_host_port_is_removed_in_order(made: Runtime) -> None:
    runtime.import_images(made.home, snapshotter=made.snapshotter)
    made.run_pod(host_port=21080)
    assert machine.interface_exists(made.home.bridge)
    assert any(runtime.shims(made.home))
    assert runtime.has_leftovers(made.home)
    assert runtime.remove_pods(made.home) == 1
    assert not runtime.has_leftovers(made.home)
    assert runtime.remove_pods(made.home) == 0


def test_pods_of_a_killed_containerd_are_cleaned_up(made: Runtime) -> None:
    runtime.import_images(made.home, snapshotter=made.snapshotter)
    made.run_pod(host_port=21081)
    made.daemon.stop(kill=True)
    assert any(runtime.shims(made.home))
    assert runtime.has_leftovers(made.home)
    # One shim less: its pod's processes have nobody above them now.
    os.kill(next(iter(runtime.shims(made.home))), signal.SIGKILL)
    # The fixture cleans up without a containerd to ask, and looks.
