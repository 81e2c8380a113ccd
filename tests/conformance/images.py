"""Images that the cases need beside the trial's busybox: one with defaults of its own, one with a user."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tests.integration.edged.machine import image_archive

ENTRY = "skerry.test/entry:1"
"""Its entrypoint prints `entry` and its arguments; without any it prints `default`, too."""
USER = "skerry.test/user:1"
"""It runs as 1234."""
NAMED = "skerry.test/named:1"
"""It runs as a user by name."""


def load(socket: Path) -> None:
    """Import them into the containerd that listens there."""
    for reference, entrypoint, user, arguments in (
        (ENTRY, ["/bin/echo", "entry"], "", ["default"]),
        (USER, None, "1234", None),
        (NAMED, None, "web", None),
    ):
        with tempfile.NamedTemporaryFile(prefix="sk-image-", suffix=".tar") as archive:
            archive.write(image_archive(reference, entrypoint, user, arguments))
            archive.flush()
            command = ["ctr", "--address", str(socket), "--namespace", "k8s.io", "images", "import"]
            subprocess.run([*command, archive.name], check=True, capture_output=True, timeout=60)
