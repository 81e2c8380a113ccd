"""What a machine that joins, or a node that renews its certificate, is answered."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from beehive.errors import ProtocolError, SkerryError, Unavailable
from beehive.message import Failure, JoinAnswer, JoinRequest, Message, Op, RenewRequest, Source, reply
from beehive.succession import Trust
from cloudcore.errors import JoinRefused
from cloudcore.identity.revocation import Shown

log = logging.getLogger(__name__)

Joiner = Callable[[JoinRequest, str, Trust | None], Awaitable[JoinAnswer]]
"""Takes the request, the address it came from, and which authorities the machine trusts."""
Renewer = Callable[[str, str, Shown | None, Trust | None], Awaitable[JoinAnswer]]
"""Takes a node's name, its signing request, the certificate that it showed, and which authorities it trusts."""
AWAY = "the Kubernetes API is away; try again later"


async def join_answer(join: Joiner, message: Message, host: str, trusts: Trust | None) -> Message:
    """host: where it comes from.  Never raises but for a fault of ours."""
    try:
        answer = await join(message.decode(JoinRequest), host, trusts)
        return reply(message, answer, source=Source.CLOUDHUB)
    except (JoinRefused, ProtocolError) as error:
        return _failure(message, error.reason, str(error))
    except SkerryError as error:
        log.warning("Cannot let a node join: %s", error)
        return _failure(message, Unavailable.reason, AWAY)


async def renew_answer(
    renew: Renewer, message: Message, node: str, certificate: Shown | None, trusts: Trust | None
) -> Message:
    """certificate: the one that `node` has shown on this link.  Never raises but for a fault of ours."""
    try:
        answer = await renew(node, message.decode(RenewRequest).csr, certificate, trusts)
    except (JoinRefused, ProtocolError) as error:
        return _failure(message, error.reason, str(error))
    except SkerryError as error:
        log.info("Cannot renew the certificate of node %s: %s", node, error)
        return _failure(message, Unavailable.reason, AWAY)
    return reply(message, answer, source=Source.CLOUDHUB)


def _failure(message: Message, reason: str, text: str) -> Message:
    content = Failure(reason=reason, message=text[:512])
    return reply(message, content, source=Source.CLOUDHUB, operation=Op.ERROR)
