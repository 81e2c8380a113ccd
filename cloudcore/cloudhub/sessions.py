"""Session numbers: each connection of a node gets a higher one than any before, whichever hub it comes to.

The newest number is an annotation of the Node, written by compare-and-swap.  A Node that does not exist yet has session 1, and
registration writes it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from beehive.errors import Conflict, Unavailable
from cloudcore.cache import Cache
from cloudcore.errors import ApiNotFound
from cloudcore.kube import Kube
from cloudcore.objects import (
    AUTHORITY_ANNOTATION,
    CLOUDCORE_ANNOTATION,
    HUB_ANNOTATION,
    NODE,
    SESSION_ANNOTATION,
    Object,
    annotation,
)

TRIES = 6


class Sessions:
    """`address`: this hub's, written beside the number, as KubeEdge's router wants it.
    where: as other cloudcores reach it; see objects.HUB_ANNOTATION.
    open_number: of the link that is open here, 0 without one; it counts too, since an API that was restored remembers an older
    number."""

    def __init__(
        self,
        kube: Kube,
        nodes: Cache,
        address: str,
        where: str = "",
        open_number: Callable[[str], int] = lambda _: 0,
    ) -> None:
        self._kube = kube
        self._nodes = nodes
        self._address = address
        self._where = where
        self._open_number = open_number

    async def note(self, node: str, authority: str) -> None:
        """Write what `node` says of authorities while its session goes on.  Raises ApiError."""
        body = {"metadata": {"annotations": {AUTHORITY_ANNOTATION: authority}}}
        try:
            await self._kube.patch(NODE, node, msgspec.json.encode(body))
        except ApiNotFound:
            return  # registration, or the next session, writes it

    async def next_number(self, node: str, authority: str) -> int:
        """Take the next number for `node`.  authority: see AUTHORITY_ANNOTATION.

        Raises ApiError when the API is away: nobody may connect then."""
        held = self._nodes.get("", node) if self._nodes.synced else None
        for _ in range(TRIES):
            if held is None:
                try:
                    held = await self._kube.get(NODE, node)
                except ApiNotFound:
                    return 1
            number = max(session_of(held), self._open_number(node)) + 1
            body = msgspec.json.encode(
                {
                    "metadata": {
                        "resourceVersion": held.version,
                        "annotations": {
                            SESSION_ANNOTATION: str(number),
                            CLOUDCORE_ANNOTATION: self._address,
                            HUB_ANNOTATION: self._where,
                            AUTHORITY_ANNOTATION: authority,
                        },
                    }
                }
            )
            try:
                await self._kube.patch(NODE, node, body)
            except ApiNotFound:
                return 1
            except Conflict:
                held = None
                continue
            return number
        raise Unavailable(f"cannot open a session for node {node}: its Node changes all the time")


def session_of(node: Object) -> int:
    """The number in a Node's annotation; 0 if there is none."""
    text = annotation(node, SESSION_ANNOTATION)
    return int(text) if text.isdecimal() and len(text) < 19 else 0
