"""containerd's configuration and the pod network's."""

from __future__ import annotations

import ipaddress
import json
import tomllib
from pathlib import Path
from typing import Any

from deploy.containerd import render_config, render_network
from deploy.home import Home

HOME = Home.at(Path('/tmp/a "quoted" home'))


def cri(crun: str | None = None) -> dict[str, Any]:
    text = render_config(
        HOME,
        sandbox_image="local/pause:1",
        cni_bin_dir="/usr/lib/cni",
        runc="/usr/sbin/runc",
        crun=crun,
        snapshotter="native",
    )
    return tomllib.loads(text)


def test_everything_is_below_the_home() -> None:
    config = cri()
    section = config["plugins"]["io.containerd.grpc.v1.cri"]
    paths = [
        config["root"],
        config["state"],
        config["grpc"]["address"],
        config["ttrpc"]["address"],
        config["plugins"]["io.containerd.internal.v1.opt"]["path"],
        section["cni"]["conf_dir"],
        section["containerd"]["runtimes"]["runc"]["options"]["Root"],
    ]
    assert all(path.startswith(f"{HOME.root}/") for path in paths)
    assert section["netns_mounts_under_state_dir"] is True


def test_pods_start_without_the_right_to_lower_oom_scores() -> None:
    section = cri()["plugins"]["io.containerd.grpc.v1.cri"]
    assert section["restrict_oom_score_adj"] is True
    assert section["sandbox_image"] == "local/pause:1"
    assert section["containerd"]["snapshotter"] == "native"


def test_crun_is_offered_where_it_is() -> None:
    def runtimes(crun: str | None) -> dict[str, Any]:
        section = cri(crun)["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]
        assert section["default_runtime_name"] == "runc"
        found: dict[str, Any] = section["runtimes"]
        return found

    assert set(runtimes(None)) == {"runc"}
    options = runtimes("/usr/bin/crun")["crun"]["options"]
    assert options["BinaryName"] == "/usr/bin/crun"
    assert options["Root"].startswith(f"{HOME.root}/")


def test_the_network_is_the_homes_own() -> None:
    network = json.loads(render_network(HOME, ipaddress.IPv4Network("10.213.7.0/24")))
    bridge, portmap = network["plugins"]
    assert network["name"] == HOME.network
    assert bridge["bridge"] == HOME.bridge
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.213.7.0/24"}]]
    assert bridge["ipam"]["dataDir"].startswith(str(HOME.root))
    assert portmap == {"type": "portmap", "capabilities": {"portMappings": True}}
