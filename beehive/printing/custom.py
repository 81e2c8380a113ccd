"""How `kubectl get` prints custom kinds: by the printer columns of their definition.  Pure.

Source: apiextensions-apiserver, pkg/registry/customresource/tableconvertor."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from beehive.printing.cells import UNKNOWN, Json, age, get


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Column:
    """One printer column of a custom resource."""

    name: str
    type: str
    json_path: str
    format: str = ""
    description: str = ""
    priority: int = 0


AGE = Column(name="Age", type="date", json_path=".metadata.creationTimestamp")


def read_columns(version: Json) -> tuple[Column, ...]:
    """The printer columns of one version of a CustomResourceDefinition; its objects' age when it has none."""
    found = tuple(
        Column(
            name=column["name"],
            type=column["type"],
            json_path=column["jsonPath"],
            format=column.get("format", ""),
            description=column.get("description", ""),
            priority=column.get("priority", 0),
        )
        for column in version.get("additionalPrinterColumns") or ()
    )
    return found or (AGE,)


def custom_cell(body: Json, path: str, kind: str, now: datetime) -> Any:
    found = json_path(body, path)
    if not found:
        return None
    if kind == "date":
        return age(found[0], now) if isinstance(found[0], str) else UNKNOWN
    if len(found) > 1 or kind == "string":
        texts = [
            value if isinstance(value, str) else json.dumps(value, separators=(",", ":")) for value in found
        ]
        return ",".join(texts)
    return found[0]


_STEP = re.compile(
    r"\.(?P<field>(?:\\.|[^.\[\]\\])+)"
    r"|\['(?P<quoted>[^']+)'\]"
    r"|\[(?P<index>-?\d+|\*)\]"
    r"|\[\?\(@\.(?P<test>[\w.]+)\s*==\s*['\"](?P<value>[^'\"]*)['\"]\)\]"
)


def json_path(body: Any, path: str) -> list[Any]:
    """The JSONPath forms that printer columns use: fields, indexes, `[*]` and `[?(@.a=="b")]`."""
    found = [body]
    text = path if path.startswith((".", "[")) else "." + path
    for step in _STEP.finditer(text):
        following: list[Any] = []
        for value in found:
            name = step["field"] or step["quoted"]
            if name is not None:
                name = name.replace("\\.", ".")
                if isinstance(value, dict) and value.get(name) is not None:
                    following.append(value[name])
            elif isinstance(value, list):
                if step["index"] == "*":
                    following += value
                elif step["index"] is not None:
                    index = int(step["index"])
                    following += value[index : index + 1] if index >= 0 else value[index:][:1]
                else:
                    following += [item for item in value if str(get(item, step["test"])) == step["value"]]
        found = following
    return found
