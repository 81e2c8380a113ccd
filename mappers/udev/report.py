"""Brings candidates and the Devices made of them to an API server.

What is wanted is kept by object and sent until it is there: a report that fails is sent again with growing pauses, and the
newest state of an object replaces one that is not sent yet.  `accepted` belongs to whoever accepts: it is written when a
candidate is new, and read from then on.  Devices are never deleted here: what is unplugged comes back as the same Device."""

import asyncio
import json
import logging
import random
from dataclasses import dataclass
from typing import Any

from beehive.backoff import Backoff
from beehive.errors import NotFound, Refused, SkerryError, Unavailable
from mappers.framework import http
from mappers.framework.errors import DeviceError
from mappers.udev import rules
from mappers.udev.rules import Candidate
from mappers.udev.tracker import Change, Kind

log = logging.getLogger(__name__)

LOOK_S = 5.0  # how often is looked whether somebody has accepted a candidate
RETRY_BASE_S, RETRY_CAP_S = 0.5, 60.0
_PLURALS = {"DeviceCandidate": "devicecandidates", "Device": "devices", "HardwareRule": "hardwarerules"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """An API server.  Blocking: call it from a thread.  ca: file with the server's authority."""

    url: str
    token: str = ""
    ca: str | None = None

    def call(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> dict[str, Any]:
        """Raises: NotFound, Refused, Unavailable."""
        headers = {"Accept": "application/json", "Content-Type": kind}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = json.dumps(body).encode() if body is not None else None
        try:
            answer = http.request(
                method, self.url.rstrip("/") + path, body=data, headers=headers, timeout_s=10, ca=self.ca
            )
        except DeviceError as error:
            raise Unavailable(str(error)) from error
        if answer.status == 404:
            raise NotFound(f"{method} {path}: there is none")
        if answer.status >= 500 or answer.status == 429:
            raise Unavailable(f"{method} {path}: {answer.status}")
        if not 200 <= answer.status < 300:
            raise Refused(f"{method} {path}: {answer.status} {answer.body[:200].decode('utf-8', 'replace')}")
        try:
            found = json.loads(answer.body)
        except ValueError as error:
            raise Unavailable(f"{method} {path}: the answer is not JSON") from error
        return found if isinstance(found, dict) else {}

    def rules(self) -> list[Any]:
        """All HardwareRules, as documents.  Raises: SkerryError."""
        found = self.call("GET", f"/apis/{rules.API_VERSION}/hardwarerules")
        base = {"apiVersion": rules.API_VERSION, "kind": "HardwareRule"}
        return [{**item, **base} for item in found.get("items") or [] if isinstance(item, dict)]


def _path(thing: dict[str, Any], *, name: bool) -> str:
    metadata = thing["metadata"]
    path = f"/apis/{thing['apiVersion']}/namespaces/{metadata['namespace']}/{_PLURALS[thing['kind']]}"
    return f"{path}/{metadata['name']}" if name else path


class Reporter:
    """`run` never returns; `put` takes a change at any time."""

    def __init__(self, api: Api, node: str, *, rng: random.Random, look_s: float = LOOK_S) -> None:
        self._api = api
        self._node = node
        self._rng = rng
        self._look_s = look_s
        self._wanted: dict[str, tuple[Candidate, bool]] = {}  # to be sent, by object name
        self._waiting: dict[str, Candidate] = {}  # present, with a template, not accepted yet
        self._wake = asyncio.Event()

    def put(self, change: Change) -> None:
        name = rules.object_name(self._node, change.candidate)
        self._wanted[name] = (change.candidate, change.kind is not Kind.UNPLUGGED)
        self._wake.set()

    async def run(self) -> None:
        backoff = Backoff(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
        away = False
        while True:
            try:
                await self._send()
                await self._look()
                if away:
                    log.info("The API server is back")
                away = False
                backoff.reset()
            except Unavailable as error:
                if not away:
                    log.warning("Candidates wait for the API server: %s", error)
                away = True
                await asyncio.sleep(backoff.next_s(self._rng))
                continue
            try:
                async with asyncio.timeout(self._look_s if self._waiting else None):
                    await self._wake.wait()
                self._wake.clear()
            except TimeoutError:
                pass

    async def _send(self) -> None:
        while self._wanted:
            name, (candidate, present) = next(iter(self._wanted.items()))
            try:
                await asyncio.to_thread(self._apply, candidate, present=present)
            except Refused as error:
                log.error("The API server refuses a candidate: %s", error)
            if self._wanted.get(name) == (candidate, present):
                del self._wanted[name]
            if present and candidate.rule.template is not None:
                self._waiting[name] = candidate
            else:
                self._waiting.pop(name, None)

    async def _look(self) -> None:
        """Make Devices of the candidates that have been accepted."""
        for name, candidate in list(self._waiting.items()):
            try:
                if await asyncio.to_thread(self._accept, candidate):
                    self._waiting.pop(name, None)
            except Unavailable:
                raise
            except SkerryError as error:
                log.error("The API server refuses a device: %s", error)
                self._waiting.pop(name, None)

    def _apply(self, candidate: Candidate, *, present: bool) -> None:
        thing = rules.candidate_object(self._node, candidate, present=present)
        status = thing.pop("status")
        try:
            self._api.call("GET", _path(thing, name=True))
        except NotFound:
            self._api.call("POST", _path(thing, name=False), thing)
        else:
            spec = {key: value for key, value in thing["spec"].items() if key != "accepted" or value}
            self._patch(_path(thing, name=True), {"spec": spec})
        self._patch(_path(thing, name=True) + "/status", {"status": status})

    def _accept(self, candidate: Candidate) -> bool:
        """Says whether there is nothing more to be done."""
        thing = rules.candidate_object(self._node, candidate, present=True)
        try:
            held = self._api.call("GET", _path(thing, name=True))
        except NotFound:  # somebody deleted it: a way to say no
            return True
        if (held.get("spec") or {}).get("accepted") is not True:
            return False
        device = rules.device_object(self._node, candidate)
        assert device is not None, "only candidates with a template wait"
        try:
            self._api.call("GET", _path(device, name=True))
        except NotFound:
            self._api.call("POST", _path(device, name=False), device)
            log.info("Made device %s/%s", device["metadata"]["namespace"], device["metadata"]["name"])
        else:  # it is back, perhaps under another device node; what people changed elsewhere stays
            self._patch(_path(device, name=True), {"spec": {"protocol": device["spec"]["protocol"]}})
        return True

    def _patch(self, path: str, body: dict[str, Any]) -> None:
        self._api.call("PATCH", path, body, "application/merge-patch+json")
