from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudcore.standalone import listing, selectors, watch
from cloudcore.standalone.admission import Admission
from cloudcore.standalone.kinds import Registry
from cloudcore.standalone.negotiation import Form
from cloudcore.standalone.requests import parse_target
from cloudcore.standalone.store import Store
from cloudcore.standalone.verbs import Resources

KEY = ("", "configmaps")
STEP = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from(["in", "out", "gone"]),
    st.sampled_from(["go on", "go on", "cut", "compact"]),
)


class Reflector:
    """A client as they all are: list, watch from there, resume after the last event, list again at 410."""

    def __init__(self, resources: Resources, selector: str) -> None:
        self._resources = resources
        self._selector = selector
        self._version = ""
        self.seen: dict[str, Any] = {}
        self.listed = 0

    def _query(self, *, watching: bool) -> tuple[Any, Any, dict[str, str]]:
        kind = self._resources.registry.by_path("", "v1", "configmaps")
        options = {"labelSelector": self._selector}
        if watching:
            options |= {"watch": "1", "resourceVersion": self._version}
        target = parse_target("GET", "/api/v1/namespaces/ns/configmaps", options)
        assert kind is not None
        assert target is not None
        return kind, listing.parse_query(kind, target, options, watch=watching), options

    def list(self) -> dict[str, Any]:
        kind, query, _ = self._query(watching=False)
        now = datetime.now(UTC)
        body = msgspec.json.decode(
            listing.list_bytes(kind, self._resources.store, query, Form(), now, "Metadata")
        )
        self._version = body["metadata"]["resourceVersion"]
        return {item["metadata"]["name"]: item["metadata"] for item in body["items"]}

    async def catch_up(self) -> None:
        """One watch that is cut when nothing more comes."""
        if not self._version:
            self.seen = self.list()
        kind, query, options = self._query(watching=True)
        async with aclosing(watch.events(kind, self._resources, query, options, Form())) as chunks:
            while True:
                try:
                    async with asyncio.timeout(0.005):
                        chunk = await anext(chunks)
                except (TimeoutError, StopAsyncIteration):
                    return
                for line in chunk.splitlines():
                    if not self._take(msgspec.json.decode(line)):
                        self.listed += 1
                        self.seen = self.list()
                        return

    def _take(self, event: dict[str, Any]) -> bool:
        metadata = event["object"]["metadata"]
        match event["type"]:
            case "ERROR":
                assert event["object"]["code"] == 410
                return False
            case "ADDED":
                assert metadata["name"] not in self.seen
                self.seen[metadata["name"]] = metadata
            case "MODIFIED":
                assert metadata["name"] in self.seen
                self.seen[metadata["name"]] = metadata
            case "DELETED":
                del self.seen[metadata["name"]]
        assert not self._version or int(metadata["resourceVersion"]) > int(self._version)
        self._version = metadata["resourceVersion"]
        return True


@settings(max_examples=30, deadline=None)
@given(st.lists(STEP, max_size=16), st.sampled_from(["", "where=in", "where!=in"]))
def test_what_a_client_knows_after_any_cuts_is_what_a_list_says(
    tmp_path_factory: Any, steps: list[tuple[str, str, str]], selector: str
) -> None:
    async def main() -> None:
        path = tmp_path_factory.mktemp("watch") / "db"
        store = Store(path, fields=lambda key, body: selectors.field_values(key, body))
        store.open()
        store.start()
        registry = Registry.core()
        resources = Resources(
            store, registry, Admission(store, random.Random(0)), now=lambda: datetime.now(UTC)
        )
        one = Reflector(resources, selector)
        try:
            # version 0 asks for anything, so a server's first object has come before any client
            first = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "ns", "uid": "ns"}}
            await store.put(("", "namespaces"), "", "ns", first)[1]
            await one.catch_up()
            compacted = 0
            for name, where, then in steps:
                head = store.head(KEY, "ns", name)
                if where != "gone":
                    metadata = {"name": name, "namespace": "ns", "uid": name, "labels": {"where": where}}
                    body: dict[str, Any] = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata}
                    await store.put(KEY, "ns", name, body)[1]
                elif head is not None:
                    await store.remove(KEY, "ns", name, head.decode())[1]
                if then == "compact":
                    compacted += 1
                    store.compact(KEY)
                elif then == "cut":
                    await one.catch_up()
            await one.catch_up()
            assert one.listed <= compacted
            assert one.seen == one.list()
        finally:
            await store.stop()

    asyncio.run(main())


def test_events_are_written_in_pieces_of_whole_events() -> None:
    events = [
        bytes([65 + n]) * size
        for n, size in enumerate((10, watch.PIECE, 5, watch.PIECE - 5, 3 * watch.PIECE, 1))
    ]
    pieces = list(watch.pieces(iter(events), b"end"))
    assert b"".join(pieces) == b"".join(events) + b"end"
    assert [len(piece) for piece in pieces] == [10, watch.PIECE, watch.PIECE, 3 * watch.PIECE, 1 + 3]
    assert list(watch.pieces(iter(()))) == [b""]
