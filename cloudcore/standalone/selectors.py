"""The selectors of this API server are those of both ends: see beehive.selectors."""

from beehive.selectors import (
    ANY_FIELD,
    EVERYTHING,
    FIELDS,
    BadSelector,
    FieldSelector,
    LabelMatch,
    LabelSelector,
    Requirement,
    field_values,
    from_object,
    parse_fields,
    parse_labels,
    supported_fields,
    to_text,
)

__all__ = [
    "ANY_FIELD",
    "EVERYTHING",
    "FIELDS",
    "BadSelector",
    "FieldSelector",
    "LabelMatch",
    "LabelSelector",
    "Requirement",
    "field_values",
    "from_object",
    "parse_fields",
    "parse_labels",
    "supported_fields",
    "to_text",
]
