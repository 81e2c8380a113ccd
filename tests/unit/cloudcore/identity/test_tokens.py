from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from cloudcore.errors import JoinRefused
from cloudcore.identity import tokens

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def made(**options: object) -> tokens.Made:
    return tokens.make(ttl=HOUR, now=NOW, rng=random.Random(1), **options)  # type: ignore[arg-type]


def test_the_stored_record_does_not_hold_the_secret() -> None:
    token = made()
    secret = token.shown.split(".")[1]
    assert secret not in repr(token)
    assert secret not in repr(token.record)
    assert tokens.token_id(token.shown) == token.record.id


def test_one_use_is_one_use_but_the_same_machine_may_repeat() -> None:
    token = made()
    spent = tokens.spend(token.record, token.shown, node="a", key="k", now=NOW)
    assert spent.left == 0
    assert tokens.spend(spent, token.shown, node="a", key="k", now=NOW) is spent
    for node, key in (("b", "k"), ("a", "other")):
        with pytest.raises(JoinRefused) as refused:
            tokens.spend(spent, token.shown, node=node, key=key, now=NOW)
        assert refused.value.reason == "TokenUsed"


def test_counted_uses_run_out() -> None:
    record = (token := made(uses=2)).record
    for node in ("a", "b"):
        record = tokens.spend(record, token.shown, node=node, key=node, now=NOW)
    with pytest.raises(JoinRefused, match="used already"):
        tokens.spend(record, token.shown, node="c", key="c", now=NOW)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda shown: shown[:-1] + ("a" if shown[-1] != "a" else "b"), "BadToken"),
        (lambda shown: "", "BadToken"),
        (lambda shown: shown.upper(), "BadToken"),
        (lambda shown: shown + "\n", "BadToken"),
        (lambda shown: "x" * 10_000, "BadToken"),
    ],
)
def test_a_wrong_token_is_refused(change: object, reason: str) -> None:
    token = made()
    with pytest.raises(JoinRefused) as refused:
        tokens.spend(token.record, change(token.shown), node="a", key="k", now=NOW)  # type: ignore[operator]
    assert refused.value.reason == reason


def test_an_unknown_an_expired_and_a_named_token() -> None:
    token = made(node="a")
    with pytest.raises(JoinRefused, match="not valid"):
        tokens.spend(None, token.shown, node="a", key="k", now=NOW)
    with pytest.raises(JoinRefused, match="for node a"):
        tokens.spend(token.record, token.shown, node="b", key="k", now=NOW)
    with pytest.raises(JoinRefused) as refused:
        tokens.spend(token.record, token.shown, node="a", key="k", now=NOW + HOUR)
    assert refused.value.reason == "TokenExpired"


def test_a_whole_token_may_be_shown_too() -> None:
    token = made()
    spent = tokens.spend(token.record, "0" * 64 + "." + token.shown, node="a", key="k", now=NOW)
    assert spent.left == 0


@pytest.mark.parametrize("options", [{"uses": 0}, {"uses": 10**6}, {"node": "Not_A_Name"}])
def test_nonsense_is_not_made(options: dict[str, object]) -> None:
    with pytest.raises(JoinRefused):
        made(**options)
