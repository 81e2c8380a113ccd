"""The node as edged knows it: its facts for the workers, its status, its events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from beehive.errors import SkerryError
from edgecore.edged import events, images, node, nodeevents
from edgecore.edged.config import EdgedConfig
from edgecore.edged.cri import Cri
from edgecore.edged.errors import CriError
from edgecore.edged.ports import Clock, Reports, State

log = logging.getLogger(__name__)

# Rows of State: the kernel's boot id, and that the cloud was once told of limits that are not enforced.
BOOT_ID, UNLIMITED = "node/boot", "node/unlimited"


class NodeSide:
    """Facts are those that were read last."""

    def __init__(
        self,
        config: EdgedConfig,
        node_name: str,
        *,
        cri: Cri,
        reports: Reports,
        state: State,
        clock: Clock,
    ) -> None:
        self._config = config
        self._name = node_name
        self._cri = cri
        self._reports = reports
        self._state = state
        self._clock = clock
        self._events = events.of_node(node_name)
        self._before = node.Before()
        # whether the node's conditions say anything of memory limits
        self._limits_told = False
        self._unsafe_told = ""
        self.facts = node.read_facts(config, node_name=node_name)
        self.rebooted = False
        """Whether the machine was started since an agent last ran; False where that is not known."""
        self.strict_groups: bool | None = None
        """Whether the runtime can keep an image's groups away from containers, as it last said."""
        self.shutting_down = False
        """Whether the machine goes down: nothing is started any more."""

    @property
    def ips(self) -> tuple[str, ...]:
        return self.facts.ips

    @property
    def unified(self) -> bool:
        return self.facts.unified

    @property
    def memory_bytes(self) -> int:
        return self.facts.memory_bytes

    @property
    def memory_limits(self) -> bool:
        """Whether the kernel enforces limits of memory."""
        return self.facts.memory_limits

    @property
    def allocatable(self) -> Mapping[str, int]:
        """Nano-units by resource name, without what plugins offer."""
        return self.facts.allocatable

    async def read(self) -> node.Facts:
        """Look at the machine."""
        self.facts = await asyncio.to_thread(node.read_facts, self._config, node_name=self._name)
        return self.facts

    async def status(
        self,
        *,
        pressures: Collection[str],
        plugins: Mapping[str, tuple[int, int]] = MappingProxyType({}),
        extended: Mapping[str, str] = MappingProxyType({}),
    ) -> dict[str, Any]:
        """NodeStatus, now, as in `node.build_status`.  A runtime that is away makes Ready False; nothing is raised."""
        await self.read()
        try:
            runtime = node.RuntimeFacts(
                version=await self._cri.version(),
                conditions=await self._cri.conditions(),
                images=tuple(await self._cri.list_images()),
            )
            assert runtime.conditions is not None
            self.strict_groups = runtime.conditions.strict_groups
        except CriError as err:
            runtime = node.RuntimeFacts(error=f"container runtime is down: {err}")
        await self._warn(images.unsafe(runtime.version))
        status = node.build_status(
            self._config,
            self.facts,
            runtime,
            previous=self._before,
            pressures=pressures,
            plugins=plugins,
            now=self._clock.now(),
            extended=extended,
            shutting_down=self.shutting_down,
            limits_told=self._limits_told,
        )
        before, self._before = self._before, node.before(status)
        for told in nodeevents.of_conditions(self._name, before.conditions, status):
            await self.tell(told)
        return status

    async def _warn(self, unsafe: str) -> None:
        """Of a runtime that is not safe: once, until it is another."""
        if unsafe and unsafe != self._unsafe_told:
            log.warning("The container runtime is not safe: %s", unsafe)
            await self.tell(nodeevents.unsafe_runtime(unsafe))
        self._unsafe_told = unsafe

    def object(self, status: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
        """The whole Node, to register it.  places: labels of where storage drivers say that it is."""
        return node.build_node(self._name, self._config, self.facts, status, places)

    async def tell(self, told: nodeevents.Told) -> None:
        """An event of the node itself."""
        event = self._events.make(told.kind, told.reason, told.message, now=self._clock.now())
        if event is None:
            return
        try:
            await self._reports.event(event)
        except SkerryError as err:
            log.debug("Cannot keep an event of the node: %s", err)

    async def started(self) -> None:
        """Tell that edged runs, whether the machine was started since it last did, and what its kernel lacks."""
        if not self.facts.memory_limits:
            log.warning("%s", node.NO_LIMITS)
        # all of it in one commit: pods wait for this
        async with asyncio.TaskGroup() as together:
            together.create_task(self.tell(nodeevents.STARTING))
            told = await self._boot()
            if told is not None:
                self.rebooted = True
                together.create_task(self.tell(told))

    async def _boot(self) -> nodeevents.Told | None:
        """That the machine was started since an agent last ran.  None: it was not, or that cannot be known or noted."""
        now = self.facts.boot_id
        try:
            limits = await self._state.load(UNLIMITED)
            before = await self._state.load(BOOT_ID)
        except SkerryError as err:
            log.debug("Cannot read what the node was told of: %s", err)
            return None
        told = nodeevents.rebooted(self._name, (before or b"").decode("ascii", "replace"), now)
        self._limits_told = limits is not None or not self.facts.memory_limits
        notes = {}
        if limits is None and not self.facts.memory_limits:
            notes[UNLIMITED] = b"1"
        if now and before != now.encode():
            notes[BOOT_ID] = now.encode()
        try:
            for key, value in notes.items():
                await self._state.save(key, value)
        except SkerryError as err:
            log.debug("Cannot keep what the node was told of: %s", err)
            return None
        return told
