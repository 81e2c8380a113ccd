"""The errors of edgecore outside edged.

SkerryError
├── ConfigError
│   └── AlreadyRunning   another process uses the data folder
├── StoreError           the store's file cannot be used
│   ├── SchemaTooNew     a newer edgecore wrote it
│   └── StoreDamaged     its content is not what was written
├── Unavailable          the disk, the cloud or the daemon cannot be used now (beehive)
└── Refused              the cloud said no (beehive)
    └── JoinRefused      ... to a new node
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from beehive.errors import ConfigError, Refused, SkerryError, Unavailable


class AlreadyRunning(ConfigError):
    """Two agents on one data folder would undo each other's work."""

    reason = "AlreadyRunning"


class StoreError(SkerryError):
    """The store's file cannot be used as it is."""

    reason = "StoreError"


class SchemaTooNew(StoreError):
    """The file was written by a newer edgecore; going on would lose what this one does not know."""

    reason = "SchemaTooNew"


class StoreDamaged(StoreError):
    """The file is damaged; a restart sets it aside and makes a fresh one."""

    reason = "StoreDamaged"


class Incomplete(Unavailable):
    """Not everything that is wanted here is known.  `known` is wanted for sure; of the rest nothing may be concluded."""

    def __init__(self, text: str, known: Sequence[msgspec.Raw]) -> None:
        super().__init__(text)
        self.known = tuple(known)


class JoinRefused(Refused):
    """The cloud did not take this machine as a node."""

    reason = "JoinRefused"
