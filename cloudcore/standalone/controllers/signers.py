"""Sign what was approved, with the API's own authority.  What may be signed is decided in signing.py."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from cloudcore.identity import pki
from cloudcore.standalone import signing
from cloudcore.standalone.controllers.base import Controller, Event, Item, set_condition
from cloudcore.standalone.verbs import Resources

Json = dict[str, Any]


class Signers(Controller):
    name = "csrsigning-controller"
    watches = (signing.KEY,)

    def __init__(self, resources: Resources, *, clock: Callable[[], float], authority: pki.KeyPair) -> None:
        super().__init__(resources, clock=clock)
        self._authority = authority

    def everything(self) -> Iterable[Item]:
        return self.ids(signing.KEY)

    def concerns(self, event: Event) -> Iterable[Item]:
        return [("", event.record.name)]

    async def reconcile(self, item: Item) -> float | None:
        body = self.get(signing.KEY, "", item[1])
        if body is None or "deletionTimestamp" in body["metadata"] or signing.state(body) != "Approved":
            return None
        signer = body["spec"].get("signerName", "")
        if signer not in signing.SIGNERS:
            return None
        status = dict(body.get("status") or {})
        try:
            status["certificate"] = self._sign(signer, body)
        except pki.BadRequest as error:
            failed = {
                "type": "Failed",
                "status": "True",
                "reason": "SignerValidationFailure",
                "message": str(error),
            }
            stamp = self.resources.timestamp()
            conditions = set_condition(
                status.get("conditions") or [], {**failed, "lastUpdateTime": stamp}, stamp
            )
            status["conditions"] = conditions
        await self.set_status(signing.KEY, body, status)
        return None

    def _sign(self, signer: str, body: Json) -> str:
        """The certificate as the status has it.  Raises pki.BadRequest."""
        pem = signing.pem_of(body)
        name, groups = pki.request_subject(pem)
        dns, ips, others = pki.request_names(pem)
        request = signing.Request(name=name, groups=groups, dns=dns, ips=ips, other_names=others)
        fault = signing.fault(signer, request, body["spec"].get("usages") or ())
        if not name:
            fault = fault or "the request has no common name"
        if fault:
            raise pki.BadRequest(f"cannot sign request: {fault}")
        serves = signer == signing.KUBELET_SERVING
        certificate = pki.sign_request(
            self._authority,
            pem,
            common_name=name,
            organizations=sorted(groups),
            lifetime=timedelta(seconds=signing.lifetime_s(body)),
            now=self.resources.now(),
            dns=dns if serves else (),
            ips=ips if serves else (),
            server=serves,
        )
        return base64.b64encode(certificate).decode()
