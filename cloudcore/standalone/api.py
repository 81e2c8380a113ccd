"""The HTTP face: authenticate, authorize, find the kind, call the verb, write the answer.  The only aiohttp file
beside server.py; it holds no rule of its own."""

from __future__ import annotations

import hashlib
import logging
import ssl
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, Protocol

import msgspec
from aiohttp import web

from cloudcore.standalone import discovery, listing, measured, openapi_pb, signing, watch
from cloudcore.standalone.authn import AUTHENTICATED, BadToken, Tokens, User, from_certificate
from cloudcore.standalone.authz import OPEN_PATHS, Authorizer, Request
from cloudcore.standalone.deletion import DeleteOptions
from cloudcore.standalone.forms import check_type, ordered
from cloudcore.standalone.kinds import Kind, Registry
from cloudcore.standalone.negotiation import (
    MAX_BODY_BYTES,
    PATCH_TYPES,
    Form,
    dump_yaml,
    load_json,
    load_object,
    load_yaml,
    negotiate,
)
from cloudcore.standalone.openapi import OpenApi
from cloudcore.standalone.requests import Target, WriteOptions, parse_target, whole_number, write_options
from cloudcore.standalone.status import (
    ApiError,
    bad_request,
    forbidden,
    forbidden_path,
    internal,
    invalid,
    method_not_allowed,
    no_such_resource,
    not_found,
    not_implemented,
    required,
    too_large,
    unauthorized,
    unsupported_media_type,
)
from cloudcore.standalone.store import Record
from cloudcore.standalone.subresources import Subresources
from cloudcore.standalone.verbs import Outcome, Resources

log = logging.getLogger(__name__)
Json = dict[str, Any]
STREAMS = frozenset({"log", "exec", "attach", "portforward", "proxy"})
NOT_FOUND_TEXT = "404 page not found\n"


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
        self._tokens = tokens
        self._authorizer = authorizer
        self._openapi = openapi
        self.address = address
        self._proxy = kubelet_proxy
        self._usage = usage
        self._checks = checks
        self._below = Subresources(resources, tokens, authorizer)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        try:
            accept = request.headers.get("Accept", "")
            # a form that only this document has
            accept = "" if request.path == "/openapi/v2" and openapi_pb.wanted(accept) else accept
            form = negotiate(accept)
            target = parse_target(request.method, request.path, request.query)
            user = self._user(request)
            self._authorize(user, request, target)
            if target is None:
                return await self._document(request, form)
            return await self._resource(request, target, form, user)
        except ApiError as error:
            if error.code == 409:
                # refused because of a write that may not be visible yet: who reads next must find it
                await self._resources.store.settled()
            return _error(error)
        except RecursionError:
            return _error(bad_request("the object is nested too deeply"))
        except OverflowError:
            return _error(bad_request("a number in the request is out of range"))
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            # an object of a shape that no rule foresaw must not take the server down (P9); the log has the place
            log.error("Cannot answer %s %s: %r", request.method, request.path, error, exc_info=error)
            return _error(internal(f"{type(error).__name__}: {error}"))

    # who and may they --------------------------------------------------------------------------------

    def _user(self, request: web.Request) -> User | None:
        header = request.headers.get("Authorization", "")
        user: User | None = None
        if header:
            scheme, _, token = header.partition(" ")
            if scheme.lower() != "bearer":
                raise unauthorized()
            try:
                user = self._tokens.check(token.strip())
            except BadToken as error:
                log.debug("Token refused: %s", error)
                raise unauthorized() from error
        elif request.transport is not None:
            connection = request.transport.get_extra_info("ssl_object")
            if isinstance(connection, ssl.SSLObject | ssl.SSLSocket):
                user = from_certificate(connection.getpeercert(), connection.getpeercert(binary_form=True))
        name = request.headers.get("Impersonate-User")
        if name and user is not None:
            user = self._impersonate(request, user, name)
        return user

    def _impersonate(self, request: web.Request, user: User, name: str) -> User:
        groups = request.headers.getall("Impersonate-Group", [])
        account = name.startswith("system:serviceaccount:") and name.count(":") == 3
        wanted = [("serviceaccounts", name.rpartition(":")[2]) if account else ("users", name)]
        wanted += [("groups", group) for group in groups]
        for resource, item in wanted:
            namespace = name.split(":")[2] if account and resource == "serviceaccounts" else ""
            asked = Request(verb="impersonate", resource=resource, name=item, namespace=namespace)
            if not self._authorizer.allowed(user, asked):
                raise forbidden(
                    resource,
                    "",
                    item,
                    f'User "{user.name}" cannot impersonate resource "{resource}" in API group ""',
                )
        if account:
            _, _, namespace, _ = name.split(":")
            groups = [*groups, "system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
        return User(name=name, groups=(*groups, AUTHENTICATED))

    def _authorize(self, user: User | None, request: web.Request, target: Target | None) -> None:
        if user is None:
            path = request.path.rstrip("/")
            if target is None and any(path == item or path.startswith(item + "/") for item in OPEN_PATHS):
                return
            raise unauthorized()
        if target is None:
            verb = request.method.lower()
            asked = Request(verb=verb, path=request.path)
            if not self._authorizer.allowed(user, asked):
                raise forbidden_path(f'forbidden: User "{user.name}" cannot {verb} path "{request.path}"')
            return
        asked = Request(
            verb=target.verb,
            group=target.group,
            resource=target.plural,
            subresource=target.subresource,
            namespace=target.namespace,
            name=target.name,
        )
        if not self._authorizer.allowed(user, asked):
            where = f' in the namespace "{target.namespace}"' if target.namespace else " at the cluster scope"
            raise forbidden(
                target.plural,
                target.group,
                target.name,
                f'User "{user.name}" cannot {target.verb} resource "{asked.full_resource}" in API group '
                f'"{target.group}"{where}{": " + why if (why := self._authorizer.reason(user)) else ""}',
            )

    # documents ---------------------------------------------------------------------------------------

    async def _document(self, request: web.Request, form: Form) -> web.StreamResponse:
        path = request.path.rstrip("/") or "/"
        parts = path.strip("/").split("/")
        if path in ("/healthz", "/livez", "/readyz") or parts[0] in ("healthz", "livez", "readyz"):
            return self._health(request, parts)
        if request.method not in ("GET", "HEAD"):
            return (
                _text(404, NOT_FOUND_TEXT)
                if parts[0] not in ("api", "apis")
                else _error(method_not_allowed())
            )
        body: Any = None
        if path == "/version":
            body = discovery.version()
        elif path == "/api":
            if form.aggregated:
                return self._aggregated(request, core=True)
            body = discovery.core_versions(self.address)
        elif path == "/apis":
            if form.aggregated:
                return self._aggregated(request, core=False)
            body = discovery.groups(self._registry)
        elif parts[0] == "api" and len(parts) == 2:
            body = discovery.resources(self._registry, "", parts[1])
        elif parts[0] == "apis" and len(parts) == 2:
            body = discovery.group_body(self._registry, parts[1])
        elif parts[0] == "apis" and len(parts) == 3:
            body = discovery.resources(self._registry, parts[1], parts[2])
        elif path == "/.well-known/openid-configuration":
            body = {
                "issuer": "https://kubernetes.default.svc",
                "jwks_uri": f"https://{self.address}/openid/v1/jwks",
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            }
        elif path == "/openid/v1/jwks":
            body = self._tokens.jwks()
        elif path == "/openapi/v2":
            if openapi_pb.wanted(request.headers.get("Accept", "")):
                data, tag = self._openapi.v2_protobuf()
                return _tagged(request, data, f"{tag}-pb", openapi_pb.MEDIA_TYPES[1])
            data, tag = self._openapi.v2()
            return _tagged(request, data, tag, "application/json")
        elif path == "/openapi/v3":
            body = self._openapi.index()
        elif path.startswith("/openapi/v3/"):
            document = self._openapi.v3(path.removeprefix("/openapi/v3/"))
            if document is None:
                return _text(404, NOT_FOUND_TEXT)
            return _tagged(request, document[0], document[1], "application/json")
        elif path == "/":
            body = {
                "paths": [
                    "/api",
                    "/apis",
                    "/healthz",
                    "/livez",
                    "/openapi/v2",
                    "/openapi/v3",
                    "/readyz",
                    "/version",
                ]
            }
        if body is None:
            return _text(404, NOT_FOUND_TEXT)
        return _answer(200, msgspec.json.encode(body), form)

    def _aggregated(self, request: web.Request, *, core: bool) -> web.StreamResponse:
        data = msgspec.json.encode(discovery.aggregated(self._registry, core=core))
        return _tagged(request, data, hashlib.sha256(data).hexdigest().upper(), discovery.AGGREGATED)

    def _health(self, request: web.Request, parts: list[str]) -> web.StreamResponse:
        checks = dict(self._checks)
        if len(parts) > 1:
            check = checks.get("/".join(parts[1:]))
            if check is None:
                return _text(404, NOT_FOUND_TEXT)
            checks = {parts[1]: check}
        results = {name: check() for name, check in checks.items()}
        good = all(results.values())
        if "verbose" in request.query or not good:
            lines = [
                f"[{'+' if ok else '-'}]{name} {'ok' if ok else 'failed'}" for name, ok in results.items()
            ]
            lines.append(f"{parts[0]} check {'passed' if good else 'failed'}")
            return _text(200 if good else 500, "\n".join(lines) + "\n")
        return _text(200, "ok")

    # resources ---------------------------------------------------------------------------------------

    async def _resource(
        self, request: web.Request, target: Target, form: Form, user: User | None
    ) -> web.StreamResponse:
        kind = self._registry.by_path(target.group, target.version, target.plural)
        if kind is None:
            if not any(row.group == target.group and row.version == target.version for row in self._registry):
                return _text(404, NOT_FOUND_TEXT)
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
                return _answer(200, data, form)
            case "watch":
                return await self._watch(request, target, form, kind)
            case "get":
                return self._get(request, kind, namespace, target.name, form)
            case "create":
                if target.name:
                    raise method_not_allowed()
                options = self._options(request)
                body, faults = await self._body(request, kind.kind, options)
                self._duplicates(kind, faults, options)
                if kind.key == signing.KEY and user is not None:
                    signing.stamp(body, user.as_json())
                outcome = await self._resources.create(kind, namespace, body, options)
                return self._outcome(outcome, kind, form, faults, options)
            case "update":
                options = self._options(request)
                body, faults = await self._body(request, kind.kind, options)
                self._duplicates(kind, faults, options)
                outcome = await self._resources.update(kind, namespace, target.name, body, options)
                return self._outcome(outcome, kind, form, faults, options)
            case "patch":
                options, patch_type, body = await self._patch_body(request, kind)
                outcome = await self._resources.patch(kind, namespace, target.name, patch_type, body, options)
                return self._outcome(outcome, kind, form, [], options)
            case "delete":
                given = await self._delete_options(request)
                outcome = await self._resources.delete(kind, namespace, target.name, given)
                return self._outcome(outcome, kind, form, [], WriteOptions())
            case _:
                return await self._delete_collection(request, target, kind, form)

    def _get(
        self, request: web.Request, kind: Kind, namespace: str, name: str, form: Form
    ) -> web.StreamResponse:
        store = self._resources.store
        query_version = request.query.get("resourceVersion", "")
        if query_version and not query_version.isdigit():
            raise bad_request(
                f'invalid resource version: resourceVersion: Invalid value: "{query_version}": strconv.ParseUint: '
                f'parsing "{query_version}": invalid syntax'
            )
        listing.check_revision(store, int(query_version) if query_version else None)
        record = store.get(kind.key, namespace, name)
        if record is None:
            raise not_found(kind.plural, kind.group, name)
        if not form.shape:
            return _answer(200, listing.body_in(kind, record), form)
        body = ordered(kind, self._shown(kind, record))
        include = request.query.get("includeObject", "Metadata")
        return _answer(200, listing.object_bytes(kind, body, form, self._resources.now(), include), form)

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
        given = await self._delete_options(request)
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
        return _answer(200, data, form)

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
            options = self._options(request)
            expected = {"binding": "Binding", "eviction": "Eviction", "token": "TokenRequest"}[name]
            body, _ = await self._body(request, expected, options)
            if name == "binding":
                outcome = await self._below.bind(kind, namespace, target.name, body, options)
            elif name == "eviction":
                outcome = await self._below.evict(kind, namespace, target.name, body, options)
            else:
                outcome = self._below.token(namespace, target.name, body)
            return self._outcome(outcome, kind, form, [], options)
        if target.verb == "get":
            return self._get(request, kind, namespace, target.name, form)
        if name == "approval":
            self._may_approve(user, kind, target.name)
        if target.verb == "update":
            options = self._options(request)
            body, faults = await self._body(request, kind.kind, options)
            self._duplicates(kind, faults, options)
            outcome = await self._resources.update(
                kind, namespace, target.name, body, options, subresource=name
            )
            return self._outcome(outcome, kind, form, faults, options)
        if target.verb == "patch":
            options, patch_type, body = await self._patch_body(request, kind)
            outcome = await self._resources.patch(
                kind, namespace, target.name, patch_type, body, options, subresource=name
            )
            return self._outcome(outcome, kind, form, [], options)
        raise method_not_allowed()

    def _may_approve(self, user: User | None, kind: Kind, name: str) -> None:
        """Beside the right to change approvals, the right to decide for that signer.  Raises ApiError."""
        signer = str((self._resources.read(kind, "", name).get("spec") or {}).get("signerName", ""))
        for scope in (signer, f"{signer.partition('/')[0]}/*"):
            asked = Request(verb="approve", group=kind.group, resource="signers", name=scope)
            if user is not None and self._authorizer.allowed(user, asked):
                return
        who = user.name if user is not None else ""
        raise forbidden(
            kind.plural,
            kind.group,
            name,
            f'user "{who}" not permitted to approve requests with signerName "{signer}"',
        )

    async def _scale(
        self, request: web.Request, target: Target, form: Form, kind: Kind, namespace: str
    ) -> web.StreamResponse:
        if target.verb == "get":
            body = self._below.scale(kind, self._resources.read(kind, namespace, target.name))
            return _answer(200, msgspec.json.encode(body), form)
        if target.verb == "update":
            options = self._options(request)
            body, _ = await self._body(request, "Scale", options)
            outcome = await self._below.update_scale(kind, namespace, target.name, body, options)
        elif target.verb == "patch":
            options, patch_type, patch = await self._patch_body(request, kind)
            outcome = await self._below.patch_scale(kind, namespace, target.name, patch_type, patch, options)
        else:
            raise method_not_allowed()
        return self._outcome(outcome, kind, form, [], options)

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
        return _answer(200, msgspec.json.encode(body), form)

    async def _review(
        self, request: web.Request, target: Target, form: Form, kind: Kind, user: User
    ) -> web.StreamResponse:
        options = self._options(request)
        body, _ = await self._body(request, kind.kind, options)
        check_type(kind, body)
        if kind.kind == "Binding":
            pods = self._registry.by_path("", "v1", "pods")
            name = (body.get("metadata") or {}).get("name", "")
            if pods is None or not name:
                raise bad_request("metadata.name is required")
            outcome = await self._below.bind(pods, target.namespace, name, body, options)
        else:
            outcome = self._below.review(kind, target.namespace, body, user)
        return self._outcome(outcome, kind, form, [], options)

    # bodies ------------------------------------------------------------------------------------------

    def _options(self, request: web.Request) -> WriteOptions:
        return write_options(request.query, request.headers.get("User-Agent", ""))

    async def _body(self, request: web.Request, kind: str, options: WriteOptions) -> tuple[Json, list[str]]:
        data = await _read(request)
        content_type = request.headers.get("Content-Type", "")
        return load_object(data, content_type, kind, duplicates=options.field_validation != "Ignore")

    def _duplicates(self, kind: Kind, faults: list[str], options: WriteOptions) -> None:
        if faults and options.field_validation == "Strict":
            listed = ", ".join(f'duplicate field "{item}"' for item in faults)
            raise bad_request(
                f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
                f"strict decoding error: {listed}"
            )

    async def _patch_body(self, request: web.Request, kind: Kind) -> tuple[WriteOptions, str, Any]:
        media = request.headers.get("Content-Type", "").partition(";")[0].strip()
        patch_type = PATCH_TYPES.get(media)
        if patch_type is None:
            raise ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", details={})
        if patch_type == "strategic" and kind.custom:
            raise unsupported_media_type(
                [name for name, short in PATCH_TYPES.items() if short != "strategic"]
            )
        options = self._options(request)
        data = await _read(request)
        if patch_type != "apply":
            return options, patch_type, load_json(data)
        if not request.query.get("fieldManager"):
            raise invalid(
                "PatchOptions", "meta.k8s.io", "", [required("fieldManager", "is required for apply patch")]
            )
        text = data.lstrip()
        return options, patch_type, load_json(data) if text[:1] == b"{" else load_yaml(data)

    async def _delete_options(self, request: web.Request) -> DeleteOptions:
        data = await _read(request)
        body: Json = {}
        if data.strip():
            body, _ = load_object(
                data, request.headers.get("Content-Type", ""), "DeleteOptions", duplicates=False
            )
        grace = body.get("gracePeriodSeconds")
        if grace is None:
            grace = whole_number(request.query, "gracePeriodSeconds")
        if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool) or grace < 0):
            raise bad_request("gracePeriodSeconds must be a whole number of at least 0")
        propagation = body.get("propagationPolicy") or request.query.get("propagationPolicy", "")
        orphan = body.get("orphanDependents")
        if orphan is not None and not propagation:
            propagation = "Orphan" if orphan else "Background"
        if propagation not in ("", "Background", "Foreground", "Orphan"):
            raise bad_request(f'invalid propagationPolicy "{propagation}"')
        preconditions = body.get("preconditions") or {}
        dry = body.get("dryRun") or request.query.getall("dryRun", [])
        if dry not in ([], ["All"]):
            raise bad_request("dryRun must be All")
        return DeleteOptions(
            grace_s=grace,
            uid=preconditions.get("uid") or "",
            resource_version=preconditions.get("resourceVersion") or "",
            propagation=propagation,
            dry_run=bool(dry),
        )

    def _outcome(
        self, outcome: Outcome, kind: Kind, form: Form, duplicates: list[str], options: WriteOptions
    ) -> web.Response:
        warnings = list(outcome.warnings)
        if options.field_validation == "Warn":
            warnings += [f'duplicate field "{item}"' for item in duplicates]
        body = outcome.body
        if form.shape and body.get("kind") == kind.kind:
            data = listing.object_bytes(kind, body, form, self._resources.now(), "Metadata")
        else:
            data = msgspec.json.encode(body)
        return _answer(201 if outcome.created else 200, data, form, warnings)


async def _read(request: web.Request) -> bytes:
    """The body, refused before more than the limit is in memory."""
    if request.content_length is not None and request.content_length > MAX_BODY_BYTES:
        raise too_large(MAX_BODY_BYTES)
    parts, size = [], 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise too_large(MAX_BODY_BYTES)
        parts.append(chunk)
    return b"".join(parts)


def _answer(code: int, data: bytes, form: Form, warnings: list[str] | None = None) -> web.Response:
    headers: list[tuple[str, str]] = [("Cache-Control", "no-cache, private")]
    for text in warnings or ():
        quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")[:512]
        headers.append(("Warning", f'299 - "{quoted}"'))
    if form.yaml:
        data = dump_yaml(msgspec.json.decode(data))
    response = web.Response(
        status=code, body=data, content_type="application/yaml" if form.yaml else "application/json"
    )
    for name, value in headers:
        response.headers.add(name, value)
    return response


def _error(error: ApiError) -> web.Response:
    response = web.Response(
        status=error.code, body=msgspec.json.encode(error.as_json()), content_type="application/json"
    )
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def _text(code: int, text: str) -> web.Response:
    return web.Response(status=code, text=text, content_type="text/plain", charset="utf-8")


def _tagged(request: web.Request, data: bytes, tag: str, content_type: str) -> web.Response:
    """A document that clients may keep."""
    quoted = f'"{tag}"'
    headers = {"ETag": quoted, "Vary": "Accept", "Cache-Control": "public"}
    if request.headers.get("If-None-Match") == quoted:
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = content_type
    return web.Response(body=data, headers=headers)
