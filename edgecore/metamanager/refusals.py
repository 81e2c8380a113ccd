"""What the cloud wants here and this node can never use: remembered, so that it is not taken for absent.  Pure.

A frame that is refused for good leaves no row.  Where it was about a pod, a note stays: the pod is wanted, and if it runs (from
a version that could be used, or found at the runtime after the store was lost) nothing ends it."""

from __future__ import annotations

import msgspec

from beehive.message import UNREADABLE, Message
from edgecore.metamanager.process import Object

PREFIX = "metamanager/refused/"
MAX_NOTES = 64
ANY = PREFIX + "*"
"""More than MAX_NOTES are one note about any pod."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """uid: empty when it could not be read: then it may be any.   session: in which it was refused last."""

    uid: str = ""
    session: int = 0
    why: str = ""


def key(message: Message) -> str | None:
    """The note's key; None for a frame that is surely not about a pod."""
    parts = message.route.resource.split("/")
    if len(parts) > 1 and parts[1] != "pod":
        return None
    return PREFIX + message.route.resource[:256]


def refusal(message: Message, session: int, why: str) -> bytes:
    """The note of a refused frame."""
    try:
        uid = msgspec.json.decode(message.content, type=Object).metadata.uid[:253]
    except UNREADABLE:
        uid = ""
    return msgspec.json.encode(Refusal(uid=uid, session=session, why=why[:256]))


def read(note: bytes) -> Refusal:
    """One that cannot be read is about any pod."""
    try:
        return msgspec.json.decode(note, type=Refusal)
    except UNREADABLE:
        return Refusal()


def stubs(notes: dict[str, bytes], held: set[str]) -> list[msgspec.Raw]:
    """The refused pods of which no row is `held`, as objects that say nothing but who they are."""
    uids = {read(note).uid for note in notes.values()} - held
    return [msgspec.Raw(msgspec.json.encode({"metadata": {"uid": uid}})) for uid in sorted(uids)]
