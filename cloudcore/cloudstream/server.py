"""A kubelet's HTTPS endpoint for each node, for a Kubernetes API server that connects to it.

Each node has a port; whoever connects shows a client certificate of the cluster's or a bearer token, and the API decides about
every request.  What is allowed goes through the node's tunnel; the edge answers as a kubelet."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from beehive import clock, tunnel
from beehive.errors import ProtocolError, Refused, SkerryError, Unavailable
from beehive.message import UNREADABLE
from beehive.tunnelpeer import StreamReset
from cloudcore.cloudstream import access, relay
from cloudcore.cloudstream.endpoints import Ports, with_endpoint
from cloudcore.cloudstream.proxy import REQUEST_HEADERS
from cloudcore.cloudstream.tunnels import Tunnels
from cloudcore.objects import Change

log = logging.getLogger(__name__)
audit = logging.getLogger("cloudcore.cloudstream.audit")

MAX_REQUEST_LINE = 64 * 1024
MAX_TOKEN = 16 * 1024
UPGRADES = {"exec": "exec", "attach": "attach", "portForward": "portForward"}
PLAIN = {
    "containerLogs": "logs",
    "pods": "pods",
    "runningpods": "pods",
    "stats": "stats",
    "metrics": "metrics",
}

Ask = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


class Denied(Exception):
    """The request is not served; `status` is the HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class KubeletServer:
    """Listens for the API server on behalf of nodes.  `run` is a supervised part.

    address: what nodes' InternalIP becomes.   host: where to listen.   ask: posts a review to the API and returns it; raises
    SkerryError.   switches: verbs that are off have False."""

    name = "cloudstream"

    def __init__(
        self,
        tunnels: Tunnels,
        *,
        tls: ssl.SSLContext,
        ask: Ask,
        address: str,
        ports: Ports,
        host: str | None = None,
        switches: Mapping[str, bool] | None = None,
    ) -> None:
        self._tunnels = tunnels
        self.tls = tls
        self._ask = ask
        self._address = address
        self._ports = ports
        self._host = host
        self._switches = dict(switches or {})
        self._runner: web.ServerRunner | None = None
        self._sites: dict[str, web.TCPSite] = {}
        self._nodes: dict[int, str] = {}
        self._decisions = access.Decisions()
        self._users: dict[bytes, tuple[float, access.User]] = {}
        self._opening = asyncio.Lock()
        self._deleted: set[str] = set()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Never returns."""
        server = web.Server(self._handle, access_log=None, max_line_size=MAX_REQUEST_LINE)  # type: ignore[arg-type]
        runner = web.ServerRunner(server, shutdown_timeout=2.0)
        await runner.setup()
        self._runner = runner
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._deleted:
                    await self.forget(self._deleted.pop())
        finally:
            self._runner = None
            await runner.cleanup()

    async def node_status(self, node: str, patch: bytes, told: int = 0) -> bytes:
        """A status patch of a node with its endpoint here.  told: the port its Node object names now.

        Unchanged when no port can be had: the node is then as unreachable as before, and works otherwise."""
        port = await self._listen(node, told)
        if port is None:
            return patch
        try:
            body = msgspec.json.decode(patch, type=dict[str, Any])
        except UNREADABLE:
            return patch  # the API says what is wrong with it
        return msgspec.json.encode(with_endpoint(body, self._address, port))

    def on_node(self, change: Change) -> None:
        """A Node changed; the port of a deleted one is free again."""
        if change.new is None and change.old is not None:
            self._deleted.add(change.old.name)
            self._wake.set()

    async def forget(self, node: str) -> None:
        """Listen for a node no more."""
        async with self._opening:
            site = self._sites.pop(node, None)
            self._ports.release(node)
            if site is not None:
                await site.stop()

    async def _listen(self, node: str, told: int) -> int | None:
        async with self._opening:
            while self._runner is not None:
                port = self._ports.of(node, told)
                if port is None:
                    log.warning("Node %s: no port is left for its kubelet endpoint", node)
                    return None
                if node in self._sites:
                    return port
                site = web.TCPSite(self._runner, self._host, port, ssl_context=self.tls)
                try:
                    await site.start()
                except OSError as error:
                    log.info("Port %d cannot be used for node %s: %s", port, node, error.strerror)
                    self._ports.bad(node)
                    continue
                self._sites[node], self._nodes[port] = site, node
                log.info("Node %s: its kubelet endpoint is port %d", node, port)
                return port
            return None

    # -- requests

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        began = time.monotonic()
        result, who, node = "failed", "-", "-"
        try:
            node = self._node_of(request)
            user = await self._user(request)
            who = user.name
            await self._authorize(access.question(user, node, request.method, request.path))
            response = await self._serve(request, node)
            result = str(response.status)
            return response
        except Denied as denied:
            result = f"{denied.status} {denied}"
            response = web.Response(status=denied.status, text=f"{denied}\n")
            response.force_close()
            return response
        except StreamReset as error:
            result = f"broke off: {error}"
            return relay.Taken(502)
        except ConnectionError:
            result = "the client went away"
            return relay.Taken(499)
        finally:
            audit.info(
                "%s %s of node %s by %s: %s after %.1f s",
                request.method,
                request.path[:256],
                node,
                who,
                result[:256],
                time.monotonic() - began,
            )

    def _node_of(self, request: web.Request) -> str:
        name = request.transport.get_extra_info("sockname") if request.transport is not None else None
        node = self._nodes.get(name[1]) if name else None
        if node is None:
            raise Denied(404, "no node has this port")
        return node

    async def _user(self, request: web.Request) -> access.User:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return await self._user_of_token(token.strip())
        assert request.transport is not None, "a request that is being answered has a connection"
        user = access.user_of_certificate(request.transport.get_extra_info("peercert"))
        if user is None:
            raise Denied(401, "Unauthorized")
        return user

    async def _user_of_token(self, token: str) -> access.User:
        if len(token) > MAX_TOKEN:
            raise Denied(401, "Unauthorized")
        key, now = hashlib.sha256(token.encode("utf-8", "replace")).digest(), clock.monotonic()
        held = self._users.get(key)
        if held is not None and held[0] > now:
            return held[1]
        user = access.user_of_review(
            await self._review("/apis/authentication.k8s.io/v1/tokenreviews", access.token_review(token))
        )
        if user is None:
            raise Denied(401, "Unauthorized")
        self._users = {k: v for k, v in self._users.items() if v[0] > now}
        if len(self._users) < access.MAX_DECISIONS:
            # two minutes: the kubelet's authentication cacheTTL
            self._users[key] = (now + 120.0, user)
        return user

    async def _authorize(self, asked: access.Question) -> None:
        now = clock.monotonic()
        allowed = self._decisions.get(asked, now)
        if allowed is None:
            review = await self._review(
                "/apis/authorization.k8s.io/v1/subjectaccessreviews", access.subject_access_review(asked)
            )
            allowed = access.is_allowed(review)
            self._decisions.put(asked, now, allowed=allowed)
        if not allowed:
            raise Denied(
                403,
                f"Forbidden (user={asked.user.name}, verb={asked.verb}, resource=nodes, "
                f"subresource={asked.subresource})",
            )

    async def _review(self, path: str, review: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._ask(path, review)
        except SkerryError as error:
            # no answer is no permission
            raise Denied(503, f"cannot ask the API who may: {error}") from error

    async def _serve(self, request: web.Request, node: str) -> web.StreamResponse:
        first = request.path.lstrip("/").partition("/")[0]
        if first == "healthz":
            return web.Response(text="ok")
        verb = UPGRADES.get(first) or PLAIN.get(first)
        if verb is None:
            raise Denied(404, "404 page not found")
        if self._switches.get(verb) is False:
            raise Denied(403, f"{verb} is switched off for this cluster's edge nodes")
        upgrade = first in UPGRADES
        if upgrade and "Upgrade" not in request.headers:
            raise Denied(400, "Upgrade request required")
        if not upgrade and request.method not in ("GET", "HEAD"):
            raise Denied(405, "Method Not Allowed")
        headers = [(k.lower(), str(v)) for k, v in request.headers.items() if k.lower() in REQUEST_HEADERS]
        head = tunnel.Head(
            kind="upgrade" if upgrade else "http",
            method=request.method if upgrade else "GET",
            path=request.raw_path,
            headers=headers if upgrade else [],
        )
        try:
            stream, answer = await self._tunnels.open(node, head)
        except ProtocolError as error:
            raise Denied(400, str(error)) from error
        except Refused as error:
            raise Denied(501, str(error)) from error
        except Unavailable as error:
            raise Denied(503, str(error)) from error
        if answer.status == 101 and upgrade:
            return await relay.relay_upgrade(request, stream, answer)
        if answer.status == 101 or 300 <= answer.status < 400:
            stream.reset("refused")
            raise Denied(502, f"the node answered with status {answer.status}")
        return await relay.relay_body(request, stream, answer)


def endpoint_context(client_ca_pem: str) -> ssl.SSLContext:
    """A server's context without its certificate yet.  Asks for client certificates of `client_ca_pem`, if there is one; the
    authority of our own nodes is not among them, as no node may ask another."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if client_ca_pem:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=client_ca_pem)
    return context
