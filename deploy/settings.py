"""What a trial remembers between commands, in `trial.json`.

Written before anything is started, so that `down` knows what to put back even when `up` was killed half-way."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from deploy.errors import TrialError
from deploy.home import DEFAULT_NODE_NAME, Ports

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What the machine looked like before the trial changed it, so that `down` can put it back."""

    boot_id: str
    ip_forward: str
    chains: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Chosen at the first `up`, then kept until `down --purge`."""

    version: int = VERSION
    node_name: str = DEFAULT_NODE_NAME
    ports: Ports = field(default_factory=Ports)
    pod_subnet: str = "10.213.0.0/24"
    snapshotter: str = "overlayfs"
    before: Before | None = None
    """None while nothing of the trial is on the machine."""
    crds: str = ""
    """Hash of the definitions that were applied last."""
    joined: bool = False
    samples_applied: bool = False
    """Samples are applied once: what a user changed or deleted afterwards is theirs."""

    @property
    def subnet(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.pod_subnet)


def parse(text: bytes) -> Settings:
    """Raises TrialError for a damaged file and for one of a newer version."""
    try:
        settings = msgspec.json.decode(text, type=Settings)
        ipaddress.IPv4Network(settings.pod_subnet)
    except ValueError as error:
        raise TrialError(
            f"trial.json is damaged ({error}): `skerry down --purge` removes the trial, `skerry up` makes a new one"
        ) from error
    if settings.version > VERSION:
        raise TrialError("the state folder was written by a newer version: use that version")
    return settings


def dump(settings: Settings) -> bytes:
    return msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n"


def load(path: Path) -> Settings | None:
    """None where there are none.  Raises TrialError."""
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise TrialError(f"{path} cannot be read: run it again as root or with sudo") from error


def save(path: Path, new: Settings) -> None:
    """Whole or not at all.  Raises TrialError."""
    unfinished = path.with_suffix(".new")
    try:
        with unfinished.open("wb") as file:
            file.write(dump(new))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise TrialError(f"cannot write {path}: {error.strerror}") from error
