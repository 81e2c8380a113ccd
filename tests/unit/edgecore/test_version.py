"""The version is written twice, so that the daemon need not read the package's metadata."""

import tomllib
from pathlib import Path

from edgecore.version import KUBELET_VERSION, VERSION


def test_it_is_the_packages() -> None:
    project = Path(__file__).parents[3] / "pyproject.toml"
    assert tomllib.loads(project.read_text())["project"]["version"] == VERSION
    assert KUBELET_VERSION.endswith(VERSION)
