"""exec, attach and port-forward of this node's pods for the local API: what a kubelet does, so that no cloud is needed for it.

The client's request for an upgrade goes to the runtime's streaming server, and then bytes go both ways; nothing is understood
of them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence

from beehive import tunnel
from beehive.errors import NotFound, Refused
from edgecore.edgestream import upgrade
from edgecore.edgestream.kubelet import Kubelet
from edgecore.edgestream.ports import PodView, StreamRuntime
from edgecore.edgestream.routes import Route, Verb

_VERBS = {"exec": Verb.EXEC, "attach": Verb.ATTACH, "portforward": Verb.PORT_FORWARD}
_AS_KUBELET = {"stdin": "input", "stdout": "output", "stderr": "error", "ports": "port"}
"""The API's query parameters that a kubelet calls otherwise.   Source: kubernetes, pkg/registry/core/pod/strategy.go."""


class Pipe:
    """The runtime's answer to an upgrade and the connection behind it (metaserver.http.Pipe)."""

    def __init__(self, made: upgrade.Upgraded) -> None:
        self._made = made

    @property
    def status(self) -> int:
        return self._made.answer.status

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        return self._made.answer.headers

    @property
    def text(self) -> bytes:
        return self._made.early

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, early: bytes) -> None:
        """Until either end is over.  Raises OSError: the client went away."""
        connection = self._made.connection
        try:
            async with asyncio.TaskGroup() as group:
                up = group.create_task(_to_runtime(reader, connection, early), name="pipe up")
                data = self._made.early
                while data or (data := await _receive(connection)):
                    writer.write(data)
                    await writer.drain()
                    data = b""
                up.cancel()
        except BaseExceptionGroup as failures:
            # the client's end is the only one that can fail
            raise failures.exceptions[0] from failures

    def close(self) -> None:
        self._made.connection.close()


class PodStreams:
    """The metaserver's `Streams`."""

    def __init__(self, runtime: StreamRuntime, switches: Mapping[str, bool] | None = None) -> None:
        self._runtime = runtime
        self._kubelet = Kubelet(runtime, switches)

    async def open(
        self,
        what: str,
        namespace: str,
        name: str,
        uid: str,
        query: Sequence[tuple[str, str]],
        method: str,
        headers: Sequence[tuple[str, str]],
    ) -> Pipe:
        """Ask the runtime for the stream.   what: `exec`, `attach` or `portforward`, with the API's query.

        Raises: NotFound, Refused, Unavailable."""
        container = next((value for key, value in query if key == "container"), "")
        pod = await self._runtime.pod(namespace, name)
        if pod is None or pod.uid != uid:
            raise NotFound(f'pod "{name}" does not run on this node')
        route = Route(
            verb=_VERBS[what],
            namespace=namespace,
            pod=name,
            uid=uid,
            container="" if what == "portforward" else container or only_container(pod),
            query=tuple((_AS_KUBELET.get(key, key), value) for key, value in query),
        )
        return Pipe(await self._kubelet.open(route, method, headers))


def only_container(pod: PodView) -> str:
    """The container that is meant when none is named.  Raises Refused, with an API server's words."""
    names = [one.name for one in pod.containers]
    if len(names) == 1:
        return names[0]
    listed = " ".join(names)
    raise Refused(f"a container name must be specified for pod {pod.name}, choose one of: [{listed}]")


async def _to_runtime(reader: asyncio.StreamReader, connection: socket.socket, early: bytes) -> None:
    loop = asyncio.get_running_loop()
    data = early
    try:
        while data or (data := await reader.read(tunnel.MAX_DATA)):
            await loop.sock_sendall(connection, data)
            data = b""
    except OSError:
        pass  # the runtime reads no more, or the client broke off
    # wakes the other direction: a client that says no more has gone
    try:
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        return


async def _receive(connection: socket.socket) -> bytes:
    try:
        return await asyncio.get_running_loop().sock_recv(connection, tunnel.MAX_DATA)
    except OSError:
        return b""  # Go closes with a reset when it leaves bytes unread
