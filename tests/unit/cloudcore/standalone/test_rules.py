from __future__ import annotations

from typing import Any

import pytest

from cloudcore.standalone import cel, rules
from cloudcore.standalone.crds import scale_faults
from cloudcore.standalone.kinds import ScalePaths

Json = dict[str, Any]


def checked(schema: Json, body: Json, old: Json | None = None) -> list[tuple[str, str, str]]:
    """What the rules of a whole object's schema say: (field, reason, text)."""
    faults = rules.Faults()
    node = rules.compile_schema(schema, "s", faults)
    assert not faults.causes
    assert node is not None
    return [(cause.field, cause.reason, cause.text) for cause in rules.evaluate(node, body, old)]


def spec(properties: Json, *asked: Json, **more: Any) -> Json:
    inner = {"type": "object", "properties": properties, rules.KEYWORD: list(asked), **more}
    return {"type": "object", "properties": {"spec": inner}}


INTEGER = {"type": "integer"}
STRING = {"type": "string"}
BOUND = {"rule": "self.n <= self.max", "message": "n above max"}


def test_a_rule_that_holds_says_nothing() -> None:
    assert checked(spec({"n": INTEGER, "max": INTEGER}, BOUND), {"spec": {"n": 1, "max": 1}}) == []


def test_a_rule_that_fails_names_its_field() -> None:
    found = checked(spec({"n": INTEGER, "max": INTEGER}, BOUND), {"spec": {"n": 2, "max": 1}})
    assert found == [("spec", "FieldValueInvalid", "Invalid value: n above max")]


def test_a_rule_without_message_is_quoted() -> None:
    found = checked(spec({"n": INTEGER}, {"rule": " self.n > 1 "}), {"spec": {"n": 0}})
    assert found[0][2] == "Invalid value: failed rule: self.n > 1"


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("FieldValueForbidden", "Forbidden: no"),
        ("FieldValueRequired", "Required value: no"),
        ("FieldValueDuplicate", "Duplicate value"),
        ("FieldValueInvalid", "Invalid value: no"),
    ],
)
def test_reason_and_field_path_of_a_rule(reason: str, text: str) -> None:
    rule = {"rule": "false", "message": "no", "reason": reason, "fieldPath": ".deep.n"}
    schema = spec({"deep": {"type": "object", "properties": {"n": INTEGER}}}, rule)
    assert checked(schema, {"spec": {}}) == [("spec.deep.n", reason, text)]


def test_a_message_can_be_computed() -> None:
    rule = {"rule": "self.n < 3", "message": "fixed", "messageExpression": "'n is ' + string(self.n)"}
    assert checked(spec({"n": INTEGER}, rule), {"spec": {"n": 5}})[0][2] == "Invalid value: n is 5"
    broken = {**rule, "messageExpression": "self.absent"}
    assert checked(spec({"n": INTEGER}, broken), {"spec": {"n": 5}})[0][2] == "Invalid value: fixed"


def test_a_rule_that_meets_a_missing_field_fails_the_write() -> None:
    ((where, _, text),) = checked(spec({"n": INTEGER, "max": INTEGER}, BOUND), {"spec": {"n": 1}})
    assert where == "spec"
    assert "max" in text


IMMUTABLE = spec({"name": {**STRING, rules.KEYWORD: [{"rule": "self == oldSelf", "message": "immutable"}]}})


def test_a_transition_rule_needs_an_old_value() -> None:
    assert checked(IMMUTABLE, {"spec": {"name": "a"}}) == []
    assert checked(IMMUTABLE, {"spec": {"name": "a"}}, {"spec": {}}) == []
    assert checked(IMMUTABLE, {"spec": {"name": "a"}}, {"spec": {"name": "a"}}) == []
    found = checked(IMMUTABLE, {"spec": {"name": "b"}}, {"spec": {"name": "a"}})
    assert found == [("spec.name", "FieldValueInvalid", "Invalid value: immutable")]


def test_an_optional_old_value_is_asked_at_creation_too() -> None:
    rule = {
        "rule": "oldSelf.hasValue() ? self.n >= oldSelf.value().n : self.n == 0",
        "optionalOldSelf": True,
    }
    schema = spec({"n": INTEGER}, rule)
    assert checked(schema, {"spec": {"n": 0}}) == []
    assert checked(schema, {"spec": {"n": 1}}) != []
    assert checked(schema, {"spec": {"n": 2}}, {"spec": {"n": 1}}) == []
    assert checked(schema, {"spec": {"n": 0}}, {"spec": {"n": 1}}) != []


def test_what_did_not_change_is_not_held_against_a_write() -> None:
    schema = spec({"n": INTEGER, "max": INTEGER}, BOUND)
    bad = {"spec": {"n": 2, "max": 1}}
    assert checked(schema, {**bad, "status": {}}, bad) == []
    assert checked(schema, {"spec": {"n": 3, "max": 1}}, bad) != []


def test_items_of_a_map_list_are_told_apart_by_their_keys() -> None:
    item = {
        "type": "object",
        "properties": {"name": STRING, "port": INTEGER},
        rules.KEYWORD: [{"rule": "self.port == oldSelf.port", "message": "kept"}],
    }
    ports = {
        "type": "array",
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
    }
    old = {"spec": {"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]}}
    new = {"spec": {"ports": [{"name": "b", "port": 2}, {"name": "a", "port": 9}]}}
    assert [where for where, _, _ in checked(spec({"ports": ports}), new, old)] == ["spec.ports[1]"]


def test_old_values_of_an_atomic_list_are_refused_in_the_definition() -> None:
    items = {"type": "object", "properties": {}, rules.KEYWORD: [{"rule": "self == oldSelf"}]}
    faults = rules.Faults()
    rules.compile_schema({"type": "array", "items": items}, "s", faults)
    assert [cause.field for cause in faults.causes] == [f"s.items.{rules.KEYWORD}[0].rule"]


def test_values_of_a_map_are_named_by_their_key() -> None:
    labels = {
        "type": "object",
        "additionalProperties": {**STRING, rules.KEYWORD: [{"rule": "self != ''", "message": "empty"}]},
    }
    found = checked(spec({"labels": labels}), {"spec": {"labels": {"a": "x", "b": ""}}})
    assert found[0][0] == "spec.labels[b]"


def test_names_that_are_no_identifiers_are_escaped() -> None:
    assert rules.escape("namespace") == "__namespace__"
    assert rules.escape("x-prop") == "x__dash__prop"
    assert rules.escape("a.b/c") == "a__dot__b__slash__c"
    assert rules.escape("redact__d") == "redact__underscores__d"
    schema = spec({"x-prop": INTEGER, "if": INTEGER}, {"rule": "self.x__dash__prop == self.__if__"})
    assert checked(schema, {"spec": {"x-prop": 1, "if": 1}}) == []


def test_at_the_root_only_the_names_of_metadata_are_seen() -> None:
    rule = {"rule": "self.metadata.name == 'a' && !has(self.metadata.labels)", "message": "no"}
    schema = {"type": "object", rules.KEYWORD: [rule]}
    assert checked(schema, {"metadata": {"name": "a", "labels": {"b": "c"}}}) == []
    assert checked(schema, {"metadata": {"name": "b"}})[0][0] == "<nil>"


def test_a_number_is_a_double_and_a_null_is_absent() -> None:
    schema = spec(
        {"n": {"type": "number"}, "gone": {"type": "string", "nullable": True}},
        {"rule": "self.n / 2.0 == 1.5 && !has(self.gone)"},
    )
    assert checked(schema, {"spec": {"n": 3, "gone": None}}) == []


@pytest.mark.parametrize(
    ("rule", "field", "text"),
    [
        ({"rule": "self.n >"}, "rule", "compilation failed"),
        ({"rule": "selff.n > 1"}, "rule", "undeclared reference"),
        ({"rule": "self.n.bogus()"}, "rule", "compilation failed"),
        ({"rule": "1 + 1"}, "rule", "must evaluate to a bool"),
        ({"rule": " "}, "rule", "Required value"),
        ({"rule": "true", "reason": "Whim"}, "reason", "Unsupported value"),
        ({"rule": "true", "message": "a\nb"}, "message", "line breaks"),
        ({"rule": "true", "fieldPath": ".absent"}, "fieldPath", "must be a valid path"),
        ({"rule": "true", "messageExpression": "1 + "}, "messageExpression", "compilation failed"),
        ({"rule": "'" + "x" * (cel.MAX_EXPRESSION + 1) + "' == ''"}, "rule", "at most"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_with_its_definition(rule: Json, field: str, text: str) -> None:
    faults = rules.Faults()
    rules.compile_schema(spec({"n": INTEGER}, rule), "s", faults)
    (cause,) = faults.causes
    assert cause.field == f"s.properties[spec].{rules.KEYWORD}[0].{field}"
    assert text in cause.text


def test_a_function_that_is_not_there_is_said_and_not_refused() -> None:
    faults = rules.Faults()
    node = rules.compile_schema(spec({"s": STRING}, {"rule": "self.s.find('a') == 'a'"}), "s", faults)
    assert (node, faults.causes) == (None, [])
    assert "not evaluated" in faults.warnings[0]


def test_formats_that_stay_strings_are_said() -> None:
    faults = rules.Faults()
    when = {"type": "string", "format": "date-time"}
    rules.compile_schema(spec({"when": when}, {"rule": "has(self.when)"}), "s", faults)
    assert "date-time" in faults.warnings[0]


def test_what_costs_too_much_is_refused_before_it_is_run() -> None:
    texts = {"type": "array", "items": STRING}
    schema = spec({"texts": texts}, {"rule": "self.texts.all(a, self.texts.all(b, a.contains(b)))"})
    ((where, _, text),) = checked(schema, {"spec": {"texts": ["x" * 60_000] * 150}})
    assert where == "<nil>"
    assert "cost budget" in text


def test_a_rule_has_a_number_of_iterations() -> None:
    numbers = {"type": "array", "items": INTEGER}
    rule = {"rule": "self.l.all(a, self.l.all(b, self.l.all(c, a + b + c >= 0)))", "message": "no"}
    ((_, _, text),) = checked(spec({"l": numbers}, rule), {"spec": {"l": list(range(100))}})
    assert "budget" in text


@pytest.mark.parametrize(
    "rule",
    [
        "quantity('1Gi').isGreaterThan(quantity(self.s)) == true",
        "isQuantity(self.s) && quantity(self.s).asInteger() == 12",
        "quantity('1').add(quantity('500m')) == quantity('1500m')",
        "quantity(self.s).compareTo(quantity('12')) == 0 && quantity(self.s).sign() == 1",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && !isIP(self.s)",
        "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.1.0.0/16').prefixLength() == 16",
        "ip('::1').isLoopback() && ip('::1').family() == 6",
        "url('https://a.b:80/c').getHostname() == 'a.b' && url('https://a.b:80/c').getPort() == '80'",
        "!isURL(self.s) && isCIDR('1.2.3.0/24')",
        "['a', 'b'].isSorted() && [1, 3].max() == 3 && [1, 3].min() == 1 && [1, 3].sum() == 4",
        "sets.equivalent(['a', 'a'], ['a']) && sets.intersects([1, 2], [2]) && sets.contains([1, 2], [1])",
        "self.?absent.orValue('x') == 'x' && 'a,b'.split(',').size() == 2",
        "self.s.matches('^[0-9]+$') && duration('1h') > duration('1m')",
    ],
)
def test_the_functions_of_kubernetes(rule: str) -> None:
    assert checked(spec({"s": STRING}, {"rule": rule}), {"spec": {"s": "12"}}) == []


def test_bad_input_of_a_function_fails_the_rule() -> None:
    rule = {"rule": "quantity(self.s).isInteger()", "message": "no"}
    ((_, _, text),) = checked(spec({"s": STRING}, rule), {"spec": {"s": "many"}})
    assert "quantities must match" in text


def test_replicas_of_a_scaled_kind() -> None:
    scale = ScalePaths(spec="spec.n", status="status.n")
    assert scale_faults(scale, {"spec": {"n": 3}}) == []
    assert scale_faults(scale, {"spec": {"n": -1}})[0].text.endswith("should be a non-negative integer")
    assert "accessor error" in scale_faults(scale, {"spec": {"n": "three"}})[0].text
    assert scale_faults(scale, {"spec": {"n": 2**31}})[0].field == ".spec.n"
