"""What Skerry's own MQTT broker is told: its configuration, who may log in, and what each may say and hear.  Pure.

Nobody is let in without an account, and an account sees no more than it is for:

| account      | may publish                                                | may hear                                  |
|--------------|------------------------------------------------------------|-------------------------------------------|
| edgecore     | everything but the broker's own topics                     | the same                                  |
| application  | requests about any device and the node; anything else      | the same, and what edgecore says of them  |
| device       | requests about that one device; topics that were named     | what edgecore says of it; these topics    |

`twin/cloud_updated` is nobody's: only the cloud speaks there, and not over the bus."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import TrialError

EDGECORE = "edgecore"
ITERATIONS = 101
"""mosquitto 2's own; passwords here are made, not chosen, so a slower hash gains nothing."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,63}")
_DEVICE = re.compile(r"[a-z0-9][a-z0-9.\-]{0,252}/[a-z0-9][a-z0-9.\-]{0,252}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """hash: as in mosquitto's password file.   device: `<namespace>/<name>`, for a device's.   topics: further ones, with
    wildcards, that it may write and read.   edgecore: the one that edgecore logs in with."""

    name: str
    hash: str
    device: str = ""
    topics: tuple[str, ...] = ()
    edgecore: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lan:
    """A listener with TLS for devices that are elsewhere.  Files are PEM."""

    address: str
    port: int
    certificate: Path
    key: Path


def password_hash(password: str, salt: bytes) -> str:
    """As mosquitto_passwd of mosquitto 2 makes it."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    return f"$7${ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def check_account(name: str, device: str, topics: Sequence[str]) -> None:
    """Raises TrialError for what the broker's files could not hold, or should not allow."""
    if _NAME.fullmatch(name) is None:
        raise TrialError(f"{name!r} is no name for an account: letters, digits, dots and dashes")
    if device and _DEVICE.fullmatch(device) is None:
        raise TrialError(f"{device!r} is no device: write it as NAMESPACE/NAME")
    for topic in topics:
        bad = not topic or len(topic) > 1024 or not topic.isprintable() or topic != topic.strip()
        if bad or topic.startswith("$") or topic == "#" or (topic.startswith("+") and not device):
            raise TrialError(f"{topic!r} is no topic for an account: name its first level")


def render_config(
    port: int, folder: Path, *, anonymous: bool = False, lan: Lan | None = None, user: str = "root"
) -> str:
    """mosquitto.conf, as mosquitto 2 reads it.   folder: where accounts and rules are."""
    lines = [
        "# Written by Skerry; changes are lost.",
        "per_listener_settings false",
        f"user {user}",
        f"password_file {folder / 'passwords'}",
        f"acl_file {folder / 'acl'}",
        f"allow_anonymous {'true' if anonymous else 'false'}",
        "persistence false",
        "set_tcp_nodelay true",
        "log_dest stderr",
        "log_timestamp_format %Y-%m-%dT%H:%M:%S",
        "# Bounds on what one client can make the broker hold.",
        "max_packet_size 1048576",
        "message_size_limit 1048576",
        "max_inflight_messages 20",
        "max_queued_messages 1000",
        "max_queued_bytes 8388608",
        "max_keepalive 600",
        "persistent_client_expiration 2d",
        f"listener {port} 127.0.0.1",
        "max_connections 1000",
        "max_topic_alias 10",
    ]
    if lan is not None:
        lines += [
            f"listener {lan.port} {lan.address}",
            "max_connections 1000",
            "max_topic_alias 10",
            f"certfile {lan.certificate}",
            f"keyfile {lan.key}",
            "tls_version tlsv1.2",
        ]
    return "\n".join(lines) + "\n"


def render_passwords(accounts: Sequence[Account]) -> str:
    return "".join(f"{account.name}:{account.hash}\n" for account in accounts)


def render_acl(accounts: Sequence[Account], *, anonymous: bool = False) -> str:
    """mosquitto's acl_file.  What is not named is denied."""
    lines = ["# Written by Skerry; changes are lost."]
    if anonymous:  # as an application
        lines += _rules(Account(name="", hash=""))
    for account in accounts:
        lines += ["", f"user {account.name}", *_rules(account)]
    return "\n".join(lines) + "\n"


def _rules(account: Account) -> list[str]:
    if account.edgecore:
        return ["topic readwrite #", "topic readwrite $hw/#"]
    named = [f"topic readwrite {topic}" for topic in account.topics]
    if account.device:
        base = f"$hw/events/device/{account.device}"
        asks = [f"topic write {base}/{what}" for what in ("twin/update", "twin/get", "state/update")]
        return [*asks, f"topic read {base}/#", *named]
    asks = [
        f"topic write $hw/events/device/+/+/{what}" for what in ("twin/update", "twin/get", "state/update")
    ]
    return [
        *asks,
        "topic write $hw/events/node/+/membership/get",
        "topic read $hw/events/#",
        *(named or ["topic readwrite #"]),
    ]
