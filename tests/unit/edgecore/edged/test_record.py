from __future__ import annotations

import pytest

from beehive.errors import Unavailable
from edgecore.edged import record
from edgecore.edged.backoff import Delay
from edgecore.edged.pod import PodStatus, ResourceRequirements
from edgecore.edged.runtime import PodRuntime
from edgecore.edged.status import Outcome, View, compute_status
from tests.unit.edgecore.edged.builders import EXITED, box, c, make, ran


def test_a_record_comes_back() -> None:
    pod = make(c("a"), c("b"))
    runtime = PodRuntime(
        sandboxes=(box(),), containers=(ran(pod, "a", count=3), ran(pod, "b", EXITED, code=4))
    )
    status = compute_status(pod, runtime, View(now=1.0))
    outcome = Outcome(phase="Failed", reason="r", message="m")
    row = record.encode(
        status=status, delays={"a": Delay(delay_s=20, updated_at=5)}, outcome=outcome, sandbox="s0"
    )
    back = record.decode(row)
    assert back.status == status
    assert record.outcome(back) == outcome
    assert record.alive(back) == {"s0", "a3"}
    memory = record.memory(back.status, record.delays(back))
    assert memory.restarts == {"a": 3, "b": 0}
    assert memory.finished == {"b": 4}
    assert memory.delays == {"a": Delay(delay_s=20, updated_at=5)}


@pytest.mark.parametrize("row", [None, b"", b"{", b"[]", b'{"status": 3}', b"[" * 10_000])
def test_a_row_that_cannot_be_read_is_a_new_pod(row: bytes | None) -> None:
    assert record.decode(row) == record.Record()


def test_a_pod_that_never_ran_has_no_count() -> None:
    status = compute_status(make(), PodRuntime(), View(now=1.0))
    assert record.memory(status, {}).restarts == {}
    assert record.memory(PodStatus(), {}).finished == {}


def test_tokens() -> None:
    answer = b'{"status":{"token":"t","expirationTimestamp":"1970-01-01T00:01:00Z"}}'
    assert record.token(answer) == ("t", 60.0)
    assert record.token(b'{"status":{"token":"t"}}') == ("t", 0.0)
    with pytest.raises(Unavailable):
        record.token(b'{"status":{}}')
    assert record.seconds("never") is None


def test_what_was_granted_comes_back_and_is_not_known_of_an_older_agent() -> None:
    given = {"c": ResourceRequirements(requests={"cpu": "1"})}
    row = record.encode(status=PodStatus(), delays={}, outcome=None, sandbox="", granted=given)
    assert record.decode(row).granted == given
    assert record.decode(b"{}").granted is None
