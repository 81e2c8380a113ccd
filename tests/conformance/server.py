"""A server on this machine that probes and hooks reach: HTTP and HTTPS with answers by path, and gRPC health."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpclib.health.check import ServiceStatus
from grpclib.health.service import OVERALL, Health
from grpclib.server import Server

from tests.support.ports import free_port


@dataclass
class Answers:
    """Where it listens, and what was asked of it."""

    address: str
    http: int
    https: int
    grpc: int
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Scheme, path with query, headers."""

    def was_asked(self, words: str) -> bool:
        return any(words in path for _, path, _ in self.asked)


def _certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("192.0.2.250"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@asynccontextmanager
async def answering(address: str) -> AsyncIterator[Answers]:
    """Serve there until left.  /status/<code> answers so, /redirect/<code>?to= leads there; all else is 200."""
    answers = Answers(address, free_port(), free_port(), free_port())

    async def answer(request: web.Request) -> web.StreamResponse:
        answers.asked.append((request.scheme, request.path_qs, dict(request.headers)))
        kind, _, code = request.path.strip("/").partition("/")
        if kind == "status":
            return web.Response(status=int(code), text=f"status {code}")
        if kind == "redirect":
            to = request.query["to"]
            return web.Response(status=int(code), headers={"Location": to}, text=f"see {to}")
        return web.Response(text="ok")

    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile(prefix="sk-conformance-") as file:
        file.write(_certificate())
        file.flush()
        context.load_cert_chain(file.name)
    healthy = ServiceStatus()
    healthy.set(True)
    sick = ServiceStatus()
    sick.set(False)
    grpc = Server([Health({OVERALL: [healthy], _Sick(): [sick]})])
    try:
        await web.TCPSite(runner, address, answers.http).start()
        await web.TCPSite(runner, address, answers.https, ssl_context=context).start()
        await grpc.start(address, answers.grpc)
        yield answers
    finally:
        grpc.close()
        await grpc.wait_closed()
        await runner.cleanup()


class _Sick:
    """A service of the health server that says NOT_SERVING."""

    def __mapping__(self) -> dict[str, object]:
        return {"/sick/Do": None}
