"""One value out of a JSON document: `$.sensors[0].temp`, `a.b`, `list[-1]`, `$['a key']`.  Pure.

The part of JSONPath that names one place; no wildcards, filters or slices."""

import json
import re
from typing import Any

from mappers.framework.convert import Value
from mappers.framework.driver import DriverError
from mappers.framework.errors import ValueRefused

_STEP = re.compile(r"""\.?([^.\[\]'"]+)|\[(-?\d{1,6})\]|\[(['"])([^'"]*)\3\]""")


def parse(path: str) -> tuple[str | int, ...]:
    """The steps of a path; "" and "$" mean the whole document.  Raises: DriverError."""
    rest = path.removeprefix("$")
    steps: list[str | int] = []
    at = 0
    while at < len(rest):
        found = _STEP.match(rest, at)
        if found is None:
            raise DriverError(f"not a JSON path: {path[:64]!r}")
        name, index, _, quoted = found.groups()
        steps.append(int(index) if index is not None else name if name is not None else quoted)
        at = found.end()
    return tuple(steps)


def decode(data: bytes) -> Any:
    """Read a JSON text.  Raises: ValueRefused."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueRefused(f"not JSON: {error}") from error


def find(document: Any, path: str) -> Value:
    """The value at a path; what is no scalar comes as compact JSON.  Raises: ValueRefused if there is none, DriverError."""
    for step in parse(path):
        try:
            if not isinstance(document, dict if isinstance(step, str) else list):
                raise KeyError(step)
            document = document[step]  # type: ignore[index]  # the kind of step fits the kind of document
        except (KeyError, IndexError):
            raise ValueRefused(f"there is nothing at {path[:64]}") from None
    if document is None:
        raise ValueRefused(f"there is null at {path[:64] or '$'}")
    if isinstance(document, dict | list):
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    found: Value = document
    return found


def fill(template: str, value: Value) -> str:
    """A text with `${value}` replaced by the value as JSON, so that `{"on": ${value}}` is JSON again."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return template.replace("${value}", json.dumps(value, ensure_ascii=False))
