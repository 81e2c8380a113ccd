"""What the `skerry` command raises on purpose.

SkerryError
└── TrialError           one sentence for the person at the terminal: what is wrong, and what to do
    ├── PreflightError   this machine cannot run a trial as it is; nothing was touched
    └── PartFailed       a part did not come up; carries its name and its log"""

from __future__ import annotations

from pathlib import Path

from beehive.errors import SkerryError


class TrialError(SkerryError):
    """One sentence: what is wrong, and what to do."""

    reason = "TrialFailed"


class PreflightError(TrialError):
    """This machine cannot run a trial as it is.  Raised before anything is started or written."""

    reason = "Preflight"


class PartFailed(TrialError):
    """A part of the trial did not come up.  `log` is where its own words are."""

    reason = "PartFailed"

    def __init__(self, part: str, cause: str, *, log: Path | None = None) -> None:
        super().__init__(f"{part} failed: {cause}")
        self.part = part
        self.log = log
