"""The decoders that read what a peer sends, each as a function of bytes, with seeds.

A target takes any bytes and raises nothing: what its decoder may raise on purpose is caught in it, and anything else is a
finding.  Targets do no I/O."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from beehive import application, codec, resource, session, stocktunnel, tunnel
from beehive.apis.decode import decode as decode_object
from beehive.apis.twins import StateUpdate, TwinUpdate
from beehive.errors import SkerryError
from beehive.message import Inventory, Message
from beehive.session import Acked, Compare, Declined, Difference, EdgeSession, Failed, HubSession, State
from cloudcore.edgecontroller.references import closure, pull_secrets
from cloudcore.identity import authorizer
from cloudcore.objects import NODE, POD, SERVICEACCOUNT, Kind, read, sketch
from devicetwin import documents
from edgecore.edgehub import kubeedge
from edgecore.metamanager import answers, process, refusals, reports
from edgecore.metaserver import jwt
from tests.fuzz import edge_targets
from tests.unit.cloudcore.identity.test_authorizer import View

VECTORS = Path(__file__).parents[1] / "vectors" / "kubeedge" / "hub.jsonl"


@dataclass(frozen=True, slots=True)
class Target:
    """run: the decoder.   seeds: what it is to read in earnest."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...] = ()


def frames(direction: str) -> tuple[bytes, ...]:
    """Recorded frames, one of each kind."""
    found: dict[tuple[str, str, str], bytes] = {}
    for line in VECTORS.read_text().splitlines():
        record = json.loads(line)
        if record["dir"] != direction:
            continue
        route = json.loads(record["text"])["route"]
        parts = route.get("resource", "").split("/")
        kind = (route.get("operation", ""), route.get("source", ""), "".join(parts[1:2]))
        found.setdefault(kind, record["text"].encode())
    return tuple(found.values())


def hub_frame(data: bytes) -> None:
    """What a hub does with a frame of an edge, up to what takes a request."""
    try:
        message = codec.decode(data)
    except SkerryError:
        return
    codec.encode(message)
    for ours in (True, False):
        machine = HubSession(node="a", ours=ours, number=1, opened_at=0.0, state=State.LIVE, asked=True)
        for command in machine.handle_frame(message, 1.0):
            if isinstance(command, Failed | Declined):
                assert len(command.text) <= 256
            assert not isinstance(command, Acked | Compare | Difference) or ours or message.parent
    for check in (_authorize, _device):
        try:
            check(message)
        except SkerryError:
            continue


def _authorize(message: Message) -> None:
    authorizer.check("a", message, resource.parse(message.route.resource), View())


def _device(message: Message) -> None:
    content = message.text().encode()
    kind = TwinUpdate if message.route.resource.endswith("edge_updated") else StateUpdate
    decode_object(content, kind)


def edge_frame(data: bytes) -> None:
    """What an edge does with a frame of a hub, up to storing it."""
    try:
        message = codec.decode(data)
    except SkerryError:
        return
    for ours in (True, False):
        machine = EdgeSession(node="a", ours=ours)
        machine.opened(Inventory(objects={}), 0.0)
        machine.handle_frame(message, 1.0)
    for work in (_store, answers.read, _report):
        try:
            work(message)
        except SkerryError:
            continue
    refusals.read(refusals.refusal(message, 1, "why"))


def _store(message: Message) -> None:
    where = process.target(message)
    verdict = process.decide(message, where, None)
    if verdict.put is not None:
        # the same again is never news
        assert process.decide(message, where, verdict.put).put is None or verdict.put.version < 0


def _report(message: Message) -> None:
    reports.pod_status("ns", "p", "u", bytes(message.content))
    reports.event_path(bytes(message.content))


def tunnel_frames(data: bytes) -> None:
    """A row of frames, each with its length before it, at both ends of a tunnel."""
    for role in tunnel.Role:
        mux = tunnel.Mux(role=role, limits=tunnel.Limits())
        if role is tunnel.Role.HUB:
            mux.open(tunnel.Head(kind="http", method="GET", path="/"), 0.0)
        try:
            for frame in _cut(data):
                mux.receive(frame, 0.0)
        except SkerryError:
            continue


def stock_frames(data: bytes) -> None:
    """The same for KubeEdge's own tunnel: each is a frame, and may be a request."""
    for message in _cut(data):
        try:
            frame = stocktunnel.decode(message)
            if frame.kind in stocktunnel.CONNECTS:
                stocktunnel.read_connect(frame)
        except SkerryError:
            continue


def _cut(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = data[at]
        yield data[at + 1 : at + 1 + size]
        at += 1 + size


def an_object(data: bytes) -> None:
    """An object as a list of the API has it."""
    for kind in (POD, NODE, SERVICEACCOUNT):
        _object(kind, data)


def _object(kind: Kind, data: bytes) -> None:
    try:
        found = read(kind, data)
    except SkerryError as error:
        unread = sketch(kind, data, str(error))
        assert unread.key is None or unread.name
        unread.tombstone()
        return
    try:
        if kind is POD:
            closure(found)
        elif kind is SERVICEACCOUNT:
            pull_secrets(found)
    except SkerryError:
        return


def words(data: bytes) -> None:
    """Texts that come alone: paths, tokens, topics, keys of applications."""
    text = data.decode("utf-8", "replace")
    for work in (resource.parse, application.parse_key, kubeedge.parse_token, documents.parse_topic):
        try:
            work(text)
        except SkerryError:
            continue


def token(data: bytes) -> None:
    """What a token of a pod claims."""
    part = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    for text in (f"e30.{part}.AA", f"{part}.e30.AA"):
        for work in (jwt.unverified, lambda text: jwt.verify(text, [], issuers=[], audiences=[], now=0.0)):
            try:
                work(text)
            except SkerryError:
                continue


def twins(data: bytes) -> None:
    """What a mapper publishes about its device."""
    for work in (documents.read_update, documents.read_base, documents.read_state):
        try:
            work(data)
        except SkerryError:
            continue


_OWN = session.holding("a", "inventory", Inventory(objects={}))
TARGETS: dict[str, Target] = {
    "hub-frame": Target(hub_frame, (*frames("up"), codec.encode(_OWN))),
    "edge-frame": Target(edge_frame, frames("down")),
    "tunnel": Target(tunnel_frames, (b"\x08" + tunnel.Mux.ping(), b"\x08" + tunnel.Mux.pong())),
    "stock-tunnel": Target(stock_frames, (b"\x06" + stocktunnel.encode(1, 0, b"data"),)),
    "object": Target(
        an_object,
        (
            b'{"metadata":{"name":"p","namespace":"ns","uid":"u","resourceVersion":"7","labels":{"a":"b"}},'
            b'"spec":{"nodeName":"a","serviceAccountName":"s","volumes":[{"name":"v","configMap":{"name":"c"}},'
            b'{"name":"w","projected":{"sources":[{"serviceAccountToken":{"path":"t"}}]}}],'
            b'"containers":[{"env":[{"name":"E","valueFrom":{"secretKeyRef":{"name":"s","key":"k"}}}]}]}}',
            b'{"metadata":{"name":7},"imagePullSecrets":[{"name":"p"}]}',
        ),
    ),
    "words": Target(
        words, (b"ns/pod/web", b"/core/v1/pods/default/null", b"$hw/events/device/d/twin/update", b"a.b.c.d")
    ),
    "token": Target(token, (b'{"alg":"RS256","iss":"i","aud":["a"],"exp":1,"sub":"s"}', b'{"iss":"\xff"}')),
    **{name: Target(run, edge_targets.SEEDS[name]) for name, run in edge_targets.RUNS.items()},
    "twins": Target(twins, (b'{"event_id":"1","timestamp":1,"twin":{"t":{"actual":{"value":"1"}}}}',)),
}
