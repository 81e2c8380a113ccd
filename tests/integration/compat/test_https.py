"""How a stock KubeEdge edge gets its certificate, with real TLS: cloudcore.cloudhub.https."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloudcore.cloudhub.https import CompatServer
from cloudcore.errors import ApiExists, ApiNotFound, Status
from cloudcore.identity import pki
from cloudcore.identity.authority import Authority
from cloudcore.identity.join import Limiter
from cloudcore.identity.succession import Held, begin, settle
from tests.support.ports import free_port

NOW = datetime.now(UTC)
_HAS_IPV6 = Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").exists() and not int(
    Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").read_text()
)


class ApiDouble:
    """The three calls that are needed, over a dict."""

    def __init__(self) -> None:
        self.secrets: dict[str, Any] = {}
        self.nodes: set[str] = set()

    async def get(self, kind: Any, name: str, namespace: str = "") -> None:
        if name not in self.nodes:
            raise ApiNotFound(Status(code=404))

    async def create(self, kind: Any, body: bytes, namespace: str = "") -> None:
        secret = json.loads(body)
        if secret["metadata"]["name"] in self.secrets:
            raise ApiExists(Status(code=409))
        self.secrets[secret["metadata"]["name"]] = secret

    async def replace(self, kind: Any, name: str, body: bytes, namespace: str = "") -> None:
        self.secrets[name] = json.loads(body)

    @property
    def token(self) -> str:
        return base64.b64decode(self.secrets["tokensecret"]["data"]["tokendata"]).decode()


class Rig:
    """A served port and what a stock edge would do with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(Held(pki.make_ca("KubeEdge", lifetime=timedelta(days=9), now=NOW)))
        self.api = ApiDouble()
        self.server = CompatServer(
            kube=self.api,  # type: ignore[arg-type]
            authority=self.authority,
            tls=self.server_context,
            host="127.0.0.1",
            port=0,
        )

    def server_context(self) -> ssl.SSLContext:
        pair = pki.issue(
            self.authority.pair,
            common_name="KubeEdge",
            organizations=["KubeEdge"],
            ips=["127.0.0.1"],
            server=True,
            lifetime=timedelta(days=1),
            now=NOW,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.write("server.pem", pair.certificate_pem + pair.key_pem))
        context.load_verify_locations(cadata=self.authority.pair.certificate_pem.decode())
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    async def get(
        self,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        pair: Path | None = None,
        trusts: pki.KeyPair | None = None,
    ) -> tuple[int, bytes]:
        authority = trusts or self.authority.pair
        context = ssl.create_default_context(cadata=authority.certificate_pem.decode())
        if pair:
            context.load_cert_chain(pair)
        url = f"https://127.0.0.1:{self.server.bound_port}{path}"
        async with (
            aiohttp.ClientSession() as client,
            client.get(url, headers=headers, data=body, ssl=context) as answer,
        ):
            return answer.status, await answer.read()

    def bearer(self) -> str:
        return "Bearer " + self.api.token.partition(".")[2]


def csr(
    name: str = "edge-1", *, curve: ec.EllipticCurve | None = None
) -> tuple[bytes, ec.EllipticCurvePrivateKey]:
    """As a stock edge makes it: much more in the subject than is wanted."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CN"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{name}"),
        ]
    )
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("cloudcore")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.DER), key


def served(
    folder: Path, check: Callable[[Rig], Awaitable[None]], *, host: str = "127.0.0.1", port: int = 0
) -> None:
    async def main() -> None:
        rig = Rig(folder)
        rig.server.host, rig.server.port = host, port
        task = asyncio.create_task(rig.server.run())
        try:
            async with asyncio.timeout(30):
                while not (rig.server.bound_port and rig.api.secrets):
                    await asyncio.sleep(0.01)
                await check(rig)
        finally:
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(main())


def test_a_stock_edge_joins_and_rotates(tmp_path: Path) -> None:
    async def check(rig: Rig) -> None:
        status, ca = await rig.get("/ca.crt")
        assert status == 200
        assert hashlib.sha256(ca).hexdigest() == rig.api.token.partition(".")[0]
        request, key = csr()
        status, der = await rig.get(
            "/edge.crt", headers={"NodeName": "edge-1", "Authorization": rig.bearer()}, body=request
        )
        assert status == 200
        certificate = x509.load_der_x509_certificate(der)
        certificate.verify_directly_issued_by(x509.load_der_x509_certificate(ca))
        assert [(a.oid._name, a.value) for a in certificate.subject] == [
            ("organizationName", "system:nodes"),
            ("commonName", "system:node:edge-1"),
        ]
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        with pytest.raises(x509.ExtensionNotFound):
            certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        pair = rig.write("edge.pem", pem)
        rig.api.nodes.add("edge-1")
        status, _ = await rig.get("/edge.crt", headers={"NodeName": "edge-1"}, body=csr()[0], pair=pair)
        assert status == 200, "rotation needs no token"
        status, text = await rig.get(
            "/edge.crt", headers={"NodeName": "edge-2"}, body=csr("edge-2")[0], pair=pair
        )
        assert (status, text[:58]) == (401, b"failed to verify the certificate for edgenode: edge-2, it ")

    served(tmp_path, check)


def test_a_stock_edge_while_one_authority_takes_the_place_of_another(tmp_path: Path) -> None:
    """It trusts the old one and looks at nothing else: what it has counts until the window is over."""

    async def check(rig: Rig) -> None:
        now = datetime.now(UTC)
        old, window = rig.authority.pair, timedelta(days=1)
        token, pair = rig.bearer(), rig.write("old.pem", b"")

        async def ask(name: str, **how: Any) -> tuple[int, bytes]:
            headers = {"NodeName": name} | ({} if "pair" in how else {"Authorization": token})
            return await rig.get("/edge.crt", headers=headers, body=csr(name)[0], trusts=old, **how)

        status, der = await ask("edge-1")
        held = pki.issue(old, common_name="system:node:edge-1", client=True, lifetime=window, now=now)
        rig.write("old.pem", held.certificate_pem + held.key_pem)
        assert (status, (await ask("edge-1", pair=pair))[0]) == (200, 200)
        new = pki.make_ca("KubeEdge 2", lifetime=timedelta(days=9), now=now)
        rig.authority.held = begin(Held(old), new, now=now, window=window, certificate_life=window)
        rig.server.authority_changed()
        assert (await rig.get("/ca.crt", trusts=old))[1] == pki.to_der(old)[0]
        # a token from before it, and a certificate by the old one; what is signed now is by the new one
        for status, der in (await ask("edge-2"), await ask("edge-1", pair=pair)):
            assert status == 200
            assert pki.signed_by(pki.der_to_pem(der), new.certificate_pem)
        # the window is over, and this context still lets the old one through TLS, as a session that is resumed would
        rig.authority.held = settle(rig.authority.held, now=now + 2 * window)
        rig.server.authority_changed()
        status, text = await ask("edge-1", pair=pair)
        assert (status, b"its window is over" in text) == (401, True)
        assert (await ask("edge-3"))[0] == 401
        # the tokens that are made from now on are the new one's
        async with asyncio.timeout(10):
            while rig.bearer() == token:
                await asyncio.sleep(0.01)
        token = rig.bearer()
        assert rig.api.token.partition(".")[0] == pki.fingerprint(new.certificate_pem)
        assert (await ask("edge-3"))[0] == 200

    served(tmp_path, check)


@pytest.mark.skipif(not _HAS_IPV6, reason="this machine has no IPv6")
def test_without_an_address_it_listens_everywhere(tmp_path: Path) -> None:
    async def check(rig: Rig) -> None:
        for host in ("127.0.0.1", "::1"):
            _, writer = await asyncio.open_connection(host, rig.server.port)
            writer.close()

    served(tmp_path, check, host="", port=free_port())


def test_refusals(tmp_path: Path) -> None:
    async def check(rig: Rig) -> None:
        good = {"NodeName": "edge-1", "Authorization": rig.bearer()}
        request = csr()[0]
        assert (await rig.get("/edge.crt", headers={"NodeName": "edge-1"}, body=request))[0] == 401
        assert (await rig.get("/edge.crt", headers={**good, "Authorization": "Bearer a.b.c"}, body=request))[
            0
        ] == 401
        assert (await rig.get("/edge.crt", headers={**good, "NodeName": "../x"}, body=request))[0] == 400
        assert (await rig.get("/edge.crt", headers=good, body=b"not a request"))[0] == 500
        assert (await rig.get("/edge.crt", headers=good, body=b"x" * 100_000))[0] == 413
        rig.api.nodes.add("edge-1")
        status, text = await rig.get("/edge.crt", headers=good, body=request)
        assert (status, b"is taken" in text) == (401, True)
        assert (await rig.get("/nothing"))[0] == 404

    served(tmp_path, check)


def test_guessing_is_slowed_down(tmp_path: Path) -> None:
    async def check(rig: Rig) -> None:
        rig.server.limiter = Limiter(
            rate_s=3600.0
        )  # a slow machine must not have earned another attempt meanwhile
        wrong = {"NodeName": "edge-1", "Authorization": "Bearer a.b.c"}
        codes = [(await rig.get("/edge.crt", headers=wrong, body=b"x"))[0] for _ in range(25)]
        assert codes[0] == 401
        assert codes[-1] == 429

    served(tmp_path, check)


def test_keadm_asks_whether_the_name_is_free(tmp_path: Path) -> None:
    async def check(rig: Rig) -> None:
        assert await rig.get("/node/edge-1") == (404, b"Node not found")
        rig.api.nodes.add("edge-1")
        assert await rig.get("/node/edge-1") == (200, b"Node found")

    served(tmp_path, check)
