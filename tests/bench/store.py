"""What the edge's store and a start without a cloud take: `python -m tests.bench.store`.  Prints; asserts nothing.

The first part runs on the disk of the temporary folder.  The second brings a trial up (root, containerd) with ten pods: what an
idle edgecore writes and takes, and how long it needs to bring the pods back after everything of them is gone and no cloud is
there (`start`)."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from beehive.message import Group, Message, Op, Source, new
from edgecore.edged.cri import Cri
from edgecore.edgehub.session import Session
from edgecore.metamanager.manager import MetaManager
from edgecore.metamanager.records import Row
from edgecore.metamanager.store import Store
from edgecore.metamanager.tokens import LIFE_USED
from tests.bench import start
from tests.bench.__main__ import rollup, show
from tests.e2e.skerry import eventually, missing
from tests.faults.stage import Stage
from tests.support.card import Card

BURST = 5000
STORED = 10_000
IDLE_S = 120.0
RENEWALS = 30
STATUSES = 200
WINDOW = 64
"""Frames in flight: what a hub of ours sends before the first acknowledgement."""


def pushed(kind: str, number: int) -> Message:
    body = {
        "metadata": {
            "name": f"n{number}",
            "namespace": "d",
            "uid": f"{kind}-{number}",
            "resourceVersion": "5",
        },
        "data": {"fill": "x" * 900},
    }
    return new(
        source=Source.EDGECONTROLLER,
        group=Group.RESOURCE,
        operation=Op.UPDATE,
        resource=f"d/{kind}/n{number}",
        content=body,
    )


class Hub:
    """Counts acknowledgements, and lets so many frames be in flight."""

    def __init__(self) -> None:
        self.flight = asyncio.Semaphore(WINDOW)
        self.acked = 0

    def send(self, message: Message) -> None:
        if message.route.operation == Op.ACK:
            for _ in message.decode(list[str]):
                self.acked += 1
                self.flight.release()

    def wake(self) -> None:
        return


async def burst(folder: Path, kind: str) -> None:
    """From the frame to its acknowledgement, as the link hands them over."""
    store = Store.open(folder / kind / "edgecore.db")
    meta, hub = MetaManager(store, "edge-1"), Hub()
    meta.bind(hub)
    meta.connected(Session("hub:1", True, 7), "inventory")
    messages = [pushed(kind, number) for number in range(BURST)]
    async with asyncio.TaskGroup() as group:
        running = group.create_task(meta.run())
        commits, began = store.counters.commits, time.monotonic()
        for message in messages:
            await hub.flight.acquire()
            await meta.forwarded("metamanager", message)
        while hub.acked < BURST:
            await asyncio.sleep(0.001)
        seconds = time.monotonic() - began
        running.cancel()
    sealed = " (sealed)" if kind == "secret" else ""
    show(f"{kind}s{sealed} of 1 KB, frame to ack", BURST / seconds, "objects/s")
    show(f"{kind}s{sealed}, commits (an fsync each)", (store.counters.commits - commits) / BURST, "an object")
    store.close()


async def statuses(folder: Path) -> None:
    """What a change of a pod's status costs: its report, and edged's record of the pod, as a pod's worker stores them."""
    store = Store.open(folder / "edgecore.db")
    meta = MetaManager(store, "edge-1")
    state = meta.corner("edged")
    status = json.dumps({"phase": "Running", "fill": "x" * 2000}).encode()

    async def tell(pod: int) -> None:
        async with asyncio.TaskGroup() as both:
            both.create_task(state.save(f"pod/u{pod}", status))
            both.create_task(meta.pod_status("d", f"p{pod}", f"u{pod}", status))

    for pods in (1, 20):
        commits, began = store.counters.commits, time.monotonic()
        for _ in range(STATUSES):
            async with asyncio.TaskGroup() as group:
                for pod in range(pods):
                    group.create_task(tell(pod))
        seconds = (time.monotonic() - began) / STATUSES
        show(f"a status of {pods} pods at once, until it is durable", seconds * 1000, "ms")
        show("... commits (an fsync each)", (store.counters.commits - commits) / STATUSES, "each time")
    store.close()


async def fill(folder: Path, count: int) -> None:
    store = Store.open(folder / "edgecore.db")
    rows = [
        Row(
            key=f"d/{kind}/n{number}",
            type=kind,
            namespace="d",
            name=f"n{number}",
            uid=f"u{number}",
            version=5,
            value=b'{"data":"%s"}' % (b"x" * 900),
        )
        for number, kind in ((n, "secret" if n % 4 == 0 else "configmap") for n in range(count))
    ]
    for first in range(0, count, 1000):
        part = rows[first : first + 1000]
        await store.write(lambda tx, part=part: [tx.put(row) for row in part])
    store.close()


_OPENED = """
import json, sys, time
from pathlib import Path
from edgecore.metamanager.manager import MetaManager
from edgecore.metamanager.store import Store
from tests.bench import start
from tests.bench.__main__ import rollup
import asyncio, os
async def main():
    began = time.monotonic()
    store = Store.open(Path(sys.argv[1]))
    meta = MetaManager(store, "edge-1")
    await meta.load()
    await meta.inventory()
    seconds = time.monotonic() - began
    print(json.dumps([seconds, rollup(os.getpid())["Pss"]]))
    store.close()
asyncio.run(main())
"""


def opened(path: Path) -> tuple[float, float]:
    """Seconds until a store is open and its inventory made, and the process's PSS in MiB then; medians."""
    found = []
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", _OPENED, str(path)], capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout))
    return statistics.median(one[0] for one in found), statistics.median(one[1] for one in found) / 1024


def stored(folder: Path) -> None:
    (folder / "many").mkdir()
    (folder / "none").mkdir()
    asyncio.run(fill(folder / "many", STORED))
    asyncio.run(fill(folder / "none", 0))
    seconds, memory = opened(folder / "many" / "edgecore.db")
    empty_s, empty = opened(folder / "none" / "edgecore.db")
    show(f"start with {STORED} objects (a quarter sealed)", seconds, "s")
    show("start with none", empty_s, "s")
    show(f"{STORED} objects, PSS more than none", memory - empty, "MiB")


# -- what a flash card takes


async def renewals(card: Card) -> float:
    """Bytes that a card takes when ten pods' tokens are renewed together."""
    store = Store.open(card.path / "edgecore.db")
    try:
        tokens = {f"token/{number}/d/sa/{'0' * 32}": os.urandom(900).hex().encode() for number in range(10)}
        await store.write(lambda tx: [tx.set_state(key, value) for key, value in tokens.items()])
        before = card.written()
        for _ in range(RENEWALS):
            await store.write(lambda tx: [tx.set_state(key, value) for key, value in tokens.items()])
        return (card.written() - before) / RENEWALS
    finally:
        store.close()


def flash(folder: Path) -> None:
    """What the tokens of ten pods, which live for an hour, cost a card in a day: the one thing that an idle node writes."""
    try:
        with Card(folder / "card") as card:
            each = asyncio.run(renewals(card))
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"what a card takes cannot be measured here: {error}", file=sys.stderr)
        return
    show("tokens of ten pods renewed together, of the card", each / 1e3, "KB")
    show("... of a day", each * 86400 / (3600 * LIFE_USED) / 1e6, "MB")


# -- a whole edge


def written(pid: int) -> int:
    """Bytes that a process caused to be written to disks."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("write_bytes")))


def idle(stage: Stage) -> None:
    card = stage.card
    assert card is not None, "the stage was made with one"
    # what the sample's page says to its log at each probe is not ours
    stage.skerry.kubectl("scale", "deployment/hello", "--replicas=0")
    stage.make_pod("herd-ten", "herd")
    eventually(lambda: len(running(stage)) == 10 and stage.is_agreed(), "ten silent pods", 60)
    time.sleep(15)
    pid = stage.pid("edgecore")
    taken = card.written()
    store, log = stage.edge / "edgecore.db-wal", stage.skerry.home / "logs" / "edgecore.log"
    before, bytes_, lines = stage.edge_status()["store"], written(pid), log.stat().st_size
    began = time.monotonic()
    time.sleep(IDLE_S)
    days = (time.monotonic() - began) / 86400
    after = stage.edge_status()["store"]
    made = after["commits"] - before["commits"]
    show("idle with ten pods, commits of a day", made / days, "commits")
    for what, size in sorted(after["writtenBytes"].items()):
        if grown := size - before["writtenBytes"].get(what, 0):
            show(f"idle with ten pods, {what} of a day", grown / days / 1e6, "MB")
    show("idle with ten pods, all that its card took, of a day", (card.written() - taken) / days / 1e6, "MB")
    show("idle with ten pods, log of a day", (log.stat().st_size - lines) / days / 1e6, "MB")
    show("idle with ten pods, the kernel's count of a day", (written(pid) - bytes_) / days / 1e6, "MB")
    show("size of the store's log", store.stat().st_size / 1e6 if store.exists() else 0.0, "MB")
    memory = rollup(pid)
    show("edgecore with ten pods, PSS", memory["Pss"] / 1024, "MiB")
    show("edgecore with ten pods, private-dirty", memory["Private_Dirty"] / 1024, "MiB")


def running(stage: Stage) -> list[str]:
    async def look() -> list[str]:
        cri = Cri(str(stage.skerry.socket))
        try:
            return [one.id for one in await cri.list_containers() if one.state.name == "RUNNING"]
        finally:
            cri.close()

    return asyncio.run(look())


def main() -> int:
    print(f"# {os.uname().machine}, {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    with tempfile.TemporaryDirectory(prefix="skb") as tmp:
        for kind in ("configmap", "secret"):
            asyncio.run(burst(Path(tmp), kind))
        asyncio.run(statuses(Path(tmp) / "statuses"))
        stored(Path(tmp))
        flash(Path(tmp))
    if reason := missing():
        print(f"the rest cannot be measured here: {reason}", file=sys.stderr)
        return 1
    stage = Stage(card=True)
    try:
        stage.open()
        stage.settle()
        time.sleep(15)
        idle(stage)
        start.measure(stage.skerry)
    finally:
        stage.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
