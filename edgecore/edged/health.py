"""Ask a gRPC server for its health (grpc.health.v1), for gRPC probes.

The two messages have one field each, so they are read and written here without generated code.
"""

from __future__ import annotations

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError

SERVING = b"\x08\x01"
# other values of HealthCheckResponse's one field, status = 1; the default is not sent
STATUSES = {
    b"": "UNKNOWN",
    b"\x08\x00": "UNKNOWN",
    b"\x08\x02": "NOT_SERVING",
    b"\x08\x03": "SERVICE_UNKNOWN",
}


class _Bytes(CodecBase):  # type: ignore[misc]  # grpclib has no types
    """Messages as they are on the wire."""

    __content_subtype__ = "proto"

    def encode(self, message: object, message_type: object) -> bytes:
        assert isinstance(message, bytes)
        return message

    def decode(self, data: bytes, message_type: object) -> bytes:
        return data


def request(service: str) -> bytes:
    """HealthCheckRequest with its one field, service = 1."""
    name = service.encode()[:16383]
    if not name:
        return b""
    size = bytes([len(name)]) if len(name) < 128 else bytes([len(name) & 0x7F | 0x80, len(name) >> 7])
    return b"\x0a" + size + name


async def check(host: str, port: int, service: str, timeout_s: float) -> tuple[bool, str]:
    """Whether the service answers SERVING.  Raises OSError."""
    channel = Channel(host, port, codec=_Bytes())
    try:
        method: UnaryUnaryMethod[bytes, bytes] = UnaryUnaryMethod(
            channel, "/grpc.health.v1.Health/Check", bytes, bytes
        )
        answer = await method(request(service), timeout=timeout_s)
    except GRPCError as err:
        return False, f"{err.status.name}: {(err.message or '')[:128]}"
    except StreamTerminatedError as err:
        return False, str(err)[:128]
    finally:
        channel.close()
    if answer == SERVING:
        return True, ""
    return False, f'service unhealthy (responded with "{STATUSES.get(answer, "?")}")'
