"""What `test_power` runs in a process whose disk is watched: a store that is used, or a node's apply path whose disk fails.

    python -m tests.faults.store_on_disk cut           write for a while, and say after each commit what is durable
    python -m tests.faults.store_on_disk fail ERROR WIDTH STEP    one run for every STEPth call: WIDTH calls fail from it on

It says what it found as JSON on standard output."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

from beehive.message import Group, Message, Op, Source, new
from edgecore.edgehub.session import Session
from edgecore.metamanager import upgrade
from edgecore.metamanager.manager import MetaManager
from edgecore.metamanager.records import Pending, Row
from edgecore.metamanager.store import Store
from edgecore.metamanager.tables import Transaction
from tests.faults.disk import Disk, Faults, laid_out, read

DISK = Path(os.environ.get("SKERRY_TEST_DISK", ""))
KEYS = 40
OBJECTS = 12


def row(number: int, version: int, rng: random.Random) -> Row:
    kind = "secret" if number % 5 == 0 else "pod"
    return Row(
        key=f"default/{kind}/n{number}",
        type=kind,
        namespace="default",
        name=f"n{number}",
        uid=f"u{number}",
        version=version,
        value=b'{"v":%d,"fill":"%s"}' % (version, b"x" * rng.randrange(3000)),
    )


async def cut() -> None:
    """Groups of changes, small and large; versions only grow, and a deletion has one, too."""
    store = Store.open(DISK / "edgecore.db")
    store._writer.execute("PRAGMA wal_autocheckpoint = 40")  # so that a short run has checkpoints
    rng = random.Random(7)
    acks = os.open(DISK / "acks", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    async def change(number: int, version: int) -> None:
        gone = rng.random() < 0.2
        one = row(number, version, rng)

        def work(tx: Transaction) -> None:
            tx.delete(one.key) if gone else tx.put(one)
            tx.put_pending(
                Pending(seq=version, key=f"pod/{number}", kind="pod", at_ms=1, message=b"%d" % version)
            )
            tx.set_state(f"token/u{number}/x", b"%d" % version)

        await store.write(work)
        os.write(acks, b"%d %d %d\n" % (number, version, gone))

    version = 0
    for _ in range(60):
        async with asyncio.TaskGroup() as group:
            for number in rng.sample(range(KEYS), rng.choice([1, 1, 2, 8])):
                version += 1
                group.create_task(change(number, version))
    store.close()


def pushed(number: int, version: int) -> Message:
    body = {
        "metadata": {
            "name": f"n{number}",
            "namespace": "d",
            "uid": f"u{number}",
            "resourceVersion": str(version),
        },
        "data": {"fill": "x" * 1500, "v": str(version)},
    }
    return new(
        source=Source.EDGECONTROLLER,
        group=Group.RESOURCE,
        operation=Op.UPDATE,
        resource=f"d/{'secret' if number % 3 == 0 else 'configmap'}/n{number}",
        content=body,
    )


class Hub:
    """Sends each object until it is acknowledged, and remembers what was."""

    def __init__(self) -> None:
        self.waiting: dict[str, Message] = {}
        self.acked: set[str] = set()
        self.refused = 0

    def send(self, message: Message) -> None:
        if message.route.operation == Op.ACK:
            for one in message.decode(list[str]):
                if one in self.waiting:  # sent twice, it is acknowledged twice
                    self.acked.add(self.waiting.pop(one).route.resource)
        elif message.route.operation == Op.ERROR:
            self.refused += 1

    def wake(self) -> None:
        return


async def apply(database: Path, faults: Faults, first: int, last: int, error: int) -> dict[str, Any]:
    """One run of the apply path.  What was counted, what was refused, and whether all is there as it should be."""
    store = Store.open(database)
    store._writer.execute("PRAGMA wal_autocheckpoint = 10")
    meta, hub = MetaManager(store, "edge-1"), Hub()
    await meta.load()
    meta.bind(hub)
    meta.connected(Session("hub:1", True, 7), "inventory")
    faults.begin(first, last, error)
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(meta.run()), group.create_task(store.run())]
        for version in (1, 2):
            for half in (range(OBJECTS // 2), range(OBJECTS // 2, OBJECTS)):
                for number in half:
                    message = pushed(number, version)
                    hub.waiting[message.id] = message
                while hub.waiting:
                    for message in list(hub.waiting.values()):
                        await meta.forwarded("metamanager", message)
                    await asyncio.sleep(0.002)
        count = faults.end()
        for task in running:
            task.cancel()
    rows = await store.read(lambda view: view.all_of("configmap") + view.all_of("secret"))
    result = {
        "calls": count,
        "refused": hub.refused,
        "failures": store.counters.failures,
        "wrong": [r.key for r in rows if r.version != 2 or b'"v":"2"' not in r.value],
        "count": len(rows),
        "acked": len(hub.acked),
    }
    return result | {"close": store}


async def fail(error: int, width: int, step: int) -> None:
    faults = Faults(os.environ["SKERRY_TEST_FAULTS"])
    trace = Path(os.environ["SKERRY_TEST_TRACE"])
    fresh = DISK / "fresh"
    Store.open(fresh / "edgecore.db").close()
    before = {str(path): path.read_bytes() for path in fresh.rglob("*") if path.is_file()}
    work = DISK / "work"

    async def once(first: int) -> dict[str, Any]:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(fresh, work)
        os.truncate(trace, 0)
        result = await apply(work / "edgecore.db", faults, first, first + width - 1, error)
        # the power is cut now: all that was acknowledged is on the disk
        disk = Disk({path.replace(str(fresh), str(work)): content for path, content in before.items()})
        for call in read(trace):
            disk.apply(call)
        result.pop("close").close()
        left = disk.after_a_cut(random.Random(first), lazy=True)
        with laid_out(left, work, DISK / "left") as folder:
            store = Store.open(folder / "edgecore.db")
            rows = await store.read(lambda view: view.all_of("configmap") + view.all_of("secret"))
            result["left"] = sum(row.version == 2 for row in rows)
            result["damaged"] = store.counters.damaged_rows + bool(store.set_aside)
            store.close()
        return {"first": first, **result}

    results = [await once(-1000)]
    results += [await once(first) for first in range(1, results[0]["calls"] + 1, step)]
    print(json.dumps(results))


if __name__ == "__main__":
    logging.disable()
    upgrade.migrate_in_child = upgrade.migrate  # in this process, whose disk is watched as well
    if sys.argv[1] == "cut":
        asyncio.run(cut())
    else:
        asyncio.run(fail(getattr(errno, sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
