"""The node's identity on disk: who it is to the cloud.

One file, `node.pem`, holds certificate and key together and is replaced by rename: a mixed pair cannot be on disk, whenever
the power goes.  In front of them are lines for people and for the daemon (PEM readers skip them).  `ca.pem` is the authority.
Getting and using them is `certificate`'s."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import msgspec

from beehive.errors import ConfigError, NotFound


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What `node.pem` says.  Times are Unix seconds; `clouds` is empty when the configuration names the addresses.

    https: where a stock cloud renews it; empty: over the link.   authority: the hash of the one that signed it; empty: not
    noted."""

    node: str
    clouds: tuple[str, ...]
    not_before: float
    not_after: float
    https: str = ""
    authority: str = ""

    def renew_at(self, rng: random.Random) -> float:
        """Between 70 and 90 % of its life, so that a fleet that joined together does not renew together."""
        return self.not_before + (self.not_after - self.not_before) * rng.uniform(0.7, 0.9)


class IdentityFiles:
    """The folder of the node's identity; everything in it is for root only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.pem"
        self.node = folder / "node.pem"

    def identity(self) -> Identity:
        """Raises: NotFound (not joined), ConfigError (unreadable)."""
        try:
            text = self.node.read_text("ascii")
        except FileNotFoundError as error:
            raise NotFound("this machine has not joined: run `edgecore join --token …`") from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {self.node}: {error}") from error
        notes = dict(re.findall(r"^([a-z-]+): (.*)$", text.split("-----BEGIN", 1)[0], re.MULTILINE))
        try:
            return Identity(
                node=notes["node"],
                clouds=tuple(notes["clouds"].split(",")) if notes.get("clouds") else (),
                not_before=float(notes["not-before"]),
                not_after=float(notes["not-after"]),
                https=notes.get("https", ""),
                authority=notes.get("authority", ""),
            )
        except (KeyError, ValueError) as error:
            raise ConfigError(f"cannot read {self.node}: it was not written by `edgecore join`") from error

    def write(self, identity: Identity, *, key: str, certificate: str, ca: str) -> None:
        """Replace the identity as a whole.  Raises: ConfigError."""
        # the authority first: without node.pem the machine still counts as not joined
        self._put(self.ca, ca)
        self.renewed(identity, key=key, certificate=certificate)

    def renewed(self, identity: Identity, *, key: str, certificate: str) -> None:
        """Replace certificate and key.  Raises: ConfigError."""
        notes = (
            f"node: {identity.node}\nclouds: {','.join(identity.clouds)}\n"
            f"not-before: {identity.not_before:.0f}\nnot-after: {identity.not_after:.0f}\n"
            f"https: {identity.https}\nauthority: {identity.authority}\n"
        )
        self._put(self.node, f"{notes}{certificate.strip()}\n{key.strip()}\n")

    def _put(self, path: Path, text: str) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(path, text)
        except OSError as error:
            raise ConfigError(f"cannot write to {self.folder}: {error.strerror}") from error


def _replace(path: Path, text: str) -> None:
    """Write a file of mode 0600 and put it in place once it is on the disk."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
