"""The HTTP face: find the kind, call the verb, write the answer.  It holds no rule of its own: who may is access.py's, what
is read and written bodies.py's and answers.py's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, Protocol

import msgspec
from aiohttp import web

from cloudcore.standalone import answers, bodies, listing, measured, openapi_pb, signing, watch
from cloudcore.standalone.access import Access
from cloudcore.standalone.authn import Tokens, User
from cloudcore.standalone.authz import Authorizer
from cloudcore.standalone.documents import NOT_FOUND_TEXT, Documents
from cloudcore.standalone.forms import check_type, ordered
from cloudcore.standalone.kinds import Kind, Registry
from cloudcore.standalone.negotiation import (
    Form,
    negotiate,
)
from cloudcore.standalone.openapi import OpenApi
from cloudcore.standalone.requests import Target, WriteOptions, parse_target, whole_number
from cloudcore.standalone.status import (
    ApiError,
    bad_request,
    internal,
    method_not_allowed,
    no_such_resource,
    not_found,
    not_implemented,
)
from cloudcore.standalone.store import Record
from cloudcore.standalone.subresources import Subresources
from cloudcore.standalone.verbs import Outcome, Resources

log = logging.getLogger(__name__)
Json = dict[str, Any]
STREAMS = frozenset({"log", "exec", "attach", "portforward", "proxy"})


class KubeletProxy(Protocol):
    """Whoever can reach the kubelet of a pod's node: logs, exec, attach, port-forward."""

    async def handle(
        self, request: web.Request, namespace: str, pod: str, subresource: str, *, user: str = ""
    ) -> web.StreamResponse: ...

    async def handle_node(
        self, request: web.Request, node: str, path: str, *, user: str = ""
    ) -> web.StreamResponse: ...


class Api:
    """`checks` are the named conditions of /readyz; `address` is what /api tells clients."""

    def __init__(
        self,
        resources: Resources,
        registry: Registry,
        tokens: Tokens,
        authorizer: Authorizer,
        openapi: OpenApi,
        *,
        address: str,
        kubelet_proxy: KubeletProxy | None,
        usage: measured.UsageSource | None,
        checks: Mapping[str, Callable[[], bool]],
    ) -> None:
        self._resources = resources
        self._registry = registry
        self._access = Access(tokens, authorizer)
        self._documents = Documents(registry, tokens, openapi, address=address, checks=checks)
        self._proxy = kubelet_proxy
        self._usage = usage
        self._below = Subresources(resources, tokens, authorizer)

    def set_address(self, address: str) -> None:
        """Where clients reach this, once that is known."""
        self._documents.address = address

    async def handle(self, request: web.Request) -> web.StreamResponse:
        try:
            accept = request.headers.get("Accept", "")
            # a form that only this document has
            accept = "" if request.path == "/openapi/v2" and openapi_pb.wanted(accept) else accept
            form = negotiate(accept)
            target = parse_target(request.method, request.path, request.query)
            user = self._access.user(request)
            self._access.check(user, request, target)
            if target is None:
                return self._documents.answer(request, form)
            return await self._resource(request, target, form, user)
        except ApiError as error:
            if error.code == 409:
                # refused because of a write that may not be visible yet: who reads next must find it
                await self._resources.store.settled()
            return answers.error(error)
        except RecursionError:
            return answers.error(bad_request("the object is nested too deeply"))
        except OverflowError:
            return answers.error(bad_request("a number in the request is out of range"))
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            # an object of a shape that no rule foresaw must not take the server down (P9); the log has the place
            log.error("Cannot answer %s %s: %r", request.method, request.path, error, exc_info=error)
            return answers.error(internal(f"{type(error).__name__}: {error}"))

    # resources ---------------------------------------------------------------------------------------

    async def _resource(
        self, request: web.Request, target: Target, form: Form, user: User | None
    ) -> web.StreamResponse:
        kind = self._registry.by_path(target.group, target.version, target.plural)
        if kind is None:
            if not any(row.group == target.group and row.version == target.version for row in self._registry):
                return answers.text(404, NOT_FOUND_TEXT)
            raise no_such_resource()
        if target.subresource:
            return await self._subresource(request, target, form, kind, user)
        if kind.group == measured.GROUP and kind.virtual:
            return await self._measured(request, target, form, kind)
        if kind.virtual:
            if target.verb != "create" or user is None:
                raise method_not_allowed()
            return await self._review(request, target, form, kind, user)
        if target.verb not in kind.verbs or not target.verb:
            raise method_not_allowed()
        if target.verb in ("update", "patch") and not target.name:
            raise method_not_allowed()
        if target.verb in ("create", "deletecollection") and kind.namespaced and not target.namespace:
            raise method_not_allowed()
        namespace = target.namespace if kind.namespaced else ""
        match target.verb:
            case "list":
                query = listing.parse_query(kind, target, request.query, watch=False)
                include = request.query.get("includeObject", "Metadata")
                now = self._resources.now()
                data = listing.list_bytes(kind, self._resources.store, query, form, now, include)
                return answers.answer(200, data, form)
            case "watch":
                return await self._watch(request, target, form, kind)
            case "get":
                return self._get(request, kind, namespace, target.name, form)
            case "create":
                if target.name:
                    raise method_not_allowed()
                options = bodies.options_of(request)
                body, faults = await bodies.load(request, kind.kind, options)
                bodies.check_duplicates(kind, faults, options)
                if kind.key == signing.KEY and user is not None:
                    signing.stamp(body, user.as_json())
                outcome = await self._resources.create(kind, namespace, body, options)
                return self._written(outcome, kind, form, faults, options)
            case "update":
                options = bodies.options_of(request)
                body, faults = await bodies.load(request, kind.kind, options)
                bodies.check_duplicates(kind, faults, options)
                outcome = await self._resources.update(kind, namespace, target.name, body, options)
                return self._written(outcome, kind, form, faults, options)
            case "patch":
                options, patch_type, body = await bodies.load_patch(request, kind)
                outcome = await self._resources.patch(kind, namespace, target.name, patch_type, body, options)
                return self._written(outcome, kind, form, [], options)
            case "delete":
                given = await bodies.load_delete_options(request)
                outcome = await self._resources.delete(kind, namespace, target.name, given)
                return self._written(outcome, kind, form, [], WriteOptions())
            case _:
                return await self._delete_collection(request, target, kind, form)

    def _get(
        self, request: web.Request, kind: Kind, namespace: str, name: str, form: Form
    ) -> web.StreamResponse:
        store = self._resources.store
        revision = listing.revision_of(request.query.get("resourceVersion", ""), watch=False)
        listing.check_revision(store, revision)
        record = store.get(kind.key, namespace, name)
        if record is None:
            raise not_found(kind.plural, kind.group, name)
        if not form.shape:
            return answers.answer(200, listing.body_in(kind, record), form)
        body = ordered(kind, self._shown(kind, record))
        include = request.query.get("includeObject", "Metadata")
        return answers.answer(
            200, listing.object_bytes(kind, body, form, self._resources.now(), include), form
        )

    def _shown(self, kind: Kind, record: Record) -> Json:
        body: Json = msgspec.json.decode(listing.body_in(kind, record))
        return body

    async def _watch(
        self, request: web.Request, target: Target, form: Form, kind: Kind
    ) -> web.StreamResponse:
        query = listing.parse_query(kind, target, request.query, watch=True)
        whole_number(
            request.query, "timeoutSeconds"
        )  # a fault is answered while an answer can still be given
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
        )
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            # closed here and now: a watcher that is gone must not be offered events any more
            async with aclosing(watch.events(kind, self._resources, query, request.query, form)) as chunks:
                async for chunk in chunks:
                    if request.transport is None or request.transport.is_closing():
                        return response
                    if chunk:
                        await response.write(chunk)
            await response.write_eof()
        except ConnectionError as error:
            log.debug("x watch %s %s: %s", kind.plural, request.remote, error)
        return response

    async def _delete_collection(
        self, request: web.Request, target: Target, kind: Kind, form: Form
    ) -> web.StreamResponse:
        given = await bodies.load_delete_options(request)
        query = listing.parse_query(kind, target, request.query, watch=False)
        store = self._resources.store
        now = self._resources.now()
        data = listing.list_bytes(kind, store, query, form, now, "Metadata")
        for record in store.select(kind.key, query.namespace, query.matcher()):
            try:
                await self._resources.delete(kind, record.namespace, record.name, given)
            except ApiError as error:
                if error.code != 404:
                    raise
        return answers.answer(200, data, form)

    # subresources ------------------------------------------------------------------------------------

    async def _subresource(
        self, request: web.Request, target: Target, form: Form, kind: Kind, user: User | None
    ) -> web.StreamResponse:
        name = target.subresource
        if name not in kind.subresources:
            raise no_such_resource()
        namespace = target.namespace if kind.namespaced else ""
        if name in STREAMS:
            return await self._stream(request, target, kind, user)
        if name == "scale":
            return await self._scale(request, target, form, kind, namespace)
        if name in ("binding", "eviction", "token"):
            if target.verb != "create":
                raise method_not_allowed()
            options = bodies.options_of(request)
            expected = {"binding": "Binding", "eviction": "Eviction", "token": "TokenRequest"}[name]
            body, _ = await bodies.load(request, expected, options)
            if name == "binding":
                outcome = await self._below.bind(kind, namespace, target.name, body, options)
            elif name == "eviction":
                outcome = await self._below.evict(kind, namespace, target.name, body, options)
            else:
                outcome = self._below.token(namespace, target.name, body)
            return self._written(outcome, kind, form, [], options)
        if target.verb == "get":
            return self._get(request, kind, namespace, target.name, form)
        if name == "approval":
            self._access.check_approval(user, kind, self._resources.read(kind, "", target.name))
        if target.verb == "update":
            options = bodies.options_of(request)
            body, faults = await bodies.load(request, kind.kind, options)
            bodies.check_duplicates(kind, faults, options)
            outcome = await self._resources.update(
                kind, namespace, target.name, body, options, subresource=name
            )
            return self._written(outcome, kind, form, faults, options)
        if target.verb == "patch":
            options, patch_type, body = await bodies.load_patch(request, kind)
            outcome = await self._resources.patch(
                kind, namespace, target.name, patch_type, body, options, subresource=name
            )
            return self._written(outcome, kind, form, [], options)
        raise method_not_allowed()

    async def _scale(
        self, request: web.Request, target: Target, form: Form, kind: Kind, namespace: str
    ) -> web.StreamResponse:
        if target.verb == "get":
            body = self._below.scale(kind, self._resources.read(kind, namespace, target.name))
            return answers.answer(200, msgspec.json.encode(body), form)
        if target.verb == "update":
            options = bodies.options_of(request)
            body, _ = await bodies.load(request, "Scale", options)
            outcome = await self._below.update_scale(kind, namespace, target.name, body, options)
        elif target.verb == "patch":
            options, patch_type, patch = await bodies.load_patch(request, kind)
            outcome = await self._below.patch_scale(kind, namespace, target.name, patch_type, patch, options)
        else:
            raise method_not_allowed()
        return self._written(outcome, kind, form, [], options)

    async def _stream(
        self, request: web.Request, target: Target, kind: Kind, user: User | None
    ) -> web.StreamResponse:
        of_node = kind.plural == "nodes"
        if not of_node and kind.plural != "pods":
            raise not_implemented(
                f"{target.subresource} of {kind.plural} is not served: there is no kubelet behind it"
            )
        self._resources.read(kind, target.namespace, target.name)
        if self._proxy is None or (target.subresource == "proxy" and not of_node):
            raise not_implemented(
                f"{target.subresource} of {kind.plural} is not served: "
                "this control plane has no way to its nodes' kubelets"
            )
        asks = user.name if user is not None else ""
        if of_node:
            return await self._proxy.handle_node(request, target.name, target.rest, user=asks)
        return await self._proxy.handle(request, target.namespace, target.name, target.subresource, user=asks)

    async def _measured(
        self, request: web.Request, target: Target, form: Form, kind: Kind
    ) -> web.StreamResponse:
        if self._usage is None or target.verb not in kind.verbs:
            raise method_not_allowed()
        store = self._resources.store
        namespace = target.namespace if kind.namespaced else ""
        if target.verb == "get":
            body = measured.single(kind, store, namespace, target.name, await self._usage.usage())
        else:
            query = listing.parse_query(kind, target, request.query, watch=False)
            body = measured.listed(kind, store, query, await self._usage.usage())
        return answers.answer(200, msgspec.json.encode(body), form)

    async def _review(
        self, request: web.Request, target: Target, form: Form, kind: Kind, user: User
    ) -> web.StreamResponse:
        options = bodies.options_of(request)
        body, _ = await bodies.load(request, kind.kind, options)
        check_type(kind, body)
        if kind.kind == "Binding":
            pods = self._registry.by_path("", "v1", "pods")
            name = (body.get("metadata") or {}).get("name", "")
            if pods is None or not name:
                raise bad_request("metadata.name is required")
            outcome = await self._below.bind(pods, target.namespace, name, body, options)
        else:
            outcome = self._below.review(kind, target.namespace, body, user)
        return self._written(outcome, kind, form, [], options)

    def _written(
        self, outcome: Outcome, kind: Kind, form: Form, duplicates: list[str], options: WriteOptions
    ) -> web.Response:
        return answers.written(outcome, kind, form, duplicates, options, self._resources.now())
