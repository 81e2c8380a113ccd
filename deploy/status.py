"""What `skerry status` shows of a trial.  It looks, and changes nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass

from deploy import settings, view
from deploy.errors import TrialError
from deploy.home import Home, Ports
from deploy.kubectl import Kubectl
from deploy.parts import Parts
from deploy.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class PartStatus:
    name: str
    running: bool
    pid: int | None
    uptime_s: float | None
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Everything that `skerry status` shows.  The lists are empty while the API does not answer."""

    home: str
    kubeconfig: str
    up: bool
    problem: str
    ports: Ports
    parts: list[PartStatus]
    nodes: list[view.Node]
    pods: list[view.Pod]
    devices: list[view.Device]


def look(home: Home, parts: Parts, kubectl: Kubectl) -> Status:
    """What there is now.  Changes nothing and needs no lock.  Raises TrialError for who may not look."""
    if home.run.is_dir() and not os.access(home.run, os.R_OK | os.X_OK):
        raise TrialError(f"{home.run} cannot be read: run it again as root or with sudo")
    stored = settings.load(home.settings) or Settings()
    shown = [
        PartStatus(
            name=part,
            running=(pid := daemon.pid()) is not None,
            pid=pid,
            uptime_s=daemon.uptime_s(),
            log=str(daemon.log),
        )
        for part, daemon in parts.daemons.items()
    ]
    stopped = [part.name for part in shown if not part.running]
    problem = f"not running: {', '.join(stopped)}" if stopped else ""
    nodes: list[view.Node] = []
    pods: list[view.Pod] = []
    devices: list[view.Device] = []
    if parts.daemons["cloudcore"].pid() is not None:
        try:
            nodes, pods, devices = nodes_of(kubectl), pods_of(kubectl), devices_of(kubectl)
        except TrialError as error:
            problem = problem or f"the API does not answer: {error}"
    unready = [node.name for node in nodes if not node.ready]
    if unready and not problem:
        problem = f"not ready: {', '.join(unready)}"
    return Status(
        home=str(home.root),
        kubeconfig=str(home.kubeconfig),
        up=not problem and bool(nodes),
        problem=problem,
        ports=stored.ports,
        parts=shown,
        nodes=nodes,
        pods=pods,
        devices=devices,
    )


def nodes_of(kubectl: Kubectl) -> list[view.Node]:
    """Raises TrialError."""
    return [view.node(item) for item in kubectl.items("nodes")]


def pods_of(kubectl: Kubectl) -> list[view.Pod]:
    """Raises TrialError."""
    return [view.pod(item) for item in kubectl.items("pods")]


def devices_of(kubectl: Kubectl) -> list[view.Device]:
    """Raises TrialError."""
    return [view.device(item) for item in kubectl.items("devicestatuses")]
