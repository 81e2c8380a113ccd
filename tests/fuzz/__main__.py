"""Look for bytes that break a decoder, guided by what of its code they reach.

    python -m tests.fuzz [--seconds 60] [--keep FOLDER] [TARGET ...]

Each target runs in a process of its own (libFuzzer by `atheris`; `make fuzz` installs it): it fails by an exception that the
decoder may not raise, by more than a second for one input, or by more than 512 MiB.  What breaks it is left in the folder, and
belongs into the seeds of its target when it is mended."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

MAX_BYTES = 64 * 1024
MEMORY_MIB = 512
SLOW_S = 1


def fuzz(name: str, folder: Path, seconds: int) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["beehive", "cloudcore", "devicetwin", "edgecore", "mappers"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    seeds = folder / name
    seeds.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (seeds / f"seed-{number}").write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={SLOW_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-max_len={MAX_BYTES}",
        f"-artifact_prefix={folder}/{name}-",
        "-print_final_stats=1",
        "-verbosity=0",
        str(seeds),
    ]
    atheris.Setup([sys.argv[0], *options], target.run)
    atheris.Fuzz()


def main() -> int:
    if sys.argv[1:2] == ["--inside"]:
        fuzz(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--keep", type=Path, help="where inputs and findings are kept; else nowhere")
    options = parser.parse_args()
    unknown = [name for name in options.targets if name not in TARGETS]
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    if importlib.util.find_spec("atheris") is None:
        print("coverage-guided fuzzing needs atheris, which has no wheel for this machine: left out")
        return 0
    with tempfile.TemporaryDirectory(prefix="skerry-fuzz-") as scratch:
        broken = [
            name
            for name in options.targets or TARGETS
            if not try_one(name, options.keep or Path(scratch), options.seconds)
        ]
    return 1 if broken else 0


def try_one(name: str, folder: Path, seconds: int) -> bool:
    """Say what came of a target.  Returns whether it held."""
    command = [sys.executable, "-m", "tests.fuzz", "--inside", name, str(folder), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    runs = [line for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    said = runs[-1].rpartition(" ")[2] if runs else "no"
    held = done.returncode == 0
    print(f"{name:<16} {said:>10} inputs  {'fine' if held else 'BROKEN'}", flush=True)
    if not held:
        print((done.stdout + done.stderr)[-4000:], flush=True)
        for found in sorted(folder.glob(f"{name}-*")):
            if found.is_file():
                print(f"  {found.name}: {found.read_bytes()[:400]!r}", flush=True)
    return held


if __name__ == "__main__":
    sys.exit(main())
