from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from edgecore.edged import tree, volumes
from edgecore.edged.env import References
from edgecore.edged.errors import VolumeError
from edgecore.edged.persistent import Claim
from edgecore.edged.volumes import Sources, TokenKey
from tests.unit.edgecore.edged.builders import c, make

REFS = References(config_maps={"m": {"a": b"1", "b": b"2"}}, secrets={"s": {"k": b"\0"}})
FOUND = Sources(refs=REFS)


def files_of(volume: dict[str, Any], sources: Sources = FOUND, **spec: Any) -> dict[str, tuple[bytes, int]]:
    pod = make(volumes=[{"name": "v", **volume}], **spec)
    found = volumes.payload(pod, pod.spec.volumes[0], sources)
    assert found is not None
    return {path: (f.data, f.mode) for path, f in found.items()}


def test_keys_modes_and_paths() -> None:
    assert files_of({"configMap": {"name": "m"}}) == {"a": (b"1", 0o644), "b": (b"2", 0o644)}
    assert files_of({"secret": {"secretName": "s", "defaultMode": 0o400}}) == {"k": (b"\0", 0o400)}
    items = [{"key": "a", "path": "x/./y", "mode": 0o600}]
    assert files_of({"configMap": {"name": "m", "items": items}}) == {"x/y": (b"1", 0o600)}


@pytest.mark.parametrize(
    "source",
    [
        {"configMap": {"name": "none"}},
        {"secret": {"secretName": "none"}},
        {"configMap": {"name": "m", "items": [{"key": "none", "path": "x"}]}},
        {"projected": {"sources": [{"secret": {"name": "none"}}]}},
        {"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
        {"downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "spec.odd"}}]}},
    ],
)
def test_what_is_missing_names_the_volume(source: dict[str, Any]) -> None:
    with pytest.raises(VolumeError):
        files_of(source)


def test_what_is_optional_is_empty() -> None:
    assert files_of({"configMap": {"name": "none", "optional": True}}) == {}
    items = [{"key": "none", "path": "x"}, {"key": "a", "path": "y"}]
    assert files_of({"configMap": {"name": "m", "optional": True, "items": items}}) == {"y": (b"1", 0o644)}


def test_keys_that_are_no_names_are_left_out() -> None:
    refs = References(
        config_maps={"m": {"ok": b"", "a/b": b"", "..": b"", "..data": b"", ".": b"", "x\0": b""}}
    )
    assert set(files_of({"configMap": {"name": "m"}}, Sources(refs=refs))) == {"ok"}


def test_projections_and_tokens() -> None:
    sources = Sources(refs=REFS, tokens={TokenKey(audience="a", expiration_s=600): "jwt"})
    projected = {
        "sources": [
            {"configMap": {"name": "m", "items": [{"key": "a", "path": "same"}]}},
            {"secret": {"name": "s", "items": [{"key": "k", "path": "same"}]}},
            {"serviceAccountToken": {"path": "token", "audience": "a", "expirationSeconds": 600}},
            {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        ]
    }
    assert files_of({"projected": projected}, sources) == {
        "same": (b"\0", 0o644),
        "token": (b"jwt", 0o644),
        "name": (b"p", 0o644),
    }
    pod = make(volumes=[{"name": "v", "projected": projected}])
    assert volumes.tokens_needed(pod) == {TokenKey(audience="a", expiration_s=600)}
    alone = files_of({"projected": projected}, sources, securityContext={"runAsUser": 1000})
    assert alone["token"] == (b"jwt", 0o600)


def test_an_fs_group_may_read() -> None:
    found = files_of({"secret": {"secretName": "s", "defaultMode": 0o400}}, securityContext={"fsGroup": 7})
    assert found == {"k": (b"\0", 0o440)}


@pytest.mark.root
def test_a_group_that_was_not_given_all_of_a_claim_is_given_it_at_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, root = tmp_path / "disk", tmp_path / "pods"
    (disk / "deep").mkdir(parents=True)
    os.chown(disk, -1, 7)
    disk.chmod(0o2775)
    pod = make(
        securityContext={"fsGroup": 7},
        volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
    )
    sources = Sources(claims={"data": Claim(path=str(disk), deep=True)})

    def moved(*_: object) -> None:
        raise OSError("moved meanwhile")

    try:
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(tree, "_give_below", moved)
            with pytest.raises(VolumeError, match="moved meanwhile"):
                volumes.prepare(pod, sources, root=root, stamp="1")
        volumes.prepare(pod, sources, root=root, stamp="2")
        assert (disk / "deep").stat().st_gid == 7
    finally:
        tree.unmount_below(root)


def test_a_volume_is_bounded() -> None:
    refs = References(config_maps={"m": {"a": b"x" * (volumes.MAX_VOLUME_BYTES + 1)}})
    with pytest.raises(VolumeError, match="more than"):
        files_of({"configMap": {"name": "m"}}, Sources(refs=refs))


def test_prepare_and_mounts(tmp_path: Path) -> None:
    pod = make(
        c(
            volumeMounts=[
                {"name": "e", "mountPath": "/e"},
                {"name": "m", "mountPath": "m"},
                {"name": "h", "mountPath": "/h", "readOnly": True, "mountPropagation": "HostToContainer"},
                {"name": "e", "mountPath": "/sub", "subPath": "x"},
            ]
        ),
        volumes=[
            {"name": "e", "emptyDir": {}},
            {"name": "m", "configMap": {"name": "m"}},
            {"name": "h", "hostPath": {"path": str(tmp_path / "made"), "type": "DirectoryOrCreate"}},
        ],
    )
    root = tmp_path / "pods"
    for _ in range(2):
        volumes.prepare(pod, Sources(refs=REFS), root=root, stamp="1")
    assert (root / "u/volumes/kubernetes.io~empty-dir/e").stat().st_mode & 0o7777 == 0o777
    assert (root / "u/volumes/kubernetes.io~configmap/m/a").read_text() == "1"
    assert (tmp_path / "made").is_dir()
    made = volumes.mounts(pod, "c", root=root, sub_paths={3: "/bound"})
    assert [(m.container_path, m.readonly, m.propagation) for m in made] == [
        ("/e", False, ""),
        ("/m", True, ""),
        ("/h", True, "HostToContainer"),
        ("/sub", False, ""),
    ]
    assert made[3].host_path == "/bound"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"emptyDir": {"medium": "HugePages-2Mi"}}, "medium 'HugePages-2Mi' is not supported"),
        (
            {"projected": {"sources": [{"clusterTrustBundle": {"name": "b", "path": "x"}}]}},
            "clusterTrustBundle",
        ),
        ({"projected": {"sources": [{"podCertificate": {"signerName": "s"}}]}}, "podCertificate"),
        ({"projected": {"sources": [{"clusterTrustBundle": {"path": "x", "optional": True}}]}}, ""),
    ],
)
def test_a_volume_of_what_is_not_served_here_is_not_left_empty(
    tmp_path: Path, source: dict[str, Any], words: str
) -> None:
    pod = make(volumes=[{"name": "v", **source}])
    if words:
        with pytest.raises(VolumeError, match=words):
            volumes.prepare(pod, Sources(), root=tmp_path, stamp="1")
    else:
        volumes.prepare(pod, Sources(), root=tmp_path, stamp="1")


def test_what_must_be_read_only_with_all_below_it_is_refused(tmp_path: Path) -> None:
    mount = {"name": "e", "mountPath": "/e", "readOnly": True}
    for mode, refused in (("Enabled", True), ("IfPossible", False), ("Disabled", False)):
        pod = make(
            c(volumeMounts=[{**mount, "recursiveReadOnly": mode}]), volumes=[{"name": "e", "emptyDir": {}}]
        )
        if refused:
            with pytest.raises(VolumeError, match="recursive read-only mode"):
                volumes.mounts(pod, "c", root=tmp_path, sub_paths={})
        else:
            assert volumes.mounts(pod, "c", root=tmp_path, sub_paths={})[0].readonly


@pytest.mark.parametrize("kind", ["Directory", "File", "Socket", "CharDevice", "BlockDevice", "Nonsense"])
def test_host_path_types_are_checked(tmp_path: Path, kind: str) -> None:
    pod = make(volumes=[{"name": "h", "hostPath": {"path": str(tmp_path / "absent"), "type": kind}}])
    with pytest.raises(VolumeError):
        volumes.prepare(pod, Sources(), root=tmp_path / "pods", stamp="1")


def test_host_paths_that_are_right(tmp_path: Path) -> None:
    for path, kind in (
        ("/dev/null", "CharDevice"),
        (str(tmp_path), "Directory"),
        (str(tmp_path / "f"), "FileOrCreate"),
    ):
        pod = make(volumes=[{"name": "h", "hostPath": {"path": path, "type": kind}}])
        volumes.prepare(pod, Sources(), root=tmp_path / "pods", stamp="1")
    assert (tmp_path / "f").is_file()


def test_what_cannot_be_mounted_reads_as_by_a_kubelet(tmp_path: Path) -> None:
    for source, why in (
        ({"secret": {"secretName": "none"}}, 'secret "none" not found'),
        ({"persistentVolumeClaim": {"claimName": "pvc"}}, 'persistentvolumeclaim "pvc" not found'),
        (
            {"hostPath": {"path": "/dev/null", "type": "Directory"}},
            "hostPath type check failed: /dev/null is not a Directory",
        ),
    ):
        pod = make(volumes=[{"name": "v", **source}])
        with pytest.raises(VolumeError) as raised:
            volumes.prepare(pod, Sources(), root=tmp_path / "pods", stamp="1")
        assert str(raised.value) == f'volume "v" : {why}'


@pytest.mark.parametrize(
    ("size", "limit", "allocatable", "wanted"),
    [
        ("", "", 0, None),
        ("", "", 8, 8),
        ("2", "", 8, 2),
        ("", "4", 8, 4),
        ("2", "4", 8, 2),
        ("6", "4", 8, 4),
        ("0", "", 0, None),
    ],
)
def test_memory_holds_no_more_than_its_pod_may(
    size: str, limit: str, allocatable: int, wanted: int | None
) -> None:
    empty = {"medium": "Memory", **({"sizeLimit": size} if size else {})}
    resources = {"limits": {"memory": limit}} if limit else {}
    pod = make(c(resources=resources), volumes=[{"name": "v", "emptyDir": empty}])
    assert volumes.memory_size(pod, pod.spec.volumes[0], allocatable * 10**9) == wanted
