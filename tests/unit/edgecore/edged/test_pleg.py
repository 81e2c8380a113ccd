from __future__ import annotations

from edgecore.edged import pleg
from edgecore.edged.runtime import ContainerInfo, ContainerState, SandboxInfo


def box(sid: str, uid: str, *, ready: bool = True) -> SandboxInfo:
    return SandboxInfo(
        id=sid,
        name="p",
        namespace="ns",
        uid=uid,
        attempt=0,
        ready=ready,
        created_at=0,
        labels={"io.kubernetes.pod.uid": uid} if uid else {},
    )


def con(cid: str, uid: str, state: ContainerState = ContainerState.RUNNING) -> ContainerInfo:
    return ContainerInfo(
        id=cid,
        sandbox_id="s",
        name="c",
        attempt=0,
        state=state,
        created_at=0,
        labels={"io.kubernetes.pod.uid": uid},
    )


def test_only_changed_pods_are_named() -> None:
    old = pleg.listing([box("s1", "a"), box("s2", "b"), box("s3", "c")], [con("c1", "a"), con("c2", "b")])
    new = pleg.listing(
        [box("s1", "a"), box("s2", "b", ready=False), box("s4", "d")],
        [con("c1", "a"), con("c2", "b"), con("c3", "a", ContainerState.EXITED)],
    )
    assert pleg.changed(old, new) == {"a", "b", "c", "d"}
    assert pleg.changed(new, new) == set()
    assert (
        pleg.changed(
            old,
            pleg.listing([box("s1", "a"), box("s2", "b"), box("s3", "c")], [con("c1", "a"), con("c2", "b")]),
        )
        == set()
    )


def test_strangers_are_not_ours() -> None:
    assert pleg.listing([box("s", "")], []).pods == {}
