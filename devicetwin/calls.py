"""Methods of devices: each call goes to the device's mapper once, and its end is told."""

import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from beehive._generated import methods_pb2 as methods
from beehive.apis import devices as api
from beehive.apis import twins as wire
from beehive.errors import NotFound, Refused, SkerryError, Unavailable
from devicetwin.dmi import Dmi
from devicetwin.known import Known

log = logging.getLogger(__name__)

MAX_CALLS = 64
MAX_CALL_S = 300.0
MAX_RESULT = 64 * 1024  # characters


class Calls:
    """send(resource, content, coalesce): to the cloud."""

    def __init__(self, known: Known, dmi: Dmi, send: Callable[[str, bytes, str], Awaitable[None]]) -> None:
        self._known = known
        self._dmi = dmi
        self._send = send
        self._under_way = 0

    async def call(self, id_: str, method: str, values: Mapping[str, str], timeout_s: float) -> str:
        """Do a method of a device by its mapper, once; what it returned.  Raises: SkerryError that says why not."""
        known = self._known
        device = known.good.get(id_)
        if device is None:
            raise NotFound(f"there is no device {id_[:256]} here that can be used")
        wrong = api.check_call(device, known.rows(id_), method, values)
        if wrong:
            raise Refused(wrong)
        if known.is_absent(id_):
            raise Unavailable(f"device {id_} is not plugged in")
        link = self._dmi.links.get(known.owner.get(id_, ""))
        if link is None or not link.alive or not link.info.callbacks:
            raise Unavailable(f"no mapper runs device {id_} now")
        if self._under_way >= MAX_CALLS:
            raise Unavailable(f"{MAX_CALLS} calls are under way already")
        namespace, _, name = id_.partition("/")
        request = methods.CallMethodRequest(
            deviceName=name,
            deviceNamespace=namespace,
            method=method,
            values=dict(values),
            timeoutMs=int(min(max(timeout_s, 0.001), MAX_CALL_S) * 1000),
        )
        self._under_way += 1
        try:
            return await link.call_method(request)
        finally:
            self._under_way -= 1

    async def for_cloud(self, id_: str, call: wire.MethodCall) -> None:
        """Do a call and send its end.  It is done once: an answer that gets lost is not made good by a second call."""
        try:
            result, failed = await self.call(id_, call.method, call.values, call.timeout_ms / 1000), ""
        except SkerryError as error:
            result, failed = "", str(error)[:1024] or type(error).__name__
        log.info("Called %s of %s for the cloud: %s", call.method[:64], id_, failed or "done")
        content = wire.MethodResult(result=result[:MAX_RESULT], error=failed)
        where = f"device/{id_}/{wire.CALL}/{call.id}"
        await self._send(where, msgspec.json.encode(content), f"call/{call.id}")
