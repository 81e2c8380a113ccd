"""A disk that refuses, said once however long it lasts: the log may be on the same disk."""

from __future__ import annotations

import logging

from beehive.errors import Unavailable

log = logging.getLogger(__name__)


class DiskTrouble:
    def __init__(self) -> None:
        self._refusing = False

    def refused(self, error: Unavailable) -> None:
        level = logging.DEBUG if self._refusing else logging.ERROR
        log.log(
            level, "Nothing of the cloud's is acknowledged, and reports are kept in memory only: %s", error
        )
        self._refusing = True

    def took(self) -> None:
        if self._refusing:
            log.info("The store takes writes again")
        self._refusing = False
