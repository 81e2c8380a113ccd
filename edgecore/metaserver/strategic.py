"""Two strategic merge patches of one object as one, so that a write that waits stays one write.  Pure.

The one does to any object what the two do in turn.  Where that cannot be said (a list whose item was removed and made anew; a
map of which only some keys are retained) the list or map is sent whole, as it is shown here after both.

Source: apimachinery, pkg/util/strategicpatch/patch.go."""

from __future__ import annotations

from typing import Any

from beehive.jsonpatch import PatchError
from beehive.mergekeys import child, is_set, merge_key
from beehive.strategicpatch import DELETE, DIRECTIVE, MAX_DEPTH, ORDER, RETAIN, listed, mark, names, replaces

Json = dict[str, Any]


class CannotJoin(Exception):
    """No one patch says what the two do; the text says of what."""


def from_merge_patch(patch: Json, model: str | None, depth: int = 0) -> Json:
    """A merge patch, for which every list is one value, as a strategic one.  Raises CannotJoin, PatchError (too deep)."""
    if depth > MAX_DEPTH:
        raise PatchError(f"the patch has more than {MAX_DEPTH} levels")
    made: Json = {}
    for name, value in patch.items():
        if isinstance(value, dict):
            made[name] = from_merge_patch(value, child(model, name), depth + 1)
        elif isinstance(value, list) and is_set(model, name):
            raise CannotJoin(f"a merge patch that sets all of {name}")
        elif isinstance(value, list) and merge_key(model, name) is not None:
            made[name] = _whole_list(value)
        else:
            made[name] = value
    return made


def join(first: Json, second: Json, after: Json, model: str) -> Json:
    """One patch for two.   after: what is shown once both are applied.

    Raises CannotJoin; PatchError: one is no strategic merge patch."""
    made = _maps(first, second, after, model)
    if made is None:
        raise CannotJoin("a patch of the object as a whole")
    return made


def _maps(first: Json, second: Json, after: Any, model: str | None) -> Json | None:
    """None: only the whole map, as it is afterwards, says it."""
    if second.get(DIRECTIVE) in ("replace", "delete"):
        return second
    if RETAIN in first or RETAIN in second or first.get(DIRECTIVE) in ("replace", "delete"):
        return None
    after = after if isinstance(after, dict) else {}
    both: Json = {}
    for name in [*first, *(name for name in second if name not in first)]:
        if name == DIRECTIVE or name.startswith((ORDER, DELETE)):
            continue
        if name in first and name in second:
            both[name] = _values(first[name], second[name], after.get(name), model, name)
        else:
            both[name] = first[name] if name in first else second[name]
    _join_deletes(both, first, second)
    _join_orders(both, first, second, after, model)
    return both


def _values(first: Any, second: Any, after: Any, model: str | None, name: str) -> Any:
    if isinstance(second, dict):
        if isinstance(first, dict):
            made = _maps(first, second, after, child(model, name))
            return made if made is not None else _whole_map(after)
        return _whole_map(after) if first is None else second
    if isinstance(second, list):
        key = merge_key(model, name)
        if key is not None:
            made_list = (
                _lists(first, second, after, key, child(model, name)) if isinstance(first, list) else None
            )
            return made_list if made_list is not None else _whole_list(listed(after))
        if is_set(model, name):
            if not isinstance(first, list):
                raise CannotJoin(f"one removes all of {name}, the other adds to it")
            seen = {mark(item) for item in first}
            return first + [item for item in second if mark(item) not in seen]
    return second


def _whole_map(after: Any) -> Json | None:
    return {DIRECTIVE: "replace", **after} if isinstance(after, dict) else None


def _whole_list(after: list[Any]) -> list[Any]:
    return [{DIRECTIVE: "replace"}, *after]


def _lists(first: list[Any], second: list[Any], after: Any, key: str, model: str | None) -> list[Any] | None:
    """None: only the whole list, as it is afterwards, says it."""
    if replaces(second):
        return second
    if replaces(first):
        return None
    there = dict(zip(names(listed(after), key), listed(after), strict=True))
    found: dict[Any, Json] = {}
    for item in first:
        name = _name(item, key)
        if name in found:
            return None  # deleted and made anew by one patch
        found[name] = item
    for item in second:
        name = _name(item, key)
        old = found.get(name)
        if old is None or item.get(DIRECTIVE) == "delete":
            found[name] = item
            continue
        made = None if old.get(DIRECTIVE) == "delete" else _maps(old, item, there.get(name), model)
        if made is None or made.get(DIRECTIVE) == "replace":
            return None
        found[name] = made
    # without an order of its own, a patch's items come in the order it lists them
    at = {name: number for number, name in enumerate(there)}
    return [item for _, item in sorted(found.items(), key=lambda pair: at.get(pair[0], len(at)))]


def _name(item: Any, key: str) -> Any:
    if not isinstance(item, dict) or key not in item:
        raise PatchError(f"an item of a list does not contain declared merge key: {key}")
    return mark(item[key])


def _join_deletes(both: Json, first: Json, second: Json) -> None:
    """What is taken out of sets: an addition after it counts, and it counts after an addition."""
    for name in {key for key in (*first, *second) if key.startswith(DELETE)}:
        field = name.removeprefix(DELETE)
        added = set(names(listed(second.get(field)), None))
        gone = listed(second.get(name))
        taken = set(names(gone, None))
        before = [item for item in listed(first.get(name)) if mark(item) not in added | taken]
        both[name] = before + gone
        if isinstance(both.get(field), list):
            both[field] = [item for item in both[field] if mark(item) in added or mark(item) not in taken]


def _join_orders(both: Json, first: Json, second: Json, after: Json, model: str | None) -> None:
    """The order of what both name is the one that is shown after both."""
    for name in {key for key in (*first, *second) if key.startswith(ORDER)}:
        field = name.removeprefix(ORDER)
        key = merge_key(model, field)
        items = listed(both.get(field))
        if replaces(items) or (field in both and not isinstance(both[field], list)):
            continue  # it is all there is, and in its order; or nothing is
        named = {
            *names(items, key),
            *(n for patch in (first, second) for n in names(listed(patch.get(name)), key)),
        }
        shown = listed(after.get(field))
        both[name] = [
            {key: item[key]} if key is not None else item
            for mark_of, item in zip(names(shown, key), shown, strict=True)
            if mark_of in named and (key is None or (isinstance(item, dict) and key in item))
        ]
        if key is not None and field in both:
            both[field] = _in_order(items, names(both[name], key), key)


def _in_order(items: list[Any], order: list[Any], key: str) -> list[Any]:
    at = {name: number for number, name in enumerate(order)}
    return sorted(items, key=lambda item: at.get(_name(item, key), len(at)))
