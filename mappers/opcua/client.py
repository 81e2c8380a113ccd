"""A connection to an OPC UA server.  asyncua stays in here."""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

from asyncua import Client, ua

from mappers.framework.convert import Value
from mappers.framework.driver import DeviceError, DriverError
from mappers.framework.errors import ValueRefused

logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # it logs what it raises as well

# What is the manifest's to set right; anything else the server says may be gone the next time.
_FINAL = (
    ua.uaerrors.BadNodeIdUnknown,
    ua.uaerrors.BadNodeIdInvalid,
    ua.uaerrors.BadAttributeIdInvalid,
    ua.uaerrors.BadNotReadable,
    ua.uaerrors.BadNotWritable,
    ua.uaerrors.BadUserAccessDenied,
    ua.uaerrors.BadTypeMismatch,
    ua.uaerrors.BadOutOfRange,
)
_LOST = (OSError, EOFError, TimeoutError, asyncio.TimeoutError, ConnectionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """security: "" or asyncua's `policy,mode,certificate,key[,server certificate]`."""

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    security: str = ""
    timeout_s: float = 4.0


class Connection:
    """One session.  Nothing is retried here."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._client: Any = Client(server.url, timeout=server.timeout_s)

    async def open(self) -> None:
        """Raises: DeviceError, DriverError."""
        server = self._server
        try:
            if server.security:
                await self._client.set_security_string(server.security)
            if server.user:
                self._client.set_user(server.user)
                self._client.set_password(server.password)
            await self._client.connect()
        except (ua.UaError, *_LOST) as error:
            raise DeviceError(
                f"cannot connect to {server.url}: {str(error) or type(error).__name__}"
            ) from error
        except ValueError as error:
            raise DriverError(f"cannot connect to {server.url}: {error}") from error

    async def close(self) -> None:
        try:
            await self._client.disconnect()
        except (ua.UaError, *_LOST):
            return  # it is gone anyway

    async def read(self, node_id: str) -> Value:
        """Raises: DeviceError, DriverError, ValueRefused."""
        value = await self._ask(node_id, lambda node: node.read_value())
        return plain(value)

    async def write(self, node_id: str, value: Value) -> None:
        """Write as the type that the node has: a server refuses others.  Raises: DeviceError, DriverError."""
        kind = await self._ask(node_id, lambda node: node.read_data_type_as_variant_type())
        await self._ask(node_id, lambda node: node.write_value(ua.DataValue(ua.Variant(value, kind))))

    async def _ask(self, node_id: str, call: Any) -> Any:
        try:
            node = self._client.get_node(node_id)
        except (ua.UaError, ValueError) as error:
            raise DriverError(f"setting 'nodeID' is not like ns=2;i=2: {node_id[:64]!r}") from error
        try:
            return await call(node)
        except _FINAL as error:
            raise DriverError(f"{node_id}: {error}") from error
        except (ua.UaError, *_LOST) as error:
            if "Cannot pack" in str(error):  # asyncua's own, before anything was sent
                raise ValueRefused(f"{node_id}: {error}") from error
            raise DeviceError(f"{self._server.url}: {str(error) or type(error).__name__}") from error
        except (
            TypeError,
            ValueError,
            AttributeError,
            OverflowError,
        ) as error:  # asyncua cannot pack the value as this type
            raise ValueRefused(f"{node_id}: the value does not fit the node: {error}") from error


def plain(value: Any) -> Value:
    """A value of the server as one of ours.  Raises: ValueRefused."""
    if isinstance(value, bool | int | float | str | bytes):
        return value
    if value is None:
        raise ValueRefused("the node has no value")
    if isinstance(value, ua.LocalizedText):
        return value.Text or ""
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    if isinstance(value, list):
        return "[" + ",".join(str(plain(item)) for item in value[:1000]) + "]"
    return str(value)
