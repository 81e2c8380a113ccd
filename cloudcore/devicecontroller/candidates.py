"""What is to be written about found hardware: candidates as nodes see them, Devices of those that are accepted.  Pure.

| what is there                                          | what follows                                                  |
|--------------------------------------------------------|---------------------------------------------------------------|
| a node sees a thing and there is no candidate          | one is made, accepted at once if its rule says so             |
| it sees it otherwise (another device node)             | the candidate says so                                         |
| a node that reported does not see it                   | the candidate is Absent; its Device stays                     |
| nobody decided and its rule accepts                    | it is accepted; an explicit `accepted: false` stands          |
| it is accepted, its rule has a template, no Device yet | the Device is made                                            |
| it is accepted, and says itself what it can do         | a DeviceModel and the Device are made                         |
| it is back under another device node                   | what depends on that in its Device is brought up to date      |
| the Device that was made is deleted                    | the acceptance is taken back                                  |

A node that has not reported since this process began says nothing: its candidates stay as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from beehive.apis import hardware
from beehive.apis.hardware import CANDIDATE_ANNOTATION, Rule, Seen
from beehive.errors import ProtocolError
from cloudcore.objects import DEVICE, DEVICECANDIDATE, DEVICEMODEL, Kind, Object

Key = tuple[str, str]
MAX_CANDIDATES = 512
"""Of one node, those that are away included: a node that makes up identities must not fill the API."""


class _Status(msgspec.Struct, frozen=True, kw_only=True):
    phase: str = ""
    device: str = ""
    message: str = ""


class _Spec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    node_name: str = ""
    accepted: bool | None = None


class _Candidate(msgspec.Struct, frozen=True, kw_only=True):
    spec: _Spec = _Spec()
    status: _Status = _Status()


class _Raw(msgspec.Struct, frozen=True, kw_only=True):
    spec: Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A DeviceCandidate as the API holds it."""

    key: Key
    node: str
    seen: Seen
    accepted: bool | None
    phase: str
    device: str
    message: str


@dataclass(frozen=True, slots=True)
class Create:
    kind: Kind
    namespace: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Patch:
    """A merge patch."""

    kind: Kind
    key: Key
    body: dict[str, Any]
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class TakeBack:
    """The Device of this candidate seems to be gone: if the API agrees, so is the acceptance."""

    key: Key
    device: str


Action = Create | Patch | TakeBack


def read(item: Object) -> Candidate | None:
    """None for one that no node made: its name is not that of what it says."""
    try:
        said = item.decode(_Candidate)
        seen = msgspec.structs.replace(item.decode(_Raw).spec, rule_namespace=item.namespace)
    except ProtocolError:
        return None
    if hardware.object_name(said.spec.node_name, seen) != item.name:
        return None
    return Candidate(
        key=item.key,
        node=said.spec.node_name,
        seen=seen,
        accepted=said.spec.accepted,
        phase=said.status.phase,
        device=said.status.device,
        message=said.status.message,
    )


def plan(
    candidates: Mapping[Key, Candidate],
    seen: Mapping[str, list[Seen]],
    rules: Mapping[Key, Rule],
    device: Callable[[Key], Object | None],
    properties: Callable[[Key], list[str]],
    covered: Callable[[Candidate], bool] = lambda _: True,
) -> list[Action]:
    """seen: by node, of those that have reported.   properties: names of those that a model (by key) declares.

    covered: whether a candidate's node knows of such things."""
    actions: list[Action] = []
    there: dict[Key, Seen] = {}
    held = Counter(candidate.node for candidate in candidates.values())
    for node, things in seen.items():
        for thing in things:
            key = (thing.rule_namespace, hardware.object_name(node, thing))
            rule = rules.get((thing.rule_namespace, thing.rule_name))
            if rule is None or key in there:
                continue  # a rule that is gone or not known here yet
            there[key] = thing
            if key not in candidates and held[node] < MAX_CANDIDATES:
                held[node] += 1
                body = hardware.candidate_object(
                    node, thing, present=True, accepted=True if rule.accept else None
                )
                del body["status"]  # a subresource, which is written next
                actions.append(Create(DEVICECANDIDATE, key[0], body))
    for key, candidate in candidates.items():
        known = candidate.node in seen and covered(candidate)
        actions += _follow(candidate, there.get(key), known, rules, device, properties)
    return actions


def _follow(
    candidate: Candidate,
    thing: Seen | None,
    known: bool,  # noqa: FBT001  # between two functions of this file
    rules: Mapping[Key, Rule],
    device: Callable[[Key], Object | None],
    properties: Callable[[Key], list[str]],
) -> list[Action]:
    actions: list[Action] = []
    key = candidate.key
    rule = rules.get((key[0], candidate.seen.rule_name))
    spec: dict[str, Any] = {}
    if thing is not None and thing != candidate.seen:
        spec |= _merge(hardware.facts(candidate.seen), hardware.facts(thing))
    if candidate.accepted is None and rule is not None and rule.accept:
        spec["accepted"] = True
    if spec:
        actions.append(Patch(DEVICECANDIDATE, key, {"spec": spec}))
    phase = candidate.phase
    if thing is not None:
        phase = "Present"
    elif known:
        phase = "Absent"
    status = {"phase": phase, "device": candidate.device, "message": ""}
    if candidate.accepted and phase == "Present":
        made, device_name, message = _device(
            candidate, thing or candidate.seen, rule, device(key), properties
        )
        actions += made
        status |= {"device": device_name, "message": message}
    elif not candidate.accepted and candidate.device and device(key) is None:
        status["device"] = ""
    old = {"phase": candidate.phase, "device": candidate.device, "message": candidate.message}
    changed = {name: text for name, text in status.items() if text != old[name]}
    if changed:
        actions.append(Patch(DEVICECANDIDATE, key, {"status": changed}, "status"))
    return actions


def _device(
    candidate: Candidate,
    thing: Seen,
    rule: Rule | None,
    held: Object | None,
    properties: Callable[[Key], list[str]],
) -> tuple[list[Action], str, str]:
    """What is to be done about the Device of an accepted candidate, its name, and what is in the way."""
    key = candidate.key
    if rule is None:
        return [], candidate.device, f"there is no HardwareRule {candidate.seen.rule_name}"
    wanted = hardware.device_object(candidate.node, thing, rule)
    model = hardware.model_object(candidate.node, thing, rule)
    if wanted is None:
        return [], candidate.device, f"HardwareRule {rule.name} has no template to make a Device of"
    name = wanted["metadata"]["name"]
    if held is None:
        if candidate.device:
            return [TakeBack(key, candidate.device)], candidate.device, ""
        spec = wanted["spec"]
        if "properties" not in spec:  # then all that the model declares
            declared = properties((key[0], str((spec.get("deviceModelRef") or {}).get("name", ""))))
            if declared:
                spec["properties"] = [{"name": each, "reportToCloud": True} for each in declared]
        made: list[Action] = [Create(DEVICE, key[0], wanted)]
        if model is not None and properties(key):  # of a Device that was deleted
            made.insert(0, Patch(DEVICEMODEL, key, {"spec": model["spec"]}))
        elif model is not None:
            made.insert(0, Create(DEVICEMODEL, key[0], model))
        return made, name, ""
    body = held.decode(_Device)
    if (body.metadata.annotations or {}).get(CANDIDATE_ANNOTATION) != name:
        return [], "", f"there is a Device {name} already that was not made of it"
    varying = hardware.varying((rule.template or {}).get("protocol"), thing)
    if varying is not None and not _within(varying, body.spec.get("protocol")):
        return [Patch(DEVICE, key, {"spec": {"protocol": varying}})], name, ""
    return [], name, ""


class _Meta(msgspec.Struct, frozen=True, kw_only=True):
    annotations: dict[str, str] | None = None


class _Device(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _Meta = _Meta()
    spec: dict[str, Any] = {}


def _merge(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch that leads from one to the other."""
    patch: dict[str, Any] = dict.fromkeys(before.keys() - now.keys())
    for key, value in now.items():
        known = before.get(key)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            value = _merge(known, value)
            if not value:
                continue
        elif known == value:
            continue
        patch[key] = value
    return patch


def _within(part: Any, whole: Any) -> bool:
    """Whether everything of `part` is in `whole`."""
    if isinstance(part, Mapping) and isinstance(whole, Mapping):
        return all(key in whole and _within(value, whole[key]) for key, value in part.items())
    return bool(part == whole)
