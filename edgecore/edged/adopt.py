"""Containers that a stock edgecore or kubelet started: are they what is wanted, and where is what they were given.  Pure.

A machine is taken over while its pods run, and they go on: their containers are compared by what both agents understand,
and everything that hangs on them (volumes, last words, logs) is used where the other agent put it.

Source: kubelet, container/helpers.go (HashContainer), kubelet_getters.go (folders), kuberuntime_container.go (mounts).
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import msgspec

from edgecore.edged.pod import Container
from edgecore.edged.runtime import (
    ANNOTATION_HASH,
    ANNOTATION_RESOURCES,
    ANNOTATION_TERMINATION_PATH,
    ContainerStatus,
)

_FNV_OFFSET, _FNV_PRIME = 0x811C9DC5, 0x01000193


def container_hash(container: Container) -> str:
    """What kubelets since 1.31 put on a container: it changes with name and image.

    FNV-1a (32 bit) over the way in which Go's spew prints the bytes of the JSON of both.
    """
    text = msgspec.json.encode({"image": container.image, "name": container.name})
    value = _FNV_OFFSET
    for byte in f"([]uint8)[{' '.join(map(str, text))}]".encode():
        value = (value ^ byte) * _FNV_PRIME & 0xFFFFFFFF
    return f"{value:x}"


def stranger(status: ContainerStatus) -> bool:
    """Whether another agent made it: ours writes down the resources as well."""
    return ANNOTATION_HASH in status.annotations and ANNOTATION_RESOURCES not in status.annotations


def changed(container: Container, status: ContainerStatus) -> bool:
    """Whether a container is another one than is wanted now, and has to be replaced."""
    if not status.spec_hash or status.spec_hash == container_hash(container):
        return False
    # an older kubelet's hash is over all of the container, in a form that only it knows
    return not stranger(status) or not _same_image(container.image, status)


def _same_image(wanted: str, status: ContainerStatus) -> bool:
    """Whether a stranger runs the image that is wanted; True when nobody can say."""
    names = [n for n in (*status.image_names, status.image) if not _is_id(n)]
    tags = {normal(n) for n in names if "@" not in n}
    if tags:
        return normal(wanted) in tags | {normal(n) for n in names}
    # its tag went to a newer image since it was started: what is left is where it came from
    places = {n.partition("@")[0] for n in names}
    return not places or normal(wanted).partition("@")[0].rpartition(":")[0] in places or wanted in names


def _is_id(name: str) -> bool:
    return not name or name.startswith("sha256:")


def normal(ref: str) -> str:
    """An image reference with its registry and tag spelled out, as containerd lists it."""
    name, at, digest = ref.partition("@")
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif "." not in first and ":" not in first and first != "localhost":
        name = f"docker.io/{name}"
    if at:
        return f"{name}@{digest}"
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def volumes_root(status: ContainerStatus, uid: str) -> Path | None:
    """The folder that holds the folder of this pod, by a file that the other agent gave its container."""
    words = status.annotations.get(ANNOTATION_TERMINATION_PATH)
    for m in status.mounts:
        path = PurePosixPath(m.host_path)
        if not path.is_absolute() or ".." in path.parts:
            continue
        if m.container_path == "/etc/hosts" and path.parts[-3:] == ("pods", uid, "etc-hosts"):
            return Path(*path.parts[:-2])
        if m.container_path == words and path.parts[-5:-1] == ("pods", uid, "containers", status.name):
            return Path(*path.parts[:-4])
    return None


def logs_root(status: ContainerStatus, folder: str) -> Path | None:
    """The folder that holds the folder of this pod's logs, which is called `folder`."""
    path = PurePosixPath(status.log_path)
    if path.is_absolute() and ".." not in path.parts and path.parts[-3:-1] == (folder, status.name):
        return Path(*path.parts[:-3])
    return None


def message_file(status: ContainerStatus) -> Path | None:
    """Where a stranger's last words are."""
    where = status.annotations.get(ANNOTATION_TERMINATION_PATH)
    return next((Path(m.host_path) for m in status.mounts if where and m.container_path == where), None)
