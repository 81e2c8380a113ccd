"""Write `_generated/types.json` and `_generated/docs.json.gz` from the models of the `kubernetes` package.

Run by hand when that package gets newer: `python -m cloudcore.standalone.generate_types`.  The models' source is
parsed, not imported: importing them costs 40 MB and a second.  The first file (shapes) is loaded by every server, the
second (texts for `kubectl explain`) only when somebody asks for a document."""

from __future__ import annotations

import ast
import gzip
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cloudcore.standalone.kinds import CORE

EXTRA = ("V1Scale", "V1Eviction", "AuthenticationV1TokenRequest", "V1DeleteOptions", "V1Status")
OUT = Path(__file__).parent / "_generated"


def main() -> None:
    spec = find_spec("kubernetes")
    if spec is None or spec.origin is None:
        sys.exit("cannot generate: the kubernetes package is not installed")
    models = {}
    for path in sorted((Path(spec.origin).parent / "client" / "models").glob("*.py")):
        if path.name != "__init__.py":
            models.update(_read(path))
    wanted = [row.model for row in CORE if row.model in models] + [name for name in EXTRA if name in models]
    missing = [row.model for row in CORE if row.model not in models]
    if missing:
        sys.exit(f"cannot generate: no model for {missing}")
    shapes: dict[str, Any] = {}
    docs: dict[str, Any] = {}
    while wanted:
        name = wanted.pop()
        if name is None or name in shapes:
            continue
        shape, doc = models[name]
        shapes[name], docs[name] = shape, doc
        for kind in shape["f"].values():
            inner = _inner(kind)
            if inner in models:
                wanted.append(inner)
    OUT.mkdir(exist_ok=True)
    (OUT / "types.json").write_text(json.dumps(shapes, sort_keys=True, separators=(",", ":")) + "\n")
    raw = json.dumps(docs, sort_keys=True, separators=(",", ":")).encode()
    (OUT / "docs.json.gz").write_bytes(gzip.compress(raw, mtime=0))


def _inner(kind: str) -> str:
    """The element type of nested lists and maps."""
    while True:
        if kind.startswith("[]") or kind.startswith("{}"):
            kind = kind[2:]
        else:
            return kind


def _short(kind: str) -> str:
    """`List[V1Pod]` as `[]V1Pod`, `Dict[str, bytes]` as `{}bytes`."""
    kind = kind.strip()
    if kind.startswith(("List[", "list[")):
        return "[]" + _short(kind[5:-1])
    if kind.startswith(("Dict[", "dict[")):
        return "{}" + _short(kind[5:-1].partition(",")[2])
    return kind


def _read(path: Path) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    found = {}
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.ClassDef):
            continue
        kinds: dict[str, str] = {}
        names: dict[str, str] = {}
        fields: dict[str, tuple[bool, str, bool]] = {}
        for item in node.body:
            if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
                continue
            if item.target.id in ("openapi_types", "attribute_map") and item.value is not None:
                (kinds if item.target.id == "openapi_types" else names).update(ast.literal_eval(item.value))
            elif isinstance(item.value, ast.Call):
                given = {word.arg: word.value for word in item.value.keywords}
                text = given.get("description")
                doc = ast.literal_eval(text) if text is not None else ""
                either = "StrictInt | StrictStr" in ast.unparse(item.annotation)
                fields[item.target.id] = ("default" not in given, doc, either)
        if not kinds:
            continue
        shape: dict[str, Any] = {"f": {}}
        needed = []
        docs = {"": (ast.get_docstring(node) or "").partition("\n\nAttributes:")[0].strip()}
        for attribute, kind in kinds.items():
            mandatory, doc, either = fields.get(attribute, fields.get("var_" + attribute, (False, "", False)))
            json_name = names[attribute]
            shape["f"][json_name] = "int-or-string" if either else _short(kind)
            docs[json_name] = doc
            if mandatory:
                needed.append(json_name)
        if needed:
            shape["r"] = needed
        found[node.name] = (shape, docs)
    return found


if __name__ == "__main__":
    main()
