"""Logs, exec, attach and port-forward of pods for a control plane in the same process.

The control plane has authenticated and authorized the request before it comes here."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from aiohttp import web

from beehive import tunnel
from beehive.errors import NotFound, ProtocolError, Refused, SkerryError, Unavailable
from beehive.tunnelpeer import StreamReset
from cloudcore.cloudstream import channels, relay
from cloudcore.cloudstream.pipe import Pipe
from cloudcore.cloudstream.podrequests import BadRequest, PodRequest, pod_request
from cloudcore.cloudstream.tunnels import Tunnels

audit = logging.getLogger("cloudcore.cloudstream.audit")

LOG_PROTOCOLS = ("binary.k8s.io", "base64.binary.k8s.io")
"""Of a log over a websocket: bytes, or their text in base64.  A client that offers none gets bytes."""
NODE_PATHS = {
    "healthz": "metrics",
    "metrics": "metrics",
    "pods": "pods",
    "runningpods": "pods",
    "stats": "stats",
    "containerLogs": "logs",
}
"""What may be read of a node's kubelet through the API: the first word of the path, and the switch it hangs on."""
PORT_FORWARD = "portforward.k8s.io"
PORT_FORWARD_TUNNEL = f"SPDY/3.1+{PORT_FORWARD}"
MAX_ERROR_TEXT = 8 * 1024
ERROR_TEXT_S = 10.0
"""How long a node may take to tell why it refuses."""
MAX_MESSAGE = 1024 * 1024
"""Of a client's websocket: kubectl sends at most 32 KiB at once."""

REQUEST_HEADERS = frozenset(
    {
        "connection",
        "upgrade",
        "x-stream-protocol-version",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
    }
)
"""What of a client's headers goes on to the edge; its credentials are not among them."""

GetPod = Callable[[str, str], Awaitable[Mapping[str, Any]]]

_REASONS = {
    400: "BadRequest",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


class Refusal(Exception):
    """An error for the client before anything was streamed.   plain: the node's own text, as it came."""

    def __init__(self, code: int, text: str, *, plain: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.plain = plain


class PodStreams:
    """Serves pods/log, pods/exec, pods/attach and pods/portforward through the nodes' tunnels.

    get_pod: the Pod of a namespace and name; raises NotFound, Unavailable.
    switches: verbs that are off have False: logs, exec, attach, portForward."""

    def __init__(
        self, tunnels: Tunnels, *, get_pod: GetPod, switches: Mapping[str, bool] | None = None
    ) -> None:
        self._tunnels = tunnels
        self._get_pod = get_pod
        self._switches = dict(switches or {})

    async def handle(
        self, request: web.Request, namespace: str, pod: str, subresource: str, *, user: str = ""
    ) -> web.StreamResponse:
        """Answer a request about a pod.  Every error becomes an answer, or a cut connection where one has begun.

        `user` is who asks, for the audit line."""
        began = time.monotonic()
        result = "failed"
        container = ""
        try:
            wanted = pod_request(
                await self._get_pod(namespace, pod),
                subresource,
                request.query.items(),
                upgrade="Upgrade" in request.headers,
            )
            container = wanted.container
            if self._switches.get(wanted.verb) is False:
                raise Refusal(403, f"{wanted.verb} is switched off for this cluster's edge nodes")
            response = await self._serve(request, wanted)
            result = "done"
            return response
        except NotFound:
            result = "no such pod"
            return status_response(404, f'pods "{pod}" not found')
        except BadRequest as error:
            result = f"refused: {error}"
            return status_response(400, str(error))
        except (Refusal, StreamReset, Unavailable, ConnectionError) as error:
            result, said = _failed(error)
            return said
        finally:
            audit.info(
                "%s %s of %s container=%s by %s: %s after %.1f s",
                request.method,
                subresource,
                f"{namespace}/{pod}",
                container or "-",
                user or "-",
                result[:256],
                time.monotonic() - began,
            )

    async def handle_node(
        self, request: web.Request, node: str, path: str, *, user: str = ""
    ) -> web.StreamResponse:
        """Answer a request to a node's own kubelet: what can be read of it.   path: without a leading slash."""
        began = time.monotonic()
        result = "failed"
        try:
            switch = NODE_PATHS.get(path.partition("/")[0])
            if switch is None:
                raise Refusal(404, "404 page not found", plain=True)
            if self._switches.get(switch) is False:
                raise Refusal(403, f"{switch} is switched off for this cluster's edge nodes")
            if request.method not in ("GET", "HEAD"):
                raise Refusal(405, "Method Not Allowed", plain=True)
            query = f"?{request.query_string}" if request.query_string else ""
            wanted = PodRequest(
                verb=switch, node=node, container="", path=f"/{quote(path, safe='/:@~')}{query}"
            )
            stream, answer = await self._open(wanted, "http", "GET", [])
            result = "done"
            return await relay.relay_body(request, stream, answer)
        except (Refusal, StreamReset, Unavailable, ConnectionError) as error:
            result, said = _failed(error)
            return said
        finally:
            audit.info(
                "%s %s of node %s by %s: %s after %.1f s",
                request.method,
                path[:256],
                node,
                user or "-",
                result[:256],
                time.monotonic() - began,
            )

    async def _serve(self, request: web.Request, wanted: PodRequest) -> web.StreamResponse:
        if not wanted.node:
            return web.Response(text="")  # a pod without a node has logged nothing yet
        if wanted.verb == "logs":
            stream, answer = await self._open(wanted, "http", "GET", [])
            await _expect(stream, answer, 200)
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await _log_messages(request, stream)
            return await relay.relay_body(request, stream, answer)
        offered = _offered(request)
        if channels.V5 in offered and wanted.verb != "portForward":
            return await self._translated(request, wanted)
        if PORT_FORWARD_TUNNEL in offered and wanted.verb == "portForward":
            return await self._tunnelled(request, wanted)
        headers = [(k.lower(), str(v)) for k, v in request.headers.items() if k.lower() in REQUEST_HEADERS]
        stream, answer = await self._open(wanted, "upgrade", request.method, headers)
        await _expect(stream, answer, 101)
        return await relay.relay_upgrade(request, stream, answer)

    async def _translated(self, request: web.Request, wanted: PodRequest) -> web.StreamResponse:
        stream, answer = await self._open(wanted, "upgrade", "POST", channels.SPDY_HEADERS)
        await _expect(stream, answer, 101)
        if answer.header("x-stream-protocol-version") != channels.RUNTIME_PROTOCOL:
            stream.reset("protocol not known")
            raise Refusal(502, "the node's runtime does not speak the stream protocol")
        socket = await _accept(request, stream, channels.V5)
        await channels.relay_channels(socket, stream, wanted)
        return socket

    async def _tunnelled(self, request: web.Request, wanted: PodRequest) -> web.StreamResponse:
        headers = [
            ("Connection", "Upgrade"),
            ("Upgrade", "SPDY/3.1"),
            ("X-Stream-Protocol-Version", PORT_FORWARD),
        ]
        stream, answer = await self._open(wanted, "upgrade", "POST", headers)
        await _expect(stream, answer, 101)
        socket = await _accept(request, stream, PORT_FORWARD_TUNNEL)
        await relay.relay_tunnelled(socket, stream)
        return socket

    async def _open(
        self, wanted: PodRequest, kind: str, method: str, headers: list[tuple[str, str]]
    ) -> tuple[Pipe, tunnel.Answer]:
        head = tunnel.Head(kind=kind, method=method, path=wanted.path, headers=headers)
        try:
            return await self._tunnels.open(wanted.node, head)
        except ProtocolError as error:
            raise Refusal(400, str(error)) from error
        except Refused as error:
            raise Refusal(501, str(error)) from error
        except Unavailable as error:
            raise Refusal(503, str(error)) from error


async def _log_messages(request: web.Request, stream: Pipe) -> web.StreamResponse:
    """A log as messages of a websocket, until its end or until the client goes."""
    socket = web.WebSocketResponse(protocols=LOG_PROTOCOLS, compress=False, max_msg_size=MAX_MESSAGE)
    try:
        await socket.prepare(request)
    except BaseException:
        stream.reset("the client went away")
        raise
    text = socket.ws_protocol == LOG_PROTOCOLS[1]

    async def send() -> None:
        while data := await stream.read():
            if text:
                await socket.send_str(base64.b64encode(data).decode())
            else:
                await socket.send_bytes(data)
        await socket.close()

    async def listen() -> None:
        async for _ in socket:
            pass  # a client has nothing to say here
        stream.reset("the client went away")

    with contextlib.suppress(ExceptionGroup):
        # whoever notices the end first ends the other
        async with asyncio.TaskGroup() as both:
            sending = both.create_task(send())
            listening = both.create_task(listen())
            await asyncio.wait((sending, listening), return_when=asyncio.FIRST_COMPLETED)
            sending.cancel()
            listening.cancel()
    return socket


def _offered(request: web.Request) -> list[str]:
    values = request.headers.getall("Sec-WebSocket-Protocol", [])
    return [part.strip() for value in values for part in value.split(",")]


async def _accept(request: web.Request, stream: Pipe, protocol: str) -> web.WebSocketResponse:
    # nothing bounds the time of a session but its two ends; the tunnel ends idle ones
    socket = web.WebSocketResponse(protocols=(protocol,), compress=False, max_msg_size=MAX_MESSAGE)
    try:
        await socket.prepare(request)
    except BaseException:
        stream.reset("the client went away")
        raise
    return socket


async def _expect(stream: Pipe, answer: tunnel.Answer, status: int) -> None:
    """The edge's refusal as ours.  An edge says no with a text; it cannot redirect anybody."""
    if answer.status == status:
        return
    text = await _text(stream)
    stream.reset("refused")
    if answer.status not in (400, 403, 404, 405, 429, 500):
        raise Refusal(502, f"the node answered with status {answer.status}")
    text = text or f"the node answered with status {answer.status}"
    if status == 101:
        # an API server passes a kubelet's refusal of an upgrade on as it is; clients put their own words before it
        raise Refusal(answer.status, text, plain=True)
    if answer.status == 500:
        text = f"Internal error occurred: {text}"
    raise Refusal(answer.status, text)


async def _text(stream: Pipe) -> str:
    body = b""
    try:
        async with asyncio.timeout(ERROR_TEXT_S):
            while len(body) < MAX_ERROR_TEXT and (data := await stream.read()):
                body += data
    except SkerryError as error:
        return str(error)
    except TimeoutError:
        pass  # what came until now has to do
    return body[:MAX_ERROR_TEXT].decode("utf-8", "replace").strip()


def _failed(error: Refusal | StreamReset | Unavailable | ConnectionError) -> tuple[str, web.StreamResponse]:
    """What the audit says of a request that came to nothing, and what its client gets."""
    if isinstance(error, Refusal):
        said = _plain(error) if error.plain else status_response(error.code, str(error))
        return f"{error.code}: {error}", said
    if isinstance(error, StreamReset):
        # the answer had begun; the client's connection was cut
        return f"broke off: {error}", relay.Taken(502)
    if isinstance(error, Unavailable):
        return f"503: {error}", status_response(503, str(error))
    return "the client went away", relay.Taken(499)


def _plain(refusal: Refusal) -> web.Response:
    response = web.Response(status=refusal.code, text=f"{refusal}\n")
    response.force_close()  # as below
    return response


def status_response(code: int, message: str) -> web.Response:
    """A metav1.Status, which clients of Kubernetes show as their error."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": _REASONS.get(code, "InternalError"),
        "code": code,
    }
    response = web.json_response(body, status=code)
    if code == 400 or code >= 500:
        response.force_close()  # what follows on this connection may be meant for an upgrade that did not happen
    return response
