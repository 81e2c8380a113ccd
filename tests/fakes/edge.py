"""An edge for tests of the hub: joins, connects, asks, is told, and can be as rude as a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from beehive import codec, session
from beehive.message import (
    Failure,
    Group,
    Inventory,
    InventoryEntry,
    JoinAnswer,
    JoinRequest,
    Message,
    Op,
    Source,
    new,
    reply,
)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def csr(key: ec.EllipticCurvePrivateKey, name: str = "anything", group: str = "system:masters") -> str:
    """A request that asks for more than it will get."""
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def client_tls(ca_pem: str, certificate: str = "", key: bytes = b"") -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca_pem)
    context.check_hostname = False
    if certificate:
        handle = os.memfd_create("edge")
        with contextlib.closing(os.fdopen(handle, "wb")) as file:
            file.write(certificate.encode() + key)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{handle}")
    return context


async def ask_to_join(cloud: str, ca_pem: str, request: JoinRequest) -> Message:
    """The hub's answer, whatever it is."""
    async with connect(f"wss://{cloud}/join", ssl=client_tls(ca_pem), compression=None) as link:
        question = new(
            source=Source.METAMANAGER,
            group=Group.HUB,
            operation=Op.JOIN,
            resource=f"null/node/{request.node}",
            content=request,
        )
        await link.send(codec.encode(question), text=True)
        return codec.decode(await link.recv(decode=False))


@dataclass(slots=True)
class Identity:
    node: str
    ca: str
    certificate: str
    key: ec.EllipticCurvePrivateKey

    def tls(self) -> ssl.SSLContext:
        return client_tls(self.ca, self.certificate, key_pem(self.key))


async def join(cloud: str, ca_pem: str, node: str, token: str) -> Identity:
    key = new_key()
    answer = await ask_to_join(cloud, ca_pem, JoinRequest(node=node, token=token, csr=csr(key)))
    assert answer.route.operation == Op.RESPONSE, bytes(answer.content)
    got = answer.decode(JoinAnswer)
    return Identity(node=node, ca=got.ca, certificate=got.certificate, key=key)


class Meta(msgspec.Struct):
    uid: str = ""
    name: str = ""
    resourceVersion: str = ""


class Named(msgspec.Struct):
    metadata: Meta = msgspec.field(default_factory=Meta)


@dataclass(slots=True)
class Edge:
    """A live link.  `acks`: whether pushes are acknowledged; `held` is what a store would have."""

    identity: Identity
    link: ClientConnection
    ours: bool = True
    acks: bool = True
    held: dict[str, InventoryEntry] = field(default_factory=dict)
    pushes: list[Message] = field(default_factory=list)
    acked: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    """Reports that count for nothing, and why."""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _answers: dict[str, asyncio.Future[Message]] = field(default_factory=dict)

    @property
    def session(self) -> int:
        assert self.link.response is not None
        return int(self.link.response.headers.get(session.HEADER_SESSION, "0"))

    async def read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for frame in self.link:
                await self._take(codec.decode(frame))

    async def _take(self, message: Message) -> None:
        if message.route.operation == Op.ACK:
            self.acked.update(message.decode(list[str]))
        elif message.parent and message.parent in self._answers:
            self._answers.pop(message.parent).set_result(message)
        elif message.parent and message.route.operation == Op.ERROR:
            self.refused[message.parent] = message.decode(Failure).reason
        else:
            self.pushes.append(message)
            if message.route.group == Group.RESOURCE and message.route.operation != Op.INVENTORY:
                self._store(message)
                if self.acks:
                    await self._acknowledge(message)
        async with self.changed:
            self.changed.notify_all()

    def _store(self, message: Message) -> None:
        meta = message.decode(Named).metadata
        if message.route.operation == Op.DELETE:
            self.held.pop(meta.uid, None)
        else:
            self.held[meta.uid] = InventoryEntry(message.route.resource, meta.resourceVersion)

    async def _acknowledge(self, message: Message) -> None:
        if self.ours:
            await self.send(
                new(
                    source=Source.METAMANAGER,
                    group=Group.RESOURCE,
                    operation=Op.ACK,
                    resource=f"null/node/{self.identity.node}",
                    content=[message.id],
                )
            )
        else:
            await self.send(reply(message))

    async def send(self, message: Message) -> None:
        await self.link.send(codec.encode(message), text=True)

    async def ask(self, message: Message, timeout_s: float = 30.0) -> Message:
        """Send a request and wait for the frame that has it as parent."""
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._answers[message.id] = future
        await self.send(message)
        async with asyncio.timeout(timeout_s):
            return await future

    async def request(
        self, operation: str, resource: str, content: Any = None, *, source: str = Source.EDGED
    ) -> Message:
        """As edged asks."""
        return await self.ask(
            new(source=source, group=Group.META, operation=operation, resource=resource, content=content)
        )

    async def report(
        self, operation: str, resource: str, content: Any, *, source: str = Source.EDGED
    ) -> Message:
        """Send what has no answer; returns the frame."""
        message = new(
            source=source, group=Group.RESOURCE, operation=operation, resource=resource, content=content
        )
        await self.send(message)
        return message

    async def until(self, condition: Any, timeout_s: float = 30.0) -> None:
        """Wait until `condition(self)` holds."""
        async with asyncio.timeout(timeout_s), self.changed:
            await self.changed.wait_for(lambda: condition(self))

    def pushed(self, operation: str, resource: str) -> list[Message]:
        return [m for m in self.pushes if (m.route.operation, m.route.resource) == (operation, resource)]

    def paths(self) -> set[str]:
        return {entry.resource for entry in self.held.values()}


@contextlib.asynccontextmanager
async def connected(
    cloud: str,
    identity: Identity,
    *,
    ours: bool = True,
    claim: str = "",
    held: dict[str, InventoryEntry] | None = None,
    acks: bool = True,
    inventory: bool = True,
    use: str = "msg",
) -> AsyncIterator[Edge]:
    """A link of this identity.  claim: the name in the header, if another than the certificate's."""
    headers = [(session.HEADER_NODE, claim or identity.node), (session.HEADER_PROJECT, session.PROJECT_ID)]
    if use:
        headers.append((session.HEADER_USE, use))
    if ours:
        headers.append((session.HEADER_PROTOCOL, str(session.PROTOCOL_VERSION)))
    url = f"wss://{cloud}/{session.PROJECT_ID}/{identity.node}/events"
    async with connect(
        url,
        ssl=identity.tls(),
        additional_headers=headers,
        compression=None,
        max_size=None,
        ping_interval=session.PING_S if ours else None,
        close_timeout=2,
    ) as link:
        edge = Edge(identity, link, ours=ours, acks=acks, held=dict(held or {}))
        await edge.send(session.keepalive())
        if ours and inventory:
            await edge.send(
                new(
                    source=Source.METAMANAGER,
                    group=Group.RESOURCE,
                    operation=Op.INVENTORY,
                    resource=f"null/node/{identity.node}",
                    content=Inventory(objects=edge.held),
                )
            )
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(edge.read())
            try:
                yield edge
            finally:
                reader.cancel()
