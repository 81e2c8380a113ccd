"""Network namespaces for tests: machines of their own with nothing but what is put into them.  Needs root."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator

START_S = 30.0


class Namespace:
    """One that is there as long as its holder lives; its loopback device is up."""

    def __init__(self, holder: subprocess.Popen[bytes]) -> None:
        self.pid = holder.pid
        self.do("ip", "link", "set", "lo", "up")

    def words(self, *words: str) -> list[str]:
        """A command that runs in it."""
        return ["nsenter", "--target", str(self.pid), "--net", "--", *words]

    def do(self, *words: str) -> str:
        """Run a command in it that must not fail; what it said."""
        environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        return subprocess.run(
            self.words(*words), check=True, env=environment, stdout=subprocess.PIPE, text=True, timeout=60
        ).stdout


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """Without `ip netns`, which leaves a mount behind: with its process the namespace is gone, too."""
    with subprocess.Popen(["unshare", "--net", "sleep", "1000"]) as holder:
        try:
            deadline = time.monotonic() + START_S
            own = os.readlink("/proc/self/ns/net")
            while os.readlink(f"/proc/{holder.pid}/ns/net") == own:
                assert time.monotonic() < deadline, "no namespace: is `unshare` allowed?"
                time.sleep(0.01)
            yield Namespace(holder)
        finally:
            holder.kill()


def join_up(one: Namespace, other: Namespace, name: str = "line") -> None:
    """A cable between the two: an interface `name` in each, up and without an address."""
    one.do("ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", str(other.pid))
    for end in (one, other):
        end.do("ip", "link", "set", name, "up")
