"""The configuration files of the daemons in a trial.  Pure.

Only what differs from the daemons' defaults is written; `cloudcore config --defaults` and
`edgecore config --defaults` print the rest with their meaning."""

from __future__ import annotations

from typing import Any

import yaml

from deploy.home import Home, Ports
from deploy.mosquitto import EDGECORE
from deploy.settings import Settings

_HEADER = "# Written by `skerry up`; changes are lost.\n"


def render_cloudcore(home: Home, settings: Settings) -> str:
    ports = settings.ports
    hub: dict[str, Any] = {"websocket": {"address": "127.0.0.1", "port": ports.hub}}
    stock: dict[str, Any] = {}
    if ports.stock is not None:
        join, tunnel = ports.stock
        hub["https"] = {"address": "127.0.0.1", "port": join}
        stock = {"cloudStream": {"tunnelPort": tunnel}}
    return _yaml(
        {
            "apiVersion": "cloudcore.config.kubeedge.io/v1alpha1",
            "kind": "CloudCore",
            "dataDir": str(home.cloud),
            "compat": {"kubeedge": ports.stock is not None},
            "modules": {
                "cloudHub": hub,
                **stock,
                "standalone": {
                    "address": "127.0.0.1",
                    "port": ports.api,
                    "volumeDir": str(home.root / "volumes"),
                },
            },
        }
    )


def render_edgecore(home: Home, settings: Settings, mqtt_password: str) -> str:
    ports = settings.ports
    return _yaml(
        {
            "apiVersion": "edgecore.config.kubeedge.io/v1alpha2",
            "kind": "EdgeCore",
            "dataDir": str(home.edge),
            "modules": {
                "edgeHub": {"websocket": {"server": f"127.0.0.1:{ports.hub}"}},
                "edged": {
                    "hostnameOverride": settings.node_name,
                    "tailoredKubeletConfig": {
                        "containerRuntimeEndpoint": f"unix://{home.containerd_socket}",
                        "cgroupRoot": home.cgroup,
                    },
                },
                "eventBus": {
                    "mqttServerExternal": f"tcp://127.0.0.1:{ports.mqtt}",
                    "mqttUsername": EDGECORE,
                    "mqttPassword": mqtt_password,
                },
                "metaManager": {"metaServer": {"dummyServer": f"{local_api(ports)}:10550"}},
            },
        }
    )


def local_api(ports: Ports) -> str:
    """Where pods reach the edge's own Kubernetes API: KubeEdge's address, or one of the trial's own when it has ports of
    its own, so that several on one machine keep apart."""
    if ports == Ports():
        return "169.254.30.10"
    return f"169.254.{ports.api >> 8}.{ports.api & 0xFF}"


def _yaml(value: dict[str, Any]) -> str:
    return _HEADER + yaml.safe_dump(value, sort_keys=False)
