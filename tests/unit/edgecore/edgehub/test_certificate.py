"""When a certificate is renewed, and when again after it could not be."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import pytest

from beehive import clock
from beehive.errors import ConfigError, Unavailable
from edgecore.edgehub import certificate
from edgecore.edgehub.certificate import Identity, Renewal


class Files:
    """A certificate that is due, or will be."""

    def __init__(self, *, due: bool) -> None:
        now = clock.wall().timestamp()
        begin = now - 950.0 if due else now
        self.held = Identity(node="n", clouds=(), not_before=begin, not_after=begin + 1000.0)

    def identity(self) -> Identity:
        return self.held

    def trusted(self) -> list[Any]:
        return []


class Over(BaseException):
    """The story is told."""


class Told(Renewal):
    """outcomes: of each try.   waits: for how many seconds, in turn until it is due and after a failure."""

    def __init__(self, outcomes: list[Exception | None], *, due: bool = True, link_after: int = -1) -> None:
        super().__init__(Files(due=due), self._never, rng=random.Random(1))  # type: ignore[arg-type]
        self.outcomes = outcomes
        self.waits: list[float] = []
        self._link_after = link_after

    async def _never(self, *_: Any) -> Any:
        raise AssertionError("`renew` is replaced")

    async def _wait(self, due: float) -> bool:
        self.waits.append(due - clock.wall().timestamp())
        if len(self.waits) > 500:
            raise Over
        if len(self.waits) == self._link_after:
            self.linked()
        return True

    async def renew(self) -> Identity:
        if not self.outcomes:
            raise Over
        outcome = self.outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return self._files.identity()


def told(*arguments: Any, **options: Any) -> Told:
    renewal = Told(*arguments, **options)
    with pytest.raises(Over):
        asyncio.run(renewal.run())
    return renewal


def test_what_failed_is_tried_again_soon_and_then_less_and_less_often() -> None:
    pauses = told([Unavailable("no")] * 12).waits[1::2]
    assert 0 < pauses[0] <= certificate.RENEW_AGAIN_S
    for before, after in itertools.pairwise(pauses):
        assert after > before / 2
    assert certificate.RENEW_RETRY_S / 2 <= pauses[-1] <= certificate.RENEW_RETRY_S


def test_what_was_due_stays_due_until_it_is_done() -> None:
    renewal = told([Unavailable("no"), ConfigError("full"), None], due=False)
    # the first wait is until it is due; each try after a failure is at once
    assert 600 < renewal.waits[0] <= 900
    assert renewal.waits[2] <= 0
    assert renewal.waits[4] <= 0
    assert 600 < renewal.waits[5] <= 900, "the next one has its own time"


def test_a_link_that_is_back_begins_anew() -> None:
    patient = told([Unavailable("no")] * 9).waits[1::2]
    linked = told([Unavailable("no")] * 9, link_after=16).waits
    assert patient[8] > 100
    assert linked[17] <= certificate.RENEW_AGAIN_S
    assert linked[16] <= 0, "and it is due"
