"""All parts of the daemon but those that pods need to start: the local API, devices, the link and what goes over it.

`main` loads this once pods have had the processor for themselves (`FIRST_S`), so whatever is heavy belongs here."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

import msgspec

from beehive import clock, session, stocktunnel
from beehive.errors import Unavailable
from beehive.supervise import Part
from beehive.tunnelpeer import BinaryConnection
from beehive.watchdog import Watchdog
from devicetwin.module import DeviceTwin
from edgecore import leantls, metrics
from edgecore.announced import Announced
from edgecore.config import EdgeConfig
from edgecore.edged import shutdown
from edgecore.edged.config import EdgedConfig
from edgecore.edged.cri import Cri
from edgecore.edged.manager import Edged
from edgecore.edgehub.certificate import Files, Renewal
from edgecore.edgehub.identity import Identity
from edgecore.edgehub.link import Link
from edgecore.edgehub.succession import Follower
from edgecore.edgehub.truetime import TrueTime
from edgecore.edgehub.websocket import Text, dial_stock_tunnel, dial_tunnel
from edgecore.edgestream.client import EdgeStream
from edgecore.edgestream.edged import EdgedRuntime
from edgecore.eventbus.mqtt import EventBus, TlsFiles
from edgecore.hardware import Hardware
from edgecore.local import LocalSocket
from edgecore.machineend import MachineEnd
from edgecore.metamanager.applications import CloudLink, HeldObjects
from edgecore.metamanager.manager import MetaManager
from edgecore.metamanager.rows import TwinRows
from edgecore.metaserver.module import MetaServer, MetaServerOptions
from edgecore.metaserver.trust import Trust
from edgecore.nodestatus import NodeStatus
from edgecore.podlogs import PodLogs
from edgecore.podmeasures import PodMeasures
from edgecore.podstatuses import ShownReports
from edgecore.podstreams import PodStreams
from edgecore.questions import Questions

log = logging.getLogger(__name__)

DRAIN_S = 2.0
"""How long a machine that goes down waits for the cloud to take what became of its pods."""


def build(
    config: EdgeConfig,
    *,
    meta: MetaManager,
    edged: Edged | None,
    shown: ShownReports,
    identity: Identity | None,
    trust: Trust | None,
    watchdog: Watchdog,
    last_end: str,
    at_end: contextlib.ExitStack,
) -> list[Part]:
    """In the order in which they start.   shown: what edged reports, for the local API to show.
    identity, edged, trust: None where the node does without.   last_end: how the run before ended, if not in order.
    at_end: closes what is made here."""
    leantls.use()
    files = Files(config.pki)
    parts = []

    local_api = _local_api(config, meta, trust)
    if local_api is not None:
        parts.append(Part(name="metaserver", run=local_api.run))
        if edged is not None and config.edged is not None:
            judge = edged.worker
            shown.show(local_api.mirror.reported, local_api.mirror.over)
            local_api.mirror.live = lambda uid: (
                None if meta.online or (of := judge(uid)) is None else msgspec.json.encode(of.status)
            )
            local_api.api.logs = PodLogs(config.edged.log_dir, lambda uid: judge(uid) is not None)
            if config.stream:
                cri = at_end.enter_context(contextlib.closing(Cri(config.edged.runtime_endpoint)))
                here = EdgedRuntime(edged, cri, node=meta.node)
                local_api.api.streams = PodStreams(here)
                local_api.api.measures = PodMeasures(here.stats_json, monotonic=clock.monotonic)

    device_parts, twins, bus = _devices(config, meta)
    hardware = None
    if twins is not None:
        hardware = Hardware(meta.node, meta, twins, meta.corner("hardware"))
        meta.greetings.append(hardware.greet)
        if bus is not None:
            announced = Announced(bus, lambda: meta.known("hardwarerule"), hardware.announce)
            look = announced.look
            meta.on_change.append(lambda c: look() if c.resource.type == "hardwarerule" else None)
            parts.append(Part(name="announced devices", run=announced.run))
        if edged is not None:
            edged.watch_hardware(hardware)
            notify = edged.notify
            hardware.changed.append(lambda namespace, device: notify("device", namespace, device))
    parts += device_parts

    link = None
    if identity is not None:
        follower = Follower(files)
        meta.handlers["authority"] = follower.pushed
        link = Link(
            node=meta.node,
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
        last_end=last_end,
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
    return parts


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


def _local_api(config: EdgeConfig, meta: MetaManager, trust: Trust | None) -> MetaServer | None:
    """The Kubernetes API that pods on this node see, link or no link."""
    if config.metaserver is None or trust is None:
        return None
    options = MetaServerOptions(
        host=config.metaserver.host,
        port=config.metaserver.port,
        pki=config.pki,
        socket=config.data_dir / "metaserver.sock",
        audiences=config.metaserver.audiences,
        offline_writes=config.metaserver.offline_writes,
    )
    local_api = MetaServer(
        options, node=meta.node, store=HeldObjects(meta), cloud=CloudLink(meta), trust=trust
    )
    meta.handlers["metaserver"] = local_api.pushed
    return local_api


def _devices(config: EdgeConfig, meta: MetaManager) -> tuple[list[Part], DeviceTwin | None, EventBus | None]:
    """Twins with their mappers, and the MQTT bus that both share."""
    if config.dmi_dir is None:
        return [], None, None
    bus = None
    if config.mqtt is not None:
        bus = EventBus(
            url=config.mqtt.url,
            node_name=meta.node,
            on_message=lambda topic, payload: twin.on_mqtt(topic, payload),
            username=config.mqtt.username,
            password=config.mqtt.password,
            tls=TlsFiles(**config.mqtt.tls) if config.mqtt.tls else None,
        )
    twin = DeviceTwin(
        node_name=meta.node,
        store=TwinRows(meta.store),
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
