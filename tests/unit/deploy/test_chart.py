"""The Helm chart: it makes the objects that `skerry init` applies.

What Helm itself makes of it is tried where Helm is: the program, or the package of the group `chart` in pyproject.toml."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import deploy
from deploy import cluster
from deploy.cluster import CONFIG_ANNOTATION, Wish

ROOT = Path(deploy.__file__).parent
CHART = ROOT / "chart"
IMAGE = "registry.example.org:5000/skerry/cloudcore:0.1.0"
HELM = shutil.which("helm")
has_helm = pytest.mark.skipif(
    HELM is None and importlib.util.find_spec("helm_python") is None, reason="there is no Helm here"
)

# In a process of its own: Go's runtime stays in a process that has loaded it.
_RENDER = """
import json, sys
from helm_python.chart import Chart
from helm_python.errors import HelmError
chart, values, namespace = sys.argv[1:]
try:
    made = Chart.load(chart).render(json.loads(values), name="cloudcore", namespace=namespace)
except HelmError as error:
    sys.exit(str(error))
print(made["cloudcore/templates/cloudcore.yaml"])
"""


def render(values: dict[str, Any], namespace: str = "kubeedge") -> list[dict[str, Any]]:
    """Raises CalledProcessError with Helm's words."""
    text = yaml.safe_dump(values) if HELM else json.dumps(values)
    command = (
        [HELM, "template", "cloudcore", str(CHART), "--namespace", namespace, "--values", "-"]
        if HELM
        else [sys.executable, "-c", _RENDER, str(CHART), text, namespace]
    )
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return [item for item in yaml.safe_load_all(done.stdout) if item is not None]


def ours(wish: Wish) -> list[dict[str, Any]]:
    found = [item for item in yaml.safe_load_all(cluster.manifests(wish)) if item["kind"] != "Namespace"]
    return [comparable(item) for item in found]


def comparable(item: dict[str, Any]) -> dict[str, Any]:
    """With the configuration as what it says: writers of YAML differ, and so does its hash."""
    if item["kind"] == "ConfigMap":
        item["data"] = {name: yaml.safe_load(text) for name, text in item["data"].items()}
    if item["kind"] == "Deployment":
        annotations = item["spec"]["template"]["metadata"]["annotations"]
        assert len(annotations[CONFIG_ANNOTATION]) == 64
        annotations[CONFIG_ANNOTATION] = ""
    return item


def test_its_sources_are_those_of_init() -> None:
    assert (CHART / "files" / "cloudcore.yaml").resolve() == ROOT / "manifests" / "cloudcore.yaml"
    assert (CHART / "crds").resolve() == ROOT / "crds"
    pyproject = (ROOT.parent / "pyproject.toml").read_text()
    meta = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f'\nversion = "{meta["version"]}"\n' in pyproject
    assert meta["appVersion"] == meta["version"]


def test_each_value_is_used() -> None:
    template = (CHART / "templates" / "cloudcore.yaml").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for name, value in values.items():
        for each in value if name == "service" else [name]:
            assert each in template, each


@has_helm
@pytest.mark.parametrize(
    ("wish", "values"),
    [
        (Wish(image=IMAGE), {}),
        (
            Wish(
                image=IMAGE,
                addresses=("10.1.2.3", "hub.example.org", "fd00::7", "1.example.org"),
                service="NodePort",
                replicas=2,
            ),
            {
                "addresses": ["10.1.2.3", "hub.example.org", "fd00::7", "1.example.org"],
                "service": {"type": "NodePort"},
                "replicas": 2,
            },
        ),
    ],
)
def test_helm_makes_what_init_applies(wish: Wish, values: dict[str, Any]) -> None:
    made = [comparable(item) for item in render({"image": IMAGE, **values})]
    assert made == ours(wish)


@has_helm
def test_what_init_has_no_word_for() -> None:
    made = {
        item["kind"]: item
        for item in render(
            {
                "image": IMAGE,
                "imagePullSecrets": [{"name": "registry"}],
                "tolerations": [{"operator": "Exists"}],
                "nodeSelector": {"pool": "system"},
                "service": {"type": "NodePort", "nodePort": 30100, "annotations": {"a": "b"}},
                "config": {"compat": {"kubeedge": True}, "modules": {"cloudHub": {"nodeLimit": 5000}}},
            }
        )
    }
    pod = made["Deployment"]["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["nodeSelector"] == {"pool": "system"}
    assert made["Service"]["spec"]["ports"] == [
        {"name": "hub", "port": 10000, "targetPort": "hub", "nodePort": 30100}
    ]
    assert made["Service"]["metadata"]["annotations"] == {"a": "b"}
    config = yaml.safe_load(made["ConfigMap"]["data"]["cloudcore.yaml"])
    assert config["compat"] == {"kubeedge": True}
    assert config["modules"]["cloudHub"] == {
        "advertiseAddress": [],
        "dnsNames": ["cloudcore.kubeedge.svc"],
        "nodeLimit": 5000,
    }


@has_helm
@pytest.mark.parametrize(
    ("values", "namespace", "says"),
    [({}, "kubeedge", "image is needed"), ({"image": IMAGE}, "default", "namespace is kubeedge")],
)
def test_what_is_missing_is_said(values: dict[str, Any], namespace: str, says: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        render(values, namespace)
    assert says in failed.value.stderr
