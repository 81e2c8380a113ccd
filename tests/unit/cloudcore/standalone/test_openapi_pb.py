"""The OpenAPI document in the form that kubectl reads: read back by a reader that knows protobuf's rules only."""

from __future__ import annotations

import json
from typing import Any

from cloudcore.standalone.openapi_pb import MEDIA_TYPES, encode, wanted

DOCUMENT: dict[str, Any] = {
    "swagger": "2.0",
    "info": {"title": "Kubernetes", "version": "v1.32.0"},
    "paths": {
        "/api/v1/things/{name}": {
            "patch": {
                "operationId": "patchThing",
                "parameters": [{"name": "fieldValidation", "in": "query", "type": "string"}],
                "responses": {"200": {"description": "OK", "schema": {"$ref": "#/definitions/thing"}}},
                "x-kubernetes-group-version-kind": {"group": "", "version": "v1", "kind": "Thing"},
            }
        }
    },
    "definitions": {
        "thing": {
            "type": "object",
            "required": ["a", "b"],
            "properties": {
                "a": {"type": "array", "items": {"$ref": "#/definitions/other"}, "maxItems": 300},
                "b": {"type": "object", "additionalProperties": {"type": "string", "enum": ["x", "y"]}},
                "c": {"type": "number", "minimum": 0.5, "default": -1},
            },
            "x-kubernetes-group-version-kind": [{"kind": "Thing"}],
        },
        "other": {"type": "object", "additionalProperties": True},
    },
}


def read(message: bytes) -> dict[int, list[Any]]:
    """Field number to values: whole numbers, eight bytes, or bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return value

    found: dict[int, list[Any]] = {}
    while at < len(message):
        key = varint()
        if key & 7 == 0:
            value: Any = varint()
        else:
            length = 8 if key & 7 == 1 else varint()
            value, at = message[at : at + length], at + length
            assert len(value) == length
        found.setdefault(key >> 3, []).append(value)
    return found


def named(messages: list[bytes]) -> dict[str, dict[int, list[Any]]]:
    pairs = [read(message) for message in messages]
    return {pair[1][0].decode(): read(pair[2][0]) for pair in pairs}


def test_definitions() -> None:
    document = read(encode(DOCUMENT))
    assert document[1] == [b"2.0"]
    assert read(document[2][0]) == {1: [b"Kubernetes"], 2: [b"v1.32.0"]}
    definitions = named(read(document[9][0])[1])
    thing = definitions["thing"]
    assert read(thing[22][0]) == {1: [b"object"]}
    assert thing[19] == [b"a", b"b"]
    (extension,) = named(thing[31]).values()
    assert json.loads(extension[2][0]) == [{"kind": "Thing"}]
    properties = named(read(thing[25][0])[1])
    assert read(read(properties["a"][23][0])[1][0]) == {1: [b"#/definitions/other"]}
    assert properties["a"][14] == [300]
    strings = read(read(properties["b"][21][0])[1][0])
    assert [read(value)[2] for value in strings[20]] == [[b'"x"'], [b'"y"']]
    assert properties["c"][9] == [b"\x00\x00\x00\x00\x00\x00\xe0\x3f"]
    assert read(properties["c"][5][0])[2] == [b"-1"]
    assert read(definitions["other"][21][0]) == {2: [1]}


def test_paths() -> None:
    paths = named(read(read(encode(DOCUMENT))[8][0])[2])
    operation = read(paths["/api/v1/things/{name}"][8][0])
    assert operation[5] == [b"patchThing"]
    query = read(read(read(read(operation[8][0])[1][0])[2][0])[3][0])
    assert query == {2: [b"query"], 4: [b"fieldValidation"], 6: [b"string"]}
    (answer,) = named(read(operation[9][0])[1]).values()
    assert read(read(read(answer[1][0])[2][0])[1][0]) == {1: [b"#/definitions/thing"]}
    assert list(named(operation[13])) == ["x-kubernetes-group-version-kind"]


def test_who_gets_it() -> None:
    assert all(wanted(media_type) for media_type in MEDIA_TYPES)
    assert not wanted("application/json, */*")
