"""An Application: one request to the Kubernetes API that an edge makes through the hub.  Pure.

KubeEdge's form, byte for byte: the edge sends it with Status `InApplying`, the hub answers with the same one, its Status
`Approved` or `Rejected` and the body or the error filled in.  Go's []byte members are base64 here as there.

Ours on top, invisible to a stock peer: `ServiceAccount` says for whom the edge asks (`<namespace>:<name>`, or empty for the
node itself; the hub checks that a pod of that account runs on the node).  A watch that has it starts at its
`resourceVersion`, as at an API server, where a stock edge's starts with everything that there is.

Source: pkg/metaserver/application.go; protocol notes on the hub, 6.9; recorded frames."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import msgspec

from beehive import resource
from beehive.errors import ProtocolError

ANSWER_RESOURCE = "ignore/Application/ignore"
SYNC_RESOURCE = "watchapp/sync"
ANSWER_OP = "applicationResponse"
NULL = "null"
"""The operation and resource of an Application going up, and the absent namespace or name in a key."""

PROTOBUF = "application/vnd.kubernetes.protobuf"
PROTOBUF_MARK = b"k8s\x00"
"""What an object in Kubernetes' protobuf begins with.  Ours passes such bodies on as they are; a stock hub knows JSON only.
Source: apimachinery, pkg/runtime/serializer/protobuf."""

TIMEOUT_S = 10.0
"""How long an edge waits for an answer."""

_SEGMENT = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.:]*[A-Za-z0-9])?")
_PLURAL = re.compile(r"[a-z][a-z0-9]*([-.a-z0-9]*[a-z0-9])?")
_VERSION = re.compile(r"v[0-9][0-9a-z]{0,30}")


class State:
    """Values of `Status`."""

    IN_APPLYING = "InApplying"
    APPROVED = "Approved"
    REJECTED = "Rejected"
    FAILED = "Failed"


class Verb:
    """Values of `Verb`."""

    GET = "get"
    LIST = "list"
    WATCH = "watch"
    CREATE = "create"
    DELETE = "delete"
    UPDATE = "update"
    UPDATE_STATUS = "updatestatus"
    PATCH = "patch"


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Go's apierrors.StatusError: a metav1.Status, as JSON."""

    status: msgspec.Raw = msgspec.field(name="ErrStatus", default=msgspec.Raw(b'{"metadata":{}}'))


class Application(msgspec.Struct, frozen=True, kw_only=True):
    """See the module.  `option` and the bodies are JSON as bytes."""

    id: str = msgspec.field(name="ID")
    key: str = msgspec.field(name="Key")
    verb: str = msgspec.field(name="Verb")
    node: str = msgspec.field(name="Nodename", default="")
    option: bytes | None = msgspec.field(name="Option", default=None)
    body: bytes | None = msgspec.field(name="ReqBody", default=None)
    subresource: str = msgspec.field(name="Subresource", default="")
    answer: bytes | None = msgspec.field(name="RespBody", default=None)
    status: str = msgspec.field(name="Status", default=State.IN_APPLYING)
    reason: str = msgspec.field(name="Reason", default="")
    error: Failure = msgspec.field(name="Error", default=Failure())
    timestamp: str = msgspec.field(name="Timestamp", default="0001-01-01T00:00:00Z")
    service_account: str | msgspec.UnsetType = msgspec.field(name="ServiceAccount", default=msgspec.UNSET)


class Options(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What is read of metav1.GetOptions and ListOptions."""

    label_selector: str = ""
    field_selector: str = ""
    resource_version: str = ""
    resource_version_match: str = ""
    limit: int = 0
    continue_: str = msgspec.field(name="continue", default="")


class PatchInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The option of a patch.  `patch_type` is the content type of `data`."""

    name: str = msgspec.field(name="Name", default="")
    patch_type: str = msgspec.field(name="PatchType", default="")
    data: bytes | None = msgspec.field(name="Data", default=None)
    options: msgspec.Raw = msgspec.field(name="Options", default=msgspec.Raw(b"{}"))
    subresources: list[str] | None = msgspec.field(name="Subresources", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What an Application is about.  `group` is empty for core; `namespace` and `name` where there is none."""

    group: str
    version: str
    resource: str
    namespace: str = ""
    name: str = ""

    @property
    def key(self) -> str:
        parts = (
            self.group or "core",
            self.version,
            self.resource,
            self.namespace or NULL,
            self.name or NULL,
        )
        return "/" + "/".join(parts)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def path(self) -> str:
        """The path of the object or collection below the API server's address."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if self.namespace:
            parts += ["namespaces", self.namespace]
        parts.append(self.resource)
        if self.name:
            parts.append(self.name)
        return "/" + "/".join(parts)


def parse_key(key: str) -> Target:
    """Read `/<group|core>/<version>/<resource>/<namespace|null>/<name|null>`.  Raises ProtocolError: every part is
    checked, since a path at the API server is made of them."""
    parts = key.split("/")
    if len(key) > 1024 or len(parts) != 6 or parts[0]:
        raise ProtocolError(f"key {key[:256]!r} is not /<group>/<version>/<resource>/<namespace>/<name>")
    _, group, version, plural, namespace, name = parts
    if group != "core" and not resource.is_name(group):
        raise ProtocolError(f"key {key[:256]!r} has a bad group")
    if not _VERSION.fullmatch(version) or not _PLURAL.fullmatch(plural) or len(plural) > 253:
        raise ProtocolError(f"key {key[:256]!r} has a bad version or resource")
    if namespace != NULL and not resource.is_name(namespace):
        raise ProtocolError(f"key {key[:256]!r} has a bad namespace")
    if name != NULL and not is_segment(name):
        raise ProtocolError(f"key {key[:256]!r} has a bad name")
    return Target(
        group="" if group == "core" else group,
        version=version,
        resource=plural,
        namespace="" if namespace == NULL else namespace,
        name="" if name == NULL else name,
    )


def is_segment(name: str) -> bool:
    """Whether `name` can be an object's name in a path: no slash, no dots alone, nothing that needs escaping."""
    return len(name) <= resource.MAX_NAME and _SEGMENT.fullmatch(name) is not None and ".." not in name


def make(
    *,
    node: str,
    key: str,
    verb: str,
    option: bytes = b"{}",
    body: bytes | None = None,
    subresource: str = "",
    service_account: str | None = None,
) -> Application:
    """A request with its id.  `service_account`: None as a stock edge asks, empty for the node itself.

    The id is the hash that a stock edge makes, so that equal requests are one; ours adds for whom it asks."""
    text = hashlib.sha256()
    for part in (node.encode(), key.encode(), verb.encode(), option, body or b"", subresource.encode()):
        text.update(part)
    text.update((service_account or "").encode())
    return Application(
        id=text.hexdigest(),
        key=key,
        verb=verb,
        node=node,
        option=option,
        body=body,
        subresource=subresource,
        service_account=msgspec.UNSET if service_account is None else service_account,
    )


def approved(request: Application, answer: bytes | None) -> Application:
    return msgspec.structs.replace(request, status=State.APPROVED, answer=answer)


def rejected(request: Application, status: bytes, reason: str = "") -> Application:
    """`status`: a complete metav1.Status as JSON; the edge's client is told exactly this."""
    failure = Failure(status=msgspec.Raw(status))
    return msgspec.structs.replace(request, status=State.REJECTED, answer=None, error=failure, reason=reason)


_GROUP = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
_PASS = re.compile(
    r"/(version|healthz|livez|readyz|api|apis|openapi/v2|openapi/v3"
    rf"|api/v[0-9][0-9a-z]*|apis/{_GROUP}|apis/{_GROUP}/v[0-9][0-9a-z]*)"
)
_OURS = re.compile(
    r"/openid/v1/jwks|/\.well-known/openid-configuration"
    rf"|/openapi/v3/(api/v[0-9][0-9a-z]*|apis/{_GROUP}/v[0-9][0-9a-z]*)"
)


def pass_through(path: str) -> str | None:
    """The path without a trailing slash if it may be passed to the API server as it is, else None.

    Discovery, health, version and schemas, as at KubeEdge; and, which a stock hub does not pass, the schema of one group, which
    `kubectl apply` asks for, and the keys that tokens are signed by, which an edge needs to judge them alone."""
    path = path[:-1] if len(path) > 1 and path.endswith("/") else path
    if len(path) > 512 or ".." in path:
        return None
    return path if _PASS.fullmatch(path) or is_ours(path) else None


def is_ours(path: str) -> bool:
    """Whether only a hub of ours passes this path; a stock one takes it for a broken key."""
    return _OURS.fullmatch(path) is not None
