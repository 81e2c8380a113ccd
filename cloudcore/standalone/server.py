"""The control plane in the box as one part of a daemon: open the store, serve HTTPS, run the controllers."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from beehive import clock
from beehive.watchdog import Watchdog
from cloudcore.identity.addresses import EVERYWHERE, host_port, local_addresses, local_of, primary_address
from cloudcore.standalone import (
    atrest,
    authz,
    backup,
    crds,
    credentials,
    export,
    measured,
    selectors,
    volumes,
)
from cloudcore.standalone.admission import SERVICE_NETWORK, SYSTEM_PRIORITIES, Admission
from cloudcore.standalone.api import Api, KubeletProxy
from cloudcore.standalone.authn import Tokens
from cloudcore.standalone.authz import Authorizer
from cloudcore.standalone.controllers import definitions
from cloudcore.standalone.controllers.autoscalers import Autoscalers
from cloudcore.standalone.controllers.base import Controller
from cloudcore.standalone.controllers.budgets import Budgets
from cloudcore.standalone.controllers.cronjobs import CronJobs
from cloudcore.standalone.controllers.daemons import DaemonSets
from cloudcore.standalone.controllers.definitions import Definitions
from cloudcore.standalone.controllers.deployments import Deployments
from cloudcore.standalone.controllers.endpoints import Endpoints
from cloudcore.standalone.controllers.garbage import Garbage
from cloudcore.standalone.controllers.jobs import Jobs
from cloudcore.standalone.controllers.namespaces import Namespaces
from cloudcore.standalone.controllers.nodes import GRACE_S, Nodes
from cloudcore.standalone.controllers.quotas import Quotas
from cloudcore.standalone.controllers.replicas import ReplicaSets
from cloudcore.standalone.controllers.scheduler import Scheduler
from cloudcore.standalone.controllers.signers import Signers
from cloudcore.standalone.controllers.stateful import StatefulSets
from cloudcore.standalone.controllers.taints import TaintEvictions
from cloudcore.standalone.controllers.volumes import Volumes
from cloudcore.standalone.errors import StartError, StoreError
from cloudcore.standalone.ids import Key
from cloudcore.standalone.kinds import Registry
from cloudcore.standalone.openapi import OpenApi
from cloudcore.standalone.requests import WriteOptions
from cloudcore.standalone.status import ApiError
from cloudcore.standalone.store import Store
from cloudcore.standalone.verbs import Resources

log = logging.getLogger(__name__)
Json = dict[str, Any]
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
MANAGER = WriteOptions(field_manager="skerry", field_validation="Ignore")
MAX_REQUEST_LINE = 64 * 1024
LINGER_S = 2.0
"""How long a body is still read that nobody asked for: who sends it must have time to read the answer."""
STOP_S = 2.0
"""How long open watches may hold up a stop: clients resume them."""
CERTIFICATE_CHECK_S = 60.0
"""How often it is looked whether the server's certificate still fits."""
EVENT_LIFE_S = 3600
DEFINITION_S = 10.0
"""How long a definition among the bootstrap manifests may take to be served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StandaloneConfig:
    """`state_dir` holds the database, the keys and `admin.kubeconfig`.  `listen_host`: an address, or one of
    `addresses.EVERYWHERE`.  `advertise`: further names and addresses clients use.  `node_grace_s`: how long a node may be
    silent before it counts as unreachable."""

    state_dir: Path
    listen_host: str = "127.0.0.1"
    listen_port: int = 6443
    advertise: tuple[str, ...] = ()
    cluster_name: str = "skerry"
    node_grace_s: float = GRACE_S
    volume_root: str = "/var/lib/skerry/volumes"
    """The folder on nodes in which the volumes of the default storage class are; empty: there is no such class."""

    @property
    def kubeconfig(self) -> Path:
        return self.state_dir / "admin.kubeconfig"


class ControlPlane:
    """One API server with its store and controllers.

    `bootstrap_manifests` are applied at each start; `kubelet_proxy` serves logs, exec, attach and port-forward, which
    answer 501 without it; `usage` tells what nodes use, without it metrics.k8s.io is not served.  `addresses` are this
    machine's, which the certificate names while all are listened on."""

    def __init__(
        self,
        config: StandaloneConfig,
        *,
        bootstrap_manifests: Sequence[Path] = (),
        kubelet_proxy: KubeletProxy | None = None,
        usage: measured.UsageSource | None = None,
        addresses: Callable[[], Sequence[str]] = lambda: sorted(local_addresses()),
        watchdog: Watchdog | None = None,
    ) -> None:
        self._watchdog = watchdog
        self._addresses = addresses
        self._config = config
        self._manifests = tuple(bootstrap_manifests)
        self._proxy = kubelet_proxy
        self._usage = usage
        self._serving = asyncio.Event()
        self._address = ""
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    async def started(self) -> None:
        """Wait until requests are answered and the bootstrap manifests are in."""
        await self._serving.wait()

    @property
    def server(self) -> str:
        """https://host:port, once started."""
        return f"https://{self._address}"

    async def backup(self, target: Path) -> int:
        """Save everything to one file while it is in use.  The number of objects.  Raises StoreError."""
        return await asyncio.to_thread(backup.save, self._config.state_dir, target)

    async def run(self) -> None:
        """Serve until cancelled; never returns.  Raises StartError, StoreError."""
        config = self._config
        try:
            config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StartError(f"cannot use {config.state_dir}: {error.strerror}") from error
        with backup.locked(config.state_dir):
            await self._hold()

    async def _hold(self) -> None:
        config = self._config
        keys = credentials.ensure(
            config.state_dir / backup.KEYS,
            hosts=self._hosts(),
            now=datetime.now(UTC),
        )
        registry = Registry.core()

        def fields(key: Key, body: Json) -> dict[str, str]:
            kind = registry.stored(key)
            return selectors.field_values(key, body, kind.selectable if kind is not None else ())

        store = Store(config.state_dir / backup.DATABASE, fields=fields)
        await asyncio.to_thread(store.open)
        definitions.load(store, registry)
        if self._usage is not None:
            registry.add(measured.rows())
        store.start()
        if self._watchdog is not None:
            self._watchdog.watch(store.vital())
        try:
            await self._serve(store, registry, keys)
        finally:
            self._serving.clear()
            await store.stop()

    async def _serve(self, store: Store, registry: Registry, keys: credentials.Credentials) -> None:
        config = self._config
        resources = Resources(store, registry, Admission(store, random.Random()), now=_now)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(*keys.server_files)
        tokens = Tokens(keys.token_key_pem, store, now=_now)
        await self._furnish(resources)
        runner, port = await self._listen(resources, registry, tokens, keys)
        try:
            self._address = host_port(local_of(config.listen_host), port)
            credentials.write_kubeconfig(
                config.kubeconfig, keys, server=self.server, cluster=config.cluster_name
            )
            async with asyncio.TaskGroup() as group:
                for controller in self._controllers(resources, keys):
                    group.create_task(controller.run(), name=controller.name)
                group.create_task(self._expire_events(resources), name="event expiry")
                group.create_task(self._keep_certified(keys), name="certificate")
                await self._bootstrap(resources)
                log.info("Control plane serves %s", self.server)
                self._serving.set()
        finally:
            await runner.cleanup()

    def _hosts(self) -> tuple[str, ...]:
        config = self._config
        own = self._addresses() if config.listen_host in EVERYWHERE else (config.listen_host,)
        return (*own, *config.advertise)

    def _told(self, port: int) -> str:
        """Where clients are told to come."""
        host = self._config.listen_host
        return host_port(primary_address(host) if host in EVERYWHERE else host, port)

    async def _keep_certified(self, keys: credentials.Credentials) -> None:
        """Make the server's certificate anew while it serves: before it ends, and when this machine's address changes.

        Connections that are there keep theirs; the next one gets the new one."""
        config = self._config
        made_for = self._hosts()
        while True:
            await asyncio.sleep(CERTIFICATE_CHECK_S)
            hosts, now = self._hosts(), datetime.now(UTC)
            if not credentials.due(keys.server.certificate_pem, hosts=hosts, made_for=made_for, now=now):
                continue
            try:
                keys = await asyncio.to_thread(
                    credentials.ensure, config.state_dir / backup.KEYS, hosts=hosts, now=now
                )
                self._tls.load_cert_chain(*keys.server_files)
                credentials.write_kubeconfig(
                    config.kubeconfig, keys, server=self.server, cluster=config.cluster_name
                )
            except (StartError, ssl.SSLError) as error:
                # the old one serves on; it is tried again in a minute
                log.error("Cannot renew the API's certificate: %s", error)
            else:
                made_for = hosts
                log.info("The API has a new certificate, for %s", ", ".join(hosts))

    def _controllers(self, resources: Resources, keys: credentials.Credentials) -> list[Controller]:
        tick = clock.monotonic
        authority = keys.authority.certificate_pem.decode()
        return [
            Definitions(resources, clock=tick),
            Namespaces(resources, clock=tick, authority_pem=authority),
            Garbage(resources, clock=tick),
            Nodes(resources, clock=tick, grace_s=self._config.node_grace_s),
            TaintEvictions(resources, clock=tick),
            Scheduler(resources, clock=tick),
            ReplicaSets(resources, clock=tick),
            Deployments(resources, clock=tick),
            DaemonSets(resources, clock=tick),
            StatefulSets(resources, clock=tick),
            Jobs(resources, clock=tick),
            CronJobs(resources, clock=tick),
            Endpoints(resources, clock=tick),
            Quotas(resources, clock=tick),
            Signers(resources, clock=tick, authority=keys.authority),
            Autoscalers(resources, clock=tick, usage=self._usage),
            Budgets(resources, clock=tick),
            Volumes(resources, clock=tick, root=self._config.volume_root),
        ]

    async def _listen(
        self, resources: Resources, registry: Registry, tokens: Tokens, keys: credentials.Credentials
    ) -> tuple[web.ServerRunner, int]:
        config = self._config
        context = self._tls
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cafile=keys.authority_file)
        context.verify_mode = ssl.CERT_OPTIONAL
        api = Api(
            resources,
            registry,
            tokens,
            Authorizer(resources.store),
            OpenApi(registry, config.state_dir / "cache" / "openapi"),
            address=self._told(config.listen_port),
            kubelet_proxy=self._proxy,
            usage=self._usage,
            checks={"ping": lambda: True, "store": lambda: True, "bootstrap": self._serving.is_set},
        )
        # the arguments of an exec come in the request line
        server = web.Server(
            api.handle,  # type: ignore[arg-type]
            access_log=None,
            max_line_size=MAX_REQUEST_LINE,
            lingering_time=LINGER_S,
        )
        runner = web.ServerRunner(server, shutdown_timeout=STOP_S)
        await runner.setup()
        site = web.TCPSite(
            runner, config.listen_host or None, config.listen_port, ssl_context=context, backlog=512
        )
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise StartError(
                f"cannot listen on {host_port(config.listen_host or '*', config.listen_port)}: {error.strerror}; "
                "is another control plane running?"
            ) from error
        port: int = runner.addresses[0][1]
        api.set_address(self._told(port))
        return runner, port

    # what every cluster has --------------------------------------------------------------------------

    async def _furnish(self, resources: Resources) -> None:
        for name in NAMESPACES:
            await _ensure(resources, ("", "namespaces"), "", {"metadata": {"name": name}})
        for plural, body in authz.default_roles():
            await _ensure(resources, (authz.GROUP, plural), "", body)
        for name, value in SYSTEM_PRIORITIES.items():
            await _ensure(
                resources,
                ("scheduling.k8s.io", "priorityclasses"),
                "",
                {"metadata": {"name": name}, "value": value},
            )
        if self._config.volume_root:
            await _ensure(resources, ("storage.k8s.io", "storageclasses"), "", volumes.folder_class())
        service = {
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "clusterIP": str(SERVICE_NETWORK[1]),
                "ports": [{"name": "https", "port": 443, "targetPort": self._config.listen_port or 6443}],
            },
        }
        await _ensure(resources, ("", "services"), "default", service)

    async def _bootstrap(self, resources: Resources) -> None:
        """Apply the manifests; definitions come first and are waited for."""
        bodies: list[tuple[Path, Json]] = []
        for path in self._manifests:
            try:
                text = await asyncio.to_thread(path.read_text)
                bodies += [(path, body) for body in yaml.safe_load_all(text) if body]
            except (OSError, yaml.YAMLError) as error:
                raise StartError(f"cannot read {path}: {error}") from error
        bodies.sort(key=lambda item: item[1].get("kind") != "CustomResourceDefinition")
        deadline = clock.monotonic() + DEFINITION_S
        for path, body in bodies:
            try:
                await self._apply(resources, body, deadline)
            except ApiError as error:
                raise StartError(f"cannot apply {path}: {error}") from error

    async def _apply(self, resources: Resources, body: Json, deadline: float) -> None:
        group, _, version = str(body.get("apiVersion", "")).rpartition("/")
        while (kind := resources.registry.by_kind(group, version, str(body.get("kind")))) is None:
            if clock.monotonic() > deadline:
                raise StartError(f"cannot apply {body.get('kind')}: {body.get('apiVersion')} is not served")
            await asyncio.sleep(0.05)
        metadata = body.get("metadata") or {}
        namespace = metadata.get("namespace", "default") if kind.namespaced else ""
        body = {**body, "metadata": {n: v for n, v in metadata.items() if n != "creationTimestamp"}}
        options = WriteOptions(field_manager="skerry-bootstrap", field_validation="Ignore", force=True)
        await resources.patch(kind, namespace, metadata.get("name", ""), "apply", body, options)

    async def _expire_events(self, resources: Resources) -> None:
        """Events are news, not records: an hour after the last time they are gone."""
        kind = resources.registry.stored(("", "events"))
        while kind is not None:
            await asyncio.sleep(60)
            limit = _now().timestamp() - EVENT_LIFE_S
            for record in resources.store.select(kind.key):
                body = record.decode()
                last = (
                    body.get("lastTimestamp")
                    or body.get("eventTime")
                    or body["metadata"]["creationTimestamp"]
                )
                if clock.parse_rfc3339(last).timestamp() < limit:
                    try:
                        await resources.delete(kind, record.namespace, record.name)
                    except ApiError as error:
                        log.debug("Cannot expire event %s: %s", record.name, error)


def manifests_of(state_dir: Path) -> list[export.Manifest]:
    """What people made in the control plane of this folder, running or not.  Blocking.  Raises StoreError."""
    database = state_dir / backup.DATABASE
    if not database.is_file():
        raise StoreError(f"cannot export {state_dir}: there is no control plane in it")
    objects = atrest.read_all(database)
    registry = Registry.core()
    for key, body in objects:
        if key == crds.KEY and crds.accepted(body):
            registry.replace_custom(crds.key_of(body), crds.rows(body))
    known = ((registry.stored(key), body) for key, body in objects)
    return export.manifests((kind, body) for kind, body in known if kind is not None)


async def _ensure(resources: Resources, key: Key, namespace: str, body: Json) -> None:
    """Create what is not there; what somebody changed is left as it is."""
    kind = resources.registry.stored(key)
    if kind is None or resources.store.head(key, namespace, body["metadata"]["name"]) is not None:
        return
    await resources.create(kind, namespace, body, MANAGER)


def _now() -> datetime:
    return datetime.now(UTC)
