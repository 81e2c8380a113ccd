"""Cloud, edge and mapper around one property, whatever happens on the way: restarts, cuts, things said twice or late.

The edge is the real `DeviceTwin` on a store in memory, the cloud's half of a report the real `reports`.  Links, the mapper and
the device are played here.  Whatever came before, when nothing more happens all three agree (P3); what was wished last, by the
stated rule, is what the device does; and once they agree nobody says anything more.

The rule: the cloud's wish counts when it changes, the edge's until then."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from beehive import clock
from beehive.apis.devices import DeviceStatusStatus, decode_device, decode_model
from beehive.apis.twins import TwinUpdate
from beehive.message import Message
from cloudcore.devicecontroller import reports
from devicetwin.mapperlink import Link, MapperInfo, Tell
from devicetwin.module import DeviceTwin
from devicetwin.twin import Reading
from tests.unit.devicetwin.fakes import MemoryBus, MemoryStore, MemoryUplink, resource_message

ID, MAPPER = "default/valve", "m"
MODEL = {
    "metadata": {"namespace": "default", "name": "valve"},
    "spec": {
        "protocol": "p",
        "properties": [{"name": "level", "type": "INT", "accessMode": "ReadWrite", "maximum": "9"}],
    },
}
LEVELS = st.integers(0, 9).map(str)


def device(wish: str) -> dict[str, Any]:
    desired = {"desired": {"value": wish}} if wish else {}
    return {
        "metadata": {"namespace": "default", "name": "valve"},
        "spec": {
            "deviceModelRef": {"name": "valve"},
            "protocol": {"protocolName": "p"},
            "properties": [{"name": "level", **desired}],
        },
    }


class Converging(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.store, self.uplink, self.bus = MemoryStore(), MemoryUplink(), MemoryBus()
        self.spec = ""  # in the API
        self.taken = ""  # of it, by the edge
        self.wish = ""  # in force, by the rule
        self.status = DeviceStatusStatus()
        self.newest = 0  # how much of the uplink the cloud has
        self.seen: dict[str, tuple[int, int]] = {}  # versions that the cloud saw
        self.level = "0"  # of the device
        self.applied = ""  # the wish that the mapper works towards
        self.held: list[Reading] = []  # reports that are on their way
        self.up = True
        self.store.rows["devicemodel", "default/valve"] = msgspec.json.encode(MODEL)
        self.edge: DeviceTwin
        self.start_edge()
        self.deliver()

    def wait(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def start_edge(self) -> None:
        self.edge = DeviceTwin(
            node_name="edge-1",
            store=self.store,
            uplink=self.uplink,
            publisher=self.bus,
            dmi_dir=Path("/nonexistent"),
            clock=clock,
        )
        self.wait(self.edge.load())
        info = MapperInfo(name=MAPPER, protocol="p", address="/nonexistent")
        self.edge.dmi.links.setdefault(MAPPER, Link(info, self.edge.dispatch, random.Random(0)))
        self.edge.dispatch.reassign()

    # --- the cloud

    @rule(wish=LEVELS)
    def wish_in_the_cloud(self, wish: str) -> None:
        self.spec = wish

    @rule()
    def withdraw_in_the_cloud(self) -> None:
        self.spec = ""

    @precondition(lambda self: self.up)
    @rule(twice=st.booleans())
    def deliver(self, *, twice: bool = False) -> None:
        """The newest spec comes down; what lay between was replaced in its slot."""
        for _ in range(1 + twice):
            self.store.rows["device", ID] = msgspec.json.encode(device(self.spec))  # the host stores first
            self.wait(self.edge.on_message(resource_message("device", device(self.spec), "update")))
            if self.spec != self.taken:
                self.taken = self.wish = self.spec

    @precondition(lambda self: self.up)
    @rule(twice=st.booleans())
    def report_up(self, *, twice: bool = False) -> None:
        """The newest report goes up; it may be sent again, as after a cut before its acknowledgement."""
        newest = self.uplink.latest.get(f"twin/{ID}")
        if newest is None:
            return
        self.newest = len(self.uplink.sent)
        for _ in range(1 + twice):
            self.take(newest)

    def take(self, message: Message) -> None:
        update = msgspec.json.decode(message.content, type=TwinUpdate)
        for name, twin in (update.twin or {}).items():
            version = twin.actual_version if twin is not None else None
            if version is not None:
                now = (version.cloud, version.edge)
                assert self.seen.get(name, (0, 0)) <= now, "a version went back"
                self.seen[name] = now
        made = decode_device(msgspec.json.encode(device(self.spec)))
        change = reports.from_twins(update, made, decode_model(msgspec.json.encode(MODEL)))
        self.status = reports.apply(self.status, change, made, "now")

    @rule()
    def cut_the_link(self) -> None:
        self.up = False

    @rule()
    def heal_the_link(self) -> None:
        self.up = True
        self.wait(self.edge.on_connected())

    # --- the edge

    @rule(wish=LEVELS)
    def wish_at_the_edge(self, wish: str) -> None:
        text = {"event_id": "e", "twin": {"level": {"expected": {"value": wish}}}}
        topic = f"$hw/events/device/{ID}/twin/update"
        self.wait(self.edge.on_mqtt(topic, json.dumps(text).encode()))
        self.wish = wish  # answered, so it is stored

    @rule()
    def ill_wish_at_the_edge(self) -> None:
        text = {"event_id": "e", "twin": {"level": {"expected": {"value": "many"}}}}
        self.wait(self.edge.on_mqtt(f"$hw/events/device/{ID}/twin/update", json.dumps(text).encode()))

    @rule()
    def work_off(self) -> None:
        self.wait(self.edge.notes.flush(ID))

    @rule()
    def kill_the_edge(self) -> None:
        """What was not worked off is gone."""
        self.start_edge()

    # --- the mapper and the device

    @rule(answer=st.booleans())
    def tell_the_mapper(self, *, answer: bool) -> None:
        """As the worker of its link does; the answer may get lost."""
        tell = self.edge.dispatch.tell(MAPPER, ID)
        if isinstance(tell, Tell) and self.edge.known.records[ID].delivered != (MAPPER, tell.digest):
            self.wait(self.edge.dispatch.telling(MAPPER, ID))
            self.mapper_takes(tell)
            if answer:
                self.edge.dispatch.told(MAPPER, ID, tell.digest)

    def mapper_takes(self, tell: Tell) -> None:
        wish = tell.device.spec.properties[0].desired.value
        if wish and wish != self.applied:
            self.level = wish
        self.applied = wish

    @rule()
    def restart_the_mapper(self) -> None:
        self.applied = ""
        info = self.edge.dmi.links[MAPPER].info
        for tell in self.wait(self.edge.dispatch.registered(info)):
            self.mapper_takes(tell)

    @rule(level=LEVELS)
    def turn_by_hand(self, level: str) -> None:
        self.level = level

    @rule()
    def read(self) -> None:
        self.held.append(Reading(name="level", reported=self.level, observed=self.applied))
        del self.held[:-4]

    @rule(data=st.data())
    def report(self, data: st.DataObject) -> None:
        """Any that is on its way: late, again, or before one that is older."""
        if self.held:
            self.edge.reports.reported(ID, [data.draw(st.sampled_from(self.held))])

    @rule(levels=st.lists(LEVELS, min_size=2, max_size=5))
    def live_on(self, levels: list[str]) -> None:
        """A while without an incident."""
        for level in levels:
            self.level = level
            self.edge.reports.reported(ID, [Reading(name="level", reported=level, observed=self.applied)])
            self.wait(self.edge.notes.flush(ID))
            if self.up:
                self.report_up()

    @rule()
    def report_rubbish(self) -> None:
        assert self.edge.reports.reported(ID, [Reading(name="level", reported="many")])

    # --- what is always so

    @invariant()
    def the_wish_in_force_is_the_rules(self) -> None:
        if hasattr(self, "edge"):
            twin = self.edge.known.records[ID].twins.get("level")
            held = twin.expected.value if twin is not None and twin.expected is not None else ""
            assert held == self.wish

    def settle(self) -> None:
        """Nothing more happens but what must."""
        self.up = True
        self.deliver()
        self.tell_the_mapper(answer=True)
        self.read()
        self.edge.reports.reported(ID, [self.held[-1]])
        self.wait(self.edge.notes.flush(ID))
        self.report_up()

    def teardown(self) -> None:
        if not hasattr(self, "edge"):
            return
        try:
            turned = self.level
            self.settle()
            assert self.applied == self.wish
            assert self.level in ({turned, self.wish} if self.wish else {turned})
            (twin,) = self.status.twins
            assert twin.reported is not None
            assert twin.reported.value == self.level
            assert (twin.observed_desired.value if twin.observed_desired else "") == self.wish
            accepted = next(c for c in self.status.conditions if c.type == reports.ACCEPTED)
            assert accepted.status == "True"
            sent, writes, said = len(self.uplink.sent), self.store.writes, len(self.edge.texts.waiting)
            for _ in range(3):
                self.settle()
            assert (len(self.uplink.sent), self.store.writes, len(self.edge.texts.waiting)) == (
                sent,
                writes,
                said,
            )
        finally:
            self.loop.close()


TestConverging = Converging.TestCase
TestConverging.settings = settings(stateful_step_count=30)
