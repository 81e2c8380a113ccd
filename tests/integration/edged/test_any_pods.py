"""Many odd pods at once: each gets its reason, and nothing else stops for it."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from edgecore.edged.errors import BadPod
from edgecore.edged.podread import decode_key
from tests.integration.edged.bench import Bench, pod
from tests.integration.edged.test_faults import on_fake
from tests.support.hostilepods import encoded, odd

NUMBER = 40


def told(b: Bench, uid: str) -> bool:
    """Whether anybody who looks at the pod sees how it is."""
    status: dict[str, Any] = b.reports.statuses.get(uid, {})
    if status.get("phase") in ("Running", "Failed", "Succeeded"):
        return status["phase"] != "Failed" or bool(status.get("reason")) or "containerStatuses" in status
    rows = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    waits = {row["state"].get("waiting", {}).get("reason", "") for row in rows}
    if waits - {"", "PodInitializing", "ContainerCreating"}:
        return True
    return any(
        e["type"] == "Warning" or e["reason"] in ("Started", "BackOff")
        for e in b.reports.events
        if e["involvedObject"]["uid"] == uid
    )


@pytest.mark.root
@pytest.mark.parametrize("seed", [1, 2])
def test_odd_pods_are_told_why_and_keep_nobody_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    rng = random.Random(seed)
    allowed, rules = tmp_path / "allowed", tmp_path / "policy.json"
    allowed.mkdir()
    rules.write_bytes(msgspec.json.encode({"allowHostPaths": [str(allowed)]}))
    known = {}
    for number in range(NUMBER):
        made = odd(rng, number, str(allowed))
        try:
            known[decode_key(encoded(made)).uid] = made
        except BadPod:
            # nobody can say which pod that would be
            continue

    async def story(b: Bench) -> None:
        assert b.fake is not None
        b.fake.any_exec = True
        b.config = replace(b.config, policy_file=rules, max_pods=NUMBER + 2)
        async with b.edged():
            before = b.want(pod("before"))
            await b.running(before)
            for made in known.values():
                b.want(made)
            # the one that they are made of, with nothing odd in it
            after = b.want(odd(rng, NUMBER, str(allowed), most=0))
            await b.running(after)
            for uid, made in known.items():
                await b.until(lambda uid=uid: told(b, uid), f"a reason for {made}")
            assert b.ready(before)
            for made in known.values():
                b.delete(made)
            for uid in known:
                await b.until(lambda uid=uid: uid in b.reports.gone, "gone")
            assert b.ready(before)
            assert b.status(after)["phase"] == "Running"

    on_fake(tmp_path, story)
    # whatever is wrong with a pod was expected: no traceback
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR and r.exc_info] == []
