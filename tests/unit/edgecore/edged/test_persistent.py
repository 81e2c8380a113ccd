"""Claims and the volumes behind them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgecore.edged.csi import Wanted
from edgecore.edged.errors import VolumeError
from edgecore.edged.persistent import Claim, growing, resolve


def pvc(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "data", "namespace": "ns", "uid": "u1"},
        "spec": {"volumeName": "disk", **spec},
        "status": {"phase": "Bound"},
    }


def pv(**spec: Any) -> dict[str, Any]:
    ref = {"namespace": "ns", "name": "data", "uid": "u1"}
    return {"metadata": {"name": "disk"}, "spec": {"claimRef": ref, **spec}}


def found(claim: dict[str, Any], volume: dict[str, Any] | None) -> Claim:
    raw = json.dumps(volume).encode() if volume is not None else None
    return resolve("data", json.dumps(claim).encode(), raw)


def test_kinds() -> None:
    assert found(pvc(), pv(local={"path": "/mnt/a"})) == Claim(path="/mnt/a", deep=True)
    assert found(pvc(), pv(hostPath={"path": "/srv/a", "type": ""})) == Claim(path="/srv/a", create=True)
    assert found(pvc(), pv(hostPath={"path": "/srv/a", "type": "Directory"})) == Claim(path="/srv/a")


def test_a_device_is_no_folder() -> None:
    device = found(pvc(volumeMode="Block"), pv(volumeMode="Block", local={"path": "/dev/x"}))
    assert device == Claim(path="/dev/x", block=True, deep=True)
    assert found(pvc(volumeMode="Filesystem"), pv(volumeMode="Filesystem", local={"path": "/a"})).path == "/a"


@pytest.mark.parametrize(
    ("claim", "volume", "words"),
    [
        (pvc(volumeName=""), pv(), "is not bound"),
        ({**pvc(), "status": {"phase": "Pending"}}, pv(), "is not bound"),
        (pvc(volumeMode="Block"), pv(local={"path": "/dev/x"}), "another volumeMode"),
        (pvc(), pv(volumeMode="Block", local={"path": "/dev/x"}), "another volumeMode"),
        (
            pvc(volumeMode="Block"),
            pv(volumeMode="Block", hostPath={"path": "/dev/x"}),
            "only local volumes and those of drivers",
        ),
        (pvc(), None, '"disk" not found'),
        (pvc(), pv(nfs={"driver": "x"}), "kind that is not supported"),
        (pvc(), pv(local={"path": "relative"}), "path cannot be used"),
        (pvc(), pv(local={"path": "/a/../../etc"}), "path cannot be used"),
        (pvc(), pv(hostPath={"path": "/a", "type": "Socket"}), "'Socket' is not supported"),
        (pvc(), {"metadata": {"name": "disk"}, "spec": {"local": {"path": "/a"}}}, "another claim"),
        (
            pvc(),
            pv(local={"path": "/a"}, claimRef={"namespace": "x", "name": "data", "uid": "u1"}),
            "another claim",
        ),
        (
            pvc(),
            pv(local={"path": "/a"}, claimRef={"namespace": "ns", "name": "data", "uid": "u2"}),
            "another claim",
        ),
        ({"spec": 1}, pv(), "cannot be read"),
        (pvc(), {"spec": 1}, "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_named(
    claim: dict[str, Any], volume: dict[str, Any] | None, words: str
) -> None:
    with pytest.raises(VolumeError, match=words):
        found(claim, volume)


@pytest.mark.parametrize(
    ("volume", "claim", "wish", "conditions", "grows", "to"),
    [
        ("1Gi", "1Gi", "1Gi", [], False, 0),
        ("1Gi", "1Gi", "2Gi", [], True, 0),
        ("2Gi", "1Gi", "2Gi", [{"type": "FileSystemResizePending", "status": "True"}], True, 2 << 30),
        ("2Gi", "2Gi", "2Gi", [{"type": "FileSystemResizePending", "status": "True"}], True, 0),
        ("1Gi", "2Gi", "2Gi", [], False, 0),
        ("2Gi", None, "1Gi", [], True, 0),
    ],
)
def test_a_claim_that_is_to_become_larger(
    volume: str, claim: str | None, wish: str, conditions: list[Any], grows: bool, to: int
) -> None:
    body = pvc()
    body["spec"]["resources"] = {"requests": {"storage": wish}}
    body["status"] |= {"conditions": conditions, **({"capacity": {"storage": claim}} if claim else {})}
    raw = json.dumps(body).encode()
    assert growing(raw) is grows
    source = {"driver": "d", "volumeHandle": "h", "nodeExpandSecretRef": {"name": "s", "namespace": "n"}}
    wanted = resolve("data", raw, json.dumps(pv(csi=source, capacity={"storage": volume})).encode())
    assert isinstance(wanted, Wanted)
    assert (wanted.grows_to, wanted.claim_uid, wanted.expand_secret) == (to, "u1", ("n", "s"))


def test_a_claim_that_cannot_be_read_does_not_grow() -> None:
    assert not growing(None)
    assert not growing(b"{")
    assert not growing(
        json.dumps({**pvc(), "spec": {"resources": {"requests": {"storage": "much"}}}}).encode()
    )
