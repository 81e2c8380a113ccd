"""What the API server says of itself: health, discovery, OpenAPI, its keys, its version.  Each is read only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from cloudcore.standalone import answers, discovery, openapi_pb
from cloudcore.standalone.authn import Tokens
from cloudcore.standalone.kinds import Registry
from cloudcore.standalone.negotiation import Form
from cloudcore.standalone.openapi import OpenApi
from cloudcore.standalone.status import (
    method_not_allowed,
)

NOT_FOUND_TEXT = "404 page not found\n"


class Documents:
    """`checks` are the named conditions of /readyz; `address` is what /api tells clients."""

    def __init__(
        self,
        registry: Registry,
        tokens: Tokens,
        openapi: OpenApi,
        *,
        address: str,
        checks: Mapping[str, Callable[[], bool]],
    ) -> None:
        self._registry = registry
        self._tokens = tokens
        self._openapi = openapi
        self.address = address
        self._checks = checks

    def answer(self, request: web.Request, form: Form) -> web.StreamResponse:
        """The document at this path."""
        path = request.path.rstrip("/") or "/"
        parts = path.strip("/").split("/")
        if path in ("/healthz", "/livez", "/readyz") or parts[0] in ("healthz", "livez", "readyz"):
            return self._health(request, parts)
        if request.method not in ("GET", "HEAD"):
            return (
                answers.text(404, NOT_FOUND_TEXT)
                if parts[0] not in ("api", "apis")
                else answers.error(method_not_allowed())
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
                return answers.tagged(request, data, f"{tag}-pb", openapi_pb.MEDIA_TYPES[1])
            data, tag = self._openapi.v2()
            return answers.tagged(request, data, tag, "application/json")
        elif path == "/openapi/v3":
            body = self._openapi.index()
        elif path.startswith("/openapi/v3/"):
            document = self._openapi.v3(path.removeprefix("/openapi/v3/"))
            if document is None:
                return answers.text(404, NOT_FOUND_TEXT)
            return answers.tagged(request, document[0], document[1], "application/json")
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
            return answers.text(404, NOT_FOUND_TEXT)
        return answers.answer(200, msgspec.json.encode(body), form)

    def _aggregated(self, request: web.Request, *, core: bool) -> web.StreamResponse:
        data = msgspec.json.encode(discovery.aggregated(self._registry, core=core))
        return answers.tagged(request, data, hashlib.sha256(data).hexdigest().upper(), discovery.AGGREGATED)

    def _health(self, request: web.Request, parts: list[str]) -> web.StreamResponse:
        checks = dict(self._checks)
        if len(parts) > 1:
            check = checks.get("/".join(parts[1:]))
            if check is None:
                return answers.text(404, NOT_FOUND_TEXT)
            checks = {parts[1]: check}
        results = {name: check() for name, check in checks.items()}
        good = all(results.values())
        if "verbose" in request.query or not good:
            lines = [
                f"[{'+' if ok else '-'}]{name} {'ok' if ok else 'failed'}" for name, ok in results.items()
            ]
            lines.append(f"{parts[0]} check {'passed' if good else 'failed'}")
            return answers.text(200 if good else 500, "\n".join(lines) + "\n")
        return answers.text(200, "ok")
