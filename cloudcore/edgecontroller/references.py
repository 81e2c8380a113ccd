"""What a pod refers to: the configmaps, secrets, claims and Services without which it cannot run.  Pure.

Read from volumes (projected ones included), env and envFrom of every container, init and ephemeral ones included, and
imagePullSecrets.  KubeEdge leaves init containers out; a pod that has them must start offline too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from cloudcore.identity.authorizer import PodFacts
from cloudcore.objects import Object, decode

Ref = tuple[str, str, str]
"""Kind as on the wire, namespace, name.  Without a name: all of that kind in the namespace."""


def services_of(namespace: str) -> Ref:
    """What a pod's variables tell of (FOO_SERVICE_HOST), unless it wants none."""
    return ("service", namespace, "")


class _Named(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""


class _KeyRef(msgspec.Struct, frozen=True, kw_only=True):
    configMapKeyRef: _Named | None = None
    secretKeyRef: _Named | None = None


class _Env(msgspec.Struct, frozen=True, kw_only=True):
    valueFrom: _KeyRef | None = None


class _EnvFrom(msgspec.Struct, frozen=True, kw_only=True):
    configMapRef: _Named | None = None
    secretRef: _Named | None = None


class _Container(msgspec.Struct, frozen=True, kw_only=True):
    env: list[_Env] | None = None
    envFrom: list[_EnvFrom] | None = None


class _TokenSource(msgspec.Struct, frozen=True, kw_only=True):
    audience: str = ""
    expirationSeconds: int | None = None


class _Projection(msgspec.Struct, frozen=True, kw_only=True):
    configMap: _Named | None = None
    secret: _Named | None = None
    serviceAccountToken: _TokenSource | None = None


class _Projected(msgspec.Struct, frozen=True, kw_only=True):
    sources: list[_Projection] | None = None


class _SecretVolume(msgspec.Struct, frozen=True, kw_only=True):
    secretName: str = ""


class _Claim(msgspec.Struct, frozen=True, kw_only=True):
    claimName: str = ""


class _Csi(msgspec.Struct, frozen=True, kw_only=True):
    nodePublishSecretRef: _Named | None = None


class _Volume(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    configMap: _Named | None = None
    secret: _SecretVolume | None = None
    projected: _Projected | None = None
    persistentVolumeClaim: _Claim | None = None
    ephemeral: dict[str, Any] | None = None
    csi: _Csi | None = None


class _PodSpec(msgspec.Struct, frozen=True, kw_only=True):
    nodeName: str = ""
    serviceAccountName: str = ""
    volumes: list[_Volume] | None = None
    containers: list[_Container] | None = None
    initContainers: list[_Container] | None = None
    ephemeralContainers: list[_Container] | None = None
    imagePullSecrets: list[_Named] | None = None
    enableServiceLinks: bool | None = None


class _Pod(msgspec.Struct, frozen=True, kw_only=True):
    spec: _PodSpec = _PodSpec()


@dataclass(frozen=True, slots=True)
class Closure:
    """facts: for the authorizer.   refs: what the pod names itself.   account: its service account, whose pull secrets
    count too."""

    facts: PodFacts
    refs: frozenset[Ref] = field(default_factory=frozenset)
    account: tuple[str, str] = ("", "")


def closure(pod: Object) -> Closure:
    """Read one pod.  Raises ProtocolError."""
    spec = pod.decode(_Pod).spec
    namespace = pod.namespace
    found: set[Ref] = set()
    tokens: dict[str, int] = {}

    def configmap(ref: _Named | None) -> None:
        if ref is not None and ref.name:
            found.add(("configmap", namespace, ref.name))

    def secret(name: str) -> None:
        if name:
            found.add(("secret", namespace, name))

    for volume in spec.volumes or ():
        configmap(volume.configMap)
        secret(volume.secret.secretName if volume.secret else "")
        if volume.persistentVolumeClaim is not None and volume.persistentVolumeClaim.claimName:
            found.add(("persistentvolumeclaim", namespace, volume.persistentVolumeClaim.claimName))
        if volume.ephemeral is not None:
            found.add(("persistentvolumeclaim", namespace, f"{pod.name}-{volume.name}"))
        if volume.csi is not None and volume.csi.nodePublishSecretRef is not None:
            secret(volume.csi.nodePublishSecretRef.name)
        for source in (volume.projected.sources if volume.projected else None) or ():
            configmap(source.configMap)
            secret(source.secret.name if source.secret else "")
            token = source.serviceAccountToken
            if token is not None:
                seconds = token.expirationSeconds or 3600
                tokens[token.audience] = max(tokens.get(token.audience, 0), seconds)
    for container in (
        *(spec.containers or ()),
        *(spec.initContainers or ()),
        *(spec.ephemeralContainers or ()),
    ):
        for item in container.envFrom or ():
            configmap(item.configMapRef)
            secret(item.secretRef.name if item.secretRef else "")
        for env in container.env or ():
            if env.valueFrom is not None:
                configmap(env.valueFrom.configMapKeyRef)
                secret(env.valueFrom.secretKeyRef.name if env.valueFrom.secretKeyRef else "")
    for pull in spec.imagePullSecrets or ():
        secret(pull.name)
    if spec.enableServiceLinks is not False:
        found.add(services_of(namespace))
    account = spec.serviceAccountName or "default"
    facts = PodFacts(node=pod.node, uid=pod.uid, service_account=account, tokens=tokens)
    return Closure(facts, frozenset(found), (namespace, account))


class _ServiceAccount(msgspec.Struct, frozen=True, kw_only=True):
    imagePullSecrets: list[_Named] | None = None


def pull_secrets(account: Object) -> frozenset[Ref]:
    """The secrets that a service account adds to its pods.  Raises ProtocolError."""
    pulls = decode(account.raw, _ServiceAccount).imagePullSecrets or ()
    return frozenset(("secret", account.namespace, pull.name) for pull in pulls if pull.name)
