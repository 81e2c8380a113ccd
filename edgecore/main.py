"""The daemon on one screen: which parts there are, what each is given, in which order they start.

Pods start from the store before anybody looks for the network; without a link everything else goes on."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Callable

import msgspec

from beehive import clock, session, stocktunnel
from beehive.errors import ConfigError, NotFound, Unavailable
from beehive.supervise import Part, run_daemon, supervise
from beehive.tunnelpeer import BinaryConnection
from beehive.watchdog import Watchdog
from devicetwin.module import DeviceTwin
from edgecore import leantls, metrics
from edgecore.announced import Announced
from edgecore.config import EdgeConfig, default_node_name
from edgecore.edged import shutdown
from edgecore.edged.config import EdgedConfig
from edgecore.edged.cri import Cri
from edgecore.edged.manager import Edged
from edgecore.edgehub.certificate import Files, Identity, Renewal
from edgecore.edgehub.link import Link
from edgecore.edgehub.succession import Follower
from edgecore.edgehub.truetime import TrueTime
from edgecore.edgehub.websocket import Text, dial_stock_tunnel, dial_tunnel
from edgecore.edgestream.client import EdgeStream
from edgecore.edgestream.edged import EdgedRuntime
from edgecore.eventbus.mqtt import EventBus, TlsFiles
from edgecore.hardware import Hardware
from edgecore.lastend import LastEnd
from edgecore.local import LocalSocket
from edgecore.machineend import MachineEnd
from edgecore.metamanager.applications import CloudLink, HeldObjects
from edgecore.metamanager.manager import MetaManager
from edgecore.metamanager.rows import TwinRows
from edgecore.metamanager.store import Store
from edgecore.metaserver.inject import TrustingObjects
from edgecore.metaserver.module import MetaServer, MetaServerOptions
from edgecore.nodestatus import NodeStatus
from edgecore.podlogs import PodLogs
from edgecore.podmeasures import PodMeasures
from edgecore.podstatuses import ShownReports
from edgecore.podstreams import PodStreams
from edgecore.questions import Questions
from edgecore.resolver import Loop

log = logging.getLogger(__name__)

DRAIN_S = 2.0
"""How long a machine that goes down waits for the cloud to take what became of its pods."""

TIDY_S = 20.0
"""When memory is tidied for the first time; before that pods have the processor."""


def run(config: EdgeConfig) -> None:
    """Run until a signal.  Raises: SkerryError, when it cannot start or a part failed."""
    store = Store.open(config.database, config.key_file)
    last = LastEnd(config.data_dir)
    last.begin()
    watchdog = Watchdog()
    watchdog.watch(store.vital())

    def close() -> None:
        store.close()
        last.end()

    run_daemon(_run(config, store, watchdog, last), close=close, loop=Loop, watchdog=watchdog)


async def _run(config: EdgeConfig, store: Store, watchdog: Watchdog, last: LastEnd) -> None:
    with contextlib.ExitStack() as at_end:
        await _run_parts(config, store, watchdog, last, at_end)


async def _run_parts(
    config: EdgeConfig, store: Store, watchdog: Watchdog, last: LastEnd, at_end: contextlib.ExitStack
) -> None:
    files = Files(config.pki)
    identity = _identity(files, config)
    name = config.node or (identity.node if identity else default_node_name())
    meta = MetaManager(store, name, query_s=config.query_s)
    meta.report_events = config.report_events
    await meta.load()
    parts = [Part(name="store", run=store.run), Part(name="metamanager", run=meta.run)]

    local_api = await _local_api(config, name, meta)
    if local_api is not None:
        parts.append(Part(name="metaserver", run=local_api.run))

    device_parts, twins, bus = _devices(config, name, meta, store)
    hardware = None
    if twins is not None:
        hardware = Hardware(name, meta, twins, meta.corner("hardware"))
        meta.greetings.append(hardware.greet)
        if bus is not None:
            announced = Announced(bus, lambda: meta.known("hardwarerule"), hardware.announce)
            look = announced.look
            meta.on_change.append(lambda c: look() if c.resource.type == "hardwarerule" else None)
            parts.append(Part(name="announced devices", run=announced.run))

    edged = None
    if config.edged is not None:
        edged = Edged(
            config=config.edged,
            node_name=name,
            objects=meta if local_api is None else TrustingObjects(meta, local_api.ca),
            reports=meta
            if local_api is None
            else ShownReports(meta, reported=local_api.mirror.reported, over=local_api.mirror.over),
            state=meta.corner("edged"),
            service_env=local_api.env if local_api is not None else None,
            create_pod=meta.create_pod if identity is not None else None,
            devices=hardware,
        )
        for vital in edged.vitals():
            watchdog.watch(vital)
        if local_api is not None:
            judge = edged.worker
            local_api.mirror.live = lambda uid: (
                None if meta.online or (of := judge(uid)) is None else msgspec.json.encode(of.status)
            )
            local_api.api.logs = PodLogs(config.edged.log_dir, lambda uid: judge(uid) is not None)
            if config.stream:
                cri = at_end.enter_context(contextlib.closing(Cri(config.edged.runtime_endpoint)))
                here = EdgedRuntime(edged, cri, node=name)
                local_api.api.streams = PodStreams(here)
                local_api.api.measures = PodMeasures(here.stats_json, monotonic=clock.monotonic)
        notify = edged.notify
        meta.on_change.append(lambda c: notify(c.resource.type, c.resource.namespace, c.resource.name))
        if hardware is not None:
            hardware.changed.append(lambda namespace, device: notify("device", namespace, device))
        parts.append(Part(name="edged", run=edged.run))

    parts += device_parts

    link = None
    follower = None
    if identity is not None:
        follower = Follower(files)
        meta.handlers["authority"] = follower.pushed
        link = Link(
            node=name,
            addresses=config.clouds or identity.clouds,
            tls=files.tls,
            peer=meta,
            project=config.project,
            ask_time=TrueTime(files, project=config.project).ask,
            authorities=follower,
        )
        follower.tell = link.send
        meta.bind(link)
        if edged is not None:
            node_status = NodeStatus(meta, edged, report_s=config.report_s)
            edged.on_storage(node_status.storage_changed)
            if hardware is not None:  # what is plugged in is part of it
                hardware.changed.append(lambda *_: node_status.look())
            edged.on_node_change.append(node_status.look)
            parts.append(Part(name="node status", run=node_status.run))
        parts.append(Part(name="edgehub", run=link.run))
        if config.stream and config.edged is not None and edged is not None:
            parts.append(
                _streams(
                    config,
                    config.edged,
                    edged,
                    meta,
                    link,
                    files,
                    lambda: _numbers(meta, local_api, twins, follower),
                )
            )
        if config.rotate:
            renewal = Renewal(files, meta.request, renewed=link.redial)
            follower.on_followed.append(renewal.followed)
            meta.on_connected.append(lambda _: renewal.linked())
            parts.append(Part(name="certificate", run=renewal.run))

    questions = Questions(
        meta,
        edged=edged,
        link=link,
        identity=identity,
        twins=twins,
        local_api=local_api,
        hardware=hardware.answer if hardware is not None else None,
        last_end=last.said,
    )
    if edged is not None and config.edged is not None and config.edged.shutdown:
        # the last of all is stopped first: the pods end while everything else still works
        pods = edged

        async def shut_down() -> None:
            await pods.shut_down()
            await meta.drain(DRAIN_S)

        end = MachineEnd(shut_down, shutdown.total_s(config.edged.shutdown), need=watchdog.need)
        parts.append(Part(name="machine end", run=end.run, stop_s=end.stop_s))
    parts.append(Part(name="local socket", run=LocalSocket(config.socket, questions.by_verb()).run))
    log.info("edgecore runs as node %s", name)
    leantls.use()
    # what was imported stays for ever: the collector need not look at it again
    gc.freeze()
    gc.enable()
    asyncio.get_running_loop().call_later(TIDY_S, _tidy)
    await supervise(parts)


def _tidy() -> None:
    """Once pods have been started: what was imported and is not needed goes, the rest is looked at no more."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _streams(
    config: EdgeConfig,
    pods: EdgedConfig,
    edged: Edged,
    meta: MetaManager,
    link: Link,
    files: Files,
    own_metrics: Callable[[], str],
) -> Part:
    """Logs, exec, attach and port-forward: a second connection to the hub that the link has found."""

    async def dial() -> BinaryConnection:
        if link.session is None or not link.session.ours:
            raise Unavailable("no link to a hub that knows tunnels")
        headers = {
            session.HEADER_NODE: link.node,
            session.HEADER_USE: "str",
            session.HEADER_PROTOCOL: str(session.PROTOCOL_VERSION),
        }
        if config.stream_server:
            try:
                return await dial_tunnel(config.stream_server, tls=files.tls(), headers=headers)
            except Unavailable as error:
                # the setting may be from the days of a stock cloud, whose tunnel has a port of its own
                log.debug("No tunnel at %s: %s", config.stream_server, error)
        return await dial_tunnel(link.session.address, tls=files.tls(), headers=headers)

    async def dial_stock() -> Text:
        if link.session is None:
            raise Unavailable("no link to the cloud")
        host = link.session.address.rpartition(":")[0]
        headers = {stocktunnel.HEADER_NODE: link.node}
        if pods.node_ip:
            headers[stocktunnel.HEADER_NODE_IP] = pods.node_ip
        address = config.stream_server or f"{host}:{stocktunnel.PORT}"
        return await dial_stock_tunnel(address, tls=files.tls(), headers=headers)

    cri = Cri(pods.runtime_endpoint)
    runtime = EdgedRuntime(edged, cri, node=link.node, own_metrics=own_metrics)
    stream = EdgeStream(
        dial=dial,
        runtime=runtime,
        dial_stock=dial_stock,
        is_stock=lambda: link.session is not None and not link.session.ours,
    )
    meta.on_connected.append(lambda _: stream.retry_now())

    async def run() -> None:
        try:
            await stream.run()
        finally:
            cri.close()

    return Part(name="edgestream", run=run)


def _numbers(
    meta: MetaManager, local_api: MetaServer | None, twins: DeviceTwin | None, follower: Follower
) -> str:
    """The page that a scraper of this node reads."""
    counters = meta.store.counters
    return metrics.render(
        metrics.Numbers(
            connected=meta.online,
            waiting=len(meta.outbox),
            bytes=meta.outbox.bytes_held,
            dropped=meta.outbox.dropped,
            writes=len(local_api.writes) if local_api is not None else 0,
            writes_dropped=local_api.writes.dropped if local_api is not None else {},
            commits=counters.commits,
            failures=counters.failures,
            damaged=counters.damaged_rows,
            locked=counters.locked,
            devices=twins.dropped() if twins is not None else {},
            statements_refused=follower.refused,
        )
    )


async def _local_api(config: EdgeConfig, name: str, meta: MetaManager) -> MetaServer | None:
    """The Kubernetes API that pods on this node see, link or no link."""
    if config.metaserver is None:
        return None
    options = MetaServerOptions(
        host=config.metaserver.host,
        port=config.metaserver.port,
        pki=config.pki,
        socket=config.data_dir / "metaserver.sock",
        audiences=config.metaserver.audiences,
        offline_writes=config.metaserver.offline_writes,
    )
    local_api = MetaServer(options, node=name, store=HeldObjects(meta), cloud=CloudLink(meta))
    meta.handlers["metaserver"] = local_api.pushed
    await local_api.prepare()
    return local_api


def _devices(
    config: EdgeConfig, name: str, meta: MetaManager, store: Store
) -> tuple[list[Part], DeviceTwin | None, EventBus | None]:
    """Twins with their mappers, and the MQTT bus that both share."""
    if config.dmi_dir is None:
        return [], None, None
    bus = None
    if config.mqtt is not None:
        bus = EventBus(
            url=config.mqtt.url,
            node_name=name,
            on_message=lambda topic, payload: twin.on_mqtt(topic, payload),
            username=config.mqtt.username,
            password=config.mqtt.password,
            tls=TlsFiles(**config.mqtt.tls) if config.mqtt.tls else None,
        )
    twin = DeviceTwin(
        node_name=name,
        store=TwinRows(store),
        uplink=meta,
        publisher=bus,
        dmi_dir=config.dmi_dir,
        clock=clock,
    )
    meta.handlers["devicetwin"] = twin.on_message
    meta.greetings.append(twin.on_connected)
    parts = [Part(name="devicetwin", run=twin.run)]
    if bus is not None:
        parts.append(Part(name="eventbus", run=bus.run))
    return parts, twin, bus


def _identity(files: Files, config: EdgeConfig) -> Identity | None:
    """Who this node is towards the cloud, or None when it is to run without one.  Raises: ConfigError."""
    if not config.link:
        return None
    try:
        identity = files.identity()
    except NotFound as error:
        raise ConfigError(str(error)) from error
    if config.node and config.node != identity.node:
        raise ConfigError(
            f"modules.edged.hostnameOverride is {config.node} and this machine joined as {identity.node}: "
            "take the name back, or join again under the new one"
        )
    if not (config.clouds or identity.clouds):
        raise ConfigError("no address of a hub: set modules.edgeHub.websocket.server")
    return identity
