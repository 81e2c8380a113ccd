"""How far the nodes are with a new authority, for the person who rotates it.  Pure.

What a node trusts, it says itself; which certificate it holds, its last connection showed.  A stock KubeEdge edge says nothing,
and cannot follow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from cloudcore.identity.succession import Held, NodeTrust
from cloudcore.objects import Object

OURS, STOCK = "skerry", "kubeedge"


@dataclass(frozen=True, slots=True)
class Follower:
    """One node.   kind: OURS or STOCK.   trusts, holds: the newest authority; a certificate by it.
    seen: when it was heard of last (RFC 3339), or empty."""

    name: str
    kind: str
    trusts: bool
    holds: bool
    seen: str = ""

    @property
    def follows(self) -> bool:
        """Whether it is let in after the window."""
        return self.trusts and self.holds


class _Condition(msgspec.Struct, frozen=True, kw_only=True):
    type: str = ""
    lastHeartbeatTime: str | None = None


class _Status(msgspec.Struct, frozen=True, kw_only=True):
    conditions: list[_Condition] | None = None


class _Node(msgspec.Struct, frozen=True, kw_only=True):
    status: _Status = _Status()


def follower(held: Held, said: NodeTrust, node: Object) -> Follower:
    """What is known of one node."""
    times = [
        condition.lastHeartbeatTime or ""
        for condition in node.decode(_Node).status.conditions or []
        if condition.type == "Ready"
    ]
    return Follower(
        name=said.name,
        kind=OURS if said.newest else STOCK,
        trusts=said.newest == held.newest,
        holds=said.signed_by == held.newest,
        seen=times[0] if times else "",
    )


def report(held: Held, followers: Sequence[Follower]) -> dict[str, Any]:
    """As JSON."""
    window: dict[str, Any] | None = None
    if held.until is not None and held.last is not None:
        window = {
            "old": held.last.statement.old,
            "began": _time(held.last.statement.begins),
            "until": _time(held.until),
            "shows": "new" if held.shows_new else "old",
        }
    return {
        "authority": held.newest,
        "window": window,
        "readmitted": {node: _time(until) for node, until in sorted(held.readmitted.items())},
        "nodes": [
            {"name": one.name, "kind": one.kind, "trusts": one.trusts, "holds": one.holds, "seen": one.seen}
            for one in followers
        ],
    }


def text(held: Held, followers: Sequence[Follower]) -> str:
    """For a screen."""
    lines = [f"authority  {held.newest}"]
    if held.until is not None and held.last is not None:
        lines += [
            f"replaces   {held.last.statement.old}",
            f"           which counts until {_time(held.until)}; cloudcore proves itself by the "
            f"{'new' if held.shows_new else 'old'} one",
        ]
    else:
        lines.append("           alone: no rotation goes on")
    for node, until in sorted(held.readmitted.items()):
        lines.append(f"readmitted {node} until {_time(until)}")
    if followers:
        lines.append("")
        lines.append(f"{'NODE':30}{'KIND':10}{'TRUSTS IT':11}{'HOLDS ITS CERTIFICATE':23}LAST SEEN")
        lines += [
            f"{one.name:30}{one.kind:10}{_yes(one.trusts):11}{_yes(one.holds):23}{one.seen or '-'}"
            for one in followers
        ]
    if held.until is not None:
        lines += ["", summary(followers)]
    return "\n".join(lines)


def summary(followers: Iterable[Follower]) -> str:
    """Who has not followed, and what that means."""
    late = [one for one in followers if not one.follows]
    if not late:
        return "Every node follows."
    away = [one.name for one in late if one.kind == OURS and not one.trusts]
    renewing = [one.name for one in late if one.kind == OURS and one.trusts]
    stock = [one.name for one in late if one.kind == STOCK]
    parts = []
    if away:
        parts.append(f"{len(away)} not yet: {_names(away)}; they follow when they are linked")
    if renewing:
        parts.append(
            f"{len(renewing)} trust it and have to renew their certificates: {_names(renewing)}; "
            "they do in the first quarter of the window, within an hour at most"
        )
    if stock:
        parts.append(
            f"{len(stock)} cannot follow (stock KubeEdge, or never linked to this version): {_names(stock)}; "
            "they have to join again with a new token"
        )
    return ".  ".join(parts) + "."


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _yes(value: bool) -> str:  # noqa: FBT001 - a column
    return "yes" if value else "no"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
