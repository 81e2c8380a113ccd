"""Requests over MQTT, in a recorded conversation and otherwise."""

import json
from pathlib import Path
from typing import Any

from devicetwin.module import DeviceTwin
from tests.unit.devicetwin.fakes import twin_message
from tests.unit.devicetwin.world import ID, World, plain, recorded_object, run
from tests.vectors_kubeedge import frames, lines


def test_the_recorded_mqtt_conversation_goes_the_same_way(folder: Path) -> None:
    """Every request of the recording, answered as KubeEdge did but for two stated differences."""
    steps: list[tuple[str, Any]] = []
    answers: list[list[tuple[str, Any]]] = []
    for line in lines("mqtt.jsonl"):
        if line.get("step") == "mapper registers over DMI":
            break
        if "sent_topic" in line:
            sent = line["sent_payload"]
            steps.append((line["sent_topic"], sent if isinstance(sent, str) else json.dumps(sent)))
            answers.append([])
        elif "topic" in line and steps and line["topic"] != steps[-1][0]:
            answers[-1].append((line["topic"], plain(json.loads(line["payload"]))))
    assert len(steps) == 13

    async def scenario(world: World, twin: DeviceTwin) -> None:
        added = next(m for m in frames("down") if m["route"]["resource"] == "membership")["content"]
        await twin.on_message(twin_message("membership", added))
        await world.settle()
        assert plain(world.bus.texts.pop()[1]) == plain(added)
        for (topic, payload), expected in zip(steps, answers, strict=True):
            await twin.on_mqtt(topic, payload.encode())
            await world.settle()
            got = [(t, plain(p)) for t, p in world.bus.texts]
            world.bus.texts.clear()
            if payload == "{not json":
                # KubeEdge answers on a topic with an empty id, where nobody looks.
                assert got[0][0] == "$hw/events/device/vectors/thermo-1/twin/update/result"
                assert got[0][1]["code"] == expected[0][1]["code"]
                continue
            if '"e3"' in payload:  # the same value again: no document of a change that is none
                expected = [e for e in expected if not e[0].endswith("document")]
            for one in (*got, *expected):
                if "code" in one[1]:
                    one[1]["reason"] = "text"
            assert got == expected

    run(folder, scenario)


def test_a_local_client_cannot_speak_as_the_cloud(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        update = {
            "twin": {
                "temperature": {"expected": {"value": "66"}, "expected_version": {"cloud": 99, "edge": 99}}
            }
        }
        await twin.on_mqtt(f"$hw/events/device/{ID}/twin/cloud_updated", json.dumps(update).encode())
        assert twin.devices()[0]["twins"]["temperature"]["desired"] == "21"
        await twin.on_message(twin_message(f"device/{ID}/twin/cloud_updated", update))
        assert twin.devices()[0]["twins"]["temperature"]["desired"] == "66"

    run(folder, scenario)


def test_names_that_a_client_makes_up_and_removes_leave_nothing_in_memory(folder: Path) -> None:
    async def scenario(world: World, twin: DeviceTwin) -> None:
        await world.put("devicemodel", recorded_object("devicemodel"))
        await world.put("device", recorded_object("device"))
        await world.settle()
        before = len(twin.history(ID))
        for n in range(20):
            for sides in ({"actual": {"value": "1"}, "optional": True, "metadata": {"type": "string"}}, None):
                payload = json.dumps(
                    {"event_id": "", "timestamp": 1, "twin": {f"made-up-{n}": sides}}
                ).encode()
                await twin.on_mqtt(f"$hw/events/device/{ID}/twin/update", payload)
        assert not [name for name in twin.known.records[ID].twins if name.startswith("made-up")]
        assert len(twin.history(ID)) == before

    run(folder, scenario)
