"""The process `mapper udev`: watches hardware and tells of it, as lines of JSON and to an API server."""

import asyncio
import json
import logging
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from beehive.errors import ConfigError
from beehive.supervise import Part, supervise
from mappers.udev import rules
from mappers.udev.report import Api, Reporter
from mappers.udev.rules import Rule
from mappers.udev.tracker import Change
from mappers.udev.watcher import Watcher

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """rules: file of HardwareRules; None: those of the API server."""

    node: str
    rules: Path | None = None
    api: Api | None = None
    settle_s: float = 0.5
    grace_s: float = 5.0
    events_from: str = ""


def load_rules(path: Path) -> list[Rule]:
    """Raises: ConfigError."""
    import yaml

    try:
        documents = list(yaml.safe_load_all(path.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    return rules.parse(documents)


def line(node: str, change: Change) -> dict[str, Any]:
    """What is printed of a change: the candidate, and the Device that its rule would make."""
    present = change.kind.value != "unplugged"
    told = {
        "event": change.kind.value,
        "candidate": rules.candidate_object(node, change.candidate, present=present),
    }
    device = rules.device_object(node, change.candidate) if present else None
    return {**told, "device": device} if device is not None else told


async def run(options: Options, *, out: TextIO | None = None, stop: asyncio.Event | None = None) -> None:
    """Until a signal comes or `stop` is set.  Raises: SkerryError."""
    if options.rules is not None:
        wanted = await asyncio.to_thread(load_rules, options.rules)
    elif options.api is not None:
        wanted = rules.parse(await asyncio.to_thread(options.api.rules))
    else:
        raise ConfigError("say which rules: give a file or an API server")
    if not wanted:
        raise ConfigError("there are no HardwareRules")
    reporter = Reporter(options.api, options.node, rng=random.Random()) if options.api is not None else None

    async def tell(change: Change) -> None:
        print(json.dumps(line(options.node, change)), file=out or sys.stdout, flush=True)
        if reporter is not None:
            reporter.put(change)

    watcher = Watcher(
        wanted, tell, settle_s=options.settle_s, grace_s=options.grace_s, events_from=options.events_from
    )
    parts = [Part(name="hardware", run=watcher.run)]
    if reporter is not None:
        parts.insert(0, Part(name="reports", run=reporter.run))
    await supervise(parts, stop=stop, signals=stop is None)
