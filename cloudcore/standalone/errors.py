"""What this package raises towards its caller (the daemon); clients get status.ApiError instead.

SkerryError
  StandaloneError
    StoreError       the database cannot be opened, read or written
      NewerStore     it was written by a newer Skerry
    StartError       the server cannot start: port in use, folder not writable, bad manifest"""

from __future__ import annotations

from beehive.errors import SkerryError


class StandaloneError(SkerryError):
    """Base of this package's errors."""


class StoreError(StandaloneError):
    """The database cannot be used."""

    reason = "StoreFailed"


class NewerStore(StoreError):
    """The database has a schema this version does not know."""


class StartError(StandaloneError):
    """The server cannot start."""

    reason = "StartFailed"
