"""The configuration of a trial's own containerd and of its pod network.  Pure.

The machine's containerd, if there is one, is never spoken to: this one has its own root, state, sockets, plugin
folder, CNI configuration and bridge.  What decides each setting is said beside it."""

from __future__ import annotations

import ipaddress
import json

from deploy.home import Home

# Folders in which Debian and the upstream archive put the CNI plugins.
CNI_BIN_DIRS = ("/usr/lib/cni", "/opt/cni/bin")
CNI_PLUGINS = ("bridge", "host-local", "loopback", "portmap")

_DISABLED = (
    "io.containerd.internal.v1.restart",  # restarts containers by label: edgecore decides that
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.internal.v1.tracing",
)


def render_config(
    home: Home,
    *,
    sandbox_image: str,
    cni_bin_dir: str,
    runc: str,
    crun: str | None = None,
    snapshotter: str = "overlayfs",
) -> str:
    """config.toml, version 2, as containerd 1.6 and 1.7 read it.  crun: offered beside runc, as handler `crun`."""
    base = home.containerd
    return f"""\
# Written by `skerry up`; changes are lost.
version = 2
root = {_toml(base / "root")}
state = {_toml(base / "state")}
oom_score = 0
disabled_plugins = [{", ".join(_toml(name) for name in _DISABLED)}]

[grpc]
  address = {_toml(home.containerd_socket)}

[ttrpc]
  address = {_toml(f"{home.containerd_socket}.ttrpc")}

[debug]
  level = "info"

[plugins."io.containerd.internal.v1.opt"]
  path = {_toml(base / "opt")}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {_toml(sandbox_image)}
  # Without CAP_SYS_RESOURCE (containers, some virtual machines) a negative score cannot be set, and the pod
  # would not start.
  restrict_oom_score_adj = true
  # Otherwise the namespaces are mounted in /var/run/netns, which is the machine's.
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  tolerate_missing_hugetlb_controller = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {_toml(cni_bin_dir)}
    conf_dir = {_toml(base / "cni")}
    max_conf_num = 1

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = {_toml(snapshotter)}
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = {_toml(runc)}
        Root = {_toml(base / "runc")}
        # edgecore names cgroups by path (cgroupfs), which works with and without systemd.
        SystemdCgroup = false
{_crun(base / "crun", crun) if crun else ""}"""


def _crun(root: object, program: str) -> str:
    return f"""
    # For pods whose RuntimeClass has handler: crun
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun.options]
        BinaryName = {_toml(program)}
        Root = {_toml(root)}
        SystemdCgroup = false
"""


def render_network(home: Home, subnet: ipaddress.IPv4Network) -> str:
    """The CNI configuration: a bridge with addresses of `subnet`, masquerading, and host ports."""
    bridge = {
        "type": "bridge",
        "bridge": home.bridge,
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(home.containerd / "addresses"),
            "ranges": [[{"subnet": str(subnet)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    network = {"cniVersion": "1.0.0", "name": home.network, "plugins": [bridge, portmap]}
    return json.dumps(network, indent=2) + "\n"


def _toml(value: object) -> str:
    """A TOML basic string.  JSON's escapes are a subset of TOML's."""
    return json.dumps(str(value))
