"""What a reset removes, what it leaves, and when it does nothing."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from beehive.errors import Unavailable
from edgecore import config
from edgecore.edged.runtime import SandboxInfo
from edgecore.errors import AlreadyRunning, StoreError
from edgecore.metamanager import sqlitefile
from edgecore.reset import reset


class Runtime:
    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.left = {"u1": "s1", "foreign": "s2"}
        self.closed = False

    async def list_sandboxes(self, *, uid: str = "") -> list[SandboxInfo]:
        return [
            SandboxInfo(id=id_, name="p", namespace="d", uid=uid, attempt=0, ready=True, created_at=0)
            for uid, id_ in self.left.items()
        ]

    async def stop_sandbox(self, sandbox_id: str) -> None:
        if self.broken:
            raise Unavailable("the runtime is away")

    async def remove_sandbox(self, sandbox_id: str) -> None:
        self.left = {uid: id_ for uid, id_ in self.left.items() if id_ != sandbox_id}

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def node(tmp_path: Path) -> config.EdgeConfig:
    """A data folder as a daemon leaves it, with its configuration in it."""
    data = tmp_path / "data"
    for folder in ("pki", "pods/u1/volumes", "logs/pods/d_p_u1"):
        (data / folder).mkdir(parents=True)
    for name in (
        "pki/node.pem",
        "pods/u1/volumes/f",
        "edgecore.db",
        "edgecore.db-wal",
        "edgecore.db.damaged-1",
    ):
        (data / name).write_text("x")
    (data / "edgecore.yaml").write_text(f"dataDir: {data}\n")
    (tmp_path / "others").write_text("x")
    (data / "pods" / "link").symlink_to(tmp_path / "others")
    return config.load(data / "edgecore.yaml")


def test_links_to_logs_that_went_go_too(node: config.EdgeConfig, tmp_path: Path) -> None:
    assert node.edged is not None
    links = tmp_path / "containers"
    links.mkdir()
    (links / "p_d_c-1.log").symlink_to(node.edged.log_dir / "d_p_u1" / "c" / "0.log")
    (links / "other.log").symlink_to(tmp_path / "elsewhere.log")
    linked = msgspec.structs.replace(node, edged=msgspec.structs.replace(node.edged, log_links=links))
    reset(linked, Runtime)
    assert [path.name for path in links.iterdir()] == ["other.log"]


def test_pods_identity_store_and_logs_go_and_the_configuration_stays(
    node: config.EdgeConfig, tmp_path: Path
) -> None:
    runtime = Runtime()
    opened: list[set[str]] = []
    done = reset(node, lambda: runtime, open_firewall=lambda: opened.append(set(runtime.left)))
    assert opened == [{"foreign"}]  # once no pod of ours needs its rules
    assert done.pods == 1
    assert runtime.left == {"foreign": "s2"}
    assert runtime.closed
    assert sorted(path.name for path in node.data_dir.iterdir()) == [
        "edgecore.db.lock",
        "edgecore.yaml",
        "logs",
    ]
    assert list((node.data_dir / "logs").iterdir()) == []
    assert (tmp_path / "others").exists()
    assert reset(node, lambda: runtime).removed == ()


def test_a_pod_that_cannot_be_ended_leaves_everything(node: config.EdgeConfig) -> None:
    runtime = Runtime(broken=True)
    with pytest.raises(StoreError, match="cannot end the pods: the runtime is away"):
        reset(node, lambda: runtime)
    assert (node.data_dir / "pki" / "node.pem").exists()
    assert runtime.closed


def test_not_while_the_daemon_runs(node: config.EdgeConfig) -> None:
    lock = sqlitefile.hold(node.database)
    try:
        with pytest.raises(AlreadyRunning):
            reset(node, Runtime)
        assert (node.data_dir / "pki" / "node.pem").exists()
    finally:
        os.close(lock)
