"""Subresources and reviews with a body of their own: scale, binding, eviction, token, and the access questions."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

from beehive.jsonpatch import PatchError, PatchFailed, json_patch
from beehive.mergepatch import merge_patch
from cloudcore.standalone import disruptions, selectors
from cloudcore.standalone.authn import ISSUER, BadToken, Tokens, User
from cloudcore.standalone.authz import Authorizer, Request
from cloudcore.standalone.controllers import budgets
from cloudcore.standalone.deletion import DeleteOptions
from cloudcore.standalone.forms import ordered
from cloudcore.standalone.kinds import Kind
from cloudcore.standalone.nodeauthz import node_of
from cloudcore.standalone.requests import WriteOptions
from cloudcore.standalone.status import (
    ApiError,
    bad_request,
    conflict,
    internal,
    invalid,
    invalid_value,
    not_found,
    required,
    success,
)
from cloudcore.standalone.verbs import Outcome, Resources

Json = dict[str, Any]
SHORTEST_TOKEN_S = 600
LONGEST_TOKEN_S = 1 << 32
DEFAULT_TOKEN_S = 3600


class Subresources:
    def __init__(self, resources: Resources, tokens: Tokens, authorizer: Authorizer) -> None:
        self._resources = resources
        self._tokens = tokens
        self._authorizer = authorizer
        self._evicting = asyncio.Lock()
        """Two evictions at once must not both count on the same healthy pods."""

    # scale -------------------------------------------------------------------------------------------

    def scale(self, kind: Kind, body: Json) -> Json:
        """The autoscaling/v1 Scale of a workload."""
        metadata = {
            name: body["metadata"][name]
            for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
            if name in body["metadata"]
        }
        spec_path, status_path, selector_path = scale_paths(kind)
        replicas = dig(body, spec_path)
        status: Json = {"replicas": dig(body, status_path) or 0}
        if kind.custom:
            text = dig(body, selector_path) if selector_path else None
        else:
            text = selectors.to_text(body["spec"].get("selector"))
        if text:
            status["selector"] = text
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": metadata,
            "spec": {"replicas": replicas} if replicas else {},
            "status": status,
        }

    async def update_scale(
        self, kind: Kind, namespace: str, name: str, body: Json, options: WriteOptions
    ) -> Outcome:
        old = self._resources.read(kind, namespace, name)
        replicas = (body.get("spec") or {}).get("replicas", 0)
        if not isinstance(replicas, int) or isinstance(replicas, bool):
            raise bad_request("spec.replicas must be an integer")
        if replicas < 0:
            raise invalid(
                "Scale",
                "autoscaling",
                name,
                [invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")],
            )
        version = (body.get("metadata") or {}).get("resourceVersion")
        if version and version != old["metadata"]["resourceVersion"]:
            raise conflict(kind.plural, kind.group, name)
        changed = put(old, scale_paths(kind)[0], replicas)
        outcome = await self._resources.update(kind, namespace, name, changed, options, subresource="scale")
        return Outcome(body=self.scale(kind, outcome.body), warnings=outcome.warnings)

    async def patch_scale(
        self, kind: Kind, namespace: str, name: str, patch_type: str, body: Any, options: WriteOptions
    ) -> Outcome:
        old = self.scale(kind, self._resources.read(kind, namespace, name))
        try:
            new = json_patch(old, body) if patch_type == "json" else merge_patch(old, body)
        except (PatchError, PatchFailed) as error:
            raise bad_request(str(error)) from error
        if not isinstance(new, dict):
            raise bad_request("the patch does not leave an object")
        return await self.update_scale(kind, namespace, name, new, options)

    # pods --------------------------------------------------------------------------------------------

    async def bind(self, kind: Kind, namespace: str, name: str, body: Json, options: WriteOptions) -> Outcome:
        """Give a pod its node."""
        target = body.get("target") or {}
        node = target.get("name", "")
        if not node:
            raise invalid("Binding", "", name, [required("target.name")])
        if target.get("kind", "Node") not in ("", "Node"):
            raise invalid("Binding", "", name, [invalid_value("target.kind", target["kind"], "must be Node")])
        pod = self._resources.read(kind, namespace, name)
        wanted_uid = (body.get("metadata") or {}).get("uid")
        if wanted_uid and wanted_uid != pod["metadata"]["uid"]:
            raise conflict("pods/binding", "", name, "the pod was replaced by another of the same name")
        bound = pod["spec"].get("nodeName")
        if bound:
            raise conflict("pods/binding", "", name, f'pod {name} is already assigned to node "{bound}"')
        if "deletionTimestamp" in pod["metadata"]:
            raise conflict(
                "pods/binding", "", name, f"pod {name} is being deleted, cannot be assigned to a host"
            )
        if pod["spec"].get("schedulingGates"):
            raise conflict("pods/binding", "", name, f"pod {name} has non-empty .spec.schedulingGates")
        pod["spec"]["nodeName"] = node
        annotations = (body.get("metadata") or {}).get("annotations")
        if annotations:
            pod["metadata"].setdefault("annotations", {}).update(annotations)
        condition = {
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": self._resources.timestamp(),
        }
        await self._resources.bind(kind, pod, condition, options)
        return Outcome(body=success(code=201), created=True)

    async def evict(
        self, kind: Kind, namespace: str, name: str, body: Json, options: WriteOptions
    ) -> Outcome:
        """Delete a pod unless a disruption budget forbids it."""
        async with self._evicting:
            return await self._evict(kind, namespace, name, body, options)

    async def _evict(
        self, kind: Kind, namespace: str, name: str, body: Json, options: WriteOptions
    ) -> Outcome:
        pod = self._resources.read(kind, namespace, name)
        blocking = self._budget(namespace, pod)
        if blocking:
            raise ApiError(
                429,
                "TooManyRequests",
                "Cannot evict pod as it would violate the pod's disruption budget.",
                details={"causes": [{"reason": "DisruptionBudget", "message": blocking}]},
            )
        if not options.dry_run and pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"]:
            condition = {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "EvictionByEvictionAPI",
                "message": "Eviction API: evicting",
                "lastProbeTime": None,
                "lastTransitionTime": self._resources.timestamp(),
            }
            status = pod.setdefault("status", {})
            others = [item for item in status.get("conditions") or () if item["type"] != condition["type"]]
            status["conditions"] = [*others, condition]
            await self._resources.update(kind, namespace, name, pod, options, subresource="status")
        given = body.get("deleteOptions") or {}
        await self._resources.delete(
            kind,
            namespace,
            name,
            DeleteOptions(
                grace_s=given.get("gracePeriodSeconds"),
                uid=(given.get("preconditions") or {}).get("uid", ""),
                dry_run=options.dry_run,
            ),
        )
        return Outcome(body=success(code=201), created=True)

    def _budget(self, namespace: str, pod: Json) -> str:
        """Why a disruption budget keeps this pod; empty when none does.  Raises ApiError."""
        labels = pod["metadata"].get("labels") or {}
        store = self._resources.store
        found = []
        for record in store.select(budgets.BUDGETS, namespace):
            budget = record.decode()
            selector = selectors.from_object((budget.get("spec") or {}).get("selector"))
            if selector is not None and selector.matches(labels):
                found.append((record.name, budget))
        if len(found) > 1:
            raise internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )
        for name, budget in found:
            return disruptions.refusal(name, budget, budgets.state(store, namespace, budget), pod)
        return ""

    # tokens ------------------------------------------------------------------------------------------

    def token(self, namespace: str, name: str, body: Json) -> Outcome:
        """The TokenRequest with its status filled in."""
        account = self._resources.store.get(("", "serviceaccounts"), namespace, name)
        if account is None:
            raise not_found("serviceaccounts", "", name)
        spec = dict(body.get("spec") or {})
        lifetime = spec.get("expirationSeconds", DEFAULT_TOKEN_S)
        if not isinstance(lifetime, int) or isinstance(lifetime, bool):
            raise bad_request("spec.expirationSeconds must be an integer")
        if lifetime < SHORTEST_TOKEN_S:
            raise self._bad_lifetime(lifetime, "may not specify a duration less than 10 minutes")
        if lifetime > LONGEST_TOKEN_S:
            raise self._bad_lifetime(lifetime, "may not specify a duration larger than 2^32 seconds")
        audiences = spec.get("audiences") or [ISSUER]
        bound = spec.get("boundObjectRef")
        node = None
        reference = None
        if bound:
            reference, node = self._bound(namespace, bound, name)
        token, ends = self._tokens.issue(
            namespace=namespace,
            account=name,
            account_uid=account.uid,
            audiences=list(audiences),
            lifetime_s=lifetime,
            bound=reference,
            node=node,
        )
        answer = {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": account.uid,
                "creationTimestamp": self._resources.timestamp(),
            },
            "spec": {"audiences": list(audiences), "expirationSeconds": lifetime, "boundObjectRef": bound},
            "status": {"token": token, "expirationTimestamp": ends.strftime("%Y-%m-%dT%H:%M:%SZ")},
        }
        return Outcome(body=answer, created=True)

    def _bad_lifetime(self, value: int, text: str) -> ApiError:
        return invalid(
            "TokenRequest",
            "authentication.k8s.io",
            "",
            [invalid_value("spec.expirationSeconds", value, text)],
        )

    def _bound(self, namespace: str, bound: Json, account: str) -> tuple[Json, Json | None]:
        kind, name = bound.get("kind", ""), bound.get("name", "")
        plural = {"Pod": "pods", "Secret": "secrets"}.get(kind)
        if plural is None:
            raise bad_request(f"cannot bind token for serviceaccount {account!r} to object of type {kind!r}")
        record = self._resources.store.get(("", plural), namespace, name)
        if record is None:
            raise not_found(plural, "", name)
        if bound.get("uid") and bound["uid"] != record.uid:
            raise conflict(
                plural,
                "",
                name,
                f"the UID in the bound object reference ({bound['uid']}) does not match the UID in record "
                f"({record.uid}). The object might have been deleted and then recreated",
            )
        node = None
        if kind == "Pod":
            node_name = record.fields.get("spec.nodeName", "")
            if record.decode()["spec"].get("serviceAccountName", "") != account:
                raise bad_request(
                    f"cannot bind token for serviceaccount {account!r} to pod running with different serviceaccount name."
                )
            found = self._resources.store.get(("", "nodes"), "", node_name) if node_name else None
            if node_name:
                node = {"name": node_name, **({"uid": found.uid} if found is not None else {})}
        return {"kind": kind, "name": name, "uid": record.uid}, node

    # reviews -----------------------------------------------------------------------------------------

    def review(self, kind: Kind, namespace: str, body: Json, user: User) -> Outcome:
        """Answer a review object; nothing is stored."""
        body = ordered(kind, body)
        body.setdefault("metadata", {})
        spec = body.get("spec") or {}
        match kind.kind:
            case "TokenReview":
                body["status"] = self._token_review(spec)
            case "SelfSubjectReview":
                body["metadata"]["creationTimestamp"] = self._resources.timestamp()
                body["status"] = {"userInfo": user.as_json()}
            case "SelfSubjectAccessReview":
                body["status"] = self._decide(user, spec, namespace)
            case "SubjectAccessReview" | "LocalSubjectAccessReview":
                if not spec.get("user") and not spec.get("groups"):
                    raise invalid(
                        kind.kind,
                        kind.group,
                        "",
                        [invalid_value("spec.user", "", "at least one of user or group must be specified")],
                    )
                other = User(name=spec.get("user", ""), groups=tuple(spec.get("groups") or ()))
                body["status"] = self._decide(other, spec, namespace)
            case "SelfSubjectRulesReview":
                body["status"] = self._rules(user, spec.get("namespace", ""))
            case _:
                raise bad_request(f"{kind.kind} cannot be created here")
        return Outcome(body=body, created=True)

    def _token_review(self, spec: Json) -> Json:
        wanted = tuple(spec.get("audiences") or (ISSUER,))
        try:
            user = self._tokens.check(spec.get("token", ""), wanted)
        except BadToken:
            return {"error": "invalid bearer token", "user": {}}
        return {"authenticated": True, "user": user.as_json(), "audiences": list(user.audiences)}

    def _decide(self, user: User, spec: Json, namespace: str) -> Json:
        about = spec.get("resourceAttributes")
        other = spec.get("nonResourceAttributes")
        if about is not None:
            request = Request(
                verb=about.get("verb", ""),
                group=about.get("group", ""),
                resource=about.get("resource", ""),
                subresource=about.get("subresource", ""),
                namespace=namespace or about.get("namespace", ""),
                name=about.get("name", ""),
            )
        elif other is not None:
            request = Request(verb=other.get("verb", ""), path=other.get("path", ""))
        else:
            raise invalid(
                "SubjectAccessReview",
                "authorization.k8s.io",
                "",
                [
                    invalid_value(
                        "spec.resourceAttributes",
                        None,
                        "exactly one of nonResourceAttributes or resourceAttributes must be specified",
                    )
                ],
            )
        allowed = self._authorizer.allowed(user, request)
        why = "" if allowed else self._authorizer.reason(user)
        return {"allowed": allowed, **({"reason": why} if why else {})}

    def _rules(self, user: User, namespace: str) -> Json:
        if "system:masters" in user.groups and node_of(user) is None:
            rules: list[Json] = [
                {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
                {"verbs": ["*"], "nonResourceURLs": ["*"]},
            ]
        else:
            rules = list(self._authorizer.rules(user, namespace))
        return {
            "resourceRules": [rule for rule in rules if "resources" in rule],
            "nonResourceRules": [rule for rule in rules if "nonResourceURLs" in rule],
            "incomplete": False,
        }


def scale_paths(kind: Kind) -> tuple[str, str, str]:
    """Where a kind keeps its replicas in spec and status, and its selector as text (empty for core kinds)."""
    if kind.scale is not None:
        return kind.scale.spec, kind.scale.status, kind.scale.selector
    return "spec.replicas", "status.replicas", ""


def put(body: Json, path: str, value: Any) -> Json:
    """A copy of `body` with `value` at a dotted path."""
    changed = copy.deepcopy(body)
    place = changed
    *parents, last = path.split(".")
    for part in parents:
        place = place.setdefault(part, {})
    place[last] = value
    return changed


def dig(body: Json, path: str) -> Any:
    """What is at a dotted path; None when nothing is."""
    value: Any = body
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
