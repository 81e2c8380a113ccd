"""Authorities that follow each other, for tests of who is trusted when."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

from beehive import succession
from beehive.succession import Statement
from cloudcore.identity import pki
from edgecore.edgehub import trust

NOW = 1_800_000_000.0
DAY = 86400.0


class Ca:
    """One authority."""

    def __init__(self, name: str = "KubeEdge") -> None:
        began = datetime.fromtimestamp(NOW, UTC) - timedelta(days=400)
        self.pair = pki.make_ca(name, lifetime=timedelta(days=36500), now=began)
        self.der = pki.to_der(self.pair)[0]
        self.known = trust.Known(self.der)
        self.hash = self.known.hash

    def says(
        self,
        new: Ca,
        *,
        until: float = 30 * DAY,
        follow: float = 365 * DAY,
        begins: float = 0.0,
        issue: int = 1,
        signed_by: Ca | None = None,
        new_der: bytes = b"",
    ) -> str:
        """That `new` follows; times are seconds from NOW."""
        statement = Statement(
            old=self.hash,
            new=base64.b64encode(new_der or new.der).decode(),
            begins=int(NOW + begins),
            until=int(NOW + until),
            follow=int(NOW + max(follow, until)),
            issue=issue,
        )
        by = (signed_by or self).pair
        return succession.write(statement, lambda message: pki.sign(by, message))
