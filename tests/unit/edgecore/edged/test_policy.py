"""What the owner of a machine forbids."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgecore.edged.config import EdgedConfig
from edgecore.edged.errors import VolumeError
from edgecore.edged.manager import Edged
from edgecore.edged.policy import MAX_POLICY_BYTES, Policy, PolicyError, load, parse, refuse
from edgecore.edged.worker import Worker
from tests.unit.edgecore.edged.builders import c, make

STRICT = parse(
    b'{"allowPrivileged": false, "allowHostNetwork": false, "allowHostNamespaces": false,'
    b' "allowHostPaths": ["/dev/ttyUSB0", "/data/"], "exemptNamespaces": ["kube-system"]}'
)
PRIVILEGED = {"securityContext": {"privileged": True}}


def path(where: str) -> dict[str, Any]:
    return {"volumes": [{"name": "v", "hostPath": {"path": where}}]}


@pytest.mark.parametrize(
    ("container", "spec", "word"),
    [
        ({}, {}, ""),
        (PRIVILEGED, {}, "privileged container c"),
        ({"securityContext": {"capabilities": {"add": ["cap_sys_admin"]}}}, {}, "SYS_ADMIN"),
        ({"securityContext": {"capabilities": {"add": ["ALL"]}}}, {}, "ALL"),
        ({"securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"]}}}, {}, ""),
        ({"securityContext": {"procMount": "Unmasked"}}, {}, "procMount"),
        ({}, {"initContainers": [c("i", **PRIVILEGED)]}, "privileged container i"),
        ({}, {"ephemeralContainers": [c("e", **PRIVILEGED)]}, "privileged container e"),
        ({}, {"hostNetwork": True}, "hostNetwork"),
        ({}, {"hostPID": True}, "hostPID"),
        ({}, {"hostIPC": True}, "hostIPC"),
        ({"ports": [{"containerPort": 80, "hostPort": 80}]}, {}, "hostPort"),
        ({}, path("/dev/ttyUSB0"), ""),
        ({}, path("/data"), ""),
        ({}, path("/data/logs"), ""),
        ({}, path("//data//logs/"), ""),
        ({}, path("/data2"), "hostPath /data2"),
        ({}, path("/"), "hostPath /"),
        ({}, path("//"), "hostPath"),
        ({}, path("/dev"), "hostPath /dev"),
    ],
)
def test_refuse(container: dict[str, Any], spec: dict[str, Any], word: str) -> None:
    pod = make(c(**container), **spec)
    found = refuse(pod, STRICT)
    assert (found is not None) == bool(word)
    if found is not None:
        assert word in found.message
        assert (found.phase, found.reason) == ("Failed", "ForbiddenByNodePolicy")
    assert refuse(pod, Policy()) is None


def test_a_namespace_may_be_exempt() -> None:
    pod = make(c(**PRIVILEGED), meta={"namespace": "kube-system"})
    assert refuse(pod, STRICT) is None


def test_an_empty_list_of_paths_allows_none() -> None:
    assert refuse(make(c(), **path("/tmp")), parse(b'{"allowHostPaths": []}')) is not None


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"allowPriviledged": false}', b'{"allowPrivileged": "no"}', b"[" * 9999]
)
def test_what_cannot_be_read_allows_nothing(text: bytes) -> None:
    with pytest.raises(PolicyError):
        parse(text)


def test_load(tmp_path: Path) -> None:
    assert load(None) == Policy()
    with pytest.raises(PolicyError, match="cannot read"):
        load(tmp_path / "none")
    (tmp_path / "p").write_text('{"allowPrivileged": false}')
    assert not load(tmp_path / "p").allow_privileged
    (tmp_path / "p").write_bytes(b" " * (MAX_POLICY_BYTES + 1))
    with pytest.raises(PolicyError, match="more than"):
        load(tmp_path / "p")


def test_what_a_link_leads_to_must_be_allowed_too(tmp_path: Path) -> None:
    """A pod that may write to a folder of the machine could plant a link to the rest of it for the next pod."""
    data, device, rules = tmp_path / "data", tmp_path / "by-id", tmp_path / "policy.json"
    data.mkdir()
    (data / "logs").mkdir()
    (data / "out").symlink_to("/etc")
    (data / "in").symlink_to(data / "logs")
    device.symlink_to("/dev/null")
    rules.write_text(json.dumps({"allowHostPaths": [str(data), str(device)]}))
    config = EdgedConfig(root_dir=tmp_path / "pods", log_dir=tmp_path / "l", policy_file=rules)
    nobody: Any = SimpleNamespace()
    edged = Edged(config=config, node_name="e", objects=nobody, reports=nobody, state=nobody, cri=nobody)

    def worker(where: Path) -> Worker:
        shared: Any = SimpleNamespace(
            hold_path=edged._room.hold_path, config=config, node_name="e", reports=nobody
        )
        return Worker(shared, make(c(), **path(str(where))), b"{}")

    for allowed in (data, data / "logs", data / "in", device, data / "not-yet"):
        assert worker(allowed)._volumes.held_paths() == {"v": str(allowed.resolve())}
    for forbidden in (data / "out", data / "out" / "ssh"):
        assert refuse(make(c(), **path(str(forbidden))), load(rules)) is None, "its text alone says nothing"
        with pytest.raises(VolumeError, match="This node's policy forbids path /etc"):
            worker(forbidden)._volumes.held_paths()
    rules.write_text("{}")
    assert worker(data / "out")._volumes.held_paths() == {}
