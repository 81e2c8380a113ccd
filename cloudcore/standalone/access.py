"""Who asks, and whether they may: a token, a certificate or an impersonation, held against the rules.

Source: apiserver, pkg/endpoints/filters."""

from __future__ import annotations

import logging
import ssl
from typing import Any

from aiohttp import web

from cloudcore.standalone.authn import AUTHENTICATED, BadToken, Tokens, User, from_certificate
from cloudcore.standalone.authz import OPEN_PATHS, Authorizer, Request
from cloudcore.standalone.kinds import Kind
from cloudcore.standalone.requests import Target
from cloudcore.standalone.status import (
    forbidden,
    forbidden_path,
    unauthorized,
)

log = logging.getLogger(__name__)
Json = dict[str, Any]


class Access:
    """The door before every request."""

    def __init__(self, tokens: Tokens, authorizer: Authorizer) -> None:
        self._tokens = tokens
        self._authorizer = authorizer

    def user(self, request: web.Request) -> User | None:
        """Who asks; None for nobody.  Raises ApiError (Unauthorized, or Forbidden for an impersonation)."""
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

    def check(self, user: User | None, request: web.Request, target: Target | None) -> None:
        """Whether they may ask for a resource, or for a document (no target).  Raises ApiError."""
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
            what = target.plural + (f"/{target.subresource}" if target.subresource else "")
            where = f' in the namespace "{target.namespace}"' if target.namespace else " at the cluster scope"
            raise forbidden(
                target.plural,
                target.group,
                target.name,
                f'User "{user.name}" cannot {target.verb} resource "{what}" in API group '
                f'"{target.group}"{where}{": " + why if (why := self._authorizer.reason(user)) else ""}',
            )

    def check_approval(self, user: User | None, kind: Kind, body: Json) -> None:
        """Beside the right to change approvals, the right to decide for that signer.  Raises ApiError."""
        signer = str((body.get("spec") or {}).get("signerName", ""))
        for scope in (signer, f"{signer.partition('/')[0]}/*"):
            asked = Request(verb="approve", group=kind.group, resource="signers", name=scope)
            if user is not None and self._authorizer.allowed(user, asked):
                return
        who = user.name if user is not None else ""
        raise forbidden(
            kind.plural,
            kind.group,
            body["metadata"]["name"],
            f'user "{who}" not permitted to approve requests with signerName "{signer}"',
        )
