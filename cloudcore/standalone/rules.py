"""`x-kubernetes-validations` of custom resources: which rules a schema has, and what they say of an object.

A schema's rules are compiled once into a tree of the nodes that have any (`compile_schema`); `evaluate` walks an object
along it.  Each run is charged for beforehand by the size of what it will see, because nothing can stop an expression
once it runs; a write whose rules cost more than BUDGET is refused, as Kubernetes does.
Source: apiextensions, pkg/apiserver/schema/cel/validation.go, and its documentation of validation rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cloudcore.standalone import cel
from cloudcore.standalone.status import Cause, invalid_value, required, unsupported

Json = dict[str, Any]
KEYWORD = "x-kubernetes-validations"
BUDGET = 50_000_000
"""Characters all rules of one write may look at, at worst: about half a second."""
MOST_ITERATIONS = 10_000
"""The library's own limit for one expression."""
REASONS = ("FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate")
BLOCKING = frozenset(
    {
        "FieldValueNotSupported",
        "FieldValueRequired",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueTypeInvalid",
    }
)
"""With such a fault an object's rules are not looked at."""
UNCHECKED = Cause(
    reason="FieldValueInvalid",
    field="<nil>",
    text="Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
)
_LOOPS = re.compile(r"\.\s*(all|exists|exists_one|map|filter|transformList|transformMap)\s*\(")
_WORDS = frozenset(
    [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STEP = re.compile(r"\.([A-Za-z_][\w-]*)|\['((?:[^'\\]|\\.)+)'\]")
STRINGS_ONLY = ("date-time", "date", "duration", "byte")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    program: cel.Program
    loops: int
    message: str
    message_program: cel.Program | None
    reason: str
    suffix: str


@dataclass(slots=True, kw_only=True)
class Node:
    """The rules of one place in a schema, and below it."""

    schema: Json
    rules: list[Rule] = field(default_factory=list)
    properties: dict[str, Node] = field(default_factory=dict)
    values: Node | None = None
    items: Node | None = None


@dataclass(slots=True)
class Faults:
    """What is wrong with the rules of a definition, and what of them is kept without effect."""

    causes: list[Cause] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def compile_schema(schema: Json, at: str = "", faults: Faults | None = None) -> Node | None:
    """The tree of all rules that can be evaluated; None when there are none.

    at: the path of the schema in its definition, for `faults`, which collects what is wrong."""
    found = Faults() if faults is None else faults
    return _compile(schema, at, found, correlated=True)


def _compile(schema: Json, at: str, faults: Faults, *, correlated: bool) -> Node | None:
    node = Node(schema=schema)
    rules = schema.get(KEYWORD)
    if isinstance(rules, list):
        for index, rule in enumerate(rules):
            made = _rule(rule, schema, f"{at}.{KEYWORD}[{index}]", faults, correlated=correlated)
            if made is not None:
                node.rules.append(made)
    below = correlated and schema.get("x-kubernetes-map-type") != "atomic"
    properties = schema.get("properties")
    for name, child in properties.items() if isinstance(properties, dict) else ():
        made_node = (
            _compile(child, f"{at}.properties[{name}]", faults, correlated=below)
            if isinstance(child, dict)
            else None
        )
        if made_node is not None:
            node.properties[name] = made_node
    if isinstance(schema.get("additionalProperties"), dict):
        node.values = _compile(
            schema["additionalProperties"], f"{at}.additionalProperties", faults, correlated=below
        )
    if isinstance(schema.get("items"), dict):
        keyed = correlated and schema.get("x-kubernetes-list-type") == "map"
        node.items = _compile(schema["items"], f"{at}.items", faults, correlated=keyed)
    return node if node.rules or node.properties or node.values or node.items else None


def _rule(rule: Any, schema: Json, at: str, faults: Faults, *, correlated: bool) -> Rule | None:
    if not isinstance(rule, dict):
        return None
    text = rule.get("rule") or ""
    optional = rule.get("optionalOldSelf") is True
    message = rule.get("message") or ""
    reason = rule.get("reason") or "FieldValueInvalid"
    before = len(faults.causes)
    if not text.strip():
        faults.causes.append(required(f"{at}.rule", "rule is not specified"))
    if "message" in rule and not message.strip():
        faults.causes.append(
            invalid_value(f"{at}.message", message, "message must be non-empty if specified")
        )
    if "\n" in message.strip():
        faults.causes.append(invalid_value(f"{at}.message", message, "message must not contain line breaks"))
    if "\n" in text.strip() and not message and not rule.get("messageExpression"):
        faults.causes.append(
            required(f"{at}.message", "message must be specified if rule contains line breaks")
        )
    if reason not in REASONS:
        faults.causes.append(unsupported(f"{at}.reason", reason, REASONS))
    suffix = _suffix(rule.get("fieldPath") or "", schema)
    if suffix is None:
        faults.causes.append(
            invalid_value(f"{at}.fieldPath", rule["fieldPath"], "fieldPath must be a valid path")
        )
    program = _program(text, f"{at}.rule", faults, wanted="bool", optional=optional) if text.strip() else None
    if program is not None and program.uses_old and not correlated:
        faults.causes.append(
            invalid_value(
                f"{at}.rule",
                text,
                "oldSelf cannot be used on the uncorrelatable portion of the schema",
            )
        )
    spoken = rule.get("messageExpression") or ""
    message_program = (
        _program(spoken, f"{at}.messageExpression", faults, wanted="string", optional=optional)
        if spoken.strip()
        else None
    )
    if len(faults.causes) > before or program is None or suffix is None:
        return None
    for name in sorted(_formats(schema) & set(STRINGS_ONLY)):
        warning = f"{KEYWORD}: values of format {name} are strings to the rules of this server"
        if warning not in faults.warnings:
            faults.warnings.append(warning)
    return Rule(
        program=program,
        loops=len(_LOOPS.findall(text)),
        message=message.strip() or f"failed rule: {text.strip()}",
        message_program=message_program,
        reason=reason,
        suffix=suffix,
    )


def _program(text: str, at: str, faults: Faults, *, wanted: str, optional: bool) -> cel.Program | None:
    try:
        program = cel.compile_expression(text.strip(), optional_old=optional)
    except cel.CelMissing as error:
        warning = f"{KEYWORD} are kept but not evaluated: {error}"
        if warning not in faults.warnings:
            faults.warnings.append(warning)
        return None
    except cel.CelError as error:
        unknown = cel.ABSENT_FUNCTIONS.search(text)
        if unknown is not None:
            faults.warnings.append(
                f"{at} is kept but not evaluated: this server has no {unknown[0].strip('( ')}"
            )
        else:
            faults.causes.append(invalid_value(at, text, f"compilation failed: {error}"))
        return None
    if program.returns not in (wanted, "dyn"):
        faults.causes.append(invalid_value(at, text, f"cel expression must evaluate to a {wanted}"))
        return None
    return program


def _formats(schema: Any) -> set[str]:
    """The formats of strings anywhere in a schema."""
    if isinstance(schema, dict):
        own = {schema["format"]} if isinstance(schema.get("format"), str) else set()
        return own.union(*(_formats(item) for name, item in schema.items() if name != "default"))
    return set()


def _suffix(path: str, schema: Json) -> str | None:
    """`path` of a rule, if it leads to a field that the schema knows."""
    place, end = schema, 0
    for step in _STEP.finditer(path):
        if step.start() != end:
            return None
        end = step.end()
        name = step[1] or step[2]
        child = (place.get("properties") or {}).get(name)
        if not isinstance(child, dict):
            child = place.get("additionalProperties")
        if not isinstance(child, dict):
            return None
        place = child
    return path if end == len(path) else None


# evaluation ------------------------------------------------------------------------------------------


class _Spent(Exception):
    pass


@dataclass(slots=True)
class _Purse:
    left: int = BUDGET

    def pay(self, price: int) -> None:
        self.left -= price
        if self.left < 0:
            raise _Spent


def evaluate(node: Node, body: Json, old: Json | None) -> list[Cause]:
    """What the rules say of a whole object, which is valid by its schema; `old` is what it replaces.

    A rule on something that did not change since is not held against a write, unless the rule speaks of oldSelf."""
    causes: list[Cause] = []
    purse = _Purse()
    try:
        for cause in _walk(node, _bare(body), None if old is None else _bare(old), "", purse, root=True):
            causes.append(cause)
    except _Spent:
        causes.append(
            Cause(
                reason="FieldValueInvalid",
                field="<nil>",
                text="Invalid value: validation failed due to running out of cost budget, no further validation "
                "rules will be run",
            )
        )
    return causes


def _bare(body: Json) -> Json:
    """Of metadata, rules see the names only."""
    metadata = body.get("metadata") or {}
    names = {name: metadata[name] for name in ("name", "generateName") if name in metadata}
    return {**body, "metadata": names}


_NOTHING = object()


def _walk(
    node: Node, value: Any, old: Any, path: str, purse: _Purse, *, root: bool = False
) -> Iterator[Cause]:
    if value is None:
        return
    unchanged = old is not None and old == value
    rules = [rule for rule in node.rules if rule.program.uses_old or not unchanged]
    if rules:
        seen, measure = _seen(node.schema, value, root=root)
        before = None if old is None else _seen(node.schema, old, root=root)[0]
        for rule in rules:
            if rule.program.uses_old and old is None and not rule.program.optional_old:
                continue
            purse.pay(measure.price(rule.loops))
            cause = _ask(rule, seen, before, path, has_old=old is not None)
            if cause is not None:
                yield cause
    if isinstance(value, dict):
        was = old if isinstance(old, dict) else {}
        for name, child in node.properties.items():
            if name in value:
                yield from _walk(child, value[name], was.get(name), f"{path}.{name}" if path else name, purse)
        if node.values is not None:
            for name, item in value.items():
                if name not in (node.schema.get("properties") or {}):
                    yield from _walk(node.values, item, was.get(name), f"{path}[{name}]", purse)
    elif isinstance(value, list) and node.items is not None:
        previous = _by_key(node.schema, old)
        for index, item in enumerate(value):
            yield from _walk(
                node.items, item, previous.get(_key(node.schema, item)), f"{path}[{index}]", purse
            )


def _key(schema: Json, item: Any) -> str:
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    return repr([item.get(key) for key in keys]) if isinstance(item, dict) else ""


def _by_key(schema: Json, old: Any) -> dict[str, Any]:
    """The items of a list that can be told apart: only those of a map list."""
    if schema.get("x-kubernetes-list-type") != "map" or not isinstance(old, list):
        return {}
    return {_key(schema, item): item for item in old}


def _ask(rule: Rule, seen: Any, before: Any, path: str, *, has_old: bool) -> Cause | None:
    where = (path + rule.suffix).lstrip(".") or "<nil>"
    try:
        good = rule.program.evaluate(seen, before, has_old=has_old)
    except cel.CelError as error:
        text = f"Invalid value: rule evaluation failed: {error} evaluating rule: {rule.message}"
        return Cause(reason="FieldValueInvalid", field=where, text=text)
    if good is True:
        return None
    if good is not False:
        text = f"Invalid value: the rule did not give a bool: {rule.message}"
        return Cause(reason="FieldValueInvalid", field=where, text=text)
    message = rule.message
    if rule.message_program is not None:
        try:
            said = rule.message_program.evaluate(seen, before, has_old=has_old)
        except cel.CelError:
            said = None  # the fixed message stands in, as in Kubernetes
        if isinstance(said, str) and said.strip() and "\n" not in said.strip() and len(said) <= 5 * 1024:
            message = said.strip()
    text = {
        "FieldValueForbidden": f"Forbidden: {message}",
        "FieldValueRequired": f"Required value: {message}",
        "FieldValueDuplicate": "Duplicate value",
    }.get(rule.reason, f"Invalid value: {message}")
    return Cause(reason=rule.reason, field=where, text=text)


@dataclass(slots=True)
class _Measure:
    """How large a value is: all of it, its longest string, its largest list or map."""

    total: int = 1
    longest: int = 1
    widest: int = 1

    def price(self, loops: int) -> int:
        once = self.total // 8 + self.longest
        if not loops:
            return once
        rounds = MOST_ITERATIONS if loops > 3 else min(int(self.widest**loops), MOST_ITERATIONS)
        return once + self.longest * rounds


def _seen(schema: Json, value: Any, *, root: bool = False) -> tuple[Any, _Measure]:
    measure = _Measure()
    return _convert(schema, value, measure, root=root), measure


def _convert(schema: Json, value: Any, measure: _Measure, *, root: bool = False) -> Any:
    """A value as rules see it: known fields only, names that are no identifiers escaped, numbers of the right kind."""
    measure.total += 1
    if isinstance(value, str):
        measure.total += len(value)
        measure.longest = max(measure.longest, len(value))
        return value
    if isinstance(value, list):
        measure.widest = max(measure.widest, len(value))
        items = schema.get("items")
        below = items if isinstance(items, dict) else {}
        return [_convert(below, item, measure) for item in value]
    if isinstance(value, dict):
        return _convert_map(schema, value, measure, root=root)
    if schema.get("type") == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if schema.get("type") == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _convert_map(schema: Json, value: Json, measure: _Measure, *, root: bool) -> Json:
    measure.widest = max(measure.widest, len(value))
    properties = schema.get("properties") or {}
    extra = schema.get("additionalProperties")
    typed = bool(properties) or isinstance(extra, dict) or bool(schema.get("type"))
    whole = root or schema.get("x-kubernetes-embedded-resource") is True
    found: Json = {}
    for name, item in value.items():
        if name in properties or (whole and name in ("apiVersion", "kind", "metadata")):
            if item is not None:  # a null of a nullable field is a field that is not there
                child = properties.get(name) if not (whole and name == "metadata") else None
                found[escape(name)] = _convert(child if isinstance(child, dict) else {}, item, measure)
        elif isinstance(extra, dict):
            found[name] = _convert(extra, item, measure)
        elif not typed:
            found[name] = _convert({}, item, measure)
    return found


def escape(name: str) -> str:
    """The identifier by which rules reach a property; names that cannot be one stay as they are, unreachable."""
    if name in _WORDS:
        return f"__{name}__"
    if _NAME.fullmatch(name) and "__" not in name:
        return name
    text = name.replace("__", "__underscores__").replace(".", "__dot__")
    return text.replace("-", "__dash__").replace("/", "__slash__")
