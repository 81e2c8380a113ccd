"""Probes: who is restarted, who is ready, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.conformance.case import (
    POLITE,
    Scene,
    case,
    condition,
    container,
    is_ready,
    pod,
    restarts,
    status_of,
)
from tests.conformance.environment import CONFORMANCE

SOURCE = "e2e/common/node/container_probe.go"
Probe = dict[str, Any]
Act = Callable[[Scene, bool], Awaitable[None]]
CALM_S = 8
"""How long nothing must happen."""


def exec_(*script: str, **more: Any) -> Probe:
    return {
        "exec": {"command": ["sh", "-c", script[0]] if len(script) == 1 else list(script)},
        **timing(**more),
    }


def http(path: str, port: Any = 8080, **more: Any) -> Probe:
    get = {key: more.pop(key) for key in ("host", "scheme", "httpHeaders") if key in more}
    return {"httpGet": {"path": path, "port": port, **get}, **timing(**more)}


def timing(**more: Any) -> Probe:
    return {"periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 1} | more


WEB = "mkdir /tmp/www; echo ok > /tmp/www/healthz; httpd -p 8080 -h /tmp/www; "


def probed(script: str, sidecar: bool, **more: Any) -> dict[str, Any]:
    """A pod whose container, or whose sidecar, has the probes."""
    probes = {
        key: more.pop(key) for key in ("livenessProbe", "readinessProbe", "startupProbe") if key in more
    }
    policy = {"restartPolicy": "Always"} | more
    if not sidecar:
        return pod(container(script, **probes), **policy)
    beside = container(script, restartPolicy="Always", **probes)
    return pod(container(POLITE, name="main"), initContainers=[beside], **policy)


def kind(sidecar: bool) -> str:
    return "initContainerStatuses" if sidecar else "containerStatuses"


async def restarted(scene: Scene, made: dict[str, Any], sidecar: bool, times: int = 1) -> None:
    name = await scene.start(made)
    await scene.until(
        name,
        lambda p: (
            restarts(p, kind=kind(sidecar)) >= times
            and status_of(p, kind=kind(sidecar))["state"].get("running")
        ),
        f"{times} restarts",
        180,
    )
    counts = [restarts(state, kind=kind(sidecar)) for state in scene.seen(name)]
    assert counts == sorted(counts), counts


async def left_alone(scene: Scene, made: dict[str, Any], sidecar: bool) -> None:
    name = await scene.start(made)
    await scene.until(name, lambda p: status_of(p, kind=kind(sidecar)).get("started"), "started")
    await asyncio.sleep(CALM_S)
    assert restarts(scene.seen(name)[-1], kind=kind(sidecar)) == 0, scene.seen(name)[-1]["status"]
    assert not scene.events(name, "Killing")


def both(asks: str, tags: str = CONFORMANCE, quick: bool = False) -> Callable[[Act], Act]:
    """A case for a container, and the same for a sidecar."""

    def keep(act: Act) -> Act:
        for sidecar in (False, True):

            async def one(scene: Scene, sidecar: bool = sidecar) -> None:
                await act(scene, sidecar)

            area = "Probes of sidecars" if sidecar else "Probes"
            case(area, asks, f"{SOURCE} {'[SidecarContainers]' if sidecar else tags}", quick=quick)(one)
        return act

    return keep


@both("not ready before the initial delay, never restarted")
async def initial_delay(scene: Scene, sidecar: bool) -> None:
    made = probed("sleep 600", sidecar, readinessProbe=exec_("true", initialDelaySeconds=5))
    began = time.monotonic()
    ready = await scene.ready(made)
    assert time.monotonic() - began >= 5
    assert restarts(ready, kind=kind(sidecar)) == 0


@both("never ready while the readiness probe fails, never restarted")
async def never_ready(scene: Scene, sidecar: bool) -> None:
    name = await scene.start(probed("sleep 600", sidecar, readinessProbe=exec_("false")))
    await scene.until(name, lambda p: status_of(p, kind=kind(sidecar)).get("started"), "started")
    await asyncio.sleep(CALM_S)
    assert not any(is_ready(state) for state in scene.seen(name))
    assert restarts(scene.seen(name)[-1], kind=kind(sidecar)) == 0
    await scene.event(name, "Unhealthy", "Readiness probe failed")


@both("restarted when the file it looks for is gone")
async def file_gone(scene: Scene, sidecar: bool) -> None:
    script = "echo ok > /tmp/health; sleep 3; rm /tmp/health; sleep 600"
    probe = exec_("cat", "/tmp/health", initialDelaySeconds=2)
    await restarted(scene, probed(script, sidecar, livenessProbe=probe), sidecar)
    await scene.event("p", "Unhealthy", "Liveness probe failed: cat: can't open '/tmp/health'")
    await scene.event("p", "Killing", "Container c failed liveness probe, will be restarted")


@both("left alone while the file is there")
async def file_there(scene: Scene, sidecar: bool) -> None:
    made = probed(
        "echo ok > /tmp/health; sleep 600",
        sidecar,
        livenessProbe=exec_("cat", "/tmp/health", initialDelaySeconds=2),
    )
    await left_alone(scene, made, sidecar)


@both("restarted when its page is gone")
async def page_gone(scene: Scene, sidecar: bool) -> None:
    made = probed(
        WEB + "sleep 4; rm /tmp/www/healthz; sleep 600",
        sidecar,
        livenessProbe=http("/healthz", initialDelaySeconds=2),
    )
    await restarted(scene, made, sidecar)
    await scene.event("p", "Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 404")


@both("left alone while its port answers, whatever the page says")
async def port_open(scene: Scene, sidecar: bool) -> None:
    probe = {"tcpSocket": {"port": 8080}, **timing(initialDelaySeconds=2)}
    await left_alone(
        scene, probed(WEB + "rm /tmp/www/healthz; sleep 600", sidecar, livenessProbe=probe), sidecar
    )


@both("restarted when nothing listens at its port", SOURCE)
async def port_closed(scene: Scene, sidecar: bool) -> None:
    probe = {"tcpSocket": {"port": 8081}, **timing(initialDelaySeconds=1)}
    await restarted(scene, probed("sleep 600", sidecar, livenessProbe=probe), sidecar)


@both("restarted again and again, the count only grows")
async def many(scene: Scene, sidecar: bool) -> None:
    made = probed("sleep 600", sidecar, livenessProbe=exec_("false", initialDelaySeconds=1))
    await restarted(scene, made, sidecar, 3)


@both("left alone while its page is there, at a port by name")
async def page_there(scene: Scene, sidecar: bool) -> None:
    made = probed(WEB + "sleep 600", sidecar, livenessProbe=http("/healthz", "web", initialDelaySeconds=1))
    for one in made["spec"].get("initContainers", made["spec"]["containers"]):
        one["ports"] = [{"name": "web", "containerPort": 8080}]
    await left_alone(scene, made, sidecar)


@both("restarted when the probe's command takes too long", "[NodeConformance]")
async def slow_command(scene: Scene, sidecar: bool) -> None:
    probe = exec_("sleep 10", initialDelaySeconds=1, timeoutSeconds=1)
    await restarted(scene, probed("sleep 600", sidecar, livenessProbe=probe), sidecar)


@both("not ready when the probe's command takes too long", "[NodeConformance]")
async def slow_ready(scene: Scene, sidecar: bool) -> None:
    name = await scene.start(probed("sleep 600", sidecar, readinessProbe=exec_("sleep 10", timeoutSeconds=1)))
    await scene.event(name, "Unhealthy", "Readiness probe")
    await asyncio.sleep(CALM_S)
    assert not any(is_ready(state) for state in scene.seen(name))


@both("restarted when the command fails and leaves something behind that runs", "")
async def leaves_behind(scene: Scene, sidecar: bool) -> None:
    probe = exec_("sleep 10 & exit 1", initialDelaySeconds=1, timeoutSeconds=1)
    await restarted(scene, probed("sleep 600", sidecar, livenessProbe=probe), sidecar)


@both("restarted when a redirect within the host leads to a failure", "")
async def redirect(scene: Scene, sidecar: bool) -> None:
    server = scene.world.server
    probe = http("/redirect/302?to=/status/500", server.http, host=server.address, initialDelaySeconds=1)
    await restarted(scene, probed("sleep 600", sidecar, livenessProbe=probe), sidecar)


@both("left alone at a redirect to another host, and warned of it", "")
async def far_redirect(scene: Scene, sidecar: bool) -> None:
    server = scene.world.server
    probe = http("/redirect/302?to=http://0.0.0.0/", server.http, host=server.address, initialDelaySeconds=1)
    await left_alone(scene, probed("sleep 600", sidecar, livenessProbe=probe), sidecar)
    await scene.event("p", "ProbeWarning", "Probe terminated redirects, Response body: see http://0.0.0.0/")


@both("by HTTPS with whatever certificate, with headers", "")
async def https(scene: Scene, sidecar: bool) -> None:
    server = scene.world.server
    headers = [{"name": "X-Case", "value": scene.namespace}, {"name": "Host", "value": "some.where"}]
    probe = http("/status/204", server.https, host=server.address, scheme="HTTPS", httpHeaders=headers)
    await left_alone(scene, probed("sleep 600", sidecar, livenessProbe=probe), sidecar)
    seen = [
        told
        for scheme, _, told in server.asked
        if scheme == "https" and told.get("X-Case") == scene.namespace
    ]
    assert seen
    assert seen[0]["Host"] == "some.where"
    assert seen[0]["User-Agent"].startswith("kube-probe/"), seen[0]


@both("restarted when the startup probe fails, even if it lives", "")
async def startup_fails(scene: Scene, sidecar: bool) -> None:
    made = probed(
        "sleep 600",
        sidecar,
        livenessProbe=exec_("true"),
        startupProbe=exec_("false", initialDelaySeconds=1, failureThreshold=3),
    )
    await restarted(scene, made, sidecar)


@both("not judged by its liveness before it has started", "")
async def startup_delays(scene: Scene, sidecar: bool) -> None:
    made = probed(
        "sleep 600", sidecar, livenessProbe=exec_("false"), startupProbe=exec_("false", failureThreshold=60)
    )
    name = await scene.start(made)
    await scene.until(
        name, lambda p: status_of(p, kind=kind(sidecar)).get("state", {}).get("running"), "running"
    )
    await asyncio.sleep(CALM_S)
    last = status_of(scene.seen(name)[-1], kind=kind(sidecar))
    assert (last["restartCount"], last["started"]) == (0, False), last


@both("judged by its liveness once it has started", "")
async def startup_enables(scene: Scene, sidecar: bool) -> None:
    script = "sleep 3; echo ok > /tmp/startup; sleep 600"
    startup = exec_("cat", "/tmp/startup", failureThreshold=60)
    await restarted(
        scene, probed(script, sidecar, livenessProbe=exec_("false"), startupProbe=startup), sidecar
    )


@both("ready at once when it has started, however rare its readiness probe is", "")
async def ready_at_once(scene: Scene, sidecar: bool) -> None:
    script = "sleep 6; echo ok > /tmp/startup; sleep 600"
    made = probed(
        script,
        sidecar,
        readinessProbe=exec_("true", periodSeconds=100),
        startupProbe=exec_("cat", "/tmp/startup", failureThreshold=60),
    )
    name = await scene.start(made)
    await scene.until(name, lambda p: status_of(p, kind=kind(sidecar)).get("started"), "started")
    await scene.ready(name, 25)


@both("ended within the liveness probe's own grace", "[NodeConformance]")
async def liveness_grace(scene: Scene, sidecar: bool) -> None:
    probe = exec_("false", initialDelaySeconds=1, terminationGracePeriodSeconds=2)
    script = "trap '' TERM; sleep 600 & wait; sleep 600"
    made = probed(script, sidecar, livenessProbe=probe, terminationGracePeriodSeconds=500)
    await restarted(scene, made, sidecar)


@both("ended within the startup probe's own grace", "[NodeConformance]")
async def startup_grace(scene: Scene, sidecar: bool) -> None:
    probe = exec_("false", initialDelaySeconds=1, terminationGracePeriodSeconds=2)
    script = "trap '' TERM; sleep 600 & wait; sleep 600"
    made = probed(script, sidecar, startupProbe=probe, terminationGracePeriodSeconds=500)
    await restarted(scene, made, sidecar)


for _ok in (True, False):

    @both(
        f"{'left alone while' if _ok else 'restarted when'} its gRPC health says {'yes' if _ok else 'nothing'}"
    )
    async def grpc(scene: Scene, sidecar: bool, ok: bool = _ok) -> None:
        port = scene.world.server.grpc if ok else 2333
        probe = {"grpc": {"port": port}, **timing(initialDelaySeconds=1)}
        made = probed("sleep 600", sidecar, livenessProbe=probe, hostNetwork=True)
        await (left_alone if ok else restarted)(scene, made, sidecar)


@both("restarted when gRPC knows no such service", "")
async def grpc_service(scene: Scene, sidecar: bool) -> None:
    probe = {"grpc": {"port": scene.world.server.grpc, "service": "sick"}, **timing(initialDelaySeconds=1)}
    await restarted(scene, probed("sleep 600", sidecar, livenessProbe=probe, hostNetwork=True), sidecar)


_ENDING = "trap 'rm -f /tmp/ready /tmp/alive; sleep 6; exit 0' TERM; touch /tmp/ready /tmp/alive; while :; do sleep 1; done"


@both("not ready any more while it ends, and not judged by its liveness", "", quick=True)
async def ending(scene: Scene, sidecar: bool) -> None:
    made = probed(
        _ENDING,
        sidecar,
        readinessProbe=exec_("cat", "/tmp/ready"),
        livenessProbe=exec_("cat", "/tmp/alive", initialDelaySeconds=2),
        terminationGracePeriodSeconds=20,
    )
    await scene.ready(made)
    await scene.delete("pods", "p")
    await scene.until("p", lambda p: not is_ready(p), "not ready")
    assert "p" not in {name for space, name in scene.world.gone if space == scene.namespace}
    await scene.is_gone("p")
    assert not [one for one in scene.events("p") if "failed liveness probe" in one["message"]]
    assert condition(scene.seen("p")[-1], "Ready")["status"] == "False"
