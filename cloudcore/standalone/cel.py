"""The Common Expression Language: compile an expression, evaluate it on values.  The only file that imports its library.

The library is loaded when the first rule is compiled (14 MB), so a cluster whose definitions have no rules never pays.
Evaluation is bounded by the library: 10,000 iterations per expression, regular expressions in linear time (RE2).
Lists, sets, quantities, addresses and URLs are Kubernetes' own functions, given here.  Not given: `find`, `findAll`,
`format.*`, `semver`, `indexOf` of lists.  Timestamps, durations and bytes inside objects stay strings.
Source: Kubernetes, apiserver/pkg/cel/library."""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from cloudcore.standalone import quantity

Json = dict[str, Any]
ABSENT_FUNCTIONS = re.compile(r"\b(find|findAll|semver|isSemver)\s*\(|\bformat\.\w")
"""What Kubernetes knows and this server does not: such a rule is kept and not evaluated."""
MAX_EXPRESSION = 16 * 1024
"""Characters of one expression; real ones have under 2,000."""
OLD = "oldSelf"
_OLD_NAME = re.compile(r"(?<![\w.])oldSelf\b")
_OPTIONAL_OLD = "(oldSelf.size() > 0 ? optional.of(oldSelf[0]) : optional.none())"


class CelError(Exception):
    """An expression that cannot be compiled, or that met a value it cannot work with."""


class CelMissing(Exception):
    """The library is not installed on this machine."""


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled expression.  `returns`: the name of the type it gives, `dyn` when only a run can tell."""

    text: str
    returns: str
    uses_old: bool
    optional_old: bool
    expression: Any

    def evaluate(self, value: Any, old: Any = None, *, has_old: bool = False) -> Any:
        """A bool, string, number, None, list or map.  Raises CelError."""
        bound = {"self": value}
        if self.optional_old:
            bound[OLD] = [old] if has_old else []
        elif self.uses_old:
            bound[OLD] = old
        try:
            result = self.expression.eval(data=bound)
            found = result.plain_value()
        except (RuntimeError, TypeError, ValueError) as error:
            raise CelError(_short(str(error))) from error
        if result.type().name() == "ERROR":
            raise CelError(_short(str(found)))
        return found


@lru_cache(maxsize=4096)
def compile_expression(text: str, *, optional_old: bool = False) -> Program:
    """Variables are `self` and `oldSelf`.  Raises CelError, CelMissing."""
    if len(text) > MAX_EXPRESSION:
        raise CelError(f"an expression may have at most {MAX_EXPRESSION} characters")
    uses_old = _OLD_NAME.search(text) is not None
    source = _OLD_NAME.sub(_OPTIONAL_OLD, text) if optional_old else text
    try:
        expression = _environment().compile(source)
    except (RuntimeError, TypeError, ValueError) as error:
        raise CelError(_short(str(error))) from error
    return Program(text, expression.return_type().name().lower(), uses_old, optional_old, expression)


def _short(text: str) -> str:
    return text.partition("\n")[0].removeprefix("INVALID_ARGUMENT: ")[:400]


@lru_cache(maxsize=1)
def _environment() -> Any:
    try:
        from cel_expr_python import cel
        from cel_expr_python.ext import ext_optional, ext_strings
    except ImportError as error:
        raise CelMissing(f"cel-expr-python is not installed here: {error}") from error
    kinds = cel.Type
    dyn, listing = kinds.DYN, kinds.List(kinds.DYN)
    types = {
        "any": dyn,
        "list": listing,
        "map": kinds.Map(kinds.STRING, dyn),
        "string": kinds.STRING,
        "int": kinds.INT,
        "bool": kinds.BOOL,
        "double": kinds.DOUBLE,
    }
    declared: dict[str, list[Any]] = {}
    for signature, function in FUNCTIONS.items():
        name, takes, gives = signature.split()
        receiver = name.startswith(".")
        name = name.removeprefix(".")
        parameters = [types[item] for item in takes.split(",") if item]
        declared.setdefault(name, []).append(
            cel.Overload(
                signature.replace(" ", "_").strip("."),
                return_type=types[gives],
                parameters=parameters,
                is_member=receiver,
                impl=function,
            )
        )
    return cel.NewEnv(
        variables={"self": dyn, OLD: dyn},
        extensions=[ext_strings.ExtStrings(), ext_optional.ExtOptional()],
        functions=[cel.FunctionDecl(name, overloads) for name, overloads in declared.items()],
    )


# Kubernetes' functions.  Quantities, addresses and URLs are maps of one text: equal when their canonical texts are. ----


def _is_sorted(items: Sequence[Any]) -> bool:
    return all(one <= other for one, other in itertools.pairwise(items))


def _least(items: Sequence[Any]) -> Any:
    if not items:
        raise ValueError("min called on empty list")
    return min(items)


def _most(items: Sequence[Any]) -> Any:
    if not items:
        raise ValueError("max called on empty list")
    return max(items)


def _contains(items: Sequence[Any], others: Sequence[Any]) -> bool:
    return all(other in items for other in others)


def _written(amount: Decimal) -> Json:
    return {"quantity": str(amount.normalize())}


def _quantity(text: str) -> Json:
    return _written(quantity.parse(text))


def _is_quantity(text: str) -> bool:
    try:
        quantity.parse(text)
    except quantity.BadQuantity:
        return False
    return True


def _amount(value: Mapping[str, Any] | int) -> Decimal:
    return Decimal(value) if isinstance(value, int) else Decimal(value["quantity"])


def _sum_of(one: Json, other: Json | int) -> Json:
    return _written(_amount(one) + _amount(other))


def _difference(one: Json, other: Json | int) -> Json:
    return _written(_amount(one) - _amount(other))


def _compare(one: Json, other: Json) -> int:
    left, right = _amount(one), _amount(other)
    return (left > right) - (left < right)


def _is_whole(value: Json) -> bool:
    amount = _amount(value)
    return abs(amount) < 2**63 and amount == amount.to_integral_value()


def _whole(value: Json) -> int:
    if not _is_whole(value):
        raise ValueError("cannot convert value to integer")
    return int(_amount(value))


def _sign(value: Json) -> int:
    amount = _amount(value)
    return (amount > 0) - (amount < 0)


def _address(text: str) -> Json:
    return {"ip": str(ipaddress.ip_address(text))}


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _network(text: str) -> Json:
    if "/" not in text:
        raise ValueError(f"network address parse error: {text!r} has no length")
    return {"cidr": str(ipaddress.ip_interface(text))}


def _is_network(text: str) -> bool:
    try:
        _network(text)
    except ValueError:
        return False
    return True


def _net(value: Json) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(value["cidr"], strict=False)


def _contains_address(value: Json, other: Json | str) -> bool:
    return ipaddress.ip_address(other if isinstance(other, str) else other["ip"]) in _net(value)


def _contains_network(value: Json, other: Json | str) -> bool:
    inner = _net({"cidr": other} if isinstance(other, str) else other)
    outer = _net(value)
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _version(value: Json) -> int:
    return ipaddress.ip_address(value["ip"]).version


def _url(text: str) -> Json:
    parts = urlsplit(text)
    if not (parts.scheme and parts.netloc) and not text.startswith("/"):
        raise ValueError(f"URL parse error: {text!r} is not an absolute URL")
    _ = parts.port
    return {"url": text}


def _is_url(text: str) -> bool:
    try:
        _url(text)
    except ValueError:
        return False
    return True


def _host(value: Json) -> str:
    return urlsplit(value["url"]).netloc.rpartition("@")[2]


def _port(value: Json) -> str:
    port = urlsplit(value["url"]).port
    return "" if port is None else str(port)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    ".isSorted list bool": _is_sorted,
    ".sum list any": sum,
    ".min list any": _least,
    ".max list any": _most,
    "sets.contains list,list bool": _contains,
    "sets.intersects list,list bool": lambda one, other: any(item in other for item in one),
    "sets.equivalent list,list bool": lambda one, other: _contains(one, other) and _contains(other, one),
    "quantity string map": _quantity,
    "isQuantity string bool": _is_quantity,
    ".isLessThan map,map bool": lambda one, other: _compare(one, other) < 0,
    ".isGreaterThan map,map bool": lambda one, other: _compare(one, other) > 0,
    ".compareTo map,map int": _compare,
    ".add map,map map": _sum_of,
    ".add map,int map": _sum_of,
    ".sub map,map map": _difference,
    ".sub map,int map": _difference,
    ".sign map int": _sign,
    ".isInteger map bool": _is_whole,
    ".asInteger map int": _whole,
    ".asApproximateFloat map double": lambda value: float(_amount(value)),
    "ip string map": _address,
    "isIP string bool": _is_address,
    ".family map int": _version,
    ".isLoopback map bool": lambda value: ipaddress.ip_address(value["ip"]).is_loopback,
    ".isUnspecified map bool": lambda value: ipaddress.ip_address(value["ip"]).is_unspecified,
    ".isLinkLocalUnicast map bool": lambda value: ipaddress.ip_address(value["ip"]).is_link_local,
    "cidr string map": _network,
    "isCIDR string bool": _is_network,
    ".containsIP map,map bool": _contains_address,
    ".containsIP map,string bool": _contains_address,
    ".containsCIDR map,map bool": _contains_network,
    ".containsCIDR map,string bool": _contains_network,
    ".prefixLength map int": lambda value: _net(value).prefixlen,
    ".ip map map": lambda value: {"ip": value["cidr"].partition("/")[0]},
    ".masked map map": lambda value: {"cidr": str(_net(value))},
    "url string map": _url,
    "isURL string bool": _is_url,
    ".getScheme map string": lambda value: urlsplit(value["url"]).scheme,
    ".getHost map string": _host,
    ".getHostname map string": lambda value: urlsplit(value["url"]).hostname or "",
    ".getPort map string": _port,
    ".getEscapedPath map string": lambda value: urlsplit(value["url"]).path,
}
"""`name parameters result`; a dot before the name makes the first parameter the receiver."""
