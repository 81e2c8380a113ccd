"""What time it is, from the cloud, when this machine's clock says that a certificate is over.

A clock that is years ahead would lock the node out until somebody comes and sets it.  But whether a certificate is over cannot
be believed of a clock, nor of a hub that shows an old certificate: its key may have been stolen long ago.  So the node makes
a new key, asks the hub to renew its certificate for it, and looks when the answer begins.  No one but the cloud's authority,
which the node knows from joining, can sign a key that did not exist before; so the answer was made now, and the authority's own
key says when that is.  If neither certificate is over at that time, the clock is wrong and `clock.correct`ed; otherwise the
refusal stays.  The new certificate is thrown away.

Against the authority's key itself nothing helps, here as elsewhere.  A clock that is *behind* needs none of this: what is not
valid yet counts."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

from beehive import clock, codec, session, succession
from beehive.errors import ProtocolError, Refused, Unavailable
from edgecore.edgehub import keys, kubeedge, trust
from edgecore.edgehub.certificate import JOIN_S, Files, read_answer, renewal
from edgecore.edgehub.websocket import Socket, dial

log = logging.getLogger(__name__)

DATED_BACK_S = 300.0
"""A hub of ours dates what it signs so much back; a stock one does not."""

AGAIN_S = 600.0
"""After an answer that confirmed the refusal the same is not asked again for so long: a key costs a small board seconds."""

MAX_FRAMES = 64
"""Frames read while the answer is waited for."""


class TrueTime:
    """One for a node's identity."""

    def __init__(self, files: Files, *, project: str = session.PROJECT_ID) -> None:
        self._files = files
        self._project = project
        self._unused: keys.Request | None = None
        self._confirmed: tuple[float, float] | None = None

    async def ask(self, address: str) -> bool:
        """Whether the clock was wrong and is corrected.

        Raises: Unavailable, Refused (it is over), JoinRefused, ProtocolError, ConfigError."""
        machine = clock.machine().timestamp()
        if self._confirmed is not None:
            at, offset = self._confirmed
            same_clock = abs(machine - clock.monotonic() - offset) < clock.AHEAD_S
            if same_clock and clock.monotonic() - at < AGAIN_S:
                return False
        identity, chain = self._files.identity(), self._files.trusted()
        # made before the hub is there, who does not wait for a slow board; never sent twice
        request = self._unused = self._unused or await keys.make_request(identity.node)
        socket = await dial(
            f"wss://{address}/{self._project}/{identity.node}/events",
            tls=self._files.context(None),
            headers={
                session.HEADER_NODE: identity.node,
                session.HEADER_PROJECT: self._project,
                session.HEADER_USE: "msg",
                session.HEADER_PROTOCOL: str(session.PROTOCOL_VERSION),
                succession.HEADER: str(trust.told(chain)),
            },
            any_time=True,
        )
        ours = socket.header(session.HEADER_PROTOCOL) == str(session.PROTOCOL_VERSION)
        try:
            hub_ends = socket.hub_ends()
            self._unused = None
            if ours:
                signed = await _signed(socket, address, identity.node, request.csr)
        finally:
            await socket.close()
        if not ours:
            if not identity.https:
                raise Unavailable(
                    "cannot ask this cloud for the time: set this machine's clock, or join again"
                )
            signed = await kubeedge.certificate(
                identity.https,
                identity.node,
                request.csr,
                tls=self._files.context(None),
                token=None,
                any_time=True,
            )
        # of several authorities the newest: the key of one that was replaced may be in anybody's hands by now
        fresh = await keys.check(
            identity.node, key=request.key, certificate=signed, ca=chain[-1].pem, now=None
        )
        now = fresh.not_before + (DATED_BACK_S if ours else 0.0)
        try:
            self._files.context(now)
            if now >= hub_ends:
                raise Refused(f"cannot trust the hub at {address}: its certificate has expired")
        except Refused:
            self._confirmed = (clock.monotonic(), machine - clock.monotonic())
            raise
        if machine - now <= clock.AHEAD_S:
            return False
        log.warning(
            "This machine's clock says %s and the cloud's authority %s: the latter counts until the clock is set",
            f"{datetime.fromtimestamp(machine, UTC):%Y-%m-%d %H:%M}",
            f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M} UTC",
        )
        clock.correct(now)
        return True


async def _signed(socket: Socket, address: str, node: str, csr: str) -> str:
    """The certificate for a request.  Raises: JoinRefused, Unavailable, ProtocolError."""
    question = renewal(node, csr)
    try:
        async with asyncio.timeout(JOIN_S):
            await socket.send(codec.encode(question))
            for _ in range(MAX_FRAMES):
                answer = codec.decode(await socket.receive())
                if answer.parent == question.id:
                    return read_answer(answer).certificate
    except TimeoutError as error:
        raise Unavailable(f"the cloud at {address} did not answer in {JOIN_S:.0f} s") from error
    raise ProtocolError(f"the hub at {address} does not say what time it is")
