"""Create, update, patch and delete: what each verb does to an object of any kind.

Decisions are taken without waiting, on the newest state (`Store.head`), so read, decide and write are one step; only
then is the commit awaited.  HTTP is api.py's; subresources with a body of their own are in subresources.py.
Source: apiserver, pkg/registry/rest and pkg/registry/generic/registry/store.go."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from beehive import clock
from beehive.jsonpatch import PatchError, PatchFailed, json_patch
from beehive.mergepatch import merge_patch
from beehive.strategicpatch import strategic_merge
from cloudcore.standalone import crds, deletion, managed, unheeded
from cloudcore.standalone.admission import Admission
from cloudcore.standalone.conform import check, conform, fill
from cloudcore.standalone.deletion import DeleteOptions, Marked, has_spec_finalizers
from cloudcore.standalone.errors import StoreError
from cloudcore.standalone.forms import ordered, present, stored_form
from cloudcore.standalone.kept import keep, same, spec_changed
from cloudcore.standalone.kinds import Kind, Registry
from cloudcore.standalone.requests import WriteOptions
from cloudcore.standalone.status import (
    ApiError,
    already_exists,
    bad_request,
    conflict,
    internal,
    invalid,
    not_found,
    success,
)
from cloudcore.standalone.store import Record, Store
from cloudcore.standalone.validation.pods import on_resize

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
STATUS_AT_CREATE = frozenset({("", "nodes"), ("", "events"), ("", "persistentvolumes")})
"""Kinds whose status a client may give when it creates them."""
CREATED_BY_UPDATE = frozenset({("coordination.k8s.io", "leases"), ("", "endpoints"), ("", "events")})
PLAIN = WriteOptions(field_validation="Ignore")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The object (or Status) to answer with, and warnings for the client."""

    body: Json
    created: bool = False
    warnings: list[str] = field(default_factory=list)


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
        return clock.rfc3339(self._now())

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
        body, warnings = conform(kind, body, options)
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
        fill(kind, body)
        if not kind.custom:
            self.admission.on_create(kind, body)
        if kind.key == crds.KEY:
            body["status"] = crds.unknown_status(body)
        if kind.generation:
            metadata["generation"] = 1
        check(kind, body, None)
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
        body, warnings = conform(kind, body, options)
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
        keep(kind, body, old, subresource)
        fill(kind, body)
        if subresource == "resize" and (causes := on_resize(body, old)):
            raise invalid(kind.kind, kind.group, name, causes)
        if not kind.custom:
            self.admission.on_update(kind, body, old)
        if kind.generation and not subresource.startswith("status") and spec_changed(kind, body, old):
            metadata["generation"] = old["metadata"].get("generation", 0) + 1
        if subresource not in ("ephemeralcontainers", "resize"):
            check(kind, body, old, subresource)
        if not subresource:
            self.admission.check_limits(kind, body, old)
        if apply is not None:
            managed.stamp_apply(kind, old, body, apply, options, self.timestamp())
        else:
            managed.stamp_update(kind, old, body, options, self.timestamp(), subresource=subresource)
        metadata["resourceVersion"] = str(head.revision)
        if same(body, old):
            return Outcome(body=old, warnings=warnings), None
        if not subresource:
            warnings = [*warnings, *unheeded.warnings(kind, body)]
        ending = "deletionTimestamp" in metadata and not metadata.get("finalizers")
        if ending and not metadata.get("deletionGracePeriodSeconds") and not has_spec_finalizers(kind, body):
            return self._remove(kind, head, body, options.dry_run, warnings)
        if options.dry_run:
            return Outcome(body=ordered(kind, body), warnings=warnings), None
        stored = stored_form(kind, body)
        _, done = self.store.put(kind.key, head.namespace, name, stored)
        return Outcome(body=present(kind, stored), warnings=warnings), done

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
                    new = merge_patch(old, body)
                else:
                    new = strategic_merge(old, body, kind.model)
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
            new, warnings = conform(kind, copy.deepcopy(new), options)
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
        config, warnings = conform(kind, copy.deepcopy(body), options)
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
        deletion.check(kind, head, options)
        body = present(kind, head.decode())
        marked = deletion.mark(kind, body, options, self._now())
        if marked is Marked.GOES:
            return self._remove(kind, head, body, options.dry_run, [])
        if marked is Marked.AS_BEFORE or options.dry_run:
            return Outcome(body=body), None
        stored = stored_form(kind, body)
        _, done = self.store.put(kind.key, head.namespace, name, stored)
        return Outcome(body=present(kind, stored)), done

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
