"""The daemon on one screen: what pods need to start, then all that is around them.

Pods start from the store before anybody looks for the network; without a link everything else goes on.  So this module and what
it loads is what a pod's start takes and nothing more (a test says what that must not be): each hundredth of a second that is
spent here, every pod of a machine that was switched on waits.  All other parts are built in `surroundings`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Callable, Sequence

from beehive.errors import ConfigError, NotFound
from beehive.supervise import Part, run_daemon, supervise
from beehive.watchdog import Watchdog
from edgecore.config import EdgeConfig, default_node_name
from edgecore.edged.claims import NotYet
from edgecore.edged.manager import Edged
from edgecore.edgehub.identity import Identity, IdentityFiles
from edgecore.lastend import LastEnd
from edgecore.metamanager.manager import MetaManager
from edgecore.metamanager.store import Store
from edgecore.metaserver.inject import TrustingObjects
from edgecore.metaserver.trust import Trust
from edgecore.podstatuses import ShownReports
from edgecore.resolver import Loop

log = logging.getLogger(__name__)

FIRST_S = 3.0
"""How long pods that are started with the daemon have the processor for themselves.  The rest takes half a second of it on a
fast machine; a board that is online has its link this much later at most, and only while pods are being started."""

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
    identity = _identity(config)
    name = config.node or (identity.node if identity else default_node_name())
    meta = MetaManager(store, name, query_s=config.query_s)
    meta.report_events = config.report_events
    await meta.load()
    parts = [Part(name="store", run=store.run), Part(name="metamanager", run=meta.run)]

    trust = None
    if config.metaserver is not None:
        api = config.metaserver
        trust = Trust(api.host, api.port, pki=config.pki, node=name)
        await trust.prepare()
        trust.knock()

    shown = ShownReports(meta)
    edged = None
    if config.edged is not None:
        edged = Edged(
            config=config.edged,
            node_name=name,
            objects=meta if trust is None else TrustingObjects(meta, trust.ca),
            reports=shown if trust is not None else meta,
            state=meta.corner("edged"),
            service_env=trust.env if trust is not None else None,
            create_pod=meta.create_pod if identity is not None else None,
            devices=NotYet() if config.dmi_dir is not None else None,
        )
        for vital in edged.vitals():
            watchdog.watch(vital)
        notify = edged.notify
        meta.on_change.append(lambda c: notify(c.resource.type, c.resource.namespace, c.resource.name))
        parts.append(Part(name="edged", run=edged.run))

    with contextlib.ExitStack() as at_end:
        if trust is not None:
            at_end.callback(trust.close)

        async def surround() -> Sequence[Part]:
            await _first(edged)
            # in a thread, since pods are still looked after
            build = await asyncio.to_thread(_load)
            more = build(
                config,
                meta=meta,
                edged=edged,
                shown=shown,
                identity=identity,
                trust=trust,
                watchdog=watchdog,
                last_end=last.said,
                at_end=at_end,
            )
            # what was imported stays for ever: the collector need not look at it again
            gc.freeze()
            gc.enable()
            asyncio.get_running_loop().call_later(TIDY_S, _tidy)
            return more

        log.info("edgecore runs as node %s", name)
        await supervise(parts, then=surround)


async def _first(edged: Edged | None) -> None:
    """Let the pods start that were here before."""
    if edged is not None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_S):
                await edged.settled()


def _load() -> Callable[..., Sequence[Part]]:
    """The one import that comes late."""
    from edgecore.surroundings import build

    return build


def _tidy() -> None:
    """Once pods have been started: what was imported and is not needed goes, the rest is looked at no more."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _identity(config: EdgeConfig) -> Identity | None:
    """Who this node is towards the cloud, or None when it is to run without one.  Raises: ConfigError."""
    if not config.link:
        return None
    try:
        identity = IdentityFiles(config.pki).identity()
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
