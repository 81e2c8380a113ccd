"""What cloudcore asks of the API and what its account may do, side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import deploy
from cloudcore import objects
from cloudcore.nodetasks import report
from cloudcore.objects import Kind

MANIFESTS = list(
    yaml.safe_load_all((Path(deploy.__file__).parent / "manifests" / "cloudcore.yaml").read_text())
)
GRANTED = {
    (group, resource)
    for item in MANIFESTS
    if item["kind"] in ("ClusterRole", "Role")
    for rule in item["rules"]
    for group in rule["apiGroups"]
    for resource in rule["resources"]
}
KINDS = {kind for kind in (*vars(objects).values(), *report.KINDS.values()) if isinstance(kind, Kind)}


@pytest.mark.parametrize("kind", sorted(KINDS, key=lambda kind: kind.plural), ids=lambda kind: kind.plural)
def test_the_account_may_use_each_kind(kind: Kind) -> None:
    assert (kind.group, kind.plural) in GRANTED


def test_the_account_may_do_nothing_with_everything() -> None:
    for item in MANIFESTS:
        for rule in item.get("rules", []):
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
