"""Images out of busybox."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import Any

from deploy.images import BUSYBOX_IMAGE, PAUSE_IMAGE, Image, build_archive, busybox_images, goarch

IMAGE = Image(
    name="local/x:1",
    files={"bin/busybox": b"\x7fELF", "etc/passwd": b"root"},
    links={"bin/sh": "busybox"},
    command=("/bin/sh", "-c", "true"),
)


def unpack(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]


def blob(files: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    content = files["blobs/" + descriptor["digest"].replace(":", "/")]
    assert len(content) == descriptor["size"]
    assert hashlib.sha256(content).hexdigest() == descriptor["digest"].removeprefix("sha256:")
    return content


def test_every_descriptor_points_at_what_it_says() -> None:
    archive, digest = build_archive(IMAGE)
    files = unpack(archive)
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["digest"] == digest
    assert entry["annotations"] == {"io.containerd.image.name": "local/x:1"}
    manifest = json.loads(blob(files, entry))
    config = json.loads(blob(files, manifest["config"]))
    (layer,) = manifest["layers"]
    assert config["rootfs"]["diff_ids"] == [layer["digest"]]
    assert config["config"]["Cmd"] == ["/bin/sh", "-c", "true"]
    with tarfile.open(fileobj=io.BytesIO(blob(files, layer))) as tar:
        assert tar.getmember("bin/busybox").mode == 0o755
        assert tar.getmember("etc/passwd").mode == 0o644
        assert tar.getmember("bin/sh").linkname == "busybox"
        assert tar.getmember("tmp").mode == 0o1777
        names = tar.getnames()
    assert names.index("bin") < names.index("bin/busybox")


def test_the_same_input_gives_the_same_bytes() -> None:
    assert build_archive(IMAGE) == build_archive(IMAGE)


def test_busybox_makes_the_sandbox_and_the_sample() -> None:
    pause, sample = busybox_images(b"elf", ["sh", "httpd", "busybox", "[", ""], "arm64")
    assert (pause.name, sample.name) == (PAUSE_IMAGE, BUSYBOX_IMAGE)
    assert set(sample.links) == {"bin/sh", "bin/httpd", "bin/["}
    assert sample.architecture == "arm64"


def test_architectures_have_gos_names() -> None:
    assert [goarch(name) for name in ("x86_64", "aarch64", "armv7l", "riscv64")] == [
        "amd64",
        "arm64",
        "arm",
        "riscv64",
    ]
