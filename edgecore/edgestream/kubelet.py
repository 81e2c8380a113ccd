"""What an edge answers to the requests that its hub passes on: a kubelet's endpoints.

The texts of errors are the kubelet's, because `kubectl` shows them and people search for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence

from beehive import clock, tunnel
from beehive.errors import NotFound, Refused, SkerryError, Unavailable
from edgecore.edgestream import crilog, logs, routes, upgrade
from edgecore.edgestream.ports import ContainerView, Instance, PodView, Served, StreamRuntime
from edgecore.edgestream.routes import Route, Verb

log = logging.getLogger(__name__)

TEXT = [("Content-Type", "text/plain; charset=utf-8")]
JSON = [("Content-Type", "application/json")]
METRICS = [("Content-Type", "text/plain; version=0.0.4; charset=utf-8")]


class Kubelet:
    """Serves the streams of one tunnel.  switches: verbs that are off have False; the rest is on."""

    def __init__(self, runtime: StreamRuntime, switches: Mapping[str, bool] | None = None) -> None:
        self._runtime = runtime
        self._off = {verb for verb in Verb if (switches or {}).get(verb.value) is False}

    async def serve(self, stream: Served) -> None:
        """Answer one stream.  Raises StreamReset when the hub gives it up."""
        try:
            route = routes.parse(stream.head.path)
            if route.verb in self._off:
                raise Refused(f"{route.verb.value} is switched off on this node", reason="Forbidden")
            if stream.head.method not in ("GET", "POST"):
                raise Refused("method not allowed", reason="MethodNotAllowed")
            await self._route(stream, route)
        except SkerryError as error:
            if stream.over:
                raise
            await self._refuse(stream, error)

    async def _route(self, stream: Served, route: Route) -> None:
        match route.verb:
            case Verb.LOGS:
                await self._logs(stream, route)
            case Verb.EXEC | Verb.ATTACH | Verb.PORT_FORWARD:
                if stream.head.kind != "upgrade":
                    raise Refused("you must ask for an upgrade of the connection")
                await self._upgrade(stream, route)
            case Verb.PODS:
                await _whole(stream, await self._runtime.pods_json(), JSON)
            case Verb.STATS:
                await _whole(stream, await self._runtime.stats_json(), JSON)
            case Verb.METRICS:
                await _whole(stream, await self._runtime.metrics_text(route.rest), METRICS)
            case Verb.HEALTH:
                await _whole(stream, b"ok", TEXT)

    async def _refuse(self, stream: Served, error: SkerryError) -> None:
        """An error as a kubelet tells it.  One that comes after the answer can only cut the stream."""
        if stream.has_answered:
            log.info("Stream of %s was cut: %s", stream.head.path.partition("?")[0], error)
            raise error
        await stream.answer(tunnel.Answer(status=_status(error), headers=TEXT))
        await stream.write(str(error).encode("utf-8", "replace")[: upgrade.MAX_ERROR_BODY])
        await stream.end()

    # -- logs

    async def _logs(self, stream: Served, route: Route) -> None:
        options = crilog.parse_options(route.query, clock.machine_ms() * 1_000_000)
        pod, container = await self._find(route)
        instance = _logged(pod, container, previous=options.previous)

        async def still_running() -> bool:
            return await self._runtime.running(instance.id)

        file = logs.LogFile(pod.log_root, instance.log)
        newest = await asyncio.to_thread(file.open)
        async with contextlib.aclosing(logs.read_log(file, newest, options, still_running)) as blocks:
            await stream.answer(tunnel.Answer(status=200, headers=TEXT))
            async for block in blocks:
                await stream.write(block)
        await stream.end()

    # -- exec, attach, port-forward

    async def _upgrade(self, stream: Served, route: Route) -> None:
        made = await self.open(route, stream.head.method, stream.head.headers)
        with made.connection:
            await stream.answer(made.answer)
            if made.answer.status != 101:
                await stream.write(made.early)
                await stream.end()
                return
            await upgrade.pipe(stream, made.connection, made.early)

    async def open(self, route: Route, method: str, headers: Sequence[tuple[str, str]]) -> upgrade.Upgraded:
        """Ask the runtime for the upgrade of an exec, attach or port-forward.  Raises SkerryError."""
        if route.verb in self._off:
            raise Refused(f"{route.verb.value} is switched off on this node", reason="Forbidden")
        return await upgrade.upgrade(await self._streaming_url(route), method, list(headers))

    async def _streaming_url(self, route: Route) -> str:
        runtime = self._runtime
        if route.verb is Verb.PORT_FORWARD:
            pod = await self._pod(route)
            if not pod.sandbox:
                raise Unavailable(f"unable to forward port because pod {pod.name!r} is not running")
            return await runtime.port_forward_url(pod.sandbox, routes.ports(route))
        wanted = routes.terminal(route)
        pod, container = await self._find(route)
        instance = next((i for i in container.instances if i.running), None)
        if instance is None:
            # in a kubelet's two ways to say the same
            if route.verb is Verb.ATTACH:
                raise Unavailable(f"container {container.name} not found in pod {pod.name}_{pod.namespace}")
            raise Unavailable(f'container not found ("{container.name}")')
        if route.verb is Verb.EXEC:
            return await runtime.exec_url(
                instance.id,
                route.given("command"),
                stdin=wanted.stdin,
                stdout=wanted.stdout,
                stderr=wanted.stderr,
                tty=wanted.tty,
            )
        return await runtime.attach_url(
            instance.id,
            stdin=wanted.stdin,
            stdout=wanted.stdout,
            stderr=wanted.stderr,
            # the terminal is a property of the container, whatever the client thinks
            tty=container.tty,
        )

    # -- pods

    async def _pod(self, route: Route) -> PodView:
        pod = await self._runtime.pod(route.namespace, route.pod)
        if pod is None or (route.uid and route.uid != pod.uid):
            if route.verb is Verb.LOGS:
                raise NotFound(f'pod "{route.pod}" does not exist')
            raise NotFound("pod does not exist")
        return pod

    async def _find(self, route: Route) -> tuple[PodView, ContainerView]:
        pod = await self._pod(route)
        container = pod.container(route.container)
        if container is None:
            raise NotFound(f'container "{route.container}" not found in pod "{route.pod}"')
        return pod, container


def _logged(pod: PodView, container: ContainerView, *, previous: bool) -> Instance:
    """The instance whose log is meant.  Raises Refused with the kubelet's texts."""
    which = f'container "{container.name}" in pod "{pod.name}"'
    instances = container.instances
    if previous:
        ended = next((i for i in instances[1:] if not i.running), None)
        if ended is None and container.waiting and instances and not instances[0].running:
            # between two starts the last one is the previous one
            ended = instances[0]
        if ended is None:
            raise Refused(f"previous terminated {which} not found")
        return ended
    if not instances:
        waits = {
            "ErrImagePull": "image can't be pulled",
            "ImagePullBackOff": "trying and failing to pull image",
        }
        reason = waits.get(container.waiting, container.waiting) or "ContainerCreating"
        raise Refused(f"{which} is waiting to start: {reason}")
    return instances[0]


def _status(error: SkerryError) -> int:
    if isinstance(error, NotFound):
        return 404
    if isinstance(error, Refused):
        return {"Forbidden": 403, "MethodNotAllowed": 405}.get(error.reason, 400)
    return 500


async def _whole(stream: Served, body: bytes, headers: list[tuple[str, str]]) -> None:
    await stream.answer(tunnel.Answer(status=200, headers=headers))
    await stream.write(body)
    await stream.end()
