"""How kinds that are neither built in nor ours are printed: by the columns of their definition, which is asked for when
somebody first wants a table of them, in that account's name, and kept for when the cloud is away.

An account that may not read definitions gets names and ages, as long as nobody else has asked."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from beehive.application import Target, Verb
from beehive.errors import Unavailable
from beehive.message import UNREADABLE
from edgecore.metaserver import table
from edgecore.metaserver.objects import Gvr
from edgecore.metaserver.ports import Store
from edgecore.metaserver.remote import Remote
from edgecore.metaserver.status import ApiError

if TYPE_CHECKING:
    from beehive.printing.custom import Column

log = logging.getLogger(__name__)

PREFIX = "columns/"
AGAIN_S = 600.0
"""A definition is looked at again after this: its columns hardly ever change."""
MAX_ASKED = 256


class Columns:
    """See the module."""

    def __init__(self, remote: Remote, store: Store, *, monotonic: Callable[[], float]) -> None:
        self._remote = remote
        self._store = store
        self._monotonic = monotonic
        self._asked: OrderedDict[tuple[Gvr, str], float] = OrderedDict()

    async def of(self, gvr: Gvr, account: str) -> Sequence[Column] | None:
        """None: nobody has to be asked, or nothing is known.  Raises Unavailable (the disk)."""
        name = table.definition_of(gvr)
        if not name:
            return None
        note = f"{PREFIX}{gvr}"
        kept = await self._store.note(note)
        if self._remote.online and self._is_due(gvr, account):
            try:
                kept = await self._ask(gvr, name, account) or kept
                await self._store.write_notes({note: kept})
            except (ApiError, Unavailable) as error:
                log.debug("! no columns of %s: %s", gvr, error)
        return table.kept_columns(kept) if kept else None

    def _is_due(self, gvr: Gvr, account: str) -> bool:
        now = self._monotonic()
        if now - self._asked.get((gvr, account), -AGAIN_S) < AGAIN_S:
            return False
        self._asked[gvr, account] = now
        if len(self._asked) > MAX_ASKED:
            self._asked.popitem(last=False)
        return True

    async def _ask(self, gvr: Gvr, name: str, account: str) -> bytes | None:
        """The columns as they are kept.  Raises ApiError, Unavailable."""
        where = table.DEFINITIONS
        target = Target(group=where.group, version=where.version, resource=where.plural, name=name)
        try:
            return table.keep_columns(await self._remote.ask(target, Verb.GET, account=account), gvr)
        except UNREADABLE as error:
            raise Unavailable(f"the definition of {gvr} cannot be read") from error
