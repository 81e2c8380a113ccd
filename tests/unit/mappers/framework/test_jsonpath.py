import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappers.framework import jsonpath
from mappers.framework.driver import DriverError
from mappers.framework.errors import ValueRefused

DOCUMENT = {"a": {"b c": [1, {"x": True}, None]}, "t": "text", "n": 1.5}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$.n", 1.5),
        ("t", "text"),
        ("$.a['b c'][0]", 1),
        ('a["b c"][1].x', True),
        ("$.a.b c[-2].x", True),
        ("$.a['b c'][1]", '{"x":true}'),
    ],
)
def test_a_path_names_one_value(path: str, value: object) -> None:
    assert jsonpath.find(DOCUMENT, path) == value


@pytest.mark.parametrize(
    "path", ["$.z", "$.a[0]", "$.t.u", "$.t[0]", "$.a['b c'][9]", "$.a['b c'].x", "$.a['b c'][2]"]
)
def test_what_is_not_there_is_refused(path: str) -> None:
    with pytest.raises(ValueRefused):
        jsonpath.find(DOCUMENT, path)


@pytest.mark.parametrize("path", ["$..a", "$[*]", "$.a[", "$.a[?(@.x)]", "$.a[1:2]"])
def test_more_than_one_value_is_no_path(path: str) -> None:
    with pytest.raises(DriverError):
        jsonpath.parse(path)


def test_garbage_is_refused() -> None:
    for data in (b"{", b"\xff\xfe", b"[" * 100_000):
        with pytest.raises(ValueRefused):
            jsonpath.decode(data)


@given(st.one_of(st.text(), st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)))
def test_a_filled_template_is_json_again(value: str | int | bool | float) -> None:
    assert json.loads(jsonpath.fill('{"set": ${value}}', value)) == {"set": value}
