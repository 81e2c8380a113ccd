"""A simulated fleet: thousands of edges in one process that speak the real wire, with real TLS.

Each edge joins with a token (or brings its certificate), connects, sends its inventory, applies and acknowledges what it
is sent, keeps alive, and can be dropped and brought back.  It keeps no pods and no disk: what it measures is the hub.

    python -m tests.bench.fleet --cloud 127.0.0.1:10000 --token TOKEN --edges 1000 --seconds 60
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import ssl
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from beehive import codec, session
from beehive.backoff import Backoff
from beehive.message import (
    Group,
    Inventory,
    InventoryEntry,
    JoinAnswer,
    JoinRequest,
    Message,
    Op,
    Source,
    new,
)

REACH_CAP_S = 2.5
"""edgecore.edgehub.link's, which this must not import: it is the cloud's bench."""
ACK_DELAY_S = 0.005
"""How long acknowledgements gather: what a group commit takes on a board."""


class Meta(msgspec.Struct):
    uid: str = ""
    resourceVersion: str = ""


class Object(msgspec.Struct):
    metadata: Meta = msgspec.field(default_factory=Meta)


@dataclass(slots=True)
class SimEdge:
    """One edge.  `held` is what it would have in its store."""

    name: str
    url: str
    tls: ssl.SSLContext
    ack_delay_s: float = ACK_DELAY_S
    held: dict[str, InventoryEntry] = field(default_factory=dict)
    applied: int = 0
    went_back: int = 0
    sessions: int = 0
    losses: int = 0
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    link: ClientConnection | None = None
    start: asyncio.Event | None = None
    """If given: say what is held, and so be told the difference, only when this is set."""
    _acks: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Stay connected until cancelled."""
        # as an edge does: short waits while nobody answers, long ones where a hub says no
        refused, unreached = Backoff(), Backoff(cap_s=REACH_CAP_S)
        rng = random.Random(self.name)
        backoff = refused
        while True:
            try:
                await self._session(refused)
                backoff = refused
            except* (OSError, TimeoutError):
                self.losses += 1  # the hub is away or overloaded; that is part of what is measured
                backoff = unreached
            except* (ConnectionClosed, InvalidHandshake, EOFError):
                self.losses += 1
                backoff = refused
                unreached.reset()
            finally:
                self.connected.clear()
                self.link = None
            await asyncio.sleep(backoff.next_s(rng))

    async def _session(self, backoff: Backoff) -> None:
        headers = {
            session.HEADER_NODE: self.name,
            session.HEADER_PROJECT: session.PROJECT_ID,
            session.HEADER_USE: "msg",
            session.HEADER_PROTOCOL: str(session.PROTOCOL_VERSION),
        }
        url = f"{self.url}/{session.PROJECT_ID}/{self.name}/events"
        async with connect(
            url,
            ssl=self.tls,
            additional_headers=headers,
            ping_interval=session.PING_S,
            compression=None,
            max_size=None,
        ) as link:
            self._acks = []  # of a session that was cut
            machine = session.EdgeSession(node=self.name, ours=True)
            if self.start is not None:
                self.connected.set()
                await self.start.wait()
            for command in machine.opened(Inventory(objects=self.held), time.monotonic()):
                assert isinstance(command, session.Send)
                await link.send(codec.encode(command.message), text=True)
            self.link = link
            self.sessions += 1
            backoff.reset()
            self.connected.set()
            async with asyncio.TaskGroup() as group:
                keeper = group.create_task(self._keep_alive(link))
                try:
                    async for frame in link:
                        self._apply(codec.decode(frame), group, link)
                finally:
                    keeper.cancel()

    async def _keep_alive(self, link: ClientConnection) -> None:
        while True:
            await asyncio.sleep(session.KEEPALIVE_S)
            await link.send(codec.encode(session.keepalive()), text=True)

    def _apply(self, message: Message, group: asyncio.TaskGroup, link: ClientConnection) -> None:
        if message.route.operation == Op.INVENTORY:
            told = session.holding(self.name, Op.INVENTORY, Inventory(objects=self.held))
            group.create_task(link.send(codec.encode(told), text=True))
            return
        if message.route.operation not in (Op.INSERT, Op.UPDATE, Op.DELETE) or message.parent:
            return
        meta = msgspec.json.decode(message.content, type=Object).metadata
        if message.route.operation == Op.DELETE:
            self.held.pop(meta.uid, None)
        elif meta.uid:
            version = meta.resourceVersion or message.version
            if meta.uid in self.held and int(version or 0) < int(self.held[meta.uid].version or 0):
                self.went_back += 1
            self.held[meta.uid] = InventoryEntry(message.route.resource, version)
        self.applied += 1
        if not self._acks:
            group.create_task(self._acknowledge(link))
        self._acks.append(message.id)

    async def _acknowledge(self, link: ClientConnection) -> None:
        await asyncio.sleep(self.ack_delay_s)
        ids, self._acks = self._acks, []
        ack = new(
            source=Source.METAMANAGER,
            group=Group.RESOURCE,
            operation=Op.ACK,
            resource="null/node",
            content=ids,
        )
        await link.send(codec.encode(ack), text=True)


async def fetch_ca(host: str, port: int, token: str) -> bytes:
    """The hub's CA in DER, checked against the hash that the token begins with."""
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE  # the hash below is what is trusted
    reader, writer = await asyncio.open_connection(host, port, ssl=blind)
    writer.write(b"GET /ca.crt HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")
    answer = await reader.read(64 * 1024)
    writer.close()
    body = answer.partition(b"\r\n\r\n")[2]
    if hashlib.sha256(body).hexdigest() != token.partition(".")[0]:
        raise SystemExit(f"the CA of {host}:{port} is not the one the token names")
    return body


def client_context(ca_der: bytes, pair: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the CA is pinned; only the hub holds a server certificate of it
    context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(ca_der))
    if pair:
        context.load_cert_chain(pair)
    return context


async def join(url: str, ca_der: bytes, token: str, name: str, folder: Path) -> ssl.SSLContext:
    """Get `name` its certificate; the context to connect with."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{name}")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    request = JoinRequest(
        node=name, token=token.partition(".")[2], csr=csr.public_bytes(serialization.Encoding.PEM).decode()
    )
    headers = {session.HEADER_NODE: name, session.HEADER_PROTOCOL: str(session.PROTOCOL_VERSION)}
    async with connect(f"{url}/join", ssl=client_context(ca_der), additional_headers=headers) as link:
        await link.send(
            codec.encode(
                new(
                    source=Source.METAMANAGER,
                    group=Group.HUB,
                    operation=Op.JOIN,
                    resource=f"null/node/{name}",
                    content=request,
                )
            ),
            text=True,
        )
        answer = codec.decode(await link.recv())
    if answer.route.operation == Op.ERROR:
        raise SystemExit(f"{name} cannot join: {answer.text()}")
    pair = folder / f"{name}.pem"
    pair.write_text(
        answer.decode(JoinAnswer).certificate
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
    )
    return client_context(ca_der, pair)


async def make_fleet(host: str, port: int, token: str, count: int, *, prefix: str = "sim") -> list[SimEdge]:
    """`count` edges that have joined and are not connected yet."""
    url = f"wss://{host}:{port}"
    ca_der = await fetch_ca(host, port, token)
    edges: list[SimEdge] = []
    gate = asyncio.Semaphore(16)
    with tempfile.TemporaryDirectory() as folder:

        async def one(name: str) -> None:
            async with gate:
                edges.append(
                    SimEdge(name=name, url=url, tls=await join(url, ca_der, token, name, Path(folder)))
                )

        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(one(f"{prefix}-{number}"))
    return edges


async def _main(options: argparse.Namespace) -> None:
    host, _, port = options.cloud.rpartition(":")
    began = time.monotonic()
    edges = await make_fleet(host, int(port), options.token, options.edges)
    print(f"{len(edges)} edges joined in {time.monotonic() - began:.1f} s", flush=True)
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(edge.run(), name=edge.name) for edge in edges]
        for edge in edges:
            await edge.connected.wait()
        print(f"{len(edges)} edges connected in {time.monotonic() - began:.1f} s", flush=True)
        last = 0
        for _ in range(options.seconds):
            await asyncio.sleep(1)
            total = sum(edge.applied for edge in edges)
            print(
                f"applied {total} (+{total - last}/s), went back {sum(e.went_back for e in edges)}",
                flush=True,
            )
            last = total
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cloud", required=True, help="host:port of the hub")
    parser.add_argument("--token", required=True, help="a join token with as many uses as there are edges")
    parser.add_argument("--edges", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=30)
    asyncio.run(_main(parser.parse_args()))
