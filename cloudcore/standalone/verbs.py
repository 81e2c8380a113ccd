"""Create, update, patch and delete: what each verb does to an object of any kind.

Decisions are taken without waiting, on the newest state (`Store.head`), so read, decide and write are one step; only
then is the commit awaited.  HTTP is api.py's; subresources with a body of their own are in subresources.py.
Source: apiserver, pkg/registry/rest and pkg/registry/generic/registry/store.go."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from beehive.jsonpatch import PatchError, PatchFailed, json_patch
from cloudcore.standalone import (
    coretypes,
    crds,
    defaults,
    managed,
    patch,
    quantity,
    rules,
    schema,
    shapes,
    signing,
    unheeded,
)
from cloudcore.standalone.admission import Admission
from cloudcore.standalone.errors import StoreError
from cloudcore.standalone.kinds import Kind, Registry
from cloudcore.standalone.requests import WriteOptions
from cloudcore.standalone.status import (
    ApiError,
    already_exists,
    bad_request,
    conflict,
    forbidden_field,
    internal,
    invalid,
    not_found,
    required,
    success,
)
from cloudcore.standalone.store import Record, Store
from cloudcore.standalone.validation.metadata import on_metadata
from cloudcore.standalone.validation.pods import on_resize
from cloudcore.standalone.validation.table import on_create, on_update

log = logging.getLogger(__name__)
Json = dict[str, Any]
SYSTEM_FIELDS = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "generation",
)
KEPT_FIELDS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
STATUS_AT_CREATE = frozenset({("", "nodes"), ("", "events"), ("", "persistentvolumes")})
"""Kinds whose status a client may give when it creates them."""
CREATED_BY_UPDATE = frozenset({("coordination.k8s.io", "leases"), ("", "endpoints"), ("", "events")})
PODS = ("", "pods")
NAMESPACES = ("", "namespaces")
FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
PLAIN = WriteOptions(field_validation="Ignore")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The object (or Status) to answer with, and warnings for the client."""

    body: Json
    created: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOptions:
    """metav1.DeleteOptions.  `grace_s` None means the object's own."""

    grace_s: int | None = None
    uid: str = ""
    resource_version: str = ""
    propagation: str = ""
    dry_run: bool = False


class Resources:
    """The verbs over one store.  `now` gives the time of day; all of it runs on one event loop."""

    def __init__(
        self, store: Store, registry: Registry, admission: Admission, *, now: Callable[[], datetime]
    ) -> None:
        self.store = store
        self.registry = registry
        self.admission = admission
        self._now = now

    def timestamp(self) -> str:
        return _rfc3339(self._now())

    def now(self) -> datetime:
        return self._now()

    # reading -----------------------------------------------------------------------------------------

    def read(self, kind: Kind, namespace: str, name: str) -> Json:
        """The newest object, shown in `kind`'s version.  Raises ApiError (NotFound)."""
        return present(kind, self._head(kind, namespace, name).decode())

    def _head(self, kind: Kind, namespace: str, name: str) -> Record:
        record = self.store.head(kind.key, namespace if kind.namespaced else "", name)
        if record is None:
            raise not_found(kind.plural, kind.group, name)
        return record

    # create ------------------------------------------------------------------------------------------

    async def create(self, kind: Kind, namespace: str, body: Json, options: WriteOptions = PLAIN) -> Outcome:
        """Raises ApiError."""
        outcome, done = self._create(kind, namespace, body, options, apply=None)
        await _land(done)
        return outcome

    def create_soon(self, kind: Kind, namespace: str, body: Json, options: WriteOptions = PLAIN) -> None:
        """As `create`, for what may be lost: nobody waits until it has landed.  Raises ApiError."""
        _, done = self._create(kind, namespace, body, options, apply=None)
        if done is not None:
            done.add_done_callback(_courtesy)

    def _create(
        self, kind: Kind, namespace: str, body: Json, options: WriteOptions, *, apply: managed.Applied | None
    ) -> tuple[Outcome, asyncio.Future[None] | None]:
        body, warnings = self.conform(kind, body, options)
        metadata = body["metadata"]
        if metadata.pop("resourceVersion", ""):
            raise bad_request("resourceVersion should not be set on objects to be created")
        for name in SYSTEM_FIELDS:
            metadata.pop(name, None)
        if kind.namespaced:
            given = metadata.setdefault("namespace", namespace)
            if given != namespace:
                raise bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
        else:
            metadata.pop("namespace", None)
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"][:58] + self.admission.suffix()
        name = metadata.get("name", "")
        if kind.namespaced:
            self.admission.check_namespace(kind, namespace, name)
        metadata["uid"] = self.admission.uid()
        metadata["creationTimestamp"] = self.timestamp()
        if kind.has_status and kind.key not in STATUS_AT_CREATE:
            body.pop("status", None)
        asked = copy.deepcopy(body)
        self._default(kind, body)
        if not kind.custom:
            self.admission.on_create(kind, body)
        if kind.key == crds.KEY:
            body["status"] = crds.unknown_status(body)
        if kind.generation:
            metadata["generation"] = 1
        self._check(kind, body, None)
        if self.store.head(kind.key, metadata.get("namespace", ""), name) is not None:
            raise already_exists(kind.plural, kind.group, name)
        self.admission.check_limits(kind, body, None)
        if apply is not None:
            managed.stamp_apply(kind, None, body, apply, options, self.timestamp())
        else:
            managed.stamp_update(kind, None, body, options, self.timestamp(), subresource="", asked=asked)
        warnings = [*warnings, *unheeded.warnings(kind, body)]
        if kind.key == crds.KEY:
            warnings = [*warnings, *crds.rule_faults(body).warnings]
        stored = stored_form(kind, body)
        if options.dry_run:
            return Outcome(body=ordered(kind, body), created=True, warnings=warnings), None
        _, done = self.store.put(kind.key, metadata.get("namespace", ""), name, stored)
        return Outcome(body=present(kind, stored), created=True, warnings=warnings), done

    # update ------------------------------------------------------------------------------------------

    async def update(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        body: Json,
        options: WriteOptions = PLAIN,
        *,
        subresource: str = "",
    ) -> Outcome:
        """Replace.  Raises ApiError."""
        body, warnings = self.conform(kind, body, options)
        metadata = body["metadata"]
        given = metadata.setdefault("name", name)
        if given != name:
            raise bad_request(f"the name of the object ({given}) does not match the name on the URL ({name})")
        if kind.namespaced and metadata.setdefault("namespace", namespace) != namespace:
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        if (
            kind.key in CREATED_BY_UPDATE
            and not subresource
            and self.store.head(kind.key, namespace if kind.namespaced else "", name) is None
        ):
            metadata.pop("resourceVersion", None)
            return await self.create(kind, namespace, body, options)
        outcome, done = self._update(kind, namespace, name, body, options, subresource, warnings, None)
        await _land(done)
        return outcome

    def _update(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        body: Json,
        options: WriteOptions,
        subresource: str,
        warnings: list[str],
        apply: managed.Applied | None,
    ) -> tuple[Outcome, asyncio.Future[None] | None]:
        head = self._head(kind, namespace, name)
        old = present(kind, head.decode())
        metadata = body["metadata"]
        version = metadata.get("resourceVersion", "")
        if version and version != "0" and version != str(head.revision):
            raise conflict(kind.plural, kind.group, name)
        uid = metadata.get("uid", "")
        if uid and uid != head.uid:
            raise conflict(
                kind.plural,
                kind.group,
                name,
                "StorageError: invalid object, Code: 4, Key: /registry/"
                f"{kind.plural}/{namespace + '/' if kind.namespaced else ''}{name}, ResourceVersion: 0, "
                f"AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, "
                f"UID in object meta: {head.uid}",
            )
        self._keep(kind, body, old, subresource)
        self._default(kind, body)
        if subresource == "resize" and (causes := on_resize(body, old)):
            raise invalid(kind.kind, kind.group, name, causes)
        if not kind.custom:
            self.admission.on_update(kind, body, old)
        if kind.generation and not subresource.startswith("status") and _spec_changed(kind, body, old):
            metadata["generation"] = old["metadata"].get("generation", 0) + 1
        if subresource not in ("ephemeralcontainers", "resize"):
            self._check(kind, body, old, subresource)
        if not subresource:
            self.admission.check_limits(kind, body, old)
        if apply is not None:
            managed.stamp_apply(kind, old, body, apply, options, self.timestamp())
        else:
            managed.stamp_update(kind, old, body, options, self.timestamp(), subresource=subresource)
        metadata["resourceVersion"] = str(head.revision)
        if _same(body, old):
            return Outcome(body=old, warnings=warnings), None
        if not subresource:
            warnings = [*warnings, *unheeded.warnings(kind, body)]
        ending = "deletionTimestamp" in metadata and not metadata.get("finalizers")
        if ending and not metadata.get("deletionGracePeriodSeconds") and self._spec_finalized(kind, body):
            return self._remove(kind, head, body, options.dry_run, warnings)
        if options.dry_run:
            return Outcome(body=ordered(kind, body), warnings=warnings), None
        stored = stored_form(kind, body)
        _, done = self.store.put(kind.key, head.namespace, name, stored)
        return Outcome(body=present(kind, stored), warnings=warnings), done

    def _spec_finalized(self, kind: Kind, body: Json) -> bool:
        return kind.key != NAMESPACES or not (body.get("spec") or {}).get("finalizers")

    def _keep(self, kind: Kind, body: Json, old: Json, subresource: str) -> None:
        """Put back what this request may not change."""
        metadata, before = body["metadata"], old["metadata"]
        for name in KEPT_FIELDS:
            if name in before:
                metadata[name] = before[name]
            else:
                metadata.pop(name, None)
        metadata.pop("selfLink", None)
        if subresource == "status":
            for name in list(body):
                if name not in ("status", "metadata", "apiVersion", "kind"):
                    del body[name]
            body.update({name: value for name, value in old.items() if name not in ("status", "metadata")})
            if kind.custom:
                fields = metadata.get("managedFields")
                version = metadata.get("resourceVersion")
                body["metadata"] = copy.deepcopy(before)
                if fields is not None:
                    body["metadata"]["managedFields"] = fields
                if version:
                    body["metadata"]["resourceVersion"] = version
            elif "ownerReferences" in before:
                metadata["ownerReferences"] = before["ownerReferences"]
            else:
                metadata.pop("ownerReferences", None)
        elif subresource == "approval":
            # a decision is all that changes here
            conditions = (body.get("status") or {}).get("conditions")
            body["status"] = {**(old.get("status") or {}), "conditions": conditions or []}
            body["spec"] = old.get("spec", {})
            faults = signing.decided(conditions or [], (old.get("status") or {}).get("conditions") or [])
            if faults:
                raise invalid(kind.kind, kind.group, before["name"], faults)
        elif subresource == "ephemeralcontainers":
            kept = copy.deepcopy(old)
            added = (body.get("spec") or {}).get("ephemeralContainers")
            if added is not None:
                kept["spec"]["ephemeralContainers"] = added
            body["spec"] = kept["spec"]
            body["status"] = kept.get("status", {})
        elif kind.has_status and subresource != "finalize":
            if "status" in old:
                body["status"] = old["status"]
            else:
                body.pop("status", None)
            if kind.key == NAMESPACES:
                body["spec"] = old.get("spec", {})
        elif subresource == "finalize":
            body["status"] = old.get("status", {})
        if kind.key == signing.KEY:
            signing.keep(body, old, subresource)

    # patch -------------------------------------------------------------------------------------------

    async def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch_type: str,
        body: Any,
        options: WriteOptions = PLAIN,
        *,
        subresource: str = "",
    ) -> Outcome:
        """`patch_type`: json, merge, strategic or apply.  Raises ApiError."""
        if patch_type == "apply":
            outcome, done = self._apply(kind, namespace, name, body, options, subresource)
        else:
            head = self._head(kind, namespace, name)
            old = present(kind, head.decode())
            try:
                if patch_type == "json":
                    new = json_patch(old, body)
                elif patch_type == "merge":
                    if not isinstance(body, dict):
                        raise bad_request("the merge patch must be an object")
                    new = patch.merge_patch(old, body)
                else:
                    new = patch.strategic_merge(old, body, kind.model)
            except PatchError as error:
                raise bad_request(str(error)) from error
            except PatchFailed as error:
                raise ApiError(
                    422,
                    "Invalid",
                    "the server rejected our request due to an error in our request",
                    details={},
                ) from error
            if not isinstance(new, dict) or not isinstance(new.get("metadata"), dict):
                raise bad_request("the patch does not leave an object")
            if new["metadata"].get("name") != name:
                raise bad_request(
                    f"the name of the object ({new['metadata'].get('name')}) does not match the name on the URL ({name})"
                )
            if old["metadata"].get("resourceVersion") == new["metadata"].get("resourceVersion"):
                new["metadata"] = {n: v for n, v in new["metadata"].items() if n != "resourceVersion"}
            new, warnings = self.conform(kind, copy.deepcopy(new), options)
            outcome, done = self._update(kind, namespace, name, new, options, subresource, warnings, None)
        await _land(done)
        return outcome

    def _apply(
        self, kind: Kind, namespace: str, name: str, body: Any, options: WriteOptions, subresource: str
    ) -> tuple[Outcome, asyncio.Future[None] | None]:
        if not isinstance(body, dict):
            raise bad_request("the configuration to apply must be an object")
        metadata = body.setdefault("metadata", {})
        if not isinstance(metadata, dict):
            raise bad_request("metadata must be an object")
        if metadata.get("managedFields") is not None:
            raise bad_request("metadata.managedFields must be nil")
        if metadata.setdefault("name", name) != name:
            raise bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
            )
        config, warnings = self.conform(kind, copy.deepcopy(body), options)
        head = self.store.head(kind.key, namespace if kind.namespaced else "", name)
        applied = managed.Applied(config=config, subresource=subresource)
        if head is None:
            if metadata.get("uid"):
                raise conflict(kind.plural, kind.group, name, "uid mismatch: the object does not exist")
            if subresource:
                raise not_found(kind.plural, kind.group, name)
            fresh = copy.deepcopy(config)
            fresh["metadata"].pop("resourceVersion", None)
            outcome, done = self._create(kind, namespace, fresh, options, apply=applied)
            return Outcome(body=outcome.body, created=True, warnings=[*warnings, *outcome.warnings]), done
        old = present(kind, head.decode())
        merged = copy.deepcopy(managed.merge(kind, old, applied, options))
        version = config["metadata"].get("resourceVersion")
        if version:
            merged["metadata"]["resourceVersion"] = version
        else:
            merged["metadata"].pop("resourceVersion", None)
        return self._update(kind, namespace, name, merged, options, subresource, warnings, applied)

    async def bind(self, kind: Kind, pod: Json, condition: Json, options: WriteOptions) -> None:
        """Store a pod that was given a node; only the binding subresource may do this.  Raises ApiError."""
        await _land(self.bind_soon(kind, pod, condition, options))

    def bind_soon(
        self, kind: Kind, pod: Json, condition: Json, options: WriteOptions
    ) -> asyncio.Future[None] | None:
        """As `bind`, without waiting: what is given is done when it has landed, None for a dry run.  Raises ApiError."""
        metadata = pod["metadata"]
        head = self._head(kind, metadata["namespace"], metadata["name"])
        if metadata["resourceVersion"] != str(head.revision):
            raise conflict(kind.plural, kind.group, metadata["name"])
        status = pod.setdefault("status", {})
        others = [item for item in status.get("conditions") or () if item["type"] != condition["type"]]
        status["conditions"] = [condition, *others]
        if options.dry_run:
            return None
        _, done = self.store.put(kind.key, head.namespace, head.name, stored_form(kind, pod))
        return done

    # delete ------------------------------------------------------------------------------------------

    async def delete(
        self, kind: Kind, namespace: str, name: str, options: DeleteOptions | None = None
    ) -> Outcome:
        """Raises ApiError."""
        outcome, done = self._delete(kind, namespace, name, options or DeleteOptions())
        await _land(done)
        return outcome

    def _delete(
        self, kind: Kind, namespace: str, name: str, options: DeleteOptions
    ) -> tuple[Outcome, asyncio.Future[None] | None]:
        head = self._head(kind, namespace, name)
        if options.uid and options.uid != head.uid:
            raise conflict(
                kind.kind,
                kind.group,
                name,
                f"the UID in the precondition ({options.uid}) does not match the UID in record ({head.uid}). "
                "The object might have been deleted and then recreated",
            )
        if options.resource_version and options.resource_version != str(head.revision):
            raise conflict(
                kind.kind,
                kind.group,
                name,
                f"the ResourceVersion in the precondition ({options.resource_version}) does not match the "
                f"ResourceVersion in record ({head.revision}). The object might have been modified",
            )
        body = present(kind, head.decode())
        metadata = body["metadata"]
        before = copy.deepcopy(metadata)
        grace = self._grace(kind, body, options.grace_s)
        finalizers = [
            item
            for item in metadata.get("finalizers") or ()
            if item not in (FOREGROUND, ORPHAN) or not options.propagation
        ]
        if options.propagation == "Foreground" and FOREGROUND not in finalizers:
            finalizers.append(FOREGROUND)
        elif options.propagation == "Orphan" and ORPHAN not in finalizers:
            finalizers.append(ORPHAN)
        if kind.key == crds.KEY and crds.CLEANUP not in finalizers and "deletionTimestamp" not in metadata:
            finalizers.append(crds.CLEANUP)
        if finalizers:
            metadata["finalizers"] = finalizers
        else:
            metadata.pop("finalizers", None)
        waits = bool(finalizers) or grace > 0 or not self._spec_finalized(kind, body)
        if not waits:
            if kind.key == PODS:
                metadata.setdefault("deletionTimestamp", self.timestamp())
                metadata["deletionGracePeriodSeconds"] = 0
            return self._remove(kind, head, body, options.dry_run, [])
        current = metadata.get("deletionGracePeriodSeconds")
        first = "deletionTimestamp" not in metadata
        if first or (kind.key == PODS and current is not None and grace < current):
            metadata["deletionTimestamp"] = _rfc3339(self._now() + timedelta(seconds=grace))
            if kind.key not in (NAMESPACES, crds.KEY):
                metadata["deletionGracePeriodSeconds"] = grace
            if kind.key == crds.KEY:
                crds.mark_terminating(body, self.timestamp())
            elif kind.generation and first:
                metadata["generation"] = metadata.get("generation", 0) + 1
            if kind.key == NAMESPACES:
                body.setdefault("status", {})["phase"] = "Terminating"
        if metadata == before or options.dry_run:
            return Outcome(body=body), None
        stored = stored_form(kind, body)
        _, done = self.store.put(kind.key, head.namespace, name, stored)
        return Outcome(body=present(kind, stored)), done

    def _grace(self, kind: Kind, body: Json, asked: int | None) -> int:
        """Seconds a pod is given; everything else goes at once."""
        if kind.key != PODS:
            return 0
        spec, status = body.get("spec") or {}, body.get("status") or {}
        grace = spec.get("terminationGracePeriodSeconds", 30) if asked is None else asked
        if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
            return 0
        return max(int(grace), 0) if asked == 0 or grace >= 0 else 1

    def _remove(
        self,
        kind: Kind,
        head: Record,
        body: Json,
        dry_run: bool,  # noqa: FBT001
        warnings: list[str],
    ) -> tuple[Outcome, asyncio.Future[None] | None]:
        done = None
        # clients that patched the last finalizer away are shown the object as they left it
        answer = copy.deepcopy(body)
        if not dry_run:
            _, done = self.store.remove(kind.key, head.namespace, head.name, stored_form(kind, body))
        if kind.returns_deleted or "deletionTimestamp" in answer["metadata"]:
            return Outcome(body=ordered(kind, answer), warnings=warnings), done
        details: Json = {"name": head.name}
        if kind.group:
            details["group"] = kind.group
        details |= {"kind": kind.plural, "uid": head.uid}
        return Outcome(body=success(details), warnings=warnings), done

    # shared ------------------------------------------------------------------------------------------

    def conform(self, kind: Kind, body: Json, options: WriteOptions) -> tuple[Json, list[str]]:
        """Check apiVersion, kind and the types of fields; drop unknown fields, or refuse them under Strict."""
        check_type(kind, body)
        handled = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
        try:
            if kind.schema is None:
                clean, unknown = coretypes.decode(kind.model or "", body)
            else:
                metadata, faults = coretypes.decode("V1ObjectMeta", body.get("metadata") or {})
                clean, unknown = schema.prune(kind.schema, body)
                clean["metadata"] = metadata
                unknown = [f"metadata.{item}" for item in faults] + unknown
        except (coretypes.WrongType, quantity.BadQuantity) as error:
            raise bad_request(handled + str(error)) from error
        clean["kind"], clean["apiVersion"] = kind.kind, kind.api_version
        clean.setdefault("metadata", {})
        faults = [f'unknown field "{item}"' for item in unknown]
        if faults and options.field_validation == "Strict":
            raise bad_request(f"{handled}strict decoding error: {', '.join(faults)}")
        return clean, faults if options.field_validation == "Warn" else []

    def _default(self, kind: Kind, body: Json) -> None:
        if kind.schema is not None:
            schema.apply_defaults(kind.schema, body)
        elif kind.views is None:
            defaults.apply(kind.key, body)

    def _check(self, kind: Kind, body: Json, old: Json | None, subresource: str = "") -> None:
        if kind.schema is not None:
            causes = list(on_metadata(kind.key, body["metadata"], custom=True))
            causes += schema.validate(kind.schema, body)
            if kind.scale is not None:
                causes += crds.scale_faults(kind.scale, body)
            if kind.rules is not None:
                blocked = any(cause.reason in rules.BLOCKING for cause in causes)
                causes += [rules.UNCHECKED] if blocked else rules.evaluate(kind.rules, body, old)
        elif old is None:
            causes = on_create(kind.key, body)
        elif subresource == "status":
            causes = list(on_metadata(kind.key, body["metadata"]))
        else:
            causes = on_update(kind.key, body, old)
        if kind.key == crds.KEY and subresource != "status" and not causes:
            known = [] if old is None else crds.rule_faults(old).causes
            causes = [cause for cause in crds.rule_faults(body).causes if cause not in known]
        if old is not None and "deletionTimestamp" in old["metadata"]:
            before = old["metadata"].get("finalizers") or []
            added = [item for item in body["metadata"].get("finalizers") or () if item not in before]
            if added:
                listed = ", ".join(f'"{item}"' for item in added)
                causes.append(
                    forbidden_field(
                        "metadata.finalizers",
                        "no new finalizers can be added if the object is being deleted, found new finalizers "
                        f"[]string{{{listed}}}",
                    )
                )
        if causes:
            raise invalid(kind.kind, kind.group, body["metadata"].get("name", ""), causes)


def check_type(kind: Kind, body: Json) -> None:
    """apiVersion and kind, where given, must be those of the URL.  Raises ApiError."""
    given_kind, given_version = body.get("kind"), body.get("apiVersion")
    if given_kind in (None, "") and given_version in (None, ""):
        return
    given_kind = given_kind or kind.kind
    given_version = given_version or kind.api_version
    if given_kind == kind.kind and given_version == kind.api_version:
        return
    short = str(given_version).rpartition("/")[2]
    if given_kind != kind.kind:
        internal_group = kind.group.partition(".")[0] or "core"
        raise bad_request(
            f'{given_kind} in version "{short}" cannot be handled as a {kind.kind}: converting '
            f"({short}.{given_kind}) to ({internal_group}.{kind.kind}): unknown conversion"
        )
    raise bad_request(
        f'{given_kind} in version "{short}" cannot be handled as a {kind.kind}: no kind "{given_kind}" is registered '
        f'for version "{given_version}" in scheme "pkg/api/legacyscheme/scheme.go:30"'
    )


def ordered(kind: Kind, body: Json) -> Json:
    """The same object with kind and apiVersion first, which lists rely on."""
    rest = {name: value for name, value in body.items() if name not in ("kind", "apiVersion")}
    return {"kind": kind.kind, "apiVersion": kind.api_version, **rest}


def stored_form(kind: Kind, body: Json) -> Json:
    """What goes into the store for an object in `kind`'s version: the storage version of it."""
    if kind.views is not None:
        made = shapes.STORED[kind.key](body)
        first = {"kind": made["kind"], "apiVersion": made["apiVersion"]}
        return {**first, **{n: v for n, v in made.items() if n not in first}}
    body = ordered(kind, body)
    if kind.storage_version and kind.storage_version != kind.version:
        body["apiVersion"] = f"{kind.group}/{kind.storage_version}"
    return body


def present(kind: Kind, body: Json) -> Json:
    """A stored object in `kind`'s version."""
    if kind.views is not None:
        body = shapes.SHOWN[kind.key](body)
    return ordered(kind, body)


def _spec_changed(kind: Kind, body: Json, old: Json) -> bool:
    skip = {"metadata", "kind", "apiVersion"} | ({"status"} if kind.has_status or not kind.custom else set())
    return {n: v for n, v in body.items() if n not in skip} != {n: v for n, v in old.items() if n not in skip}


def _same(body: Json, old: Json) -> bool:
    """Whether nothing but times in managedFields differs."""
    if {n: v for n, v in body.items() if n != "metadata"} != {
        n: v for n, v in old.items() if n != "metadata"
    }:
        return False

    def bare(metadata: Mapping[str, Any]) -> Json:
        value = {n: v for n, v in metadata.items() if n != "managedFields"}
        value["fields"] = [
            {n: v for n, v in entry.items() if n != "time"} for entry in metadata.get("managedFields") or ()
        ]
        return value

    return bare(body["metadata"]) == bare(old["metadata"])


def _rfc3339(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _courtesy(done: asyncio.Future[None]) -> None:
    fault = None if done.cancelled() else done.exception()
    if fault is not None:
        log.debug("Not kept: %s", fault)


async def _land(done: asyncio.Future[None] | None) -> None:
    if done is None:
        return
    try:
        # a client that goes away must not take back what was accepted
        await asyncio.shield(done)
    except StoreError as error:
        raise internal(str(error)) from error


def require_name(kind: Kind, name: str) -> None:
    if not name:
        raise invalid(kind.kind, kind.group, "", [required("metadata.name")])
