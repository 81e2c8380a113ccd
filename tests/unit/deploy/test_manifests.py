"""What cloudcore asks of the API and what its account may do, side by side."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

import cloudcore
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


VERBS = {
    "get": ("get",),
    "create": ("create",),
    "replace": ("update",),
    "patch": ("patch",),
    "delete": ("delete",),
    "list_all": ("list",),
    "watch": ("watch",),
    "Cache": ("list", "watch"),
}
"""What a call of cloudcore.kube.Kube, or a cache, asks the API for."""
ASKED_WITHOUT = {("", "namespaces", "create")}
"""The namespace of its own: beside a cluster it comes with the manifests, and is made by the control plane in the box."""


def called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def asked(path: Path) -> set[tuple[str, str, str]]:
    """(group, resource, verb) of each call in a module that names its kind."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        first = node.args[:2]
        names = [argument.id for argument in first if isinstance(argument, ast.Name)]
        kinds = [kind for name in names if isinstance(kind := getattr(objects, name, None), Kind)]
        named = {word.arg: word.value for word in node.keywords}
        below = named.get("subresource")
        for kind in kinds:
            resource = kind.plural + (f"/{below.value}" if isinstance(below, ast.Constant) else "")
            found |= {(kind.group, resource, verb) for verb in VERBS.get(called(node), ())}
    return found


def test_the_account_may_do_what_the_code_asks_for() -> None:
    """Where a kind is named at the call; those that come in a variable are read only, or have a test of their own."""
    granted = {
        (group, resource, verb)
        for item in MANIFESTS
        if item["kind"] in ("ClusterRole", "Role")
        for rule in item["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    root = Path(cloudcore.__file__).parent
    wanted = {
        one: path.relative_to(root)
        for path in root.rglob("*.py")
        if "standalone" not in path.parts
        for one in asked(path)
    }
    assert len(wanted) > 50, "the calls are not found any more"
    missing = {one: str(path) for one, path in wanted.items() if one not in granted | ASKED_WITHOUT}
    assert missing == {}
