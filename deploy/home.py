"""Where a trial keeps its things, and what it calls what it makes outside of its folder.  Pure.

Everything that a trial owns is below one folder, `$SKERRY_HOME`.  What cannot be below a folder (ports, a bridge,
addresses, firewall chains) is named here from that folder, so that two trials on one machine never meet:
the default folder gets the documented names, any other folder gets names made from a hash of its path."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import TrialError

DEFAULT_HOME = Path("/var/lib/skerry")
DEFAULT_NODE_NAME = "edge-1"

# A unix socket's address holds 108 bytes with its final zero; the longest socket below the home is containerd's
# ttrpc socket, whose path is 43 bytes longer than the home's.
MAX_HOME_BYTES = 108 - 1 - len("/containerd/state/containerd.sock.ttrpc.x")

# Pods of a trial get one /24 of this network, which is out of the way of the usual office and cluster ranges.
POD_NETWORK = ipaddress.IPv4Network("10.213.0.0/16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """TCP ports of a trial, all on 127.0.0.1."""

    api: int = 16443
    hub: int = 10000
    mqtt: int = 11883

    @classmethod
    def from_base(cls, base: int) -> Ports:
        """Three ports in a row.  Raises TrialError when they do not fit into the range of ports."""
        if not 1 <= base <= 65535 - 2:
            raise TrialError(f"port base {base} is out of range: choose one between 1 and {65535 - 2}")
        return cls(api=base, hub=base + 1, mqtt=base + 2)

    @property
    def stock(self) -> tuple[int, int] | None:
        """Where stock KubeEdge edges join and bring their tunnels.  They know KubeEdge's ports only, which a trial with ports
        of its own leaves alone: None."""
        return (10002, 10004) if self == Ports() else None

    def by_use(self) -> dict[str, int]:
        used = {"the API": self.api, "the hub": self.hub, "mosquitto": self.mqtt}
        if self.stock is not None:
            used["joining of stock edges"], used["the tunnels of stock edges"] = self.stock
        return used


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one trial: paths only, nothing is read or made here."""

    root: Path

    @classmethod
    def at(cls, root: Path) -> Home:
        """Raises TrialError for a folder in which the sockets would get too long a path."""
        if len(str(root)) > MAX_HOME_BYTES:
            raise TrialError(
                f"the state folder's path is {len(str(root))} bytes long and a unix socket below it would not fit: "
                f"set SKERRY_HOME to a path of at most {MAX_HOME_BYTES} bytes"
            )
        if not root.is_absolute():
            raise TrialError(f"SKERRY_HOME is {str(root)!r}: set it to an absolute path")
        if len(root.parts) < 3:
            raise TrialError(
                f"SKERRY_HOME is {str(root)!r}: set it to a folder of its own, such as {DEFAULT_HOME}"
            )
        return cls(root)

    @property
    def is_default(self) -> bool:
        return self.root == DEFAULT_HOME

    @property
    def tag(self) -> str:
        """Eight characters that differ between homes, the same for a home at any time."""
        return hashlib.sha256(str(self.root).encode()).hexdigest()[:8]

    @property
    def bridge(self) -> str:
        """The pods' bridge.  An interface name holds 15 bytes."""
        return "skerry0" if self.is_default else f"sk{self.tag}"

    @property
    def network(self) -> str:
        """The CNI network's name.  It is in the comment of every firewall rule made for it."""
        return "skerry" if self.is_default else f"skerry-{self.tag}"

    @property
    def cgroup(self) -> str:
        """The control group that all pods of this home are below."""
        return self.network

    @property
    def cloud(self) -> Path:
        return self.root / "cloud"

    @property
    def edge(self) -> Path:
        return self.root / "edge"

    @property
    def containerd(self) -> Path:
        return self.root / "containerd"

    @property
    def containerd_socket(self) -> Path:
        return self.containerd / "containerd.sock"

    @property
    def mosquitto(self) -> Path:
        return self.root / "mosquitto"

    @property
    def drivers(self) -> Path:
        """Driver files of the user's own."""
        return self.root / "drivers"

    @property
    def mappers(self) -> Path:
        return self.root / "mappers"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """Pid files."""
        return self.root / "run"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def settings(self) -> Path:
        return self.root / "trial.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    def log(self, part: str) -> Path:
        return self.logs / f"{part}.log"


def choose_pod_subnet(home: Home, taken: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """The first free /24 of POD_NETWORK, looking from a place that the home's name decides.

    taken: networks that this machine has a route to.  Raises TrialError when none is free."""
    subnets = list(POD_NETWORK.subnets(new_prefix=24))
    first = 0 if home.is_default else 1 + int(home.tag, 16) % (len(subnets) - 1)
    others = list(taken)
    for subnet in subnets[first:] + subnets[:first]:
        if not any(subnet.overlaps(other) for other in others):
            return subnet
    raise TrialError(f"every network in {POD_NETWORK} is in use on this machine: free one for the pods")
