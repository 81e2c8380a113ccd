"""Which mapper runs which device, when several speak the same protocol.  Pure.

A device may name its mapper in the annotation `skerry.dev/mapper`; then that one runs it and no other.  Otherwise the mapper
that has it keeps it while it is there; a device without one goes to the first of its protocol that answers.  So a second
mapper of a protocol takes nothing away from the first (in KubeEdge the last one to register takes everything), and is there
when it dies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ANNOTATION = "skerry.dev/mapper"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A registered mapper.  alive: it answered lately.  callbacks: it wants to be told of devices."""

    name: str
    protocol: str
    alive: bool = True
    callbacks: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A device's protocol, and the mapper that it names, or ""."""

    protocol: str
    mapper: str = ""


def assign(
    needs: Mapping[str, Need], mappers: Sequence[Candidate], current: Mapping[str, str]
) -> dict[str, str]:
    """Device id -> mapper name, for all devices that some mapper can run.

    mappers: in order of their first registration.  current: the assignment until now."""
    by_name = {m.name: m for m in mappers if m.callbacks}
    out: dict[str, str] = {}
    for id_, need in needs.items():
        if need.mapper:
            named = by_name.get(need.mapper)
            if named is not None and named.protocol == need.protocol:
                out[id_] = named.name
            continue
        fit = [m for m in by_name.values() if m.protocol == need.protocol]
        alive = [m for m in fit if m.alive]
        had = by_name.get(current.get(id_, ""))
        if had is not None and had.protocol == need.protocol and (had.alive or not alive):
            out[id_] = had.name
        elif alive or fit:
            out[id_] = (alive or fit)[0].name
    return out
