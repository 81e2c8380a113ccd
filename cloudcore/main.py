"""cloudcore, all of it on one screen: what is made of what, and the parts that run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from beehive.backoff import Backoff
from beehive.delivery import Item
from beehive.errors import ProtocolError, Refused, SkerryError, Unavailable
from beehive.supervise import Part, supervise
from beehive.watchdog import Watchdog
from cloudcore import kube, memory
from cloudcore.cloudhub.dispatch import Dispatcher
from cloudcore.cloudhub.https import CompatServer
from cloudcore.cloudhub.metrics import Metric, MetricsServer
from cloudcore.cloudhub.nodes import Link, Nodes, now
from cloudcore.cloudhub.sessions import Sessions
from cloudcore.cloudhub.websocket import Hub, HubConfig
from cloudcore.cloudstream.endpoints import Ports
from cloudcore.cloudstream.measure import Measurer
from cloudcore.cloudstream.peers import Peers
from cloudcore.cloudstream.proxy import PodStreams
from cloudcore.cloudstream.server import KubeletServer, endpoint_context
from cloudcore.cloudstream.tunnels import PodReader, Tunnels
from cloudcore.config import Config
from cloudcore.devicecontroller.calls import CallController
from cloudcore.devicecontroller.controller import DeviceCaches, DeviceController
from cloudcore.devicecontroller.hardware import HardwareController
from cloudcore.dynamiccontroller.controller import DynamicController
from cloudcore.dynamiccontroller.policy import PolicyController
from cloudcore.edgecontroller.controller import Caches, EdgeController, View
from cloudcore.edgecontroller.leases import Leases
from cloudcore.edgecontroller.presence import Presence
from cloudcore.edgecontroller.tolerations import Tolerations
from cloudcore.edgecontroller.upstream import Upstream
from cloudcore.errors import ApiNotFound
from cloudcore.identity import join
from cloudcore.identity.addresses import EVERYWHERE, host_port, local_addresses, primary_address
from cloudcore.identity.authority import Authority, ensure_authority, ensure_server
from cloudcore.identity.pki import KeyPair
from cloudcore.identity.revocation import Revocations
from cloudcore.identity.rotation import Rotation
from cloudcore.identity.tls import Door, peer_context, use_certificate
from cloudcore.kube import Kube
from cloudcore.nodetasks.controller import NodeTasks
from cloudcore.notices import Notices
from cloudcore.objects import CONFIGMAP, Kind, Metadata, Unread
from cloudcore.synccontroller.controller import SyncController

log = logging.getLogger(__name__)

AGAIN_S = 2.0
ADDRESSES_S = 60.0
"""How often this machine's addresses are looked at, and old tokens and the server certificate's end."""


async def run(
    config: Config,
    *,
    standalone: bool,
    stop: asyncio.Event | None = None,
    watchdog: Watchdog | None = None,
) -> None:
    """Run until a signal comes or `stop` is set.  Raises SkerryError with one sentence for the operator."""
    memory.limit()
    own_api = standalone or config.standalone.enable
    streams = _Streams(Tunnels(), PodReader(), own_api)
    if not own_api:
        await _run_cloud(config, config.kubeconfig, stop, streams)
        return
    from cloudcore.standalone.server import ControlPlane, StandaloneConfig

    own = config.standalone
    plane_config = StandaloneConfig(
        state_dir=own.state_dir,
        listen_host=own.address,
        listen_port=own.port,
        advertise=config.hub.advertise,
        volume_root=own.volume_dir,
    )
    proxy = usage = None
    if config.streams.enable:
        proxy = PodStreams(streams.tunnels, get_pod=streams.pods.get, switches=config.streams.verbs)
        usage = Measurer(streams.tunnels)
    plane = ControlPlane(
        plane_config, bootstrap_manifests=own.manifests, kubelet_proxy=proxy, usage=usage, watchdog=watchdog
    )
    stop = stop or asyncio.Event()

    async def cloud() -> None:
        await plane.started()
        await _run_cloud(config, str(plane_config.kubeconfig), None, streams, signals=False)

    parts = [Part(name="standalone", run=plane.run), Part(name="cloud", run=cloud, stop_s=15.0)]
    if usage is not None:
        parts.append(Part(name=usage.name, run=usage.run))
    await supervise(parts, stop=stop)


async def _run_cloud(
    config: Config, kubeconfig: str, stop: asyncio.Event | None, streams: _Streams, *, signals: bool = True
) -> None:
    client = Kube(kube.load(kubeconfig, config.master))
    streams.pods.bind(client)
    try:
        authority, door, names = await _identity(client, config)
        kubelets = None
        if config.streams.enable and not streams.own_api:
            kubelets = await _kubelets(client, config, authority, names, streams.tunnels)
        parts = _parts(client, config, authority, door, names, streams, kubelets)
        await supervise(parts, stop=stop, signals=signals)
    finally:
        await client.close()


def _parts(
    client: Kube,
    config: Config,
    authority: Authority,
    door: Door,
    names: _Names,
    streams: _Streams,
    kubelets: KubeletServer | None,
) -> list[Part]:
    nodes = Nodes()
    caches = Caches(client)
    address = (config.hub.advertise or (primary_address(),))[0]
    where = _where(config)
    caches.nodes.subscribe(streams.tunnels.on_node)
    peers = None
    if config.streams.enable:
        peers = Peers(
            streams.tunnels,
            own=where,
            find=lambda node: caches.nodes.get("", node),
            nodes=lambda: caches.nodes,
            tls=lambda: peer_context(authority),
        )
        streams.tunnels.bind(peers)
    if kubelets is not None:
        caches.nodes.subscribe(kubelets.on_node)
    sessions = Sessions(client, caches.nodes, address, where, nodes.number)
    edges = EdgeController(client, caches, nodes)
    view = View(edges.placement, caches)
    upstream = Upstream(
        client,
        view,
        caches.by_wire(),
        now,
        address,
        where,
        started=edges.tell_all,
        node_endpoint=kubelets.node_status if kubelets is not None else None,
    )
    device_caches = DeviceCaches(client, caches.devices)
    hardware = HardwareController(client, nodes, caches.devices, device_caches.models)
    devices = DeviceController(
        client, device_caches, nodes, view, interval_s=config.device_interval_s, hardware=hardware
    )
    calls = devices.calls = CallController(client, nodes, devices.placement)
    if config.devices:
        edges.differs += [devices.differ, hardware.differ]
        edges.claims += [devices.placement.claims, hardware.claims]
    notices = Notices(client)
    for cache in (*caches.core, caches.devices):
        cache.on_unread = lambda unread: _tell_unread(notices, unread)
    dynamic = DynamicController(client, nodes, edges.placement)
    policy = PolicyController(client, nodes, caches.accounts, caches.pods, edges.placement.accounts)
    edges.differs.append(policy.differ)
    edges.claims.append(policy.claims)
    dispatcher = Dispatcher(
        {
            "edgecontroller": upstream.handle,
            "devicecontroller": devices.handle,
            "dynamiccontroller": dynamic.handle,
            "taskmanager": NodeTasks(client).handle,
        },
        edges.on_difference,
        lambda link, item, text: _tell_declined(notices, link, item, text),
        edges.on_digest,
    )
    revocations = Revocations(caches.configmaps)
    joiner = join.Joiner(
        client, authority, config.hub.certificate_life, join.Reservations(caches.secrets, caches.nodes)
    )
    hub = Hub(
        HubConfig(
            address=config.hub.address,
            port=config.hub.port,
            node_limit=config.hub.node_limit,
            stock_address=config.compat.address,
            stock_port=config.streams.stock_port if config.compat.enable else None,
        ),
        nodes=nodes,
        dispatcher=dispatcher,
        authority=authority,
        tls=door.context,
        join=joiner.join,
        renew=joiner.renew,
        next_number=sessions.next_number,
        note=sessions.note,
        tunnel=streams.tunnels.serve_tunnel if config.streams.enable else None,
        stock_tunnel=streams.tunnels.serve_stock if config.streams.enable and config.compat.enable else None,
        other_hub=peers.serve if peers is not None else None,
        revocations=revocations,
        pace_s=config.device_interval_s,
    )
    tidier = memory.Tidier(lambda: nodes.opened, streams.tunnels.piped)
    streams.tunnels.on_pipe = tidier.expect
    shows: list[Callable[[KeyPair], None]] = [door.show]
    if kubelets is not None:
        endpoints = kubelets.tls
        shows.append(lambda pair: use_certificate(endpoints, pair.certificate_pem, pair.key_pem))
    upkeep = _Upkeep(client, config, authority, shows, names)
    rotation = Rotation(
        client,
        authority,
        caches.secrets,
        caches.nodes,
        lambda: [(link.node, link.signed_by) for link in nodes],
    )
    rotation.on_change += [upkeep.authority_changed, hub.authority_changed]
    parts = [
        *caches.core,
        caches.services,
        *([*devices.caches.all, *hardware.caches, calls.calls] if config.devices else ()),
        *policy.caches,
        edges,
        Leases(client, nodes, edges.placement),
        Presence(client, nodes, caches.nodes),
        dynamic,
        policy,
        notices,
        tidier,
        rotation,
    ]
    if config.reschedule and not streams.own_api:
        parts.append(Tolerations(client, caches.nodes, caches.pods, default_s=config.reschedule_after_s))
    if config.devices:
        parts += [devices, hardware, calls]
    if kubelets is not None:
        parts.append(kubelets)
    if peers is not None:
        parts.append(peers)
    if config.metrics is not None:
        parts.append(
            MetricsServer(*config.metrics, lambda: _numbers(hub, nodes, upstream, client, edges, rotation))
        )
    if config.compat.enable:
        syncs = SyncController(client, nodes, caches.nodes)
        edges.recorded = syncs.inventory
        compat = _compat(client, config, authority, door.context, revocations)
        rotation.on_change.append(compat.authority_changed)
        parts += [*syncs.caches, syncs, compat]
    return [Part(name=part.name, run=part.run) for part in [*parts, upkeep, hub]]


def _tell_unread(notices: Notices, unread: Unread) -> None:
    """Where its owner looks: on the object."""
    notices.tell(
        unread.kind,
        unread.namespace,
        unread.name,
        uid=unread.uid,
        version=unread.version,
        reason="Unreadable",
        text=f"cloudcore cannot read it, and nodes keep what they have of it: {unread.why}",
        component="cloudcore",
    )


def _tell_declined(notices: Notices, link: Link, item: Item, text: str) -> None:
    """What a node cannot use is said on the object."""
    try:
        head = item.message.decode(_Head)
    except ProtocolError:
        return  # the log has it
    group, _, version = head.apiVersion.rpartition("/")
    notices.tell(
        Kind(head.kind, "", group, version),
        head.metadata.namespace,
        head.metadata.name,
        uid=head.metadata.uid,
        version=head.metadata.resourceVersion,
        reason="RefusedByNode",
        text=f"node {link.node} cannot use it: {text}",
        component="cloudcore",
    )


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """Of an object that was pushed."""

    apiVersion: str = ""
    kind: str = ""
    metadata: Metadata = Metadata()


def _numbers(
    hub: Hub, nodes: Nodes, upstream: Upstream, client: Kube, edges: EdgeController, rotation: Rotation
) -> list[Metric]:
    """What /metrics tells."""
    sent = nodes.counters()
    links = list(nodes)
    return [
        Metric("skerry_hub_sessions", "Nodes that are connected", len(links), counts=False),
        Metric(
            "skerry_hub_sessions_kubeedge",
            "Of these, stock KubeEdge edges",
            sum(not link.ours for link in links),
            counts=False,
        ),
        Metric("skerry_hub_sessions_opened_total", "Sessions since the start", nodes.opened),
        Metric("skerry_hub_sessions_replaced_total", "Sessions that a newer one ended", nodes.replaced),
        Metric("skerry_hub_connections_refused_total", "Answered with 401 or 403", hub.refused),
        Metric("skerry_hub_frames_received_total", "Frames from edges", hub.frames_in),
        Metric("skerry_hub_frames_sent_total", "Frames to edges", hub.frames_out),
        Metric("skerry_hub_frames_bad_total", "Frames that could not be read", hub.bad_frames),
        Metric("skerry_hub_objects_offered_total", "States of objects that were for a node", sent.offered),
        Metric("skerry_hub_objects_sent_total", "States of objects sent", sent.sent),
        Metric("skerry_hub_objects_acked_total", "Sent and committed at the edge", sent.acked),
        Metric("skerry_hub_objects_resent_total", "Sent again, unanswered", sent.resent),
        Metric("skerry_hub_objects_failed_total", "Sent and not committed", sent.failed),
        Metric("skerry_hub_objects_refused_total", "Sent, and of no use to the edge for good", sent.declined),
        Metric("skerry_hub_objects_coalesced_total", "Left out for newer ones", sent.coalesced),
        Metric(
            "skerry_hub_objects_unacknowledged",
            "Waiting or in flight",
            sum(len(link.delivery) for link in links),
            counts=False,
        ),
        Metric(
            "skerry_hub_authority_nodes_waiting",
            "Nodes that do not trust the new authority, while one takes the place of another",
            rotation.waiting(),
            counts=False,
        ),
        Metric("skerry_hub_denied_total", "Requests of nodes that the authorizer refused", upstream.denied),
        Metric("skerry_hub_events_dropped_total", "Events beyond a node's share", upstream.events_dropped),
        Metric(
            "skerry_api_objects_unreadable",
            "Objects that are there and cannot be read",
            edges.unread,
            counts=False,
        ),
        Metric(
            "skerry_hub_drifts_total",
            "Nodes asked for all that they hold, since it was not what it should be",
            edges.drifts,
        ),
        Metric(
            "skerry_api_went_back_total", "Times that the API was found at an older state", edges.went_back
        ),
        Metric(
            "skerry_api_requests_total",
            "Requests to the Kubernetes API, watches not counted",
            client.requests,
        ),
    ]


def _compat(
    client: Kube, config: Config, authority: Authority, tls: ssl.SSLContext, revocations: Revocations
) -> CompatServer:
    """The port by which stock edges join."""
    return CompatServer(
        kube=client,
        authority=authority,
        tls=lambda: tls,
        host=config.compat.address,
        port=config.compat.port,
        certificate_life=config.hub.certificate_life,
        token_refresh=config.compat.token_refresh,
        revocations=revocations,
    )


async def _kubelets(
    client: Kube, config: Config, authority: Authority, names: _Names, tunnels: Tunnels
) -> KubeletServer:
    """The nodes' endpoints for a Kubernetes API server, which shows the certificate that the cluster publishes."""
    pair = await ensure_server(client, authority, names.covered)
    try:
        published = await client.get(CONFIGMAP, "extension-apiserver-authentication", "kube-system")
        client_ca = published.decode(_Published).data.get("client-ca-file", "")
    except (ApiNotFound, Refused) as error:
        log.warning(
            "Logs and exec work with bearer tokens only: the API's client authority is unknown: %s", error
        )
        client_ca = ""
    tls = endpoint_context(client_ca)
    use_certificate(tls, pair.certificate_pem, pair.key_pem)

    async def ask(path: str, review: dict[str, Any]) -> dict[str, Any]:
        answer = await client.request("POST", path, body=msgspec.json.encode(review))
        return msgspec.json.decode(answer, type=dict[str, Any])

    return KubeletServer(
        tunnels,
        tls=tls,
        ask=ask,
        address=config.streams.address or _own_address(config),
        ports=Ports(config.streams.first_port, config.streams.last_port),
        host=_endpoints_host(config),
        switches=config.streams.verbs,
    )


class _Published(msgspec.Struct, frozen=True, kw_only=True):
    data: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class _Streams:
    """What the control plane in the box and the hub share for logs and exec.   own_api: it is ours, in this process."""

    tunnels: Tunnels
    pods: PodReader
    own_api: bool


@dataclass(slots=True)
class _Names:
    """What the server certificate covers."""

    covered: set[str]


async def _identity(client: Kube, config: Config) -> tuple[Authority, Door, _Names]:
    """The authority and this hub's TLS; waits for an API that is away, since it may just be starting too."""
    backoff = Backoff(cap_s=10.0)
    rng = random.Random()
    names = _Names(_wanted(config))
    while True:
        try:
            authority = await ensure_authority(client)
            pair = await ensure_server(client, authority, names.covered)
            return authority, Door(authority, pair), names
        except Unavailable as error:
            log.warning("The Kubernetes API at %s cannot be used: %s", client.host, error)
            await asyncio.sleep(max(error.retry_after_s or 0.0, backoff.next_s(rng)))


def _own_address(config: Config) -> str:
    """This machine's, not that of a balancer before several."""
    address = config.hub.address
    return primary_address(address) if address in EVERYWHERE else address


def _endpoints_host(config: Config) -> str | None:
    """Where the nodes' endpoints listen: as the hub, unless the API server is told another address."""
    if config.hub.address in EVERYWHERE:
        return None
    return config.hub.address if config.streams.address in ("", config.hub.address) else None


def _where(config: Config) -> str:
    """Where other cloudcores reach this one for its nodes' streams; empty where there are none."""
    if not config.streams.enable or not config.hub.port:
        return ""
    return host_port(_own_address(config), config.hub.port)


def _wanted(config: Config) -> set[str]:
    """One address to listen on is one address to cover; else all of this machine's."""
    own = {"127.0.0.1", config.hub.address}
    if config.hub.address in EVERYWHERE:
        own = local_addresses()
    return {"localhost", *own, *config.hub.advertise, *config.hub.dns_names}


class _Upkeep:
    """Now and then: a new server certificate when addresses changed or it nears its end; expired tokens go."""

    name = "upkeep"

    def __init__(
        self,
        client: Kube,
        config: Config,
        authority: Authority,
        shows: list[Callable[[KeyPair], None]],
        names: _Names,
    ) -> None:
        self._client = client
        self._config = config
        self._authority = authority
        self._shows = shows
        self._names = names
        self._changed = asyncio.Event()

    def authority_changed(self) -> None:
        """Which authority is shown, or which count, is not what it was."""
        self._changed.set()

    async def run(self) -> None:
        rounds = 0
        while True:
            due = self._changed.is_set()
            if not due:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ADDRESSES_S):
                        await self._changed.wait()
                        due = True
            rounds += not due
            try:
                wanted = _wanted(self._config)
                if due or not wanted <= self._names.covered or rounds % 1440 == 0:
                    self._changed.clear()
                    await self._show(wanted)
                if rounds % 60 == 0:
                    await join.drop_expired_tokens(self._client)
            except (SkerryError, OSError) as error:
                # a Secret that somebody spoilt is not worth the links of a fleet: it is made anew at the next start
                log.warning("Cannot look after certificates and tokens now: %s", error)
                if due:
                    await asyncio.sleep(AGAIN_S)
                    self._changed.set()

    async def _show(self, wanted: set[str]) -> None:
        pair = await ensure_server(self._client, self._authority, wanted)
        for show in self._shows:
            show(pair)
        self._names.covered |= wanted
