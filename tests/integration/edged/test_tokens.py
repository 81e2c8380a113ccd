"""The tokens of pods that run: they are exchanged before they are over, and the node rests in between."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edgecore.edged import podvolumes
from tests.integration.edged.bench import Bench, container, pod
from tests.integration.edged.test_faults import on_fake


@pytest.mark.root
def test_a_token_is_exchanged_while_its_pod_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podvolumes, "LEAST_TOKEN_S", 1.0)
    source = {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}
    wanted = pod(
        "one",
        container(volumeMounts=[{"name": "t", "mountPath": "/t"}]),
        volumes=[{"name": "t", "projected": {"sources": [source]}}],
    )

    async def story(b: Bench) -> None:
        # each is over after two seconds
        b.objects.token_s = 2.0
        async with b.edged():
            uid = b.want(wanted)
            await b.running(uid)
            token = b.config.root_dir / uid / "volumes/kubernetes.io~projected/t/token"
            before = token.read_text()
            await b.until(lambda: token.read_text() != before, "another token")
            # and from then on the pod waits for the next, which is long from now
            b.objects.token_s = 0.0
            asked = len(b.objects.tokens)
            await b.until(lambda: len(b.objects.tokens) > asked, "a token that lasts")
            passes = b.fake.calls.count("list_containers") if b.fake is not None else 0
            await asyncio.sleep(1)
            assert b.fake is not None
            # only the looks at all pods (five a second), and none of this one
            assert b.fake.calls.count("list_containers") - passes <= 8

    on_fake(tmp_path, story)
