"""What an edge reads from those next to it: the container runtime, mappers, the broker, pods that ask its API, streams.

As in `targets`: any bytes, no I/O, and nothing raised but what the decoder may raise."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from google.protobuf.message import DecodeError

from beehive import dmi
from beehive._generated import dmi_pb2 as dpb
from beehive.apis.decode import decode as decode_object
from beehive.apis.devices import Device, DeviceModel
from beehive.errors import ProtocolError, SkerryError
from beehive.jsonpatch import PatchError
from beehive.selectors import BadSelector
from beehive.strategicpatch import strategic_merge
from devicetwin import dmi as twin_dmi
from devicetwin import documents
from devicetwin.dmi_convert import readings, to_device, to_model
from edgecore._generated import cri_pb2 as pb
from edgecore.edged import adopt, pleg
from edgecore.edged.cri import Cri
from edgecore.edged.errors import CriError
from edgecore.edged.runtime import ContainerStatus
from edgecore.edged.status import timestamp
from edgecore.edgestream import crilog, routes
from edgecore.eventbus import topics
from edgecore.metaserver import objects, options, request, strategic, table, writes
from edgecore.metaserver.objects import Filter, Gvr
from edgecore.metaserver.status import ApiError
from mappers.framework.convert import from_text
from mappers.framework.spec import from_objects, from_proto
from mappers.modbus import codec as modbus


class _Answers(Cri):
    """A client whose runtime answers each question with the same bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def _call(self, name: str, request: Any, reply: type[Any], timeout_s: float = 0.0) -> Any:
        try:
            return reply.FromString(self._data)
        except DecodeError as error:
            raise CriError(str(error), retryable=True, code="UNAVAILABLE") from error


def _now(work: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine that waits for nothing returns."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


def runtime(data: bytes) -> None:
    """What containerd answers."""
    cri = _Answers(data)
    found: dict[str, Any] = {}
    questions: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
        "sandboxes": cri.list_sandboxes,
        "containers": cri.list_containers,
        "sandbox": lambda: cri.sandbox_status("s"),
        "container": lambda: cri.container_status("c"),
        "image": lambda: cri.image_status("i"),
        "images": cri.list_images,
        "paths": cri.image_paths,
        "usage": cri.list_usage,
        "version": cri.version,
        "conditions": cri.conditions,
        "setup": cri.setup,
    }
    for name, ask in questions.items():
        try:
            found[name] = _now(ask())
        except SkerryError:
            continue
    if "sandboxes" in found and "containers" in found:
        listed = pleg.listing(found["sandboxes"], found["containers"])
        assert not pleg.changed(listed, listed)
    status: ContainerStatus | None = found.get("container")
    if status is not None:
        adopt.stranger(status)
        adopt.volumes_root(status, "u")
        adopt.logs_root(status, "ns_p_u/c")
        adopt.message_file(status)
        for seconds in (status.created_at, status.started_at, status.finished_at):
            timestamp(seconds)


def mapper_requests(data: bytes) -> None:
    """What a mapper says to the edge."""
    peer = dmi.Peer(pid=1, uid=1, gid=1)
    for kind, work in (
        (dpb.MapperRegisterRequest, lambda found: twin_dmi._info(found, peer)),
        (dpb.ReportDeviceStatusRequest, readings),
    ):
        try:
            work(kind.FromString(data))  # type: ignore[no-untyped-call]
        except (DecodeError, SkerryError):
            continue


def mapper_devices(data: bytes) -> None:
    """What a mapper is told of a device, over DMI and from a file, and what a driver makes of it."""
    specs = []
    try:
        found = dpb.MapperRegisterResponse.FromString(data)
        for device in found.deviceList:
            specs.append(from_proto(device, found.modelList[0] if found.modelList else None))
    except (DecodeError, SkerryError):
        pass
    try:
        read, model = decode_object(data, Device), decode_object(data, DeviceModel)
        to_device(read, {}), to_model(model)
        specs.append(from_objects(read, model))
    except SkerryError:
        pass
    for spec in specs:
        for prop in spec.properties.values():
            try:
                field = modbus.field_of(prop)
                modbus.decode([0] * field.count, field) if not field.register.is_bits else None
                modbus.encode(from_text(prop.desired, prop.type), field)
            except (SkerryError, ValueError):
                continue


def bus(data: bytes) -> None:
    """A message of the broker: a topic, a line's end, a payload."""
    head, _, payload = data.partition(b"\n")
    topic = head.decode("utf-8", "replace")
    topics.destination(topic)
    topics.can_publish(topic)
    for work in (
        lambda: topics.parse_url(topic),
        lambda: documents.parse_topic(topic),
        lambda: documents.read_update(payload),
        lambda: documents.read_base(payload),
        lambda: documents.read_state(payload),
    ):
        try:
            work()
        except SkerryError:
            continue


_PODS = Gvr("", "v1", "pods")


def local_api(data: bytes) -> None:
    """A request of a pod: method and target, a line's end, a body, which is also read as an object and as a list."""
    head, _, body = data.partition(b"\n")
    method, _, target = head.decode("latin-1").partition(" ")
    try:
        path, query = request.split(target)
        info = request.parse(method, path, query)
    except SkerryError:
        query, info = {}, request.Info(verb="patch", resource="pods", name="p")
    for work in (
        lambda: options.for_get(query),
        lambda: options.for_list(query),
        lambda: options.for_write(query, "CreateOptions"),
        lambda: options.for_delete(query, body),
        lambda: options.for_patch(info, query, "application/merge-patch+json", body),
        lambda: options.read_version(query),
        lambda: Filter.parse(
            _PODS, info.namespace, query.get("labelSelector", ""), query.get("fieldSelector", "")
        ),
        lambda: objects.read_list(body, _PODS),
        lambda: objects.is_named(body),
    ):
        try:
            work()
        except (SkerryError, ApiError, BadSelector):
            continue
    table.wanted(target)
    try:
        found = objects.read(body, _PODS)
    except SkerryError:
        return
    if found is not None:
        table.table(_PODS, [found.value], version=1, now=1e9)


def strategic_patches(data: bytes) -> None:
    """An object and two patches of it, a line each: each alone, both in turn, and both as one."""
    lines = [*data.split(b"\n", 2), b"{}", b"{}"][:3]
    try:
        base, first, second = (writes.read_object(line) for line in lines)
    except ProtocolError:
        return
    try:
        after = strategic_merge(strategic_merge(base, first, "V1Pod"), second, "V1Pod")
        joined = strategic.join(strategic.from_merge_patch(first, "V1Pod"), second, after, "V1Pod")
        strategic_merge(base, joined, "V1Pod")
    except (PatchError, strategic.CannotJoin):
        return


def stream_requests(data: bytes) -> None:
    """A path of a kubelet's, a line's end, and a log as the runtime writes it."""
    head, _, body = data.partition(b"\n")
    try:
        route = routes.parse(head.decode("utf-8", "replace"))
        routes.terminal(route)
        routes.ports(route)
        chosen = crilog.parse_options(route.query, 10**18)
    except SkerryError:
        chosen = crilog.Options()
    printer = crilog.Printer(chosen)
    printer.feed(body[: len(body) // 2])
    printer.feed(body[len(body) // 2 :])
    printer.next_file()
    crilog.tail_start(lambda at, size: body[at : at + size], len(body), 3)


def _a_device() -> bytes:
    visitor = {"protocolName": "modbus", "configData": {"register": "HoldingRegister", "offset": 1}}
    return json.dumps(
        {
            "metadata": {"name": "d", "namespace": "ns"},
            "spec": {
                "deviceModelRef": {"name": "m"},
                "protocol": {"protocolName": "modbus", "configData": {"a": 1}},
                "properties": [{"name": "t", "visitors": visitor, "desired": {"value": "1"}, "type": "INT"}],
            },
        }
    ).encode()


def _told() -> bytes:
    said = dpb.MapperRegisterResponse()
    device = said.deviceList.add(name="d", namespace="ns")
    prop = device.spec.properties.add(name="t", collectCycle=5, reportToCloud=True)
    prop.desired.value = "1"
    prop.visitors.protocolName = "modbus"
    said.modelList.add(name="m").spec.properties.add(name="t", type="INT", accessMode="ReadWrite")
    return said.SerializeToString()


def _listed() -> bytes:
    said = pb.ListContainersResponse()
    one = said.containers.add(id="c", pod_sandbox_id="s", state=1, created_at=10**18)
    one.metadata.name = "web"
    one.labels["io.kubernetes.pod.uid"] = "u"
    return said.SerializeToString()


def _container() -> bytes:
    said = pb.ContainerStatusResponse()
    said.status.id = "c"
    said.status.finished_at = 10**18
    said.status.mounts.add(container_path="/dev/termination-log", host_path="/x/pods/u/c")
    said.status.labels["a"] = "b"
    said.info["config"] = "{}"
    return said.SerializeToString()


SEEDS: dict[str, tuple[bytes, ...]] = {
    "runtime": (_listed(), _container()),
    "mapper-requests": (
        dpb.MapperRegisterRequest(
            withData=True, mapper=dpb.MapperInfo(name="m", protocol="p", address=b"/run/m")
        ).SerializeToString(),
    ),
    "mapper-devices": (_told(), _a_device()),
    "bus": (
        b'$hw/events/device/ns/d/twin/update\n{"event_id":"1","twin":{"t":{"actual":{"value":"1"}}}}',
        b'$hw/events/device/d/state/update\n{"state":"online"}',
        b"tcp://host:1883\n",
    ),
    "local-api": (
        b"GET /api/v1/namespaces/ns/pods?labelSelector=a%3Db,!c,d+in+(e,f)&fieldSelector=metadata.name%3Dx&limit=5&watch=1\n"
        b'{"kind":"PodList","metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"p","resourceVersion":"7"}}]}',
        b'PATCH /apis/apps/v1/namespaces/ns/deployments/d/status?force=1\n{"metadata":{"name":"p","namespace":"ns",'
        b'"uid":"u","resourceVersion":"7","creationTimestamp":"2020-01-01T00:00:00Z"},"spec":{"nodeName":"a"},'
        b'"status":{"phase":"Running","containerStatuses":[{"ready":true,"restartCount":1,"state":{"waiting":{"reason":"x"}}}]}}',
    ),
    "strategic-patches": (
        b'{"metadata":{"labels":{"a":"b"},"finalizers":["x/y"]},"spec":{"containers":[{"name":"a","ports":[{"containerPort":80}]}]}}\n'
        b'{"spec":{"$setElementOrder/containers":[{"name":"a"},{"name":"b"}],"containers":[{"name":"b","$patch":"delete"}]}}\n'
        b'{"metadata":{"$deleteFromPrimitiveList/finalizers":["x/y"],"labels":{"$patch":"replace","c":"d"}},"spec":{"nodeSelector":'
        b'{"$retainKeys":["a"],"a":null},"containers":[{"name":"a","env":[{"name":"A","value":"b"}]}]}}',
    ),
    "streams": (
        b"/containerLogs/ns/p/c?tailLines=5&sinceSeconds=3&timestamps=true&follow=1&limitBytes=99\n"
        b"2020-01-01T00:00:00.000000000Z stdout F said\n2020-01-01T00:00:00.1Z stderr P torn",
        b"/exec/ns/p/u/c?command=ls&input=1&output=1&tty=1\n",
        b"/portForward/ns/p?port=80\n",
    ),
}

RUNS: dict[str, Callable[[bytes], None]] = {
    "runtime": runtime,
    "mapper-requests": mapper_requests,
    "mapper-devices": mapper_devices,
    "bus": bus,
    "local-api": local_api,
    "strategic-patches": strategic_patches,
    "streams": stream_requests,
}
