"""Print what devices cost on this machine: the twin part and one real mapper process.  Asserts nothing.

    python -m tests.bench.devices --devices 50

The store and the cloud are in memory, so the figures are those of DMI, the twin and the SDK alone.  Memory is PSS.  Every
device is a thermostat with three properties read once a second, one of which changes all the time."""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import tempfile
import time
from pathlib import Path

import paho.mqtt.client as paho

from beehive import dmi
from beehive._generated import dmi_pb2 as pb
from beehive._generated import methods_pb2
from edgecore.eventbus.mqtt import EventBus
from tests.integration.devices.test_thermostat import Edge, mapper, sample
from tests.support.mosquitto import broker
from tests.support.ports import free_port
from tests.unit.devicetwin.fakes import until

SETTLE_S, MEASURE_S, EDITS, CALLS, BATCHES, TRIPS = 5.0, 10.0, 100, 2000, 100, 300


def pss_mb(pid: int | str) -> float:
    with Path(f"/proc/{pid}/smaps_rollup").open() as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024


def cpu_s(pid: int | str) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def measure(count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="skb") as folder:
        edge = Edge(Path(folder))
        async with edge.running() as twin:
            await edge.put(twin, "devicemodel", sample("model"))
            for i in range(count):
                await edge.put(twin, "device", _device(i))
            async with mapper(Path(folder)) as process:
                await until(lambda: all(d["delivered"] for d in twin.devices()), 60)
                await asyncio.sleep(SETTLE_S)
                before = (
                    cpu_s("self"),
                    cpu_s(process.pid),
                    twin.dmi.counts["reports"],
                    len(edge.uplink.sent),
                )
                await asyncio.sleep(MEASURE_S)
                print(f"{count} devices, 3 properties each, read once a second")
                print(f"  mapper process        {pss_mb(process.pid):6.1f} MB PSS")
                print(
                    f"  mapper CPU            {(cpu_s(process.pid) - before[1]) / MEASURE_S:6.1%} of a core"
                )
                print(f"  twin part CPU         {(cpu_s('self') - before[0]) / MEASURE_S:6.1%} of a core")
                print(
                    f"  reports in            {(twin.dmi.counts['reports'] - before[2]) / MEASURE_S:6.1f} /s"
                )
                print(f"  messages to the cloud {(len(edge.uplink.sent) - before[3]) / MEASURE_S:6.1f} /s")
                await _edits(edge, twin)
            await _flood(Path(folder), twin)
            await _batches(Path(folder), count)


def _device(i: int, target: str = "21.5") -> dict[str, object]:
    device = sample("device")
    device["metadata"]["name"] = f"t{i}"
    device["spec"]["protocol"]["configData"]["timeConstant"] = 1000
    for prop in device["spec"]["properties"]:
        prop["collectCycle"] = 1000
        if prop["name"] == "target":
            prop["desired"] = {"value": target}
    return device


async def _edits(edge: Edge, twin: object) -> None:
    """From the Device's arrival at the edge to the driver's write, seen in the reading that follows."""
    times = []
    for i in range(EDITS):
        target = str(10 + i % 20)
        began = time.perf_counter()
        await edge.put(twin, "device", _device(0, target), "update")  # type: ignore[arg-type]
        await until(lambda target=target: _reading(twin) == target, every=0.0005)  # type: ignore[misc]
        times.append((time.perf_counter() - began) * 1000)
    print(f"  wish to reading       {spread(times)} of {EDITS}")


def spread(times: list[float]) -> str:
    """Milliseconds."""
    ordered = sorted(times)
    return f"{statistics.median(ordered):6.1f} ms p50, {ordered[int(len(ordered) * 0.99)]:.1f} ms p99"


def _reading(twin: object) -> str | None:
    record = twin.known.records["default/t0"].twins["target"]  # type: ignore[attr-defined]
    return record.actual.value if record.actual is not None else None


async def _flood(folder: Path, twin: object) -> None:
    """Reports of one property as fast as one connection goes."""
    with dmi.Client(str(folder / "dmi.sock")) as client:
        request = pb.ReportDeviceStatusRequest(deviceNamespace="default", deviceName="t0")
        reading = request.reportedDevice.twins.add(propertyName="temperature").reported
        began = time.perf_counter()
        for i in range(CALLS):
            reading.value = str(i)
            await client.call(dmi.MANAGER["ReportDeviceStatus"], request, timeout_s=5)
        took = time.perf_counter() - began
    print(f"  one call a report     {CALLS / took:6.0f} /s, client and server in one process")


async def _batches(folder: Path, count: int) -> None:
    """Reports of all devices in one call, as the SDK sends them; every reading is another."""
    with dmi.Client(str(folder / "dmi.sock")) as client:
        readings, took, cpu = 0, 0.0, 0.0
        for turn in range(BATCHES):
            request = methods_pb2.ReportDevicesRequest()
            for i in range(min(count, 256)):
                one = pb.ReportDeviceStatusRequest(deviceNamespace="default", deviceName=f"t{i}")
                for name, value in (("temperature", f"{turn}.5"), ("target", str(10 + turn % 20))):
                    one.reportedDevice.twins.add(propertyName=name).reported.value = value
                    readings += 1
                request.reports.append(one.SerializeToString())
            began, before = time.perf_counter(), time.process_time()
            await client.call(dmi.REPORTS["ReportDevices"], request, timeout_s=30)
            took += time.perf_counter() - began
            cpu += time.process_time() - before
        print(
            f"  many in a call        {readings / took:6.0f} readings/s, {readings / cpu:.0f} per second of CPU"
        )


async def bus() -> None:
    """A request over MQTT and its answer, beside a message that only goes through the broker."""
    with tempfile.TemporaryDirectory(prefix="skb") as name:
        folder = Path(name)
        port = free_port()
        async with broker(port, "set_tcp_nodelay true", folder=folder):
            loop = asyncio.get_running_loop()
            heard: asyncio.Queue[str] = asyncio.Queue()
            client = paho.Client(paho.CallbackAPIVersion.VERSION2)
            client.on_message = lambda c, u, m: loop.call_soon_threadsafe(heard.put_nowait, m.topic)
            client.on_socket_open = lambda c, u, sock: sock.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
            )
            client.connect("127.0.0.1", port)
            client.subscribe([("plain", 1), ("$hw/events/device/default/thermostat/twin/get/result", 1)])
            client.loop_start()
            edge = Edge(folder)

            async def on_message(topic: str, payload: bytes) -> None:
                await twin.on_mqtt(topic, payload)

            link = EventBus(url=f"tcp://127.0.0.1:{port}", node_name="edge-1", on_message=on_message)
            edge.bus = link  # type: ignore[assignment]
            async with edge.running() as twin, asyncio.TaskGroup() as group:
                task = group.create_task(link.run())
                await edge.put(twin, "devicemodel", sample("model"))
                await edge.put(twin, "device", sample("device"))
                async with asyncio.timeout(30):
                    await link.connected.wait()
                await asyncio.sleep(1)

                async def round_trip(topic: str, payload: str) -> float:
                    began = time.perf_counter()
                    client.publish(topic, payload, qos=1)
                    await heard.get()
                    return (time.perf_counter() - began) * 1000

                ask = "$hw/events/device/default/thermostat/twin/get"
                plain = [await round_trip("plain", "x") for _ in range(TRIPS)]
                asked = [await round_trip(ask, '{"event_id":"1","timestamp":1}') for _ in range(TRIPS)]
                print("MQTT on this machine")
                print(f"  the broker alone      {spread(plain)} of {TRIPS}")
                print(f"  twin/get and answer   {spread(asked)} of {TRIPS}")
                ratio = statistics.median(asked) / statistics.median(plain)
                print(
                    f"  ratio                 {ratio:6.1f} times the broker's own round trip, at the median"
                )
                task.cancel()
            client.disconnect()
            client.loop_stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=50)
    asyncio.run(measure(parser.parse_args().devices))
    asyncio.run(bus())
