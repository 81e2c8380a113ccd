"""Whether edgecore could run on this machine: each thing it needs, tried without changing anything."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from beehive import clock
from beehive.errors import SkerryError, system_words
from edgecore.config import EdgeConfig
from edgecore.edgehub.certificate import Files
from edgecore.metamanager import keyfile, sqlitefile

CONNECT_S = 3.0
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Check:
    good: bool
    text: str


def run(config: EdgeConfig) -> list[Check]:
    """Everything, in the order in which a start would need it.  Blocks for some seconds at most."""
    return list(_all(config))


def _all(config: EdgeConfig) -> Iterator[Check]:
    if config.edged is not None:
        root = os.geteuid() == 0
        yield Check(root, "runs as root" if root else "running pods needs root")
        yield _unix_socket(config.edged.runtime_endpoint, "container runtime")
        yield cgroups(CGROUPS, crun=shutil.which("crun") is not None)
    yield _folder(config.data_dir)
    if config.database.exists():
        yield _store(config.database)
    yield _key(config)
    if config.link:
        yield from _identity(config)


def _identity(config: EdgeConfig) -> Iterator[Check]:
    try:
        identity = Files(config.pki).identity()
    except SkerryError as error:
        yield Check(False, str(error))
        return
    ends = datetime.fromtimestamp(identity.not_after, UTC)
    text = f"certificate of node {identity.node} is valid until {ends:%Y-%m-%d %H:%M} UTC"
    yield Check(identity.not_after > clock.wall().timestamp(), text)
    for address in config.clouds or identity.clouds:
        yield _tcp(address)


def _unix_socket(path: str, what: str) -> Check:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(CONNECT_S)
            probe.connect(path)
    except OSError as error:
        return Check(False, f"{what} at {path}: {system_words(error)}")
    return Check(True, f"{what} answers at {path}")


def _tcp(address: str) -> Check:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        return Check(False, f"hub at {address}: {system_words(error)} (pods run without it)")
    return Check(True, f"hub at {address} can be reached")


def cgroups(root: Path, *, crun: bool) -> Check:
    """Whether the kernel has what limits pods.  crun: whether that is installed, which does not start everywhere."""
    unified = root / "cgroup.controllers"
    if unified.exists():
        missing = {"cpu", "memory", "pids"} - set(unified.read_text().split())
        if missing:
            return Check(
                False, f"cgroup v2 lacks {', '.join(sorted(missing))}: add them to the kernel's command line"
            )
        return Check(True, "cgroup v2")
    found = [name for name in ("cpu", "memory", "pids") if not (root / name).is_dir()]
    if found:
        return Check(False, f"cgroup v1 lacks {', '.join(found)}")
    beside = root / "unified" / "cgroup.controllers"
    controllers = beside.read_text().split() if beside.exists() else []
    if crun and controllers:
        # crun: "cgroups in hybrid mode not supported, drop all controllers from cgroupv2"
        return Check(
            True,
            f"cgroup v1, and v2 with {', '.join(controllers)} beside it: crun starts no pod here (a RuntimeClass with "
            "handler crun fails), runc does; boot with systemd.unified_cgroup_hierarchy=1 to have v2 alone",
        )
    return Check(True, "cgroup v1")


def _folder(path: Path) -> Check:
    existing = path
    while not existing.exists():
        existing = existing.parent
    good = os.access(existing, os.W_OK | os.X_OK)
    return Check(good, f"{path} can be written" if good else f"{existing} cannot be written")


def _key(config: EdgeConfig) -> Check:
    given = keyfile.named(config.key_file, os.environ)
    path = given or keyfile.default_path(config.database)
    if given is None and not path.exists():
        return Check(True, f"a key for the store's secrets is made at the first start: {path}")
    try:
        keyfile.read(path)
    except (OSError, ValueError) as error:
        return Check(
            False, f"key of the store's secrets at {path}: {getattr(error, 'strerror', None) or error}"
        )
    return Check(True, f"secrets in the store are sealed with {path}")


def _store(path: Path) -> Check:
    try:
        found = sqlitefile.level(path)
    except SkerryError as error:
        return Check(False, str(error))
    return Check(True, f"store at {path} has schema {found}")
