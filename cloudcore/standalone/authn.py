"""Who is asking: a client certificate of our authority, or a service account's token.

The only file that reads X.509 subjects and makes JSON Web Tokens (ES256).  Source: apiserver, pkg/authentication, and
kubernetes, pkg/serviceaccount/claims.go."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from cloudcore.standalone.store import Store

Json = dict[str, Any]
ISSUER = "https://kubernetes.default.svc"
AUTHENTICATED = "system:authenticated"
MASTERS = "system:masters"
MAX_TOKEN_BYTES = 16 * 1024
_HALF = 32


class BadToken(Exception):
    """The token is not one of ours, has ended, or what it was bound to is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: dict[str, list[str]] = field(default_factory=dict)
    audiences: tuple[str, ...] = ()

    def as_json(self) -> Json:
        body: Json = {"username": self.name}
        if self.uid:
            body["uid"] = self.uid
        if self.groups:
            body["groups"] = list(self.groups)
        if self.extra:
            body["extra"] = self.extra
        return body


LOOPBACK = User(name="system:apiserver", groups=(MASTERS, AUTHENTICATED))


def from_certificate(peer: Mapping[str, Any] | None, der: bytes | None) -> User | None:
    """`peer` as `ssl.SSLSocket.getpeercert()` gives it; the TLS layer has checked it against our authority."""
    if not peer:
        return None
    name, groups = "", []
    for relative in peer.get("subject") or ():
        for attribute, value in relative:
            if attribute == "commonName":
                name = value
            elif attribute == "organizationName":
                groups.append(value)
    if not name:
        return None
    extra = {}
    if der is not None:
        extra["authentication.kubernetes.io/credential-id"] = [
            f"X509SHA256={hashlib.sha256(der).hexdigest()}"
        ]
    return User(name=name, groups=(*groups, AUTHENTICATED), extra=extra)


class Tokens:
    """Sign and check service account tokens with one P-256 key."""

    def __init__(self, key_pem: bytes, store: Store, *, now: Callable[[], datetime]) -> None:
        key = serialization.load_pem_private_key(key_pem, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the service account key must be an elliptic-curve key")
        self._key = key
        self._store = store
        self._now = now
        numbers = key.public_key().public_numbers()
        point = numbers.x.to_bytes(_HALF, "big"), numbers.y.to_bytes(_HALF, "big")
        self._key_id = _encode(hashlib.sha256(b"".join(point)).digest())
        self._jwk = {
            "use": "sig",
            "kty": "EC",
            "kid": self._key_id,
            "crv": "P-256",
            "alg": "ES256",
            "x": _encode(point[0]),
            "y": _encode(point[1]),
        }

    def jwks(self) -> Json:
        return {"keys": [self._jwk]}

    def issue(
        self,
        *,
        namespace: str,
        account: str,
        account_uid: str,
        audiences: list[str],
        lifetime_s: int,
        bound: Json | None = None,
        node: Json | None = None,
    ) -> tuple[str, datetime]:
        """(token, when it ends).  `bound` is {"kind", "name", "uid"} of a pod or secret."""
        start = int(self._now().timestamp())
        about: Json = {"namespace": namespace, "serviceaccount": {"name": account, "uid": account_uid}}
        if bound:
            about[bound["kind"].lower()] = {"name": bound["name"], "uid": bound["uid"]}
        if node:
            about["node"] = node
        claims = {
            "aud": audiences,
            "exp": start + lifetime_s,
            "iat": start,
            "iss": ISSUER,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": about,
            "nbf": start,
            "sub": f"system:serviceaccount:{namespace}:{account}",
        }
        signed = _part({"alg": "ES256", "kid": self._key_id}) + "." + _part(claims)
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        signature = _encode(r.to_bytes(_HALF, "big") + s.to_bytes(_HALF, "big"))
        return f"{signed}.{signature}", datetime.fromtimestamp(start + lifetime_s, tz=self._now().tzinfo)

    def check(self, token: str, audiences: tuple[str, ...] = (ISSUER,)) -> User:
        """Raises BadToken."""
        claims = self._claims(token)
        now = self._now().timestamp()
        if claims.get("iss") != ISSUER or not claims.get("nbf", 0) - 60 <= now < claims.get("exp", 0):
            raise BadToken("the token is of another issuer or not valid now")
        meant = tuple(name for name in audiences if name in claims.get("aud", ()))
        if not meant:
            raise BadToken(f"token audiences {claims.get('aud')} do not contain {list(audiences)}")
        about = claims.get("kubernetes.io") or {}
        namespace = about.get("namespace", "")
        account = about.get("serviceaccount") or {}
        self._alive(("", "serviceaccounts"), namespace, account)
        extra = {"authentication.kubernetes.io/credential-id": [f"JTI={claims.get('jti')}"]}
        if about.get("pod"):
            self._alive(("", "pods"), namespace, about["pod"])
            extra["authentication.kubernetes.io/pod-name"] = [about["pod"]["name"]]
            extra["authentication.kubernetes.io/pod-uid"] = [about["pod"]["uid"]]
        if about.get("secret"):
            self._alive(("", "secrets"), namespace, about["secret"])
        if about.get("node"):
            extra["authentication.kubernetes.io/node-name"] = [about["node"]["name"]]
        return User(
            name=f"system:serviceaccount:{namespace}:{account.get('name')}",
            uid=account.get("uid", ""),
            groups=("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED),
            extra=extra,
            audiences=meant,
        )

    def _alive(self, key: tuple[str, str], namespace: str, wanted: Json) -> None:
        record = self._store.get(key, namespace, str(wanted.get("name")))
        if record is None or record.uid != wanted.get("uid"):
            raise BadToken(f"{key[1]} {namespace}/{wanted.get('name')} of the token does not exist any more")

    def _claims(self, token: str) -> Json:
        parts = token.split(".")
        if len(token) > MAX_TOKEN_BYTES or len(parts) != 3:
            raise BadToken("not a token")
        try:
            header, claims, signature = (_decode(part) for part in parts)
            if json.loads(header).get("alg") != "ES256" or len(signature) != 2 * _HALF:
                raise BadToken("not signed with our key")
            r, s = int.from_bytes(signature[:_HALF], "big"), int.from_bytes(signature[_HALF:], "big")
            self._key.public_key().verify(
                encode_dss_signature(r, s), f"{parts[0]}.{parts[1]}".encode(), ec.ECDSA(hashes.SHA256())
            )
            found = json.loads(claims)
        except (ValueError, AttributeError, RecursionError, InvalidSignature) as error:
            raise BadToken("not signed with our key") from error
        if not isinstance(found, dict):
            raise BadToken("not a token")
        return found


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _part(value: Json) -> str:
    return _encode(json.dumps(value, separators=(",", ":"), sort_keys=True).encode())
