"""Faults of every part in any order, and changes meanwhile: what happens when, from a seed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.skew import Skew
from tests.faults.stage import Stage, shim_of
from tests.faults.test_storage import full

HOUR_S = 3600
DAEMONS = ("cloudcore", "edgecore", "containerd", "mosquitto", "mapper")
SKEWED = ("cloudcore", "edgecore")

REST_S = 4.0
"""Between the end of a fault and the beginning of the next, on the average."""

LONGEST_S = 25.0


@dataclass(frozen=True, slots=True)
class Step:
    """What is done to whom, from when on and for how long (seconds).   value: how much, where that is asked."""

    at_s: float
    what: str
    part: str = ""
    for_s: float = 0.0
    value: int = 0

    def __str__(self) -> str:
        value = f" {self.value:+d}" if self.value else ""
        return f"{self.at_s:7.1f}  {self.what} {self.part}{value} for {self.for_s:.1f} s"


def schedule(seed: int, seconds: float) -> list[Step]:
    """Two rows of faults that overlap as chance will have it.  The same for the same seed and time."""
    steps = []
    for row in range(2):
        rng = random.Random(f"{seed} {row}")
        at = rng.uniform(0, REST_S)
        while True:
            step = _step(rng, at)
            if step.at_s + step.for_s > seconds:
                break
            steps.append(step)
            at = step.at_s + step.for_s + rng.expovariate(1 / REST_S)
    return sorted(steps, key=lambda step: step.at_s)


def _step(rng: random.Random, at: float) -> Step:
    short, long = rng.uniform(0.2, 5.0), rng.uniform(3.0, LONGEST_S)
    what = rng.choices(
        ["kill", "stop", "freeze", "cut", "refuse", "blackhole", "mute", "slow", "fill", "clock", "shim"],
        [6, 3, 3, 3, 2, 2, 1, 1, 1, 2, 1],
    )[0]
    match what:
        case "kill" | "stop":
            return Step(at, what, rng.choice(DAEMONS), rng.choice([short, long]))
        case "freeze":
            return Step(at, what, rng.choice(DAEMONS), long)
        case "clock":
            part = rng.choice(SKEWED)
            # the commands of this test have the real clock and a certificate that was made a minute ago
            far = [7 * 365 * 24 * HOUR_S, -5 * 365 * 24 * HOUR_S] if part == "edgecore" else [-240]
            return Step(at, what, part, long, rng.choice([HOUR_S, *far]))
        case "cut" | "shim":
            return Step(at, what, "", 0.0, rng.randrange(1, 9))
        case _:
            return Step(at, what, "", long)


class Faults:
    """Does what a schedule says to a stage.  `gone`: pods of the herd whose container was ended on purpose."""

    def __init__(self, stage: Stage, skew: Skew) -> None:
        self._stage = stage
        self._skew = skew
        self._down: dict[str, int] = {}
        self._frozen: dict[str, int] = {}
        self.gone: set[str] = set()

    def begin(self, step: Step) -> Callable[[], None]:
        """Do it.  Returns what ends it."""
        line = self._stage.line.line
        match step.what:
            case "kill" | "stop":
                return self._end_part(step.part, kill=step.what == "kill")
            case "freeze":
                return self._freeze(step.part)
            case "cut":
                self._stage.line.cut()
            case "refuse":
                line.refuse = True
                self._stage.line.cut()
                return lambda: setattr(line, "refuse", False)
            case "blackhole":
                line.blackhole = True
                return lambda: setattr(line, "blackhole", False)
            case "mute":
                line.mute_down = True
                return lambda: setattr(line, "mute_down", False)
            case "slow":
                line.delay_s, line.jitter_s, line.rate = 0.1, 0.3, 30_000
                return self._quick
            case "fill":
                return self._fill()
            case "clock":
                self._skew.step(step.part, step.value)
                return lambda: self._skew.step(step.part, 0)
            case "shim":
                self._kill_a_shim(step.value - 1)
        return lambda: None

    def missing(self) -> list[str]:
        """Parts that should run and do not: they ended by themselves."""
        daemons = self._stage.parts.daemons
        return [part for part in DAEMONS if not self._down.get(part) and daemons[part].pid() is None]

    def _quick(self) -> None:
        line = self._stage.line.line
        line.delay_s = line.jitter_s = line.rate = 0.0

    def _end_part(self, part: str, *, kill: bool) -> Callable[[], None]:
        self._down[part] = self._down.get(part, 0) + 1
        (self._stage.kill if kill else self._stage.stop)(part)

        def again() -> None:
            self._down[part] -= 1
            if not self._down[part]:
                self._skew.start(part)

        return again

    def _freeze(self, part: str) -> Callable[[], None]:
        pid = self._stage.parts.daemons[part].pid()
        if pid is None:
            return lambda: None
        os.kill(pid, signal.SIGSTOP)

        def go_on() -> None:
            if self._stage.parts.daemons[part].pid() == pid:
                os.kill(pid, signal.SIGCONT)

        return go_on

    def _fill(self) -> Callable[[], None]:
        if (self._stage.edge / "ballast").exists():
            return lambda: None
        exits = contextlib.ExitStack()
        exits.enter_context(full(self._stage.edge))
        return exits.close

    def _kill_a_shim(self, number: int) -> None:
        if self._down.get("containerd"):
            return
        with contextlib.suppress(Exception):  # containerd does not answer: then not this time
            victim = self._stage.container_of(f"herd-{number}")
            self.gone.add(victim.pod_uid)
            os.kill(shim_of(victim), signal.SIGKILL)


class Changes:
    """What users do meanwhile.  Any of it may fail, as it does for users."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self._stage = stage
        self._rng = random.Random(f"{seed} changes")
        self._made = 0
        self._over = threading.Event()
        # an API that stands still holds these up, and not the faults
        self._thread = threading.Thread(target=self._run, name="changes")
        self.page = ""
        self.target = 0.0
        self.done = self.failed = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.5):
            self.one()

    def one(self) -> None:
        match self._rng.randrange(6):
            case 0 | 1:
                self._made += 1
                self._try(lambda: self._stage.make_pod(f"churn-{self._made}", "churn"))
            case 2:
                name = f"churn-{self._rng.randint(1, max(1, self._made))}"
                force = ["--force", "--grace-period=0"] if self._rng.random() < 0.3 else []
                self._kubectl("delete", "pod", name, "--wait=false", *force)
            case 3:
                self.set_page(f"Hello {self._rng.randrange(10**9)}\n")
            case 4:
                self.set_target(self._rng.randrange(36, 50) / 2)
            case 5:
                pods = [f"churn-{number}" for number in range(max(1, self._made - 6), self._made + 1)]
                self._kubectl("delete", "pod", "--wait=false", *pods)

    def set_page(self, text: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "hello", "namespace": "default"},
            "data": {"index.html": text},
        }
        if self._try(lambda: self._stage.skerry.kubectl("replace", "-f", "-", stdin=json.dumps(body))):
            self.page = text

    def set_target(self, value: float) -> None:
        if self._try(lambda: self._stage.skerry.set_target(str(value))):
            self.target = value

    def _kubectl(self, *words: str) -> None:
        self._try(lambda: self._stage.skerry.kubectl(*words, "--request-timeout=5s", check=False))

    def _try(self, act: Callable[[], object]) -> bool:
        self.done += 1
        try:
            act()
        except (AssertionError, LookupError, ValueError, OSError, subprocess.SubprocessError):
            self.failed += 1
            return False
        return True


def play(stage: Stage, skew: Skew, seed: int, seconds: float) -> tuple[Faults, Changes, list[str]]:
    """All of it.  The third of what comes back: what went wrong already."""
    faults, changes = Faults(stage, skew), Changes(stage, seed)
    steps, ends = schedule(seed, seconds), list[tuple[float, Callable[[], None]]]()
    began, wrong = time.monotonic(), list[str]()
    changes.start()
    try:
        while steps or ends:
            now = time.monotonic() - began
            for end in [end for end in ends if end[0] <= now]:
                ends.remove(end)
                end[1]()
            while steps and steps[0].at_s <= now:
                step = steps.pop(0)
                print(f"{now:7.1f}: {step}", flush=True)
                ends.append((now + step.for_s, faults.begin(step)))
            for part in faults.missing():
                wrong.append(f"{part} ended by itself at {now:.0f} s")
                skew.start(part)
            time.sleep(0.1)
    finally:
        changes.stop()
        for _, finish in ends:
            finish()
    return faults, changes, wrong


# looking, afterwards


def shims(socket: Path) -> list[int]:
    """The shims of one containerd that hold something.  One that holds nothing is what a containerd leaves that is killed while
    it starts one; nobody else can know of it."""
    found = [pid for pid, words in processes() if "containerd-shim" in words[0] and str(socket) in words]
    return [pid for pid in found if _children(pid)]


def _children(pid: int) -> str:
    with contextlib.suppress(OSError):
        return "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return ""


def processes() -> Iterator[tuple[int, list[str]]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                yield int(folder.name), words


def mounts_below(folder: Path) -> list[Path]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    found = [Path(line.split()[1]) for line in lines]
    return [path for path in found if folder in path.parents]


def pss_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("Pss:")]
    return int(line.split()[1]) / 1024
