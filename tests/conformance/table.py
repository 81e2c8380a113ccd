"""Every case, in the order of the table that is printed."""

from __future__ import annotations

from tests.conformance import environment, files, hooks, kubelet, lifecycle, pods, probes, resources, security
from tests.conformance.case import CASES

__all__ = [
    "CASES",
    "environment",
    "files",
    "hooks",
    "kubelet",
    "lifecycle",
    "pods",
    "probes",
    "resources",
    "security",
]
