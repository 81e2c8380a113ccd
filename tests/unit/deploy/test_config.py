"""The daemons read what the trial writes for them."""

from __future__ import annotations

from pathlib import Path

import yaml

import cloudcore.config
import edgecore.config
from deploy.config import render_cloudcore, render_edgecore
from deploy.home import Home, Ports
from deploy.settings import Settings

HOME = Home.at(Path("/tmp/x/h"))
SETTINGS = Settings(node_name="edge-9", ports=Ports.from_base(21000))


def test_stock_edges_join_where_they_look_and_nowhere_else() -> None:
    usual = cloudcore.config.parse(render_cloudcore(HOME, Settings()))
    assert (usual.compat.enable, usual.compat.address, usual.compat.port) == (True, "127.0.0.1", 10002)
    assert usual.streams.stock_port == 10004
    own = cloudcore.config.parse(render_cloudcore(HOME, Settings(ports=Ports.from_base(20000))))
    assert not own.compat.enable
    assert set(Ports.from_base(20000).by_use().values()) == {20000, 20001, 20002}
    assert {10002, 10004} < set(Ports().by_use().values())


def test_cloudcore_reads_its_file() -> None:
    config = cloudcore.config.parse(render_cloudcore(HOME, SETTINGS))
    assert config.data_dir == HOME.cloud
    assert (config.hub.address, config.hub.port) == ("127.0.0.1", 21001)
    assert (config.standalone.address, config.standalone.port) == ("127.0.0.1", 21000)
    assert config.admin_kubeconfig == HOME.cloud / "admin.kubeconfig"


def test_edgecore_reads_its_file() -> None:
    config = edgecore.config.parse(yaml.safe_load(render_edgecore(HOME, SETTINGS, "secret")))
    assert (config.node, config.data_dir) == ("edge-9", HOME.edge)
    assert config.clouds == ("127.0.0.1:21001",)
    assert config.edged is not None
    assert config.edged.runtime_endpoint == str(HOME.containerd_socket)
    assert config.edged.cgroup_root == HOME.cgroup
    assert config.mqtt is not None
    assert config.mqtt.url == "tcp://127.0.0.1:21002"
    assert config.dmi_dir == HOME.edge
    assert config.metaserver is not None
    assert (config.metaserver.host, config.metaserver.port) == ("169.254.82.8", 10550)
