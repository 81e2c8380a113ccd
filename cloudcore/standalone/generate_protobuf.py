"""Write `beehive/_generated/protobuf.json`: the field numbers of the built-in kinds.

Run by hand: `python -m cloudcore.standalone.generate_protobuf [path of kubectl]`.  kubectl carries the descriptors of the
types it speaks, gzipped; they are taken from there.  Needs `protobuf`, which the server itself does not."""

from __future__ import annotations

import json
import re
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError

from beehive import protobuf
from cloudcore.standalone.kinds import CORE

OUT = Path(protobuf.__file__).parent / "_generated" / "protobuf.json"
EXTRA = {
    "k8s.io.api.autoscaling.v1": ("Scale",),
    "k8s.io.api.policy.v1": ("Eviction",),
    "k8s.io.api.authentication.v1": ("TokenRequest",),
    "k8s.io.apimachinery.pkg.apis.meta.v1": ("DeleteOptions",),
}
LONGEST = 1 << 20
FIELD = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    FIELD.TYPE_STRING: "str",
    FIELD.TYPE_BYTES: "bytes",
    FIELD.TYPE_BOOL: "bool",
    FIELD.TYPE_INT32: "int",
    FIELD.TYPE_INT64: "int",
    FIELD.TYPE_UINT32: "uint",
    FIELD.TYPE_UINT64: "uint",
    FIELD.TYPE_DOUBLE: "double",
}


def package_of(group: str, version: str) -> str:
    short = group.removesuffix(".k8s.io").removesuffix(".authorization") or "core"
    if short == "apiextensions":
        return "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1"
    return f"k8s.io.api.{short}.{version}"


def main() -> None:
    binary = sys.argv[1] if len(sys.argv) > 1 else shutil.which("kubectl")
    if binary is None:
        sys.exit("cannot generate: no kubectl")
    messages: dict[str, Any] = {}
    data = Path(binary).read_bytes()
    for match in re.finditer(b"\x1f\x8b\x08\x00", data):
        try:
            raw = zlib.decompressobj(31).decompress(data[match.start() : match.start() + LONGEST])
            file = descriptor_pb2.FileDescriptorProto.FromString(raw)
        except (zlib.error, DecodeError):
            continue
        if file.name.startswith("k8s.io/"):
            for message in file.message_type:
                messages[f"{file.package}.{message.name}"] = message
    tops: dict[str, str] = {}
    for row in CORE:
        name = f"{package_of(row.group, row.version)}.{row.kind}"
        if name in messages:
            tops[f"{row.api_version}/{row.kind}"] = name
    for package, kinds in EXTRA.items():
        for kind in kinds:
            group = package.split(".")[-2]
            group = {"authentication": "authentication.k8s.io", "meta": ""}.get(group, group)
            tops[f"{group + '/' if group else ''}v1/{kind}"] = f"{package}.{kind}"
    table: dict[str, Any] = {}
    wanted = list(tops.values())
    while wanted:
        name = wanted.pop()
        if name in table or name not in messages:
            continue
        table[name] = fields = {}
        message = messages[name]
        entries = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
        for field in message.field:
            kind = _kind(field)
            short = field.type_name.rpartition(".")[2]
            if short in entries:
                kind = "{}" + _kind(entries[short].field[1])
            elif field.label == FIELD.LABEL_REPEATED:
                kind = "[]" + kind
            fields[str(field.number)] = [field.name, kind]
            inner = kind.lstrip("[]{}")
            if inner in messages:
                wanted.append(inner)
    body = {"kinds": tops, "messages": table}
    OUT.write_text(json.dumps(body, sort_keys=True, separators=(",", ":")) + "\n")


def _kind(field: Any) -> str:
    return SCALARS.get(field.type) or str(field.type_name).lstrip(".")


if __name__ == "__main__":
    main()
