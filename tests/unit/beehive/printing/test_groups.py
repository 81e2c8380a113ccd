"""Kinds of the other built-in groups."""

from datetime import UTC, datetime
from typing import Any

import pytest

from beehive.printing import printed

NOW = datetime(2030, 1, 1, tzinfo=UTC)
BORN = "2029-12-31T23:59:00Z"
META: dict[str, Any] = {"metadata": {"name": "x", "creationTimestamp": BORN}}


@pytest.mark.parametrize(
    ("key", "found", "cells"),
    [
        (("coordination.k8s.io", "leases"), {"spec": {"holderIdentity": "h"}}, ["x", "h", "60s"]),
        (
            ("discovery.k8s.io", "endpointslices"),
            {"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": [str(n)]} for n in range(5)]},
            ["x", "IPv4", "80", "0,1,2 + 2 more...", "60s"],
        ),
        (
            ("rbac.authorization.k8s.io", "rolebindings"),
            {"roleRef": {"kind": "Role", "name": "r"},
             "subjects": [{"kind": "ServiceAccount", "namespace": "n", "name": "s"}, {"kind": "User", "name": "u"}]},
            ["x", "Role/r", "60s", "u", "", "n/s"],
        ),
        (
            ("storage.k8s.io", "storageclasses"),
            {"metadata": {"name": "x", "creationTimestamp": BORN,
                          "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "p"},
            ["x (default)", "p", "Delete", "Immediate", False, "60s"],
        ),
    ],
)  # fmt: skip
def test_rows(key: tuple[str, str], found: dict[str, Any], cells: list[Any]) -> None:
    assert printed.cells(key, META | found, NOW) == cells
