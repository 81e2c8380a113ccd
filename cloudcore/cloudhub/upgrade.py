"""What a connection comes for, who it is, and why it may not come in.  Pure: values of the upgrade in, an answer out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from beehive import codec, resource, session, stocktunnel, tunnel
from beehive.succession import PATH as SUCCESSION_PATH
from cloudcore.identity.subjects import HUB_GROUP, HUB_USER, NODE_GROUP, NODE_USER

HUB_PATH = "/hub"
"""Where one cloudcore asks another for streams."""


class Purpose(Enum):
    """By the path that is asked for."""

    CA = "the authority's certificate"
    SUCCESSION = "which authority follows which"
    JOIN = "joining"
    HUB = "another cloudcore's streams"
    STOCK_TUNNEL = "a stock edge's streams"
    TUNNEL = "a node's streams"
    LINK = "a node's link"


MESSAGE_BYTES = {
    Purpose.JOIN: codec.MAX_JOIN_BYTES,
    Purpose.HUB: tunnel.MAX_FRAME,
    Purpose.STOCK_TUNNEL: stocktunnel.MAX_FRAME,
    Purpose.TUNNEL: tunnel.MAX_FRAME,
    Purpose.LINK: codec.MAX_FRAME_BYTES,
}
"""The largest message that is read."""


_PATHS = {
    "/ca.crt": Purpose.CA,
    SUCCESSION_PATH: Purpose.SUCCESSION,
    "/join": Purpose.JOIN,
    HUB_PATH: Purpose.HUB,
    "/tunnel": Purpose.TUNNEL,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP status, and a sentence for whoever reads the edge's log."""

    status: int
    text: str


def purpose_of(path: str) -> Purpose:
    """path: of the request, without its query."""
    found = _PATHS.get(path)
    if found is not None:
        return found
    return Purpose.STOCK_TUNNEL if path.rstrip("/") == stocktunnel.PATH else Purpose.LINK


def name_header(purpose: Purpose) -> str:
    """Where the edge says who it is."""
    return stocktunnel.HEADER_NODE if purpose is Purpose.STOCK_TUNNEL else session.HEADER_NODE


def hub_refusal(certificate: Mapping[str, Any] | None) -> Refusal | None:
    """Whether another cloudcore comes.   certificate: the verified one, as ssl.getpeercert has it."""
    if _subject(certificate) == (HUB_USER, [HUB_GROUP]):
        return None
    return Refusal(403, "a certificate of another cloudcore is needed here")


def node_of(certificate: Mapping[str, Any] | None) -> str | Refusal:
    """The node that the verified certificate, as ssl.getpeercert has it, is made for."""
    found = _subject(certificate)
    if found is None:
        return Refusal(401, "a node certificate is needed here; join first")
    name, groups = found
    node = name.removeprefix(NODE_USER)
    if groups != [NODE_GROUP] or not name.startswith(NODE_USER) or not resource.is_name(node):
        return Refusal(403, "the certificate is not a node's")
    return node


def claim_refusal(purpose: Purpose, claimed: str, name: str) -> Refusal | None:
    """A header never says who somebody is, but one that says otherwise is a fault.  name: the certificate's."""
    if claimed == name:
        return None
    return Refusal(403, f"the header {name_header(purpose)} is not the name in the certificate")


def use_refusal(purpose: Purpose, use: str, *, served: bool, linked: bool) -> Refusal | None:
    """use: the header ConnectionUse.   served: whether this is switched on.   linked: whether the node has its link."""
    if not served:
        return Refusal(404, "streams are switched off")
    wanted = {Purpose.TUNNEL: "str", Purpose.LINK: "msg"}.get(purpose)
    if wanted is not None and use != wanted:
        return Refusal(400, f"the header ConnectionUse must be {wanted}")
    # what a node may do is decided when its link is made
    if purpose in (Purpose.TUNNEL, Purpose.STOCK_TUNNEL) and not linked:
        return Refusal(503, "make the link first")
    return None


def _subject(certificate: Mapping[str, Any] | None) -> tuple[str, list[str]] | None:
    """Name and organizations; None without a certificate, an empty name when it has not exactly one."""
    if not certificate:
        return None
    names: list[str] = []
    groups: list[str] = []
    for part in certificate.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                names.append(value)
            elif key == "organizationName":
                groups.append(value)
    return (names[0] if len(names) == 1 else ""), groups
