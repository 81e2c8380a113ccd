"""The HTTPS port by which a stock KubeEdge edge gets its certificate (10002 there).  Runs only where `compat.kubeedge` is on.

    GET /ca.crt        the CA, DER
    GET /edge.crt      body: a signing request, DER; header NodeName; a client certificate, or `Authorization: Bearer <JWT>`
    GET /node/<name>   whether a Node of that name exists: keadm asks before it joins

Client certificates are asked for and verified by the TLS layer; none is needed for the first request.  Bodies are DER without a
content type, as the stock edge expects.  Its CSR asks for a subject; ours is set by the signer.
Source: KubeEdge, cloudhub/servers/httpserver."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from aiohttp import web

from beehive import clock, resource
from beehive.errors import Conflict, Refused, Unavailable
from cloudcore.errors import ApiError, ApiExists, ApiNotFound
from cloudcore.identity import kubeedge_token, pki, revocation
from cloudcore.identity.authority import SYSTEM_NAMESPACE, Authority, secret_body
from cloudcore.identity.join import Limiter
from cloudcore.identity.revocation import Revocations
from cloudcore.identity.revocation import shown as shown_certificate
from cloudcore.identity.subjects import NODE_USER
from cloudcore.kube import Kube
from cloudcore.objects import NODE, SECRET

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024
"""A signing request is about half a KiB."""
TOKEN_SECRET = "tokensecret"


@dataclass(slots=True)
class CompatServer:
    """A supervised part: serves until cancelled.  Raises Refused when the port cannot be had.

    tls: gives the context to serve with, holding the hub's certificate and asking for client certificates of our CA.
    certificate_life: of what it signs.   token_refresh: how often the join token is made anew; each lives twice as long."""

    kube: Kube
    authority: Authority
    tls: Callable[[], ssl.SSLContext]
    host: str = ""
    """Empty: every address, of IPv6, too."""
    port: int = 10002
    certificate_life: timedelta = timedelta(days=365)
    token_refresh: timedelta = timedelta(hours=12)
    revocations: Revocations | None = None
    limiter: Limiter = field(default_factory=Limiter)
    bound_port: int = 0
    name: str = "compat"
    _token_due: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.add_routes(
            [
                web.get("/ca.crt", self._ca),
                web.get("/edge.crt", self._certificate),
                web.get("/node/{name}", self._node),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self.host or None, self.port, ssl_context=self.tls())
            try:
                await site.start()
            except OSError as error:
                raise Refused(
                    f"cannot listen on {self.host or '*'}:{self.port} for KubeEdge's edges: {error.strerror or error}",
                    reason="PortInUse",
                ) from error
            self.bound_port = runner.addresses[0][1]
            await self._keep_token()
        finally:
            await runner.cleanup()

    async def _keep_token(self) -> None:
        """Write the join token where KubeEdge's tools read it, and again before it expires."""
        while True:
            pause_s = self.token_refresh.total_seconds()
            try:
                await self._write_token()
            except (ApiError, Conflict) as error:
                log.warning("Cannot store the join token for KubeEdge's edges: %s", error)
                pause_s = 30.0
            self._token_due.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._token_due.wait()

    def authority_changed(self) -> None:
        """The token has to be by the authority that hubs show now."""
        self._token_due.set()

    async def _write_token(self) -> None:
        ca, key = pki.to_der(self.authority.held.shown)
        token = kubeedge_token.make(ca, key, now=clock.wall(), lifetime=2 * self.token_refresh)
        body = secret_body(TOKEN_SECRET, {"tokendata": token.encode()})
        try:
            await self.kube.create(SECRET, body, SYSTEM_NAMESPACE)
        except ApiExists:
            await self.kube.replace(SECRET, TOKEN_SECRET, body, SYSTEM_NAMESPACE)

    async def _ca(self, request: web.Request) -> web.Response:
        return web.Response(body=self.authority.der)

    async def _node(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if not resource.is_name(name):
            return web.Response(status=400, text="nodename parameter is required")
        try:
            await self.kube.get(NODE, name)
        except ApiNotFound:
            return web.Response(status=404, text="Node not found")
        except ApiError as error:
            log.warning("Cannot look up node %s for a joining edge: %s", name, error)
            return web.Response(status=500, text="Failed to query node information")
        return web.Response(text="Node found")

    async def _certificate(self, request: web.Request) -> web.Response:
        node = request.headers.get("NodeName", "")
        if not resource.is_name(node):
            return web.Response(
                status=400, text="the header NodeName has to be the node's name, in lower case"
            )
        source = request.remote or ""
        if self.limiter.blocked(clock.monotonic(), source):
            return web.Response(status=429, text="too many attempts failed lately; try again in a minute")
        csr = await request.read()
        now = clock.wall()  # before the look at what was revoked; see revocation.look
        try:
            await self._identify(request, node)
            certificate = self.authority.sign_node(node, csr, self.certificate_life, now=now)
        except Refused as error:
            self.limiter.failed(clock.monotonic(), source)
            log.warning("Refused a certificate for node %s: %s", node, error)
            return web.Response(status=401, text=str(error))
        except pki.BadRequest as error:
            self.limiter.failed(clock.monotonic(), source)
            return web.Response(status=500, text=f"failed to sign certs for edgenode {node}, err: {error}")
        except Unavailable as error:
            return web.Response(status=503, text=str(error))
        log.info("Signed a certificate for node %s, a KubeEdge edge", node)
        return web.Response(body=ssl.PEM_cert_to_DER_cert(certificate.decode()))

    async def _identify(self, request: web.Request, node: str) -> None:
        """Raises Refused unless the caller is `node` by its certificate, or holds a token and the name is free.

        Where KubeEdge lets a token replace a running node of any name, this does not: delete the Node first."""
        shown = request.transport.get_extra_info("ssl_object") if request.transport else None
        certificate = shown.getpeercert() if shown else None
        if certificate:
            names = [value for part in certificate["subject"] for key, value in part if key == "commonName"]
            if names != [NODE_USER + node]:
                raise Refused(f"failed to verify the certificate for edgenode: {node}, it is for {names}")
            assert shown is not None, "a certificate without TLS"
            signed_by = self.authority.issuer(shown.getpeercert(binary_form=True) or b"")
            if refusal := self.authority.refusal(node, signed_by):
                raise Refused(f"failed to verify the certificate for edgenode: {node}, {refusal}")
            if self.revocations is not None:
                refusal = await revocation.look(self.kube, node, shown_certificate(certificate))
                if refusal:
                    raise Refused(f"failed to verify the certificate for edgenode: {node}, {refusal}")
            return
        _, _, jwt = request.headers.get("Authorization", "").partition(" ")
        self._verify(jwt)
        try:
            await self.kube.get(NODE, node)
        except ApiNotFound:
            return
        raise Refused(f"the name {node} is taken by another node; delete that node first", reason="NameTaken")

    def _verify(self, jwt: str) -> None:
        """A token by the key of an authority that counts: while one takes the place of another, of either.  Raises Refused."""
        held = self.authority.held
        if held.old is not None:
            with contextlib.suppress(Refused):
                return kubeedge_token.verify(jwt, pki.to_der(held.old)[1], now=clock.wall())
        kubeedge_token.verify(jwt, pki.to_der(held.pair)[1], now=clock.wall())
