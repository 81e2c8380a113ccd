"""Endpoints and EndpointSlices: which addresses stand behind each Service that has a selector.

The decisions are `addresses`, `endpoints` and `slices`.  Objects that people keep for Services without a selector are
left alone.

Source: kubernetes, pkg/controller/endpoint and pkg/controller/endpointslice."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from cloudcore.standalone.controllers.base import Controller, Event, Item, is_ready, reference_to
from cloudcore.standalone.deletion import DeleteOptions
from cloudcore.standalone.ids import PODS
from cloudcore.standalone.store import Record

Json = dict[str, Any]
SERVICES, ENDPOINTS = ("", "services"), ("", "endpoints")
SLICES = ("discovery.k8s.io", "endpointslices")
SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY, MANAGER = "endpointslice.kubernetes.io/managed-by", "endpointslice-controller.k8s.io"
OLD_MANAGED_BY, OLD_MANAGER = "endpoints.kubernetes.io/managed-by", "endpoint-controller"
HEADLESS = "service.kubernetes.io/headless"
MOST_PER_SLICE = 100
MOST_PER_ENDPOINTS = 1000
NOT_COPIED = ("kubectl.kubernetes.io/last-applied-configuration",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One pod behind a service.  `ports` are (name, port, protocol, appProtocol) as they resolve on this pod."""

    ip: str
    pod: str
    namespace: str
    uid: str
    node: str
    hostname: str
    ready: bool
    serving: bool
    terminating: bool
    ports: tuple[tuple[str, int, str, str], ...]


def addresses(service: Json, pods: Iterable[Json]) -> list[Address]:
    """The pods that have an address and have not ended, in order of their names."""
    spec, found = service["spec"], []
    for pod in pods:
        status = pod.get("status") or {}
        if not status.get("podIP") or status.get("phase") in ("Succeeded", "Failed"):
            continue
        ending, ready = "deletionTimestamp" in pod["metadata"], is_ready(pod)
        own = pod["spec"].get("hostname", "")
        found.append(
            Address(
                ip=status["podIP"],
                pod=pod["metadata"]["name"],
                namespace=pod["metadata"]["namespace"],
                uid=pod["metadata"]["uid"],
                node=pod["spec"].get("nodeName", ""),
                hostname=own if pod["spec"].get("subdomain") == service["metadata"]["name"] else "",
                ready=bool(spec.get("publishNotReadyAddresses")) or (ready and not ending),
                serving=ready,
                terminating=ending,
                ports=tuple(_ports(service, pod)),
            )
        )
    return sorted(found, key=lambda address: (address.pod, address.uid))


def _ports(service: Json, pod: Json) -> Iterable[tuple[str, int, str, str]]:
    for port in service["spec"].get("ports") or ():
        protocol = port.get("protocol", "TCP")
        number = _target(port, protocol, pod)
        if number is not None:
            yield port.get("name", ""), number, protocol, port.get("appProtocol", "")


def _target(port: Json, protocol: str, pod: Json) -> int | None:
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target
    for container in pod["spec"].get("containers") or ():
        for one in container.get("ports") or ():
            if one.get("name") == target and one.get("protocol", "TCP") == protocol:
                return int(one["containerPort"])
    return None


def _grouped(found: list[Address]) -> dict[tuple[tuple[str, int, str, str], ...], list[Address]]:
    groups: dict[tuple[tuple[str, int, str, str], ...], list[Address]] = {}
    for address in found:
        groups.setdefault(address.ports, []).append(address)
    return dict(sorted(groups.items()))


def _port(name: str, number: int, protocol: str, application: str) -> Json:
    return {
        "name": name,
        "port": number,
        "protocol": protocol,
        **({"appProtocol": application} if application else {}),
    }


def _reference(address: Address) -> Json:
    return {"kind": "Pod", "namespace": address.namespace, "name": address.pod, "uid": address.uid}


def endpoints(service: Json, found: list[Address]) -> Json:
    """The Endpoints object of a service."""
    metadata = service["metadata"]
    headless = service["spec"].get("clusterIP") == "None"
    labels = {name: value for name, value in (metadata.get("labels") or {}).items() if name != HEADLESS}
    subsets = []
    for ports, members in _grouped(found[:MOST_PER_ENDPOINTS]).items():
        if not ports and not headless:
            continue
        subset: Json = {}
        for field, wanted in (("addresses", True), ("notReadyAddresses", False)):
            listed = [
                {
                    "ip": address.ip,
                    **({"hostname": address.hostname} if address.hostname else {}),
                    **({"nodeName": address.node} if address.node else {}),
                    "targetRef": _reference(address),
                }
                for address in members
                if address.ready is wanted and not (address.terminating and not address.ready)
            ]
            if listed:
                subset[field] = listed
        if not subset:
            continue
        if ports:
            subset["ports"] = [
                {name: value for name, value in _port(*port).items() if value != ""} for port in ports
            ]
        subsets.append(subset)
    body: Json = {
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": {**labels, OLD_MANAGED_BY: OLD_MANAGER, **({HEADLESS: ""} if headless else {})},
        }
    }
    if subsets:
        body["subsets"] = subsets
    return body


def slices(service: Json, found: list[Address]) -> list[Json]:
    """The EndpointSlices of a service.  Names follow from what they hold, so planning again gives the same."""
    metadata = service["metadata"]
    headless = service["spec"].get("clusterIP") == "None"
    labels = {name: value for name, value in (metadata.get("labels") or {}).items() if name != HEADLESS}
    labels |= {SERVICE_NAME: metadata["name"], MANAGED_BY: MANAGER, **({HEADLESS: ""} if headless else {})}
    made = []
    families = [("IPv4", 4), ("IPv6", 6)]
    for family, version in families:
        here = [address for address in found if ipaddress.ip_address(address.ip).version == version]
        groups = _grouped(here)
        if not groups and family == (service["spec"].get("ipFamilies") or ["IPv4"])[0]:
            # a service without pods has one empty slice, so that "none" can be told from "not yet looked at"
            groups = {(): []}
        for ports, members in groups.items():
            for at in range(0, max(len(members), 1), MOST_PER_SLICE):
                seed = msgspec.json.encode([metadata["uid"], family, ports, at])
                made.append(
                    {
                        "metadata": {
                            "name": f"{metadata['name'][:200]}-{hashlib.sha256(seed).hexdigest()[:5]}",
                            "namespace": metadata["namespace"],
                            "labels": labels,
                            "ownerReferences": [reference_to(service)],
                        },
                        "addressType": family,
                        "endpoints": [_endpoint(one) for one in members[at : at + MOST_PER_SLICE]],
                        "ports": [_port(*port) for port in ports],
                    }
                )
    return made


def _endpoint(address: Address) -> Json:
    return {
        "addresses": [address.ip],
        "conditions": {
            "ready": address.ready,
            "serving": address.serving,
            "terminating": address.terminating,
        },
        **({"hostname": address.hostname} if address.hostname else {}),
        **({"nodeName": address.node} if address.node else {}),
        "targetRef": _reference(address),
    }


def same(wanted: Json, there: Json) -> bool:
    """Whether what is stored already says what is wanted."""
    names = {*wanted, *there} - {"metadata", "kind", "apiVersion"}
    if any((wanted.get(name) or None) != (there.get(name) or None) for name in names):
        return False
    labels: Json = wanted["metadata"]["labels"]
    return bool(there["metadata"].get("labels") == labels)


class Endpoints(Controller):
    """Items are the (namespace, name) of Services."""

    name = "endpoint-controller"
    watches = (SERVICES, PODS, ENDPOINTS, SLICES)

    def everything(self) -> Iterable[Item]:
        return self.ids(SERVICES)

    def concerns(self, event: Event) -> Iterable[Item]:
        record = event.record
        if record.key in (SERVICES, ENDPOINTS):
            return [(record.namespace, record.name)]
        if record.key == SLICES:
            service = record.labels.get(SERVICE_NAME, "")
            return [(record.namespace, service)] if service else []
        states = [record] if event.before is None else [record, event.before]
        return [
            (service.namespace, service.name)
            for service in self.store.select(SERVICES, record.namespace)
            if any(_selects(service.decode(), state) for state in states)
        ]

    async def reconcile(self, item: Item) -> float | None:
        service = self.get(SERVICES, *item)
        if service is None:
            await self._remove_endpoints(item)
            return None
        spec = service["spec"]
        if not spec.get("selector") or spec.get("type") == "ExternalName":
            return None
        if "deletionTimestamp" in service["metadata"]:
            return None
        pods = [
            record.decode()
            for record in self.store.select(PODS, item[0], lambda record: _selects(service, record))
        ]
        found = addresses(service, pods)
        await self._put(ENDPOINTS, endpoints(service, found))
        await self._put_slices(service, slices(service, found))
        return None

    async def _remove_endpoints(self, item: Item) -> None:
        there = self.get(ENDPOINTS, *item)
        if there is not None and (there["metadata"].get("labels") or {}).get(OLD_MANAGED_BY) == OLD_MANAGER:
            options = DeleteOptions(uid=there["metadata"]["uid"])
            await self.resources.delete(self.kind(ENDPOINTS), item[0], item[1], options)

    async def _put(self, key: tuple[str, str], wanted: Json) -> None:
        namespace, name = wanted["metadata"]["namespace"], wanted["metadata"]["name"]
        there = self.get(key, namespace, name)
        if there is None:
            await self.resources.create(self.kind(key), namespace, wanted, self.options)
        elif not same(wanted, there):
            metadata = {**there["metadata"], "labels": wanted["metadata"]["labels"]}
            body = {**wanted, "metadata": metadata}
            await self.resources.update(self.kind(key), namespace, name, body, self.options)

    async def _put_slices(self, service: Json, wanted: list[Json]) -> None:
        names = {item["metadata"]["name"] for item in wanted}
        for record in self.store.dependents(service["metadata"]["uid"]):
            ours = record.key == SLICES and record.labels.get(MANAGED_BY) == MANAGER
            if ours and record.name not in names:
                await self.resources.delete(
                    self.kind(SLICES), record.namespace, record.name, DeleteOptions(uid=record.uid)
                )
        for item in wanted:
            await self._put(SLICES, item)


def _selects(service: Json, record: Record) -> bool:
    selector = service["spec"].get("selector") or {}
    return bool(selector) and all(record.labels.get(name) == value for name, value in selector.items())
