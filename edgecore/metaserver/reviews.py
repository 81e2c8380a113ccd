"""What callers ask about themselves: who they are here, and what they may do.  Answered here, link or no link: it is this API
that says yes or no.

Source: Kubernetes, authorization/v1 SelfSubjectAccessReview and SelfSubjectRulesReview, authentication/v1 SelfSubjectReview."""

from __future__ import annotations

from typing import Any

import msgspec

from beehive.message import UNREADABLE
from beehive.rbac import Rule
from edgecore.metaserver import status
from edgecore.metaserver.access import Access, Caller
from edgecore.metaserver.request import Info

Json = dict[str, Any]
_ACCESS, _RULES, _WHO = "selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"
_KINDS = frozenset(
    {("authorization.k8s.io", _ACCESS), ("authorization.k8s.io", _RULES), ("authentication.k8s.io", _WHO)}
)


class _ResourceAttributes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    verb: str = ""
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""


class _PathAttributes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    verb: str = ""
    path: str = ""


class _AccessSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    resource_attributes: _ResourceAttributes | None = None
    non_resource_attributes: _PathAttributes | None = None


class _AccessReview(msgspec.Struct, frozen=True, kw_only=True):
    spec: _AccessSpec


class _RulesSpec(msgspec.Struct, frozen=True, kw_only=True):
    namespace: str = ""


class _RulesReview(msgspec.Struct, frozen=True, kw_only=True):
    spec: _RulesSpec = _RulesSpec()


def is_one(info: Info) -> bool:
    return info.verb == "create" and not info.subresource and (info.group, info.resource) in _KINDS


async def answer(access: Access, caller: Caller, info: Info, body: bytes) -> bytes:
    """The review with its status.   body: JSON.   Raises ApiError 400, Unavailable (the disk)."""
    try:
        if info.resource == _WHO:
            found = _who(caller)
        elif info.resource == _RULES:
            found = await _rules(access, caller, msgspec.json.decode(body, type=_RulesReview))
        else:
            found = await _allowed(access, caller, msgspec.json.decode(body, type=_AccessReview))
    except UNREADABLE as error:
        raise status.bad_request(f"the review cannot be read: {error}") from error
    return msgspec.json.encode({"apiVersion": f"{info.group}/v1", "metadata": {}} | found)


def _who(caller: Caller) -> Json:
    user = {"username": caller.user.name, "groups": list(caller.user.groups)}
    return {"kind": "SelfSubjectReview", "status": {"userInfo": user}}


async def _allowed(access: Access, caller: Caller, review: _AccessReview) -> Json:
    what = review.spec.resource_attributes or _ResourceAttributes()
    path = review.spec.non_resource_attributes
    asked = Info(
        verb=path.verb if path else what.verb,
        path=path.path if path else "",
        group=what.group,
        version=what.version,
        resource=what.resource,
        subresource=what.subresource,
        namespace=what.namespace,
        name=what.name,
    )
    allowed = await access.allowed(caller, asked)
    return {
        "kind": "SelfSubjectAccessReview",
        "spec": msgspec.to_builtins(review.spec),
        "status": {"allowed": allowed},
    }


async def _rules(access: Access, caller: Caller, review: _RulesReview) -> Json:
    found = await access.rules(caller, review.spec.namespace)
    granted = {
        "resourceRules": [_resource_rule(rule) for rule in found if rule.resources],
        "nonResourceRules": [
            {"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}
            for rule in found
            if rule.non_resource_urls
        ],
        "incomplete": False,
    }
    return {"kind": "SelfSubjectRulesReview", "spec": msgspec.to_builtins(review.spec), "status": granted}


def _resource_rule(rule: Rule) -> Json:
    found: Json = {"verbs": rule.verbs, "apiGroups": rule.api_groups or (), "resources": rule.resources or ()}
    return found | ({"resourceNames": rule.resource_names} if rule.resource_names else {})
