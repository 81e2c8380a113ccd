"""What pods are given."""

import asyncio
import json

import msgspec

from edgecore.metaserver import inject
from edgecore.metaserver.inject import TrustingObjects

CA = b"-----BEGIN CERTIFICATE-----\nours\n-----END CERTIFICATE-----\n"
ROOT = json.dumps({"kind": "ConfigMap", "data": {"ca.crt": "theirs\n", "other": "x"}}).encode()


def test_the_variables_are_a_kubelets() -> None:
    env = inject.service_env("169.254.30.10", 10550)
    assert env["KUBERNETES_SERVICE_HOST"] == "169.254.30.10"
    assert env["KUBERNETES_SERVICE_PORT"] == "10550"
    assert env["KUBERNETES_PORT"] == "tcp://169.254.30.10:10550"
    assert inject.service_env("fe80::1", 1)["KUBERNETES_PORT"] == "tcp://[fe80::1]:1"


def test_one_more_authority_is_trusted_once() -> None:
    once = inject.trust(ROOT, CA)
    assert json.loads(once)["data"] == {"ca.crt": "theirs\n" + CA.decode(), "other": "x"}
    assert json.loads(inject.trust(once, CA)) == json.loads(once)


def test_what_cannot_be_read_stays() -> None:
    for odd in (b"{", b"[]", b'{"data":null}', b'{"data":{"ca.crt":5}}'):
        assert inject.trust(odd, CA) == odd


class Held:
    async def pods(self) -> list[msgspec.Raw]:
        return []

    async def get(self, kind: str, namespace: str, name: str) -> msgspec.Raw | None:
        return msgspec.Raw(ROOT) if namespace == "web" else None

    async def fetch(self, kind: str, namespace: str, name: str, *, fresh: bool = False) -> msgspec.Raw | None:
        del fresh
        return await self.get(kind, namespace, name)

    async def token(self, namespace: str, service_account: str, request: bytes) -> bytes:
        return request


def test_only_the_root_ca_is_touched() -> None:
    async def story() -> None:
        ca = b""
        objects = TrustingObjects(Held(), lambda: ca)
        assert bytes(await objects.get("configmap", "web", inject.ROOT_CA) or b"") == ROOT
        ca = CA
        for look in (objects.get, objects.fetch):
            assert b"ours" in bytes(await look("configmap", "web", inject.ROOT_CA) or b"")
            assert bytes(await look("secret", "web", inject.ROOT_CA) or b"") == ROOT
            assert bytes(await look("configmap", "web", "mine") or b"") == ROOT
            assert await look("configmap", "other", inject.ROOT_CA) is None
        assert await objects.token("web", "ann", b"x") == b"x"

    asyncio.run(story())
