"""Broker and mappers: F-D."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter

import pytest

from edgecore import local
from tests.e2e.broker import Bus
from tests.e2e.skerry import eventually
from tests.faults.stage import BACK_S, Stage
from tests.faults.test_hostile import GROWTH_KIB, memory_kib

THERMOSTAT = "default/thermostat"


def is_at(stage: Stage, target: float) -> bool:
    return float(stage.skerry.readings()["target"]) == target


def warm(bus: Bus, target: float) -> bool:
    return abs(float(bus.actual(THERMOSTAT)["temperature"]) - target) < 0.5


@pytest.mark.quick
def test_f_d01_the_broker_is_killed(stage: Stage) -> None:
    before = stage.containers()
    agent, mapper = stage.pid("edgecore"), stage.pid("mapper")
    stage.skerry.set_target("22")
    eventually(lambda: is_at(stage, 22), "the target", BACK_S)
    for round_, target in enumerate((23, 24)):
        stage.kill("mosquitto")
        stage.skerry.set_target(str(target))
        # devices do not need the broker
        eventually(lambda target=target: is_at(stage, target), "the target, without a broker", BACK_S)  # type: ignore[misc]
        if round_:
            # what it kept is lost
            for path in (stage.skerry.home / "mosquitto").glob("*.db"):
                path.unlink()
        stage.start("mosquitto")

        def answered(target: int = target) -> bool:
            with Bus(stage.skerry.mqtt_port, stage.skerry.home) as bus:
                return float(bus.actual(THERMOSTAT)["target"]) == target

        eventually(answered, "the twin over MQTT, not rolled back", BACK_S)
        assert is_at(stage, target)
    assert stage.pid("edgecore") == agent
    assert stage.pid("mapper") == mapper
    assert stage.containers() == before


def test_f_d02_a_mapper_restarts_twenty_times(stage: Stage) -> None:
    before, agent = stage.containers(), stage.pid("edgecore")
    stage.skerry.set_target("25")
    eventually(lambda: is_at(stage, 25), "the target", BACK_S)
    for number in range(20):
        stage.kill("mapper")
        stage.start("mapper")
        # in the middle of registering, of the first write, of reading
        time.sleep(0.1 + 0.07 * number)
    with Bus(stage.skerry.mqtt_port, stage.skerry.home) as bus:
        # a room that is new and cold is heated: the desired value was told again
        eventually(lambda: warm(bus, 25), "the room, warm again", BACK_S)
    assert is_at(stage, 25)
    assert stage.pid("edgecore") == agent
    assert stage.containers() == before


def test_f_d02_a_mapper_hangs(stage: Stage) -> None:
    """A stopped mapper holds nobody up, and goes on where it was."""
    import os
    import signal

    before, mapper = stage.containers(), stage.pid("mapper")
    os.kill(mapper, signal.SIGSTOP)
    try:
        stage.skerry.set_target("20.5")
        time.sleep(15)
        assert stage.is_linked()
        stage.make_pods("young", 1)
        eventually(stage.is_agreed, "a pod meanwhile", BACK_S)
    finally:
        os.kill(mapper, signal.SIGCONT)
        stage.drop_pods("young")
    eventually(lambda: is_at(stage, 20.5), "the target, after it", BACK_S)
    eventually(lambda: stage.is_agreed() and stage.containers() == before, "agreement", BACK_S)


def test_f_d05_devices_go_on_while_the_cloud_is_away(stage: Stage) -> None:
    stage.skerry.set_target("21")
    eventually(lambda: is_at(stage, 21), "the target", BACK_S)
    stage.line.line.refuse = True
    stage.line.cut()
    eventually(lambda: not stage.is_linked(), "the link's end", 60)
    stage.skerry.set_target("19.5")
    time.sleep(6)
    with Bus(stage.skerry.mqtt_port, stage.skerry.home) as bus:
        assert float(bus.actual(THERMOSTAT)["target"]) == 21
    waiting = stage.edge_status()["outbox"]
    # newest only, whatever the time away
    assert waiting["waiting"] < 40
    stage.line.good()
    eventually(lambda: is_at(stage, 19.5), "the newest target, once back", BACK_S)
    eventually(lambda: stage.edge_status()["outbox"]["waiting"] == 0, "an empty outbox", BACK_S)


DEVICES, EACH_PER_S, FLOOD_S = 30, 100, 10


def held(stage: Stage) -> set[str]:
    """Names of the devices that the edge has."""
    answer = local.ask(stage.edge / "edgecore.sock", "get", kind="devices")
    return {item["metadata"]["name"] for item in answer["items"]}


def test_f_d03_thirty_devices_report_a_hundred_times_a_second(stage: Stage) -> None:
    """What is written to the API is a trickle, the newest stays, and nobody's memory grows by it."""
    before = stage.containers()
    like = stage.skerry.get("device", "thermostat")
    names = [f"busy-{number}" for number in range(DEVICES)]
    items = []
    for name in names:
        spec = json.loads(json.dumps(like["spec"]))
        spec["protocol"] = {"protocolName": "by-mqtt"}
        for one in spec["properties"]:
            one.pop("desired", None)
        items.append(
            {**{k: like[k] for k in ("apiVersion", "kind")}, "metadata": {"name": name}, "spec": spec}
        )
    stage.skerry.kubectl(
        "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    )
    pids = [stage.pid(part) for part in ("edgecore", "cloudcore", "mosquitto")]
    watch: subprocess.Popen[str] | None = None
    try:
        with Bus(stage.skerry.mqtt_port, stage.skerry.home) as bus:
            eventually(lambda: set(names) <= held(stage), "the devices at the edge", BACK_S)
            sizes = [memory_kib(pid) for pid in pids]
            command = (
                f"kubectl --kubeconfig {stage.skerry.home}/kubeconfig get devicestatuses --watch-only -o name"
            )
            watch = subprocess.Popen(command.split(), stdout=subprocess.PIPE, text=True)
            number, began = 0, time.monotonic()
            while (at := time.monotonic() - began) < FLOOD_S:
                number += 1
                for name in names:
                    bus.report(f"default/{name}", "temperature", str(number % 50))
                time.sleep(max(0.0, number / EACH_PER_S - at))
            last = "33.5"
            for name in names:
                bus.report(f"default/{name}", "temperature", last, qos=1)
            took = time.monotonic() - began

        def newest() -> bool:
            found = stage.skerry.get("devicestatuses")["items"]
            values = {
                one["metadata"]["name"]: twin["reported"]["value"]
                for one in found
                for twin in one.get("status", {}).get("twins", [])
                if twin["propertyName"] == "temperature" and twin.get("reported")
            }
            return all(values.get(name) == last for name in names)

        eventually(newest, "the newest of each", BACK_S)
        assert number * DEVICES > 2000, "this machine is too slow to try it"
        # one a second and device at most, however many were said
        watch.terminate()
        written = Counter(
            line.strip().rpartition("/")[2] for line in watch.communicate(timeout=30)[0].splitlines()
        )
        assert all(0 < written[name] <= took + 15 for name in names), written
        grown = [memory_kib(pid) - size for pid, size in zip(pids, sizes, strict=True)]
        assert max(grown) < 2 * GROWTH_KIB, grown
        assert stage.is_linked()
    finally:
        if watch is not None:
            watch.kill()
        stage.skerry.kubectl("delete", "device", *names, "--wait=false")
    assert stage.containers() == before
