"""A runtime that dies in the middle of an answer, or answers with what is none: cri.py raises CriError and nothing else."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from edgecore._generated import cri_pb2 as pb
from edgecore.edged.cri import Cri, signal_of
from edgecore.edged.errors import CriError


class Runtime(asyncio.Protocol):
    """Answers each request with `body`, and ends."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._http.initiate_connection()
        transport.write(self._http.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self._http.receive_data(data):
            if isinstance(event, h2.events.StreamEnded):
                head = [(":status", "200"), ("content-type", "application/grpc+proto")]
                self._http.send_headers(event.stream_id, head)
                self._http.send_data(event.stream_id, self._body, end_stream=True)
        self._transport.write(self._http.data_to_send())


@pytest.mark.parametrize(
    "body",
    [b"\0" + struct.pack(">I", 1000) + b"half", b"\0", b"\0" + struct.pack(">I", 4) + b"\xff\xff\xff\xff"],
    ids=["half an answer", "half a head", "no message"],
)
def test_what_is_no_answer_is_an_error_of_the_runtime(tmp_path: Path, body: bytes) -> None:
    async def story() -> None:
        path = tmp_path / "runtime.sock"
        server = await asyncio.get_running_loop().create_unix_server(lambda: Runtime(body), path)
        cri = Cri(str(path))
        try:
            async with server:
                with pytest.raises(CriError) as caught:
                    await cri.list_sandboxes()
                assert caught.value.retryable
        finally:
            cri.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SIGUSR1", pb.SIGUSR1),
        ("SIGRTMIN+3", pb.SIGRTMINPLUS3),
        ("SIGRTMAX-2", pb.SIGRTMAXMINUS2),
        ("", 0),
        ("KILL", 0),
    ],
)
def test_signals_by_kubernetes_names(name: str, number: int) -> None:
    assert signal_of(name) == number
