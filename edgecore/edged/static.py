"""Pods that the owner of this machine put into a folder: they run without any cloud, and no cloud can end them.

Each file (.yaml, .yml, .json) is one Pod.  As with a kubelet its name gets the node's name as suffix and its UID is made of
what the file says, so a changed file is another pod.  A file that cannot be read is no reason to end what it said before.

Source: kubelet, config/file.go, config/common.go.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec

from edgecore.edged.admission import CRITICAL_PRIORITY
from edgecore.edged.errors import BadPod, EdgedError
from edgecore.edged.podread import decode_pod

MAX_FILES, MAX_FILE_BYTES = 250, 1024 * 1024
SOURCE = "kubernetes.io/config.source"
SUFFIXES = (".yaml", ".yml", ".json")


class StaticError(EdgedError):
    """The folder, or a file in it, cannot be read now."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """pods: each as JSON.  trouble: what could not be read; then there may be more pods than these."""

    pods: tuple[bytes, ...] = ()
    trouble: str = ""


def make(text: bytes, *, node_name: str, is_json: bool) -> bytes:
    """The pod of a file as JSON, ready to run.  Raises StaticError."""
    try:
        return _make(text, node_name, is_json=is_json)
    except (TypeError, ValueError, OverflowError, RecursionError) as err:
        # YAML can say what JSON cannot: keys that are no text, numbers without an end, a mapping that holds itself
        raise StaticError(f"it cannot be a Pod: {str(err)[:256]}") from err


def _make(text: bytes, node_name: str, *, is_json: bool) -> bytes:
    try:
        obj = msgspec.json.decode(text) if is_json else _yaml(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as err:
        raise StaticError(f"it is not JSON: {err}") from err
    if not isinstance(obj, dict) or obj.get("kind") != "Pod" or not isinstance(obj.get("metadata"), dict):
        raise StaticError("it is not a Pod")
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        raise StaticError("it has no spec")
    meta: dict[str, Any] = dict(obj["metadata"])
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences"):
        meta.pop(name, None)
    digest = hashlib.sha256(node_name.encode() + b"\0" + text).hexdigest()
    meta["name"] = f"{meta.get('name', '')}-{node_name}"
    meta.setdefault("namespace", "default")
    meta["uid"] = digest[:32]
    meta["annotations"] = {
        **(meta.get("annotations") or {}),
        SOURCE: "file",
        "kubernetes.io/config.hash": digest[:32],
    }
    # whoever puts a pod on the machine itself means it
    spec = {**spec, "nodeName": node_name, "priority": CRITICAL_PRIORITY + 1000}
    made = msgspec.json.encode({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    try:
        decode_pod(made)
    except BadPod as err:
        raise StaticError(str(err)) from err
    return made


def _yaml(text: bytes) -> Any:
    # only who uses such files pays for it
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as err:
        raise StaticError(f"it is not YAML: {str(err)[:256]}") from err


class StaticPods(msgspec.Struct):
    """The folder, read again whenever asked.  Blocking."""

    folder: Path
    node_name: str
    _last: dict[str, bytes] = msgspec.field(default_factory=dict)

    def signature(self) -> tuple[tuple[str, int, int], ...]:
        """Changes when a file does."""
        try:
            with os.scandir(self.folder) as entries:
                found = [(e.name, e.stat()) for e in entries if _counts(e.name)]
        except OSError:
            return ()
        return tuple(sorted((name, s.st_mtime_ns, s.st_size) for name, s in found))

    def read(self) -> Found:
        """Every pod in the folder; one that cannot be read now is what it was when it could."""
        pods: dict[str, bytes] = {}
        trouble = ""
        try:
            names = sorted(n for n in os.listdir(self.folder) if _counts(n))
        except FileNotFoundError:
            names = []
        except OSError as err:
            return Found(pods=tuple(self._last.values()), trouble=f"cannot read {self.folder}: {err}")
        if len(names) > MAX_FILES:
            trouble, names = f"{self.folder}: more than {MAX_FILES} files", names[:MAX_FILES]
        for name in names:
            try:
                pods[name] = self._one(name)
            except (OSError, StaticError) as err:
                trouble = f"cannot use {self.folder / name}: {err}"
                if name in self._last:
                    pods[name] = self._last[name]
        self._last = pods
        return Found(pods=tuple(pods.values()), trouble=trouble)

    def _one(self, name: str) -> bytes:
        with (self.folder / name).open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise StaticError(f"more than {MAX_FILE_BYTES} bytes")
        return make(text, node_name=self.node_name, is_json=name.endswith(".json"))


class Unreported:
    """Reports of a pod that the cloud does not know: it would answer that the pod is to be deleted."""

    async def pod_status(self, namespace: str, name: str, uid: str, status: bytes) -> None:
        """Nobody to tell."""

    async def pod_gone(self, namespace: str, name: str, uid: str) -> None:
        """Nobody to tell."""

    async def event(self, event: bytes) -> None:
        """Nobody to tell."""


def _counts(name: str) -> bool:
    return name.endswith(SUFFIXES) and not name.startswith(".")
