"""What the owner of this machine forbids, whatever the cloud says.  Pure but for `load` and `resolved`.

The file is JSON:

    {"allowPrivileged": false, "allowHostNetwork": false, "allowHostNamespaces": false,
     "allowHostPaths": ["/dev/ttyUSB0", "/data"], "exemptNamespaces": ["kube-system"]}

An absent key allows.  `allowHostPaths` lists what may be mounted, with everything below it; an empty list means nothing may.
Links count for what they lead to: a pod that may write to a folder of the machine could plant one there for the next.
"""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

import msgspec

from edgecore.edged.errors import EdgedError
from edgecore.edged.pod import Container, Pod
from edgecore.edged.status import Outcome

MAX_POLICY_BYTES = 256 * 1024
# What lets a container do to the machine what a privileged one could.
STRONG = frozenset(
    {"ALL", "SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO", "SYS_PTRACE", "BPF", "SYS_BOOT", "MAC_ADMIN"}
)


class PolicyError(EdgedError):
    """The policy file cannot be used."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """allow_host_paths: None allows every path."""

    allow_privileged: bool = True
    allow_host_network: bool = True
    allow_host_namespaces: bool = True
    allow_host_paths: list[str] | None = None
    exempt_namespaces: list[str] = []


def parse(text: bytes) -> Policy:
    """Raises PolicyError: a policy that cannot be read must not be taken for one that allows."""
    try:
        return msgspec.json.decode(text, type=Policy)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as err:
        raise PolicyError(f"cannot read the policy file: {err}") from err


def load(path: Path | None) -> Policy:
    """The policy of this machine; without a file everything is allowed.  Blocking.  Raises PolicyError."""
    if path is None:
        return Policy()
    try:
        with path.open("rb") as file:
            text = file.read(MAX_POLICY_BYTES + 1)
    except OSError as err:
        raise PolicyError(f"cannot read the policy file: {err}") from err
    if len(text) > MAX_POLICY_BYTES:
        raise PolicyError(f"cannot read the policy file: more than {MAX_POLICY_BYTES} bytes")
    return parse(text)


def resolved(policy: Policy) -> Policy:
    """The policy with what its paths lead to, to hold such paths against.  Blocking."""
    paths = policy.allow_host_paths
    return msgspec.structs.replace(
        policy, allow_host_paths=None if paths is None else [os.path.realpath(path) for path in paths]
    )


def refuse(pod: Pod, policy: Policy) -> Outcome | None:
    """Why a pod may not run on this machine.  Init and ephemeral containers are held to the same."""
    if pod.namespace in policy.exempt_namespaces:
        return None
    found = _pod(pod, policy)
    for c in pod.every_container():
        found = found or _container(c, policy)
    if not found:
        return None
    return Outcome(
        phase="Failed", reason="ForbiddenByNodePolicy", message=f"This node's policy forbids {found}"
    )


def refuse_path(pod: Pod, path: str, policy: Policy) -> str:
    """Why a pod may not have a path of this machine that it reaches by a claim; empty when it may."""
    if policy.allow_host_paths is None or pod.namespace in policy.exempt_namespaces:
        return ""
    return "" if _below(path, policy.allow_host_paths) else f"This node's policy forbids path {path[:128]}"


def _pod(pod: Pod, policy: Policy) -> str:
    spec = pod.spec
    if spec.host_network and not policy.allow_host_network:
        return "hostNetwork"
    if (spec.host_pid or spec.host_ipc) and not policy.allow_host_namespaces:
        return "hostPID and hostIPC"
    if policy.allow_host_paths is not None:
        for v in spec.volumes:
            if v.host_path is not None and not _below(v.host_path.path, policy.allow_host_paths):
                return f"hostPath {v.host_path.path[:128]}"
    return ""


def _container(c: Container, policy: Policy) -> str:
    if not policy.allow_host_network and any(p.host_port for p in c.ports):
        return f"hostPort of container {c.name}"
    context = c.security_context
    if context is None or policy.allow_privileged:
        return ""
    if context.privileged:
        return f"privileged container {c.name}"
    if context.proc_mount == "Unmasked":
        return f"procMount Unmasked of container {c.name}"
    added = context.capabilities.add if context.capabilities is not None else []
    strong = sorted({a.upper().removeprefix("CAP_") for a in added} & STRONG)
    return f"capability {strong[0]} of container {c.name}" if strong else ""


def _below(path: str, allowed: list[str]) -> bool:
    # a path is compared as written: `//` and a slash at the end say nothing
    clean = "/" + posixpath.normpath(path).lstrip("/")
    for root in allowed:
        base = "/" + posixpath.normpath(root).lstrip("/")
        if clean == base or clean.startswith(base.rstrip("/") + "/"):
            return True
    return False
