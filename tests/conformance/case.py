"""What a case is, and what it does its work with."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.conformance.world import BUSYBOX, PATIENCE_S, ApiError, Json, World


class NotHere(Exception):
    """This machine cannot show it: why."""


@dataclass(frozen=True)
class Case:
    """One row: what is asked of a node, in our words."""

    area: str
    asks: str
    source: str
    """Where Kubernetes asks the same: the file of its suite without `test/`, and how it is tagged."""
    act: Callable[[Scene], Awaitable[None]]
    quick: bool = False
    """`make test` runs it, too."""
    alone: bool = False
    """It changes what all pods of the node share."""


CASES: list[Case] = []
POLITE = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
"""Runs until it is asked to end; as process 1 of a container, `sleep` alone would not hear of it."""


def case(area: str, asks: str, source: str, *, quick: bool = False, alone: bool = False) -> Any:
    def keep(act: Callable[[Scene], Awaitable[None]]) -> Callable[[Scene], Awaitable[None]]:
        CASES.append(Case(area, asks, source, act, quick, alone))
        return act

    return keep


def container(*script: str, name: str = "c", **more: Any) -> Json:
    """A busybox container.  script: one text for `sh -c`, or a command of several words; none for the image's own."""
    command = ["sh", "-c", script[0]] if len(script) == 1 else list(script)
    made: Json = {"name": name, "image": BUSYBOX, "imagePullPolicy": "IfNotPresent"}
    if command:
        made["command"] = command
    return made | more


def pod(*containers: Json | str, name: str = "p", meta: Json | None = None, **spec: Any) -> Json:
    """A pod that ends with its containers, at once when it is deleted."""
    made = [container(one) if isinstance(one, str) else one for one in containers]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **(meta or {})},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": made} | spec,
    }


def status_of(pod: Json, name: str = "c", kind: str = "containerStatuses") -> Json:
    """The status of a container; empty when there is none yet."""
    for one in pod.get("status", {}).get(kind, []):
        if one["name"] == name:
            return dict(one)
    return {}


def condition(pod: Json, kind: str) -> Json:
    for one in pod.get("status", {}).get("conditions", []):
        if one["type"] == kind:
            return dict(one)
    return {}


def is_ready(pod: Json) -> bool:
    return condition(pod, "Ready").get("status") == "True"


def restarts(pod: Json, name: str = "c", kind: str = "containerStatuses") -> int:
    return int(status_of(pod, name, kind).get("restartCount", 0))


@dataclass
class Scene:
    """A namespace of its own for one case."""

    world: World
    namespace: str
    notes: list[str] = field(default_factory=list)

    def path(self, kind: str, name: str = "", *rest: str) -> str:
        group = {"leases": "/apis/coordination.k8s.io/v1"}.get(kind, "/api/v1")
        return "/".join(part for part in (f"{group}/namespaces/{self.namespace}/{kind}", name, *rest) if part)

    # -- objects

    async def make(self, kind: str, name: str, **body: Any) -> Json:
        api = {"leases": "coordination.k8s.io/v1"}.get(kind, "v1")
        names = {"configmaps": "ConfigMap", "secrets": "Secret", "services": "Service", "leases": "Lease"}
        made = {"apiVersion": api, "kind": names[kind], "metadata": {"name": name}, **body}
        return await self.world.call("POST", self.path(kind), made)

    async def start(self, made: Json) -> str:
        """Make a pod, return its name."""
        await self.world.call("POST", self.path("pods"), made)
        return str(made["metadata"]["name"])

    async def refused(self, made: Json, *words: str) -> None:
        """The API takes no such pod, and says why with these words."""
        try:
            await self.start(made)
        except ApiError as error:
            assert error.code in (400, 403, 422), error
            missing = [word for word in words if word not in str(error)]
            assert not missing, f"{missing} not in: {error}"
        else:
            raise AssertionError("taken")

    async def get(self, kind: str, name: str) -> Json:
        return await self.world.call("GET", self.path(kind, name))

    async def patch(self, kind: str, name: str, change: Any, *rest: str, how: str = "merge") -> Json:
        media = {"merge": "merge-patch", "json": "json-patch", "strategic": "strategic-merge-patch"}[how]
        return await self.world.call(
            "PATCH", self.path(kind, name, *rest), change, kind=f"application/{media}+json"
        )

    async def delete(self, kind: str, name: str, **options: Any) -> None:
        await self.world.call("DELETE", self.path(kind, name), options or None)

    async def has_account(self) -> bool:
        try:
            await self.get("serviceaccounts", "default")
        except ApiError:
            return False
        return True

    # -- what is seen

    def seen(self, name: str) -> list[Json]:
        return self.world.pods.get((self.namespace, name), [])

    async def until(
        self, name: str, look: Callable[[Json], Any], what: str, timeout_s: float = PATIENCE_S
    ) -> Json:
        """Wait until a pod is as look wants it, and return it so."""

        def latest() -> Json | None:
            states = self.seen(name)
            return states[-1] if states and look(states[-1]) else None

        try:
            found: Json = await self.world.until(latest, what, timeout_s)
        except AssertionError as error:
            states = self.seen(name)
            raise AssertionError(f"{error}; last: {states[-1].get('status') if states else None}") from None
        return found

    async def ran(self, made: Json, timeout_s: float = PATIENCE_S) -> Json:
        """Make a pod and wait for its end."""
        name = await self.start(made)
        return await self.until(
            name, lambda p: p["status"].get("phase") in ("Succeeded", "Failed"), "its end", timeout_s
        )

    async def says(self, made: Json, timeout_s: float = PATIENCE_S) -> str:
        """What a pod writes until it has succeeded."""
        ended = await self.ran(made, timeout_s)
        name = made["metadata"]["name"]
        first = made["spec"]["containers"][0]["name"]
        logs = await self.logs(name, first)
        assert ended["status"]["phase"] == "Succeeded", f"{ended['status']}\n{logs}"
        return logs

    async def ready(self, made: Json | str, timeout_s: float = PATIENCE_S) -> Json:
        name = made if isinstance(made, str) else await self.start(made)
        return await self.until(name, is_ready, "ready", timeout_s)

    async def is_gone(self, name: str, timeout_s: float = PATIENCE_S) -> None:
        await self.world.until(
            lambda: (self.namespace, name) in self.world.gone, f"{name} is gone", timeout_s
        )

    async def logs(self, name: str, container: str = "c", **query: str) -> str:
        return await self.world.text(self.path("pods", name, "log"), container=container, **query)

    async def exec(self, name: str, *command: str, container: str = "c") -> tuple[str, str, Json]:
        words = [("command", word) for word in command]
        return await self.world.channels(
            self.path("pods", name, "exec"),
            [*words, ("container", container), ("stdout", "true"), ("stderr", "true")],
        )

    async def sh(self, name: str, script: str, container: str = "c") -> str:
        """What a script says inside; it has to succeed."""
        out, problem, status = await self.exec(name, "sh", "-c", script, container=container)
        assert status.get("status") == "Success", f"{script}: {status} {out} {problem}"
        return out

    async def settled(
        self, look: Callable[[], Awaitable[bool]], what: str, timeout_s: float = PATIENCE_S
    ) -> None:
        """Ask again and again what no watch tells."""
        deadline = time.monotonic() + timeout_s
        while not await look():
            assert time.monotonic() < deadline, f"not seen within {timeout_s:g} s: {what}"
            await asyncio.sleep(0.25)

    def events(self, name: str, reason: str = "") -> list[Json]:
        return [
            one
            for one in self.world.events[self.namespace].values()
            if one["involvedObject"]["name"] == name and reason in ("", one["reason"])
        ]

    async def event(self, name: str, reason: str, words: str = "", timeout_s: float = PATIENCE_S) -> Json:
        def look() -> Json | None:
            found = [one for one in self.events(name, reason) if words in one["message"]]
            return found[0] if found else None

        try:
            found: Json = await self.world.until(look, f"event {reason} {words}", timeout_s)
        except AssertionError as error:
            told = [(one["reason"], one["message"]) for one in self.events(name)]
            raise AssertionError(f"{error}; told: {told}") from None
        return found


@dataclass(frozen=True)
class Result:
    case: Case
    verdict: str
    """passed, failed or not here"""
    why: str
    took_s: float


def explain(error: Exception) -> str:
    """Where in a case it went wrong, with what was known there when the error says nothing itself."""
    here = [
        (frame.f_code.co_filename.rpartition("/")[2], line, frame.f_locals)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if "/conformance/" in frame.f_code.co_filename
    ]
    where = " < ".join(f"{name}:{line}" for name, line, _ in reversed(here[1:]))
    text = f"{type(error).__name__}: {error} ({where})"
    if not str(error):
        known = {name: value for name, value in here[-1][2].items() if name not in ("scene", "self")}
        text += f" with {known!r:.700}"
    return text


async def play(world: World, one: Case, number: int) -> Result:
    """One case in a namespace of its own, which is taken away after it."""
    scene = Scene(world, f"case-{os.getpid()}-{number}")
    shutil.rmtree(world.home / "shared" / scene.namespace, ignore_errors=True)
    began = time.monotonic()
    verdict, why = "passed", ""
    try:
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": scene.namespace}}
        await world.call("POST", "/api/v1/namespaces", made)
        async with asyncio.timeout(600):
            await scene.settled(scene.has_account, "the default service account")
            await one.act(scene)
    except NotHere as error:
        verdict, why = "not here", str(error)
    except TimeoutError:
        verdict, why = "failed", "not done in 600 s"
    except Exception as error:  # a case that fails in whatever way is one that fails
        verdict, why = "failed", explain(error)
    took = time.monotonic() - began
    for name in {key[1] for key in world.pods if key[0] == scene.namespace}:
        with contextlib.suppress(ApiError):
            await world.call("DELETE", scene.path("pods", name), {"gracePeriodSeconds": 0})
    try:
        await world.call("DELETE", f"/api/v1/namespaces/{scene.namespace}")
    except ApiError as error:
        if error.code not in (404, 409):
            raise
    return Result(one, verdict, why, took)


async def play_all(
    world: World, cases: Sequence[Case], at_once: int, said: Callable[[Result], None] = lambda _: None
) -> list[Result]:
    """Run cases: many at once, then those that want the node for themselves."""
    results: list[Result] = []
    waiting = list(enumerate(cases))

    async def worker(mine: list[tuple[int, Case]]) -> None:
        while mine:
            number, one = mine.pop(0)
            results.append(await play(world, one, number))
            said(results[-1])

    together = [item for item in waiting if not item[1].alone]
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker(together))
    await worker([item for item in waiting if item[1].alone])
    return sorted(results, key=lambda result: cases.index(result.case))
