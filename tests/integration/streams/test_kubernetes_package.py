"""The `kubernetes` package's log, stream and portforward: it speaks the older websocket protocol (v4.channel.k8s.io)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from kubernetes.stream import portforward, stream

from tests.integration.edged.bench import container, pod
from tests.integration.edged.machine import Containerd
from tests.integration.streams.rig import Rig, rig

pytestmark = pytest.mark.root

ECHO = "trap 'exit 0' TERM; echo hello; nc -ll -p 9000 -e cat & wait"


def play(containerd: Containerd, tmp_path: Path, work: Callable[[Callable[[], Any]], None]) -> None:
    """Run `work` in a thread beside the rig; it is given a maker of API clients, as `stream` changes the one it uses."""

    async def scene() -> None:
        async with rig(tmp_path, containerd) as r:
            await r.run_pod(pod("web", container(command=["sh", "-c", ECHO])))
            with contextlib.ExitStack() as stack:
                await asyncio.to_thread(work, lambda: api(r, stack))

    asyncio.run(scene())


def api(r: Rig, stack: contextlib.ExitStack) -> Any:
    made = config.new_client_from_config(str(r.kubeconfig))
    stack.callback(made.close)
    # connections are left to the collector otherwise, and the server waits for their end
    stack.callback(made.rest_client.pool_manager.clear)
    return client.CoreV1Api(made)


def test_logs(containerd: Containerd, tmp_path: Path) -> None:
    def work(make: Callable[[], Any]) -> None:
        assert make().read_namespaced_pod_log("web", "default") == "hello\n"
        assert make().read_namespaced_pod_log("web", "default", tail_lines=0) == ""
        with pytest.raises(client.ApiException) as caught:
            make().read_namespaced_pod_log("web", "default", previous=True)
        assert caught.value.status == 400

    play(containerd, tmp_path, work)


def test_exec(containerd: Containerd, tmp_path: Path) -> None:
    def work(make: Callable[[], Any]) -> None:
        command = ["sh", "-c", "read x; echo got $x; echo err >&2; exit 4"]
        socket = stream(
            make().connect_get_namespaced_pod_exec,
            *("web", "default"),
            command=command,
            stdin=True,
            stdout=True,
            stderr=True,
            _preload_content=False,
        )
        socket.write_stdin("word\n")
        socket.run_forever(timeout=10)
        assert socket.read_stdout() == "got word\n"
        assert socket.read_stderr() == "err\n"
        assert socket.returncode == 4
        socket.close()
        # it leaves the connection open when the server said farewell first
        socket.sock.shutdown()

    play(containerd, tmp_path, work)


def test_port_forward(containerd: Containerd, tmp_path: Path) -> None:
    def work(make: Callable[[], Any]) -> None:
        forward = portforward(make().connect_get_namespaced_pod_portforward, "web", "default", ports="9000")
        try:
            socket = forward.socket(9000)
            socket.settimeout(60)
            payload = b"x" * 100_000
            socket.sendall(payload)
            got = b""
            while len(got) < len(payload):
                got += socket.recv(65536)
            assert got == payload
            assert forward.error(9000) is None
        finally:
            forward.close()
            # it leaves the connection open
            forward.websocket.shutdown()

    play(containerd, tmp_path, work)
