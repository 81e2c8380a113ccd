"""What the store said is durable is there after SIGKILL at any moment."""

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path

from edgecore.metamanager.store import Store

CHILD = """
import asyncio, sys
from pathlib import Path
from edgecore.metamanager.records import Row
from edgecore.metamanager.store import Store

store = Store.open(Path(sys.argv[1]))
start = int(sys.argv[2])

async def one(n):
    row = Row(key=f"d/pod/p{n}", type="pod", namespace="d", name=f"p{n}", uid=f"u{n}", version=n, value=b"%d" % n * 300)
    await store.write(lambda tx: tx.put(row))
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()

async def main():
    n = start
    while True:
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(one(n))
                n += 1

asyncio.run(main())
"""


def test_acknowledged_rows_survive_sigkill_at_random_moments(tmp_path: Path) -> None:
    path = tmp_path / "edgecore.db"
    rng = random.Random(5)
    told: set[int] = set()
    for round_ in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path), str(round_ * 1_000_000)],
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            first = child.stdout.readline()
            time.sleep(rng.random() * 0.08)
            child.kill()
            rest = child.stdout.read()
        # the last line may be cut: what was not written whole was not told
        told.update(int(line) for line in (first + rest).split("\n")[:-1])
    assert len(told) > 100
    store = Store.open(path)
    found = asyncio.run(store.read(lambda view: {row.version for row in view.all_of("pod")}))
    store.close()
    assert store.set_aside is None
    assert told <= found
