"""How kinds and objects are told apart within this control plane.  Pure."""

from __future__ import annotations

Key = tuple[str, str]
"""(group, plural) of a resource."""
ObjectId = tuple[str, str]
"""(namespace or "", name)."""

PODS: Key = ("", "pods")
NAMESPACES: Key = ("", "namespaces")
