from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from edgecore.edged import adopt
from edgecore.edged.pod import Container
from edgecore.edged.runtime import (
    ANNOTATION_HASH,
    ANNOTATION_TERMINATION_PATH,
    ContainerStatus,
    Mount,
)
from tests.unit.edgecore.edged.builders import c, make, ran

OLD_HASH = "311670a"


def test_the_hash_is_a_kubelets() -> None:
    """The value that Kubernetes' own test of its hash expects (container_hash_test.go, v1.31)."""
    container = Container(name="test_container", image="foo/image:v1")
    assert adopt.container_hash(container) == "8e45cbd0"


def test_what_this_agent_made_is_judged_by_the_hash_alone() -> None:
    pod = make()
    status = ran(pod)
    assert not adopt.stranger(status)
    assert not adopt.changed(pod.spec.containers[0], status)
    assert adopt.changed(make(c(image="i:2")).spec.containers[0], status)


@pytest.mark.parametrize(
    ("wanted", "runs", "names", "changed"),
    [
        ("nginx", "docker.io/library/nginx:latest", (), False),
        ("nginx:1.25", "docker.io/library/nginx:latest", (), True),
        ("me/app:1", "docker.io/me/app:1", (), False),
        ("reg.example:5000/app", "reg.example:5000/app:latest", (), False),
        # the same image under two names: the runtime shows one of them
        ("app:2", "docker.io/library/app:1", ("docker.io/library/app:1", "docker.io/library/app:2"), False),
        ("app:3", "docker.io/library/app:1", ("docker.io/library/app:1", "docker.io/library/app:2"), True),
        ("app@sha256:aa", "docker.io/library/app:1", ("docker.io/library/app@sha256:aa",), False),
        ("app@sha256:bb", "docker.io/library/app:1", ("docker.io/library/app@sha256:aa",), True),
        # its tag went to a newer image: nobody can say any more
        ("app:1", "docker.io/library/app@sha256:aa", (), False),
        ("other:1", "docker.io/library/app@sha256:aa", (), True),
        ("app:1", "sha256:0123", (), False),
        ("app:1", "", (), False),
    ],
)
def test_a_stranger_of_another_hash_is_judged_by_its_image(
    wanted: str, runs: str, names: tuple[str, ...], changed: bool
) -> None:
    pod = make(c(image=wanted))
    status = replace(
        ran(pod), annotations={ANNOTATION_HASH: OLD_HASH}, image=runs, image_names=names, image_ref="sha256:1"
    )
    assert adopt.stranger(status)
    assert adopt.changed(pod.spec.containers[0], status) is changed


def stranger(*mounts: tuple[str, str], log: str = "") -> ContainerStatus:
    return replace(
        ran(make()),
        annotations={ANNOTATION_HASH: OLD_HASH, ANNOTATION_TERMINATION_PATH: "/dev/termination-log"},
        mounts=tuple(Mount(container_path=inside, host_path=host) for inside, host in mounts),
        log_path=log,
    )


def test_folders_of_the_other_agent() -> None:
    status = stranger(
        ("/data", "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/data"),
        ("/etc/hosts", "/var/lib/kubelet/pods/u/etc-hosts"),
        ("/dev/termination-log", "/var/lib/kubelet/pods/u/containers/c/0123abcd"),
        log="/var/log/pods/ns_p_u/c/0.log",
    )
    assert adopt.volumes_root(status, "u") == Path("/var/lib/kubelet/pods")
    assert adopt.logs_root(status, "ns_p_u") == Path("/var/log/pods")
    assert adopt.message_file(status) == Path("/var/lib/kubelet/pods/u/containers/c/0123abcd")
    # one of them is enough
    words = stranger(("/dev/termination-log", "/k/pods/u/containers/c/0"))
    assert adopt.volumes_root(words, "u") == Path("/k/pods")


@pytest.mark.parametrize(
    "mount",
    [
        ("/etc/hosts", "/srv/u/etc-hosts"),
        ("/etc/hosts", "/k/pods/x/etc-hosts"),
        ("/etc/hosts", "/k/../pods/u/etc-hosts"),
        ("/elsewhere", "/k/pods/u/etc-hosts"),
        ("/dev/termination-log", "/k/pods/u/containers/other/0"),
    ],
)
def test_other_paths_say_nothing(mount: tuple[str, str]) -> None:
    status = stranger(mount, log="/var/log/pods/ns_other_u/c/0.log")
    assert adopt.volumes_root(status, "u") is None
    assert adopt.logs_root(status, "ns_p_u") is None
