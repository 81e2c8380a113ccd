"""The columns of our kinds are those of their definitions."""

from pathlib import Path

import yaml

import deploy
from beehive.printing import ours
from beehive.printing.custom import AGE, Column, read_columns

CRDS = Path(deploy.__file__).parent / "crds"


def _values(columns: tuple[Column, ...]) -> list[tuple[object, ...]]:
    return [(c.name, c.type, c.json_path, c.priority, c.description, c.format) for c in columns]


def test_they_are_those_of_the_definitions() -> None:
    defined = {}
    for path in sorted(CRDS.glob("*.yaml")):
        for definition in yaml.safe_load_all(path.read_text()):
            for version in definition["spec"]["versions"]:
                spec = definition["spec"]
                columns = _values(read_columns(version))
                if columns != _values((AGE,)):
                    defined[spec["group"], version["name"], spec["names"]["plural"]] = columns
    assert {key: _values(columns) for key, columns in ours.COLUMNS.items()} == defined
    assert len(defined) > 5
