"""What edged must remember of a pod when the runtime has forgotten and the agent was restarted.  Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from beehive import clock
from beehive.errors import Unavailable
from edgecore.edged.backoff import Delay
from edgecore.edged.plan import Memory
from edgecore.edged.pod import ContainerStatusJson, PodStatus, ResourceRequirements
from edgecore.edged.resize import Applied
from edgecore.edged.status import PREFIX, Outcome


class _Delay(msgspec.Struct, frozen=True, kw_only=True):
    delay_s: float
    updated_at: float


class _Outcome(msgspec.Struct, frozen=True, kw_only=True):
    phase: str
    reason: str
    message: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One pod UID's row in State.

    status: the last that was reported.  sandbox: id of the one that was last seen ready.
    images: reference -> id of the image that was started for it.  resized: container id -> what it was given last.
    granted: container -> what it may use; nothing in a row of an agent that did not know of this.
    released: somebody at the edge let a pod that was held start.
    cut_off: ids of containers that were ended for the machine's shutdown: with whatever they ended, it was not their end.
    replaced: ids of containers that were ended to start others in their place.
    restart_all: where a restart of all containers is, as in restarts.
    root_dir, log_dir: where the agent from which the pod was taken over put what it was given; empty: as configured.
    """

    status: PodStatus = PodStatus()
    delays: dict[str, _Delay] = {}
    outcome: _Outcome | None = None
    sandbox: str = ""
    images: dict[str, str] = {}
    resized: dict[str, Applied] = {}
    granted: dict[str, ResourceRequirements] | None = None
    released: bool = False
    cut_off: list[str] = []
    replaced: list[str] = []
    restart_all: str = ""
    root_dir: str = ""
    log_dir: str = ""


def key(uid: str) -> str:
    return f"pod/{uid}"


def encode(
    *,
    status: PodStatus,
    delays: dict[str, Delay],
    outcome: Outcome | None,
    sandbox: str,
    images: dict[str, str] | None = None,
    resized: dict[str, Applied] | None = None,
    granted: dict[str, ResourceRequirements] | None = None,
    released: bool = False,
    cut_off: Iterable[str] = (),
    replaced: Iterable[str] = (),
    restart_all: str = "",
    root_dir: str = "",
    log_dir: str = "",
) -> bytes:
    return msgspec.json.encode(
        Record(
            status=status,
            delays={name: _Delay(delay_s=d.delay_s, updated_at=d.updated_at) for name, d in delays.items()},
            outcome=_Outcome(phase=outcome.phase, reason=outcome.reason, message=outcome.message)
            if outcome is not None
            else None,
            sandbox=sandbox,
            images=images or {},
            resized=resized or {},
            granted=granted,
            released=released,
            cut_off=sorted(cut_off),
            replaced=sorted(replaced),
            restart_all=restart_all,
            root_dir=root_dir,
            log_dir=log_dir,
        )
    )


def decode(row: bytes | None) -> Record:
    """A row, or an empty record for none or one that cannot be read: then it is as if the pod were new here."""
    if row is None:
        return Record()
    try:
        return msgspec.json.decode(row, type=Record)
    except (msgspec.MsgspecError, RecursionError):
        return Record()


def delays(record: Record) -> dict[str, Delay]:
    return {n: Delay(delay_s=d.delay_s, updated_at=d.updated_at) for n, d in record.delays.items()}


def outcome(record: Record) -> Outcome | None:
    o = record.outcome
    return Outcome(phase=o.phase, reason=o.reason, message=o.message) if o is not None else None


def memory(
    status: PodStatus, delays: dict[str, Delay], restart_all: str = "", replaced: Iterable[str] = ()
) -> Memory:
    """What the planner is told of containers whose records are gone; once all start anew, none is over."""
    statuses = (
        *status.init_container_statuses,
        *status.container_statuses,
        *status.ephemeral_container_statuses,
    )
    return Memory(
        restarts={s.name: s.restart_count for s in statuses if _has_run(s)},
        delays=delays,
        finished={
            s.name: s.state.terminated.exit_code
            for s in (status.ephemeral_container_statuses if restart_all else statuses)
            if s.state.terminated is not None
        },
        restart_all=restart_all,
        replaced=frozenset(replaced),
    )


def _has_run(s: ContainerStatusJson) -> bool:
    return isinstance(s.container_id, str) or s.last_state.terminated is not None or s.restart_count > 0


def alive(record: Record) -> set[str]:
    """Ids of what ran when the record was written."""
    ids = {record.sandbox} if record.sandbox else set()
    status = record.status
    for s in (
        *status.init_container_statuses,
        *status.container_statuses,
        *status.ephemeral_container_statuses,
    ):
        if s.state.running is not None and isinstance(s.container_id, str):
            ids.add(s.container_id.removeprefix(PREFIX))
    return ids


class _TokenStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    token: str
    expiration_timestamp: str = ""


class _TokenAnswer(msgspec.Struct, frozen=True, kw_only=True):
    status: _TokenStatus


def seconds(text: str) -> float | None:
    """Unix seconds of a metav1.Time; None when it is none."""
    try:
        return clock.parse_rfc3339(text).timestamp()
    except ValueError:
        return None


def token(answer: bytes) -> tuple[str, float]:
    """Token and end of life (Unix seconds, 0 unknown) of a TokenRequest's answer.  Raises Unavailable."""
    try:
        status = msgspec.json.decode(answer, type=_TokenAnswer).status
    except (msgspec.MsgspecError, RecursionError) as err:
        raise Unavailable(f"cannot read token: {err}") from err
    return status.token, seconds(status.expiration_timestamp) or 0.0
