"""The OpenAPI v2 document as protobuf, the only form in which kubectl reads it.  Pure.

kubectl before 1.27 checks every manifest against it, and newer ones ask it about a `kind: List`; Debian 12 has 1.20.
Only what openapi.py writes is encoded: a key that is not known here goes into the vendor extensions if it begins with
x-, and is left out otherwise, as readers of this form know no others.

Source: the messages and field numbers of openapi.v2 (google/gnostic, openapiv2/OpenAPIv2.proto)."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

MEDIA_TYPES = (
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
)

Json = Mapping[str, Any]

# Key to field number, of the fields of Schema that are one value.
_TEXTS = {"$ref": 1, "format": 2, "title": 3, "description": 4, "pattern": 13}
_NUMBERS = {"multipleOf": 6, "maximum": 7, "minimum": 9}
_FLAGS = {"exclusiveMaximum": 8, "exclusiveMinimum": 10, "uniqueItems": 16, "readOnly": 27}
_COUNTS = {
    "maxLength": 11,
    "minLength": 12,
    "maxItems": 14,
    "minItems": 15,
    "maxProperties": 17,
    "minProperties": 18,
}
_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "patch": 8}


def wanted(accept: str) -> bool:
    """Whether an Accept header asks for this form."""
    return any(media_type in accept for media_type in MEDIA_TYPES)


def encode(document: Json) -> bytes:
    """A Document."""
    info = _text(1, document["info"]["title"]) + _text(2, document["info"]["version"])
    paths = b"".join(_message(2, _named(path, _path(item))) for path, item in document["paths"].items())
    definitions = b"".join(
        _message(1, _named(name, _schema(schema))) for name, schema in document["definitions"].items()
    )
    return b"".join(
        (_text(1, document["swagger"]), _message(2, info), _message(8, paths), _message(9, definitions))
    )


def _path(item: Json) -> bytes:
    return b"".join(
        _message(_METHODS[name], _operation(value)) for name, value in item.items() if name in _METHODS
    )


def _operation(value: Json) -> bytes:
    out = [_text(5, value["operationId"])]
    for parameter in value.get("parameters", ()):
        query = _text(2, parameter["in"]) + _text(4, parameter["name"]) + _text(6, parameter["type"])
        # ParametersItem, Parameter, NonBodyParameter, QueryParameterSubSchema
        out.append(_message(8, _message(1, _message(2, _message(3, query)))))
    answers = []
    for code, answer in value.get("responses", {}).items():
        body = _text(1, answer["description"])
        if "schema" in answer:
            body += _message(2, _message(1, _schema(answer["schema"])))
        answers.append(_message(1, _named(code, _message(1, body))))
    out.append(_message(9, b"".join(answers)))
    out.append(_extensions(13, value))
    return b"".join(out)


def _schema(schema: Json) -> bytes:
    out = [_text(number, schema[key]) for key, number in _TEXTS.items() if key in schema]
    out += [
        _key(number, 1) + struct.pack("<d", schema[key]) for key, number in _NUMBERS.items() if key in schema
    ]
    out += [_key(number, 0) + b"\x01" for key, number in _FLAGS.items() if schema.get(key)]
    out += [_key(number, 0) + _varint(schema[key]) for key, number in _COUNTS.items() if key in schema]
    if "default" in schema:
        out.append(_message(5, _any(schema["default"])))
    out += [_text(19, name) for name in schema.get("required", ())]
    out += [_message(20, _any(value)) for value in schema.get("enum", ())]
    more = schema.get("additionalProperties")
    if isinstance(more, bool):
        out.append(_message(21, _key(2, 0) + (b"\x01" if more else b"\x00")))
    elif more is not None:
        out.append(_message(21, _message(1, _schema(more))))
    if "type" in schema:
        out.append(_message(22, _text(1, schema["type"])))
    if "items" in schema:
        out.append(_message(23, _message(1, _schema(schema["items"]))))
    out += [_message(24, _schema(part)) for part in schema.get("allOf", ())]
    if "properties" in schema:
        named = (_message(1, _named(name, _schema(value))) for name, value in schema["properties"].items())
        out.append(_message(25, b"".join(named)))
    out.append(_extensions(31, schema))
    return b"".join(out)


def _extensions(number: int, value: Json) -> bytes:
    return b"".join(_message(number, _named(key, _any(value[key]))) for key in value if key.startswith("x-"))


def _named(name: str, value: bytes) -> bytes:
    return _text(1, name) + _message(2, value)


def _any(value: Any) -> bytes:
    """An Any by its YAML, of which JSON is a part."""
    return _text(2, json.dumps(value))


def _text(number: int, value: str) -> bytes:
    return _message(number, value.encode())


def _message(number: int, value: bytes) -> bytes:
    return _key(number, 2) + _varint(len(value)) + value


def _key(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # a negative number is its two's complement
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
