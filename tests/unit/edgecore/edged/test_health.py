from __future__ import annotations

from edgecore.edged import health


def test_requests_are_protobuf() -> None:
    assert health.request("") == b""
    assert health.request("ab") == b"\x0a\x02ab"
    assert health.request("x" * 200) == b"\x0a\xc8\x01" + b"x" * 200
