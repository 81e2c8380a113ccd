"""cloudcore beside a Kubernetes cluster: what `skerry init` applies, and what it waits for.

The manifests are the ones in `deploy/manifests`; here they get an image, the addresses by which boards reach the hub,
and the kind of Service.  Whoever keeps manifests in a repository of their own takes `skerry init --dry-run`."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.errors import TrialError
from deploy.kubectl import Kubectl

NAMESPACE = "kubeedge"
HUB_PORT = 10000
CONFIG_ANNOTATION = "skerry.dev/config"
SERVICES = ("LoadBalancer", "NodePort", "ClusterIP")

_PACKAGE = Path(__file__).resolve().parent
_MANIFESTS = _PACKAGE / "manifests" / "cloudcore.yaml"
_CRDS = _PACKAGE / "crds"

# A reference as registries take it; what kubectl would take and a node then fail to pull is better said here.
_IMAGE = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*(:\d{1,5})?(/[a-z0-9][a-z0-9._-]*)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
_DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")

_ROLLOUT_S = 180
_ADDRESS_S = 60.0
_POLL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the operator asks for.  addresses: host names or IP addresses by which boards reach the hub."""

    image: str
    addresses: tuple[str, ...] = ()
    service: str = "LoadBalancer"
    replicas: int = 1


def check(wish: Wish) -> None:
    """Raises TrialError with the first thing that is wrong."""
    if len(wish.image) > 512 or not _IMAGE.fullmatch(wish.image):
        raise TrialError(f"{wish.image[:64]!r} is not a reference of an image: write registry/name:tag")
    if wish.service not in SERVICES:
        raise TrialError(f"{wish.service!r} is no kind of Service: use one of {', '.join(SERVICES)}")
    for address in wish.addresses:
        if _is_ip(address):
            continue
        if len(address) > 253 or not _DNS_NAME.fullmatch(address):
            raise TrialError(
                f"{address[:64]!r} is neither a host name nor an IP address: leave out scheme and port"
            )


def render(wish: Wish) -> str:
    """The definitions and cloudcore as one stream of YAML documents.  Raises TrialError as `check` does."""
    return f"{definitions()}---\n{manifests(wish)}"


def definitions() -> str:
    return "---\n".join(file.read_text() for file in sorted(_CRDS.glob("*.yaml")))


def manifests(wish: Wish) -> str:
    """cloudcore's manifests with what the operator asked for in them."""
    check(wish)
    documents: list[dict[str, Any]] = list(yaml.safe_load_all(_MANIFESTS.read_text()))
    config = ""
    for item in documents:  # the configuration comes before what reads it
        match item["kind"]:
            case "Deployment":
                # another configuration is another pod: cloudcore reads it when it starts
                digest = hashlib.sha256(config.encode()).hexdigest()
                item["spec"]["template"]["metadata"]["annotations"] = {CONFIG_ANNOTATION: digest}
                item["spec"]["replicas"] = wish.replicas
                item["spec"]["template"]["spec"]["containers"][0]["image"] = wish.image
            case "Service":
                item["spec"]["type"] = wish.service
            case "ConfigMap":
                config = item["data"]["cloudcore.yaml"] = _configured(
                    item["data"]["cloudcore.yaml"], wish.addresses
                )
    return yaml.safe_dump_all(documents, sort_keys=False)


def _configured(text: str, addresses: Sequence[str]) -> str:
    config = yaml.safe_load(text)
    hub = config["modules"]["cloudHub"]
    hub["advertiseAddress"] += [address for address in addresses if _is_ip(address)]
    hub["dnsNames"] += [address for address in addresses if not _is_ip(address)]
    return yaml.safe_dump(config, sort_keys=False)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def install(kubectl: Kubectl, wish: Wish) -> Iterator[str]:
    """Apply all of it and wait until cloudcore answers; tells each step when it is done.

    Applying again changes what differs and nothing else.  Raises TrialError: with kubectl's words, or why cloudcore
    does not come up."""
    ours = manifests(wish)
    # By the server, so that an annotation need not hold a whole definition, and so that fields which others set besides ours
    # stay theirs.  Ours are taken over: the objects may have been there by `kubectl apply`.
    apply = ("apply", "--server-side", "--force-conflicts", "--field-manager=skerry", "-f", "-")
    kubectl.run(*apply, stdin=definitions().encode(), timeout_s=60.0)
    yield "the definitions of devices, device models and their like are there"
    kubectl.run(*apply, stdin=ours.encode(), timeout_s=60.0)
    yield f"cloudcore's account, rights, configuration and Deployment are there, in the namespace {NAMESPACE}"
    try:
        kubectl.run(
            *("-n", NAMESPACE, "rollout", "status", "deployment/cloudcore", f"--timeout={_ROLLOUT_S}s"),
            timeout_s=_ROLLOUT_S + 20.0,
        )
    except TrialError as error:
        raise TrialError(f"cloudcore does not come up: {_why(kubectl) or error}") from error
    yield "cloudcore runs"


def _why(kubectl: Kubectl) -> str:
    """What its pods wait for, in words of the node that they are on or of the scheduler."""
    for item in kubectl.items("pods", "-n", NAMESPACE, "-l", "app=cloudcore"):
        status = item.get("status", {})
        for one in status.get("containerStatuses", []):
            waiting = one.get("state", {}).get("waiting")
            if waiting:
                return f"{waiting.get('reason', 'waiting')}: {waiting.get('message', 'no message')}"
        for condition in status.get("conditions", []):
            if condition.get("status") == "False" and condition.get("message"):
                return f"{condition['type']} is false: {condition['message']}"
    return ""


def reached_at(kubectl: Kubectl, wish: Wish) -> str:
    """HOST:PORT for `skerry join`, or empty when only the operator can know it."""
    if wish.service == "LoadBalancer":
        port, given = HUB_PORT, _balancer(kubectl, wait=not wish.addresses)
    else:
        ports = _service(kubectl)["spec"]["ports"]
        port, given = (
            (int(ports[0].get("nodePort", HUB_PORT)) if wish.service == "NodePort" else HUB_PORT),
            "",
        )
    host = wish.addresses[0] if wish.addresses else given
    if not host:
        return ""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _balancer(kubectl: Kubectl, *, wait: bool) -> str:
    until = time.monotonic() + (_ADDRESS_S if wait else 0)
    while True:
        for ingress in _service(kubectl).get("status", {}).get("loadBalancer", {}).get("ingress", []):
            host: str = ingress.get("ip") or ingress.get("hostname") or ""
            if host:
                return host
        if time.monotonic() >= until:
            return ""
        time.sleep(_POLL_S)


def _service(kubectl: Kubectl) -> dict[str, Any]:
    found = kubectl.items("services", "-n", NAMESPACE, "--field-selector", "metadata.name=cloudcore")
    if not found:
        raise TrialError(f"the Service cloudcore is not in the namespace {NAMESPACE}")
    return found[0]


def make_token(kubectl: Kubectl) -> str:
    """A join token for one board, made where the rights for it are."""
    return kubectl.run(
        *("-n", NAMESPACE, "exec", "deployment/cloudcore", "--"),
        *("cloudcore", "token", "create", "--config", "/etc/kubeedge/config/cloudcore.yaml"),
        timeout_s=60.0,
    ).strip()
