"""Who the certificates of the hub's authority are made for: names and organizations in their subjects.  Pure."""

from __future__ import annotations

NODE_GROUP = "system:nodes"
NODE_USER = "system:node:"
HUB_USER, HUB_GROUP = "skerry:cloudcore", "skerry:cloudcores"
"""Who a cloudcore is to another one.  No node can have it: what it is called is the signer's word."""
