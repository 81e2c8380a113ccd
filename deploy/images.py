"""Make container images out of files at hand, as an OCI layout in a tar archive.  Pure.

A trial has no registry: its two images (the sandbox's and the sample's) hold Debian's busybox-static and nothing
else.  The same input gives the same bytes, so an image that is there already need not be imported again.

Source: OCI image specification 1.0, image-layout.md, manifest.md and config.md; the name annotation is containerd's."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

PAUSE_IMAGE = "skerry.local/pause:1"
BUSYBOX_IMAGE = "skerry.local/busybox:1"

# The sandbox's only process holds the pod's namespaces.  It is process 1 of pods that share their process
# namespace, so it has to collect the children of others, which a shell does while it waits.
_PAUSE_SCRIPT = "trap 'exit 0' TERM INT; while :; do sleep 2147483647 & wait; done"

_USER = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
_GROUP = "root:x:0:\nnogroup:x:65534:\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What goes into an image: one layer and how to start it."""

    name: str
    files: Mapping[str, bytes]
    """Path without a leading slash to content; those below bin/ are executable."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Path of a symbolic link to what it points at."""
    folders: tuple[str, ...] = ("etc", "dev", "proc", "sys", "tmp")
    command: tuple[str, ...] = ()
    architecture: str = "amd64"


def busybox_images(busybox: bytes, applets: Iterable[str], architecture: str) -> list[Image]:
    """The sandbox image and the sample image.

    busybox: a static binary; applets: as `busybox --list` prints them; architecture: GOARCH."""
    files = {"bin/busybox": busybox, "etc/passwd": _USER.encode(), "etc/group": _GROUP.encode()}
    names = sorted(name for name in set(applets) if name not in {"busybox", ""} and "/" not in name)
    return [
        Image(
            name=PAUSE_IMAGE,
            files=files,
            links={"bin/sh": "busybox", "bin/sleep": "busybox"},
            command=("/bin/sh", "-c", _PAUSE_SCRIPT),
            architecture=architecture,
        ),
        Image(
            name=BUSYBOX_IMAGE,
            files=files,
            links={f"bin/{name}": "busybox" for name in names},
            command=("/bin/sh",),
            architecture=architecture,
        ),
    ]


def goarch(machine: str) -> str:
    """GOARCH of a `uname -m`; an unknown machine is its own name, as in most of Go's ports."""
    return {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}.get(machine, machine)


def build_archive(image: Image) -> tuple[bytes, str]:
    """The archive, and the digest (`sha256:…`) that the image has once imported."""
    layer = _build_layer(image)
    blobs: dict[str, bytes] = {}
    config = _dump(
        {
            "architecture": image.architecture,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Cmd": list(image.command), "Env": ["PATH=/bin"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            "history": [{"created": "1970-01-01T00:00:00Z", "comment": "busybox-static"}],
        }
    )
    manifest = _dump(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config, blobs),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer, blobs)],
        }
    )
    entry = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest, blobs)
    digest: str = entry["digest"]
    entry["annotations"] = {"io.containerd.image.name": image.name}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _add_file(tar, "oci-layout", _dump({"imageLayoutVersion": "1.0.0"}), mode=0o644)
        _add_file(tar, "index.json", _dump({"schemaVersion": 2, "manifests": [entry]}), mode=0o644)
        for name, content in sorted(blobs.items()):
            _add_file(tar, f"blobs/sha256/{name}", content, mode=0o644)
    return out.getvalue(), digest


def _build_layer(image: Image) -> bytes:
    out = io.BytesIO()
    parents = {path.rpartition("/")[0] for path in (*image.files, *image.links)} - {""}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for folder in sorted(parents | set(image.folders)):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(info)
        for path, content in sorted(image.files.items()):
            _add_file(tar, path, content, mode=0o755 if path.startswith("bin/") else 0o644)
        for path, target in sorted(image.links.items()):
            info = tarfile.TarInfo(path)
            info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
            tar.addfile(info)
    return out.getvalue()


def _add_file(tar: tarfile.TarFile, name: str, content: bytes, *, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    tar.addfile(info, io.BytesIO(content))


def _descriptor(media_type: str, content: bytes, blobs: dict[str, bytes]) -> dict[str, Any]:
    digest = _digest(content)
    blobs[digest.removeprefix("sha256:")] = content
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _dump(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
