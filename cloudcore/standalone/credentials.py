"""The files the control plane makes for itself: its authority, its server and administrator certificates, its token key
and the administrator's kubeconfig.  All are 0600 under a 0700 folder, and replaced whole or not at all."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import yaml

from cloudcore.identity.pki import KeyPair, PkiError, issue, make_ca, not_after
from cloudcore.standalone.errors import StartError

AUTHORITY_LIFE = timedelta(days=3650)
CERTIFICATE_LIFE = timedelta(days=365)
RENEW_BEFORE = timedelta(days=180)
SERVICE_ADDRESS = "10.96.0.1"
SERVICE_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """`server_files` are (certificate, key) as the TLS library wants them."""

    authority: KeyPair
    server: KeyPair
    server_files: tuple[Path, Path]
    authority_file: Path
    token_key_pem: bytes
    admin: KeyPair


def ensure(folder: Path, *, hosts: tuple[str, ...], now: datetime) -> Credentials:
    """Read what is there, make what is missing or soon ends.  Raises StartError."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority = _pair(folder, "api-ca")
        if authority is None:
            authority = make_ca("skerry-api-ca", lifetime=AUTHORITY_LIFE, now=now)
            _keep(folder, "api-ca", authority)
        names, addresses = _split((*hosts, *SERVICE_NAMES, "127.0.0.1", "::1", SERVICE_ADDRESS))
        # made anew at each start and when `due`: the names may have changed, and it costs a millisecond
        server = issue(
            authority,
            common_name="kube-apiserver",
            dns=names,
            ips=addresses,
            server=True,
            lifetime=CERTIFICATE_LIFE,
            now=now,
        )
        _keep(folder, "api", server)
        admin = _pair(folder, "admin")
        if admin is None or not_after(admin.certificate_pem) - now < RENEW_BEFORE:
            admin = issue(
                authority,
                common_name="skerry-admin",
                organizations=("system:masters",),
                client=True,
                lifetime=CERTIFICATE_LIFE,
                now=now,
            )
            _keep(folder, "admin", admin)
        tokens = _pair(folder, "service-account")
        if tokens is None:
            tokens = make_ca("service-account", lifetime=AUTHORITY_LIFE, now=now)
            _keep(folder, "service-account", tokens)
    except OSError as error:
        raise StartError(f"cannot keep credentials in {folder}: {error.strerror}") from error
    except PkiError as error:
        raise StartError(f"cannot use the credentials in {folder}: {error}") from error
    return Credentials(
        authority=authority,
        server=server,
        server_files=(folder / "api.crt", folder / "api.key"),
        authority_file=folder / "api-ca.crt",
        token_key_pem=tokens.key_pem,
        admin=admin,
    )


def due(certificate_pem: bytes, *, hosts: tuple[str, ...], made_for: tuple[str, ...], now: datetime) -> bool:
    """Whether the server's certificate is to be made anew: it is for other names, or two thirds of its life are over."""
    return hosts != made_for or not_after(certificate_pem) - now < CERTIFICATE_LIFE / 3


def write_kubeconfig(path: Path, credentials: Credentials, *, server: str, cluster: str) -> None:
    """The administrator's kubeconfig with everything inside.  Raises StartError."""

    def text(data: bytes) -> str:
        return base64.b64encode(data).decode()

    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": cluster,
                "cluster": {
                    "server": server,
                    "certificate-authority-data": text(credentials.authority.certificate_pem),
                },
            }
        ],
        "users": [
            {
                "name": f"{cluster}-admin",
                "user": {
                    "client-certificate-data": text(credentials.admin.certificate_pem),
                    "client-key-data": text(credentials.admin.key_pem),
                },
            }
        ],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": f"{cluster}-admin"}}],
        "current-context": cluster,
    }
    try:
        write_private(path, yaml.safe_dump(body, sort_keys=False).encode())
    except OSError as error:
        raise StartError(f"cannot write {path}: {error.strerror}") from error


def write_private(path: Path, data: bytes) -> None:
    """Replace `path` by a file that only its owner can read, whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _pair(folder: Path, name: str) -> KeyPair | None:
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    if not certificate.exists() or not key.exists():
        return None
    return KeyPair(certificate.read_bytes(), key.read_bytes())


def _keep(folder: Path, name: str, pair: KeyPair) -> None:
    write_private(folder / f"{name}.key", pair.key_pem)
    write_private(folder / f"{name}.crt", pair.certificate_pem)


def _split(hosts: tuple[str, ...]) -> tuple[list[str], list[str]]:
    import ipaddress

    names: list[str] = []
    addresses: list[str] = []
    for host in dict.fromkeys(hosts):
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            names.append(host)
        else:
            if not address.is_unspecified:
                addresses.append(host)
    return names, addresses
