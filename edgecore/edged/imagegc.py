"""Which images to remove when the disk fills up.  Pure.

An image in use, one that a wanted pod names, and the sandbox image are never chosen, whatever the disk looks like: a board
that boots offline cannot get them back.

Source: kubelet, images/image_gc_manager.go.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from edgecore.edged.runtime import Image


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """A file system, in bytes and inodes."""

    path: str = ""
    bytes_total: int = 0
    bytes_free: int = 0
    inodes: int = 0
    inodes_free: int = 0

    @property
    def used_percent(self) -> float:
        return 100.0 - 100.0 * self.bytes_free / self.bytes_total if self.bytes_total else 0.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Collecting begins above high_percent of the disk in use and ends below low_percent.

    An image that was seen for less than min_age_s is left: a pod may be about to use it.
    """

    high_percent: float = 85.0
    low_percent: float = 80.0
    min_age_s: float = 120.0


def normalize(ref: str) -> str:
    """A reference as the runtime lists it: with registry, and with a tag unless it has a digest."""
    if ref.startswith("sha256:"):
        return ref
    name, at, digest = ref.partition("@")
    first, slash, rest = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif not ("." in first or ":" in first or first == "localhost"):
        name = f"docker.io/{name}"
    elif first == "docker.io" and "/" not in rest:
        name = f"docker.io/library/{rest}"
    if at:
        # with a digest the tag says nothing
        head, colon, tail = name.rpartition(":")
        return f"{head if colon and '/' not in tail else name}@{digest}"
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def names(image: Image) -> set[str]:
    """Everything that an image may be called."""
    return {image.id, *(normalize(t) for t in image.tags), *(normalize(d) for d in image.digests)}


def bytes_to_free(disk: Disk, limits: Limits) -> int:
    """How much must go so that the disk is below its low mark; 0 when it is not above the high one."""
    if not disk.bytes_total or disk.used_percent < limits.high_percent:
        return 0
    wanted = disk.bytes_total * (100.0 - limits.low_percent) / 100.0
    return max(0, int(wanted - disk.bytes_free))


def choose(
    images: Iterable[Image],
    *,
    needed: Collection[str],
    seen_at: Mapping[str, float],
    used_at: Mapping[str, float],
    to_free: int,
    min_age_s: float,
    now: float,
) -> list[Image]:
    """The images to remove, longest unused first, until their sizes add up to `to_free` bytes.

    needed: references and ids that must stay.  seen_at, used_at: image id -> when it was first seen and last in use.
    """
    keep = {normalize(ref) for ref in needed}
    free = [
        i
        for i in images
        if not i.pinned and not names(i) & keep and now - seen_at.get(i.id, now) >= min_age_s
    ]
    free.sort(key=lambda i: (used_at.get(i.id, 0.0), seen_at.get(i.id, 0.0)))
    chosen, total = [], 0
    for image in free:
        if total >= to_free:
            break
        chosen.append(image)
        total += image.size_bytes
    return chosen
