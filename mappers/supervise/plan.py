"""Which mappers should run, when a crashed one is started again, and when one is ended.  Pure.

A protocol needs a mapper of ours while a device speaks it, there is a driver for it, and nobody else serves it.  One that
ends is started again after a pause that grows; one that ran for a while is forgiven.  One that is needed no more runs on for
a little: a device that is edited or plugged elsewhere is away only for moments."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from mappers.supervise.drivers import Found

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
FORGIVEN_AFTER_S = 60.0
LINGER_S = 30.0
OWN = "auto-"
"""Mappers of ours register under this and their protocol, and so are told from others'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What edgecore says: mappers are the names of those that serve the protocol now."""

    protocol: str
    devices: int
    mappers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The mapper of one protocol.  driver: what runs, None while nothing does.   failures: ends in a row, of `failed`.
    not_before: when that may be started again.   unneeded_since: None while it is needed.   stopping: it was told to end."""

    driver: Found | None = None
    since: float = 0.0
    failures: int = 0
    failed: Found | None = None
    not_before: float = 0.0
    unneeded_since: float | None = None
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    protocol: str
    driver: Found


@dataclass(frozen=True, slots=True)
class Stop:
    protocol: str
    why: str


@dataclass(frozen=True, slots=True)
class Missing:
    """There are devices of this protocol and nothing to run them."""

    protocol: str
    devices: int


Action = Start | Stop | Missing


def faults(needs: Iterable[Need], said: Mapping[str, str]) -> dict[str, str]:
    """Protocol -> why nothing serves it, for what devices need and nobody serves.   said: what was last found wrong."""
    return {
        need.protocol: said[need.protocol]
        for need in needs
        if need.devices > 0 and not need.mappers and need.protocol in said
    }


def standing(said: Mapping[str, str], needs: Iterable[Need], running: Collection[str]) -> dict[str, str]:
    """Of what was found wrong, by protocol, what may still be: not of what is served, or needed no more.

    running: protocols of which our mapper runs.  One that has ended still counts as serving for edgecore, for some seconds."""
    unserved = {
        need.protocol
        for need in needs
        if not any(need.protocol in running or name != own_name(need.protocol) for name in need.mappers)
    }
    return {protocol: text for protocol, text in said.items() if protocol in unserved}


def own_name(protocol: str) -> str:
    """Under which name our mapper of a protocol registers: letters, digits, dots and dashes."""
    text = "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in protocol)
    return f"{OWN}{text}"[:64]


def decide(
    needs: Iterable[Need],
    slots: Mapping[str, Slot],
    find: Callable[[str], Found | None],
    now: float,
) -> tuple[dict[str, Slot], list[Action]]:
    """The slots after, and what to do.  A start counts as running from here on."""
    after: dict[str, Slot] = {}
    actions: list[Action] = []
    wanted = {need.protocol: need for need in needs if need.devices > 0}
    for protocol in sorted({*wanted, *slots}):
        slot = slots.get(protocol, Slot())
        need = wanted.get(protocol)
        others = need is not None and any(name != own_name(protocol) for name in need.mappers)
        if need is not None and slot.driver is None and others:
            after[protocol] = Slot(failures=slot.failures, failed=slot.failed, not_before=slot.not_before)
            continue
        if need is None:
            slot, told = _unneeded(protocol, slot, now)
            actions += told
            if slot.driver is not None or now < slot.not_before:
                after[protocol] = slot
            continue
        driver = find(protocol)
        if slot.unneeded_since is not None:
            slot = replace(slot, unneeded_since=None)
        if driver is None:
            if slot.driver is not None and not slot.stopping:
                actions.append(Stop(protocol, "its driver is gone"))
                slot = replace(slot, stopping=True)
            elif slot.driver is None:
                actions.append(Missing(protocol, need.devices))
        elif slot.driver is None:
            if slot.failed not in (None, driver):  # somebody has mended it: that is tried at once
                slot = replace(slot, failures=0, failed=None, not_before=now)
            if now >= slot.not_before:
                actions.append(Start(protocol, driver))
                slot = replace(slot, driver=driver, since=now)
        elif slot.driver != driver and not slot.stopping:
            actions.append(Stop(protocol, "its driver has changed"))
            slot = replace(slot, stopping=True)
        after[protocol] = slot
    return after, actions


def _unneeded(protocol: str, slot: Slot, now: float) -> tuple[Slot, list[Action]]:
    if slot.driver is None or slot.stopping:
        return slot, []
    since = slot.unneeded_since if slot.unneeded_since is not None else now
    if now - since < LINGER_S:
        return replace(slot, unneeded_since=since), []
    return replace(slot, unneeded_since=since, stopping=True), [Stop(protocol, "no device needs it")]


def ended(slot: Slot, now: float) -> Slot:
    """Its process is gone.  What was told to end may start again at once; what crashed waits."""
    if slot.stopping:
        return Slot()
    failures = 1 if now - slot.since >= FORGIVEN_AFTER_S else slot.failures + 1
    pause = min(FIRST_PAUSE_S * 2 ** (failures - 1), LONGEST_PAUSE_S) if failures < 16 else LONGEST_PAUSE_S
    return Slot(failures=failures, failed=slot.driver, not_before=now + pause)
