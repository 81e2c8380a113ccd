"""A hub on loopback with real TLS: `ours` speaks our protocol, otherwise it behaves like KubeEdge's.

A test reads what the edge sent from `received`, pushes with `push`, answers questions by `answers`, and cuts the line as it
likes."""

import asyncio
import hashlib
import http
import ssl
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import websockets
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from beehive import codec, session
from beehive.message import Failure, JoinAnswer, JoinRequest, Message, Op, RenewRequest, new, reply
from cloudcore.identity import pki
from edgecore.edgehub.certificate import Files, Token
from edgecore.edgehub.identity import Identity
from tests.support.ports import free_port

HOUR = timedelta(hours=1)
TOKEN_SECRET = "abc123." + "s" * 32

Answer = Callable[[Message], Any]


@dataclass
class Authority:
    """One CA with a server certificate, written where `ssl` can load them."""

    folder: Path
    ca: pki.KeyPair = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC)
        self.ca = pki.make_ca("test", lifetime=HOUR, now=now)
        server = pki.issue(self.ca, common_name="hub", dns=["elsewhere"], server=True, lifetime=HOUR, now=now)
        (self.folder / "server.pem").write_bytes(server.certificate_pem + server.key_pem)
        (self.folder / "ca.pem").write_bytes(self.ca.certificate_pem)

    @property
    def der(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.ca.certificate_pem.decode())

    @property
    def token(self) -> Token:
        return Token(hashlib.sha256(self.der).hexdigest(), TOKEN_SECRET)

    def server_tls(self, certificate: str = "server.pem") -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / certificate)
        context.load_verify_locations(self.folder / "ca.pem")
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def node(self, name: str, lifetime: timedelta = HOUR) -> pki.KeyPair:
        return pki.issue(
            self.ca,
            common_name=f"system:node:{name}",
            organizations=["system:nodes"],
            client=True,
            lifetime=lifetime,
            now=datetime.now(UTC),
        )

    def joined(self, folder: Path, node: str, lifetime: timedelta = HOUR) -> Files:
        """The identity folder of a node that joined."""
        files = Files(folder)
        pair = self.node(node, lifetime)
        now = datetime.now(UTC)
        files.write(
            Identity(
                node=node,
                clouds=(),
                not_before=(now - pki.CLOCK_SKEW).timestamp(),
                not_after=(now + lifetime).timestamp(),
            ),
            key=pair.key_pem.decode(),
            certificate=pair.certificate_pem.decode(),
            ca=self.ca.certificate_pem.decode(),
        )
        return files


class FakeHub:
    """Serve with `async with hub.serving(): …`; the port stays the same when it is served again."""

    def __init__(self, authority: Authority, *, ours: bool = True) -> None:
        self.authority = authority
        self.ours = ours
        self.port = 0
        self.received: list[Message] = []
        self.changed = asyncio.Condition()
        self.acked: set[str] = set()
        self.failed: dict[str, str] = {}
        self.answers: dict[str, Answer] = {}
        """operation and type ("query configmap") → what to answer; a Message is sent as it is."""
        self.auto_ack = True
        self.sessions = 0
        self.requests: list[Headers] = []
        self.connection: ServerConnection | None = None
        self.refuse_with: http.HTTPStatus | None = None
        self.spent = False
        self.certificate = "server.pem"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FakeHub"]:
        server: Server = await serve(
            self._handle,
            "127.0.0.1",
            self.port or free_port(),  # the same again where it serves again
            ssl=self.authority.server_tls(self.certificate),
            process_request=self._request,
            process_response=self._response,
            max_size=None,
            ping_interval=None,
            compression="deflate" if self.ours else None,
        )
        self.port = next(iter(server.sockets)).getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()

    def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/ca.crt":
            return Response(
                200, "OK", Headers({"Content-Length": str(len(self.authority.der))}), self.authority.der
            )
        if self.refuse_with is not None:
            return connection.respond(self.refuse_with, "not now\n")
        tls = connection.transport.get_extra_info("ssl_object")
        if request.path != "/join" and not tls.getpeercert():
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "show a certificate\n")
        self.requests.append(request.headers)
        return None

    def _response(self, connection: ServerConnection, request: Request, response: Response) -> None:
        if self.ours and request.path != "/join":
            self.sessions += 1
            response.headers[session.HEADER_PROTOCOL] = "1"
            response.headers[session.HEADER_SESSION] = str(self.sessions)

    async def _handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        if connection.request.path == "/join":
            await self._join(connection)
            return
        self.connection = connection
        try:
            async for frame in connection:
                await self._frame(codec.decode(frame), connection)
        except websockets.ConnectionClosed:
            pass

    async def _join(self, connection: ServerConnection) -> None:
        question = codec.decode(await connection.recv())
        assert question.route.operation == Op.JOIN
        asked = question.decode(JoinRequest)
        if asked.token != TOKEN_SECRET or self.spent:
            failure = Failure(reason="TokenUsed", message="the join token was used already")
            await connection.send(codec.encode(reply(question, failure, operation=Op.ERROR)), text=True)
            return
        self.spent = True
        await connection.send(codec.encode(reply(question, self.sign(asked.node, asked.csr))), text=True)

    def sign(self, node: str, csr: str) -> JoinAnswer:
        certificate = pki.sign_request(
            self.authority.ca,
            csr.encode(),
            common_name=f"system:node:{node}",
            organizations=["system:nodes"],
            lifetime=HOUR,
            now=datetime.now(UTC),
        )
        return JoinAnswer(certificate=certificate.decode(), ca=self.authority.ca.certificate_pem.decode())

    async def _frame(self, message: Message, connection: ServerConnection) -> None:
        operation = message.route.operation
        kind = [*message.route.resource.split("/"), ""][1]
        if operation == Op.ACK:
            self.acked.update(message.decode(list[str]))
        elif operation == Op.RESPONSE:
            self.acked.add(message.parent)
        elif operation == Op.ERROR:
            self.failed[message.parent] = message.text()
        elif operation == Op.RENEW:
            node = message.route.resource.split("/")[-1]
            signed = self.sign(node, message.decode(RenewRequest).csr)
            await self.send(reply(message, signed))
        else:
            self.received.append(message)
            if (answer := self.answers.get(f"{operation} {kind}")) is not None:
                said = answer(message)
                if said is not None:
                    await self.send(
                        said
                        if isinstance(said, Message)
                        else reply(message, said, source="edgecontroller", group="resource")
                    )
            elif self.auto_ack and self.ours and operation not in (Op.KEEPALIVE, Op.QUERY):
                await self.send(
                    new(
                        source="cloudhub",
                        group="resource",
                        operation=Op.ACK,
                        resource="",
                        content=[message.id],
                    )
                )
        async with self.changed:
            self.changed.notify_all()

    async def send(self, message: Message) -> None:
        assert self.connection is not None, "nobody is connected"
        await self.connection.send(codec.encode(message), text=True)

    async def push(self, operation: str, path: str, version: int, *, uid: str = "u1", **more: Any) -> str:
        """An object as edgecontroller pushes it; its message id."""
        namespace, _, name = path.split("/")
        meta: dict[str, Any] = {"name": name, "uid": uid, "resourceVersion": str(version)}
        if namespace != "null":
            meta["namespace"] = namespace
        message = new(
            source="edgecontroller",
            group="resource",
            operation=operation,
            resource=path,
            content={"metadata": meta, **more},
            version=str(version),
            msg_id=str(uuid.uuid4()),
        )
        await self.send(message)
        return message.id

    async def until(self, condition: Callable[[], object], within_s: float = 30.0) -> None:
        """Wait until a frame made `condition` true."""
        async with asyncio.timeout(within_s), self.changed:
            await self.changed.wait_for(condition)

    def got(self, operation: str, kind: str = "") -> list[Message]:
        return [
            m
            for m in self.received
            if m.route.operation == operation and (not kind or m.route.resource.split("/")[1:2] == [kind])
        ]

    def cut(self) -> None:
        """Drop the line without a word."""
        assert self.connection is not None, "nobody is connected"
        self.connection.transport.abort()
