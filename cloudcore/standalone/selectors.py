"""Label selectors and field selectors: parse once, match often.  Pure.

Source: apimachinery, pkg/labels/selector.go and pkg/fields; texts of errors from the recordings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_TOKEN = re.compile(r"\s*(!=|==|=|!|\(|\)|,|<|>|[^\s!=(),<>]+)")
LabelMatch = Callable[[Mapping[str, str]], bool]


class BadSelector(ValueError):
    """The selector cannot be parsed; the text is the one Kubernetes gives."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label.  `operator`: in, notin, exists, absent, gt, lt."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value is not None and value in self.values
            case "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "absent":
                return value is None
            case _:
                (bound,) = self.values
                try:
                    number = int(value or "")
                except ValueError:
                    return False
                return number > int(bound) if self.operator == "gt" else number < int(bound)


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All requirements must hold; none means everything matches."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)

    def __bool__(self) -> bool:
        return bool(self.requirements)


EVERYTHING = LabelSelector()


def parse_labels(text: str) -> LabelSelector:
    """`a=b,c!=d,e in (f,g),!h,i>3`.  Raises BadSelector."""
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != re.sub(r"\s+", "", text):
        raise BadSelector(f"unable to parse requirement: unexpected text in {text!r}")
    found: list[Requirement] = []
    at = 0

    def peek() -> str:
        return tokens[at] if at < len(tokens) else ""

    while at < len(tokens):
        negated = peek() == "!"
        at += negated
        key = peek()
        if not key or key in ",()=<>!" or key in ("==", "!="):
            raise BadSelector(f"unable to parse requirement: found '{key}', expected: identifier")
        _check_key(key)
        at += 1
        if negated:
            found.append(Requirement(key, "absent"))
        elif peek() in ("", ","):
            found.append(Requirement(key, "exists"))
        elif peek() in ("=", "==", "!="):
            operator = "notin" if peek() == "!=" else "in"
            at += 1
            value = "" if peek() in ("", ",") else peek()
            at += value != ""
            found.append(Requirement(key, operator, frozenset({value})))
        elif peek() in ("<", ">"):
            operator = "gt" if peek() == ">" else "lt"
            at += 1
            if not peek().lstrip("-").isdigit():
                raise BadSelector(f"for 'Gt', 'Lt' operators, the value must be an integer: {peek()!r}")
            found.append(Requirement(key, operator, frozenset({peek()})))
            at += 1
        elif peek() in ("in", "notin"):
            operator = peek()
            at += 1
            if peek() != "(":
                raise BadSelector(f"unable to parse requirement: found '{peek()}', expected: '('")
            at += 1
            values: set[str] = set()
            while True:
                item = peek()
                if item == "":
                    raise BadSelector(
                        "unable to parse requirement: found '', expected: ',', ')' or identifier"
                    )
                at += 1
                if item == ")":
                    break
                if item != ",":
                    values.add(item)
                    if peek() not in (",", ")"):
                        raise BadSelector(
                            f"unable to parse requirement: found '{peek()}', expected: ',' or ')'"
                        )
            found.append(Requirement(key, operator, frozenset(values or {""})))
        else:
            raise BadSelector(
                f"unable to parse requirement: found '{peek()}', expected: in, notin, =, ==, !=, gt, lt"
            )
        if peek() == ",":
            at += 1
            if at == len(tokens):
                raise BadSelector("found '', expected: identifier after ','")
        elif peek():
            raise BadSelector(f"found '{peek()}', expected: ',' or 'end of string'")
    return LabelSelector(tuple(found))


_KEY = re.compile(r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")


def _check_key(key: str) -> None:
    if not _KEY.match(key):
        raise BadSelector(f"unable to parse requirement: <nil>: Invalid value: {key!r}: not a label key")


def from_object(selector: Mapping[str, Any] | None) -> LabelSelector | None:
    """A metav1.LabelSelector.  None selects nothing, an empty one everything.  Raises BadSelector."""
    if selector is None:
        return None
    found = [
        Requirement(key, "in", frozenset({value}))
        for key, value in (selector.get("matchLabels") or {}).items()
    ]
    names = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "absent"}
    for item in selector.get("matchExpressions") or []:
        operator = names.get(item.get("operator", ""))
        if operator is None:
            raise BadSelector(f"{item.get('operator')!r} is not a valid label selector operator")
        found.append(Requirement(item.get("key", ""), operator, frozenset(item.get("values") or ())))
    return LabelSelector(tuple(found))


def to_text(selector: Mapping[str, Any] | None) -> str:
    """A metav1.LabelSelector as kubectl prints it."""
    if not selector:
        return "<none>"
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for item in selector.get("matchExpressions") or []:
        key, operator = item.get("key", ""), item.get("operator")
        values = ",".join(item.get("values") or ())
        if operator == "Exists":
            parts.append(key)
        elif operator == "DoesNotExist":
            parts.append(f"!{key}")
        else:
            parts.append(f"{key} {'in' if operator == 'In' else 'notin'} ({values})")
    return ",".join(parts) or "<none>"


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """(path, value, equal?) terms that must all hold."""

    terms: tuple[tuple[str, str, bool], ...] = ()

    def matches(self, fields: Mapping[str, str]) -> bool:
        return all((fields.get(path, "") == value) is equal for path, value, equal in self.terms)

    def single(self, path: str) -> str | None:
        """The value that `path` must have, if the selector says so."""
        return next((value for name, value, equal in self.terms if name == path and equal), None)

    def __bool__(self) -> bool:
        return bool(self.terms)


ANY_FIELD = FieldSelector()


def parse_fields(text: str, supported: frozenset[str]) -> FieldSelector:
    """`a.b=c,d!=e`.  Raises BadSelector for bad syntax or a path that is not in `supported`."""
    terms = []
    for part in (item for item in text.split(",") if item.strip()):
        mark = next((mark for mark in ("!=", "==", "=") if mark in part), None)
        if mark is None:
            raise BadSelector(f"invalid selector: '{text}'; can't understand '{part}'")
        path, _, value = part.partition(mark)
        path = path.strip()
        if path not in supported:
            raise BadSelector(f"field label not supported: {path}")
        terms.append((path, value.strip(), mark != "!="))
    return FieldSelector(tuple(terms))


_COMMON = ("metadata.name", "metadata.namespace")
FIELDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "pods"): (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ),
    ("", "nodes"): ("spec.unschedulable",),
    ("", "namespaces"): ("status.phase",),
    ("", "secrets"): ("type",),
    ("", "services"): ("spec.clusterIP", "spec.type"),
    ("", "events"): (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    ("apps", "replicasets"): ("status.replicas",),
    ("batch", "jobs"): ("status.successful",),
    ("certificates.k8s.io", "certificatesigningrequests"): ("spec.signerName",),
}
"""Beside metadata.name and metadata.namespace: what may be selected by, per kind."""


def supported_fields(key: tuple[str, str], extra: tuple[str, ...] = ()) -> frozenset[str]:
    regarding = tuple(
        path.replace("involvedObject", "regarding") for path in FIELDS.get(key, ()) if path[:8] == "involved"
    )
    return frozenset((*_COMMON, *FIELDS.get(key, ()), *regarding, *extra))


def field_values(
    key: tuple[str, str], body: Mapping[str, Any], extra: tuple[str, ...] = ()
) -> dict[str, str]:
    """The selectable fields of one object, without name and namespace (the store knows those)."""
    found: dict[str, str] = {}
    for path in (*FIELDS.get(key, ()), *extra):
        value: Any = body
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if path == "source" and key == ("", "events"):
            value = (body.get("source") or {}).get("component") or body.get("reportingComponent")
        if path == "status.podIPs":
            value = ",".join(item.get("ip", "") for item in value or ())
        if path in ("spec.unschedulable", "spec.hostNetwork"):
            value = "true" if value else "false"
        if value is None:
            value = "0" if path in ("status.replicas", "status.successful") else ""
        found[path] = value if isinstance(value, str) else ("true" if value is True else str(value))
    return found
