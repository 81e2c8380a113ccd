"""What a stranger on the network and a pod can reach of a machine: A18."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.trial import PARTS
from tests.e2e.skerry import eventually
from tests.faults.stage import Stage
from tests.support.ports import free_port

_MAPPED = """
apiVersion: v1
kind: Pod
metadata: {{name: mapped, namespace: default, labels: {{herd: reach}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  tolerations: [{{operator: Exists}}]
  containers:
  - name: main
    image: skerry.local/busybox:1
    imagePullPolicy: Never
    command: [/bin/httpd, -f, -p, "8080"]
    ports: [{{containerPort: 8080, hostPort: {port}}}]
"""

# Says for each address and port whether somebody listens there.
_SCAN = """
import socket, sys
for word in sys.argv[1:]:
    address, port = word.rsplit(":", 1)
    with socket.socket() as probe:
        probe.settimeout(3)
        try:
            probe.connect((address, int(port)))
        except OSError:
            continue
        print(word)
"""

# Sends 127.0.0.1 of the machine the first packet of a connection, as one who makes packets himself, and says whether the
# answer comes.
_KNOCK = """
import errno, select, socket, struct, subprocess, sys, time
port = int(sys.argv[1])
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
wire.bind(("eth0", 0))
gateway = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout.split("via ")[1].split()[0]
with open("/proc/sys/net/ipv4/conf/all/route_localnet", "w") as setting:
    setting.write("1")
for net in ("127.0.0.0/8", "127.0.0.1"):
    subprocess.run(["ip", "route", "del", "local", net, "dev", "lo", "table", "local"], capture_output=True)
subprocess.run(["ip", "route", "replace", "127.0.0.0/8", "via", gateway, "dev", "eth0"], check=True)
knock = socket.socket()
knock.setblocking(False)
assert knock.connect_ex(("127.0.0.1", port)) == errno.EINPROGRESS
end = time.monotonic() + 5
while (left := end - time.monotonic()) > 0:
    if not select.select([wire], [], [], left)[0]:
        break
    frame = wire.recv(2048)
    source, (sport,), flags = frame[26:30], struct.unpack("!H", frame[34:36]), frame[47]
    if source == bytes((127, 0, 0, 1)) and sport == port:
        print("answered" if flags & 0x12 == 0x12 else "refused")
        break
"""


def inside(namespace: list[str], script: str, *words: str) -> list[str]:
    """Lines that a script prints in another network namespace."""
    done = subprocess.run(
        ["nsenter", *namespace, sys.executable, "-c", script, *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=30, capture_output=True)


@contextlib.contextmanager
def stranger(number: int) -> Iterator[tuple[list[str], str]]:
    """A machine on the same network: how to enter it, and the address that it knows this machine by."""
    near, far = f"skr{number}a", f"skr{number}b"
    here, there = f"198.18.{number}.1", f"198.18.{number}.2"
    machine = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    try:
        own = f"/proc/{machine.pid}/ns/net"
        eventually(lambda: os.readlink(own) != os.readlink("/proc/self/ns/net"), "a network of its own")
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", str(machine.pid))
        ip("addr", "add", f"{here}/30", "dev", near)
        ip("link", "set", near, "up")
        for words in (
            ["addr", "add", f"{there}/30", "dev", far],
            ["link", "set", far, "up"],
            # it may send anything this way
            ["route", "add", "default", "via", here],
        ):
            subprocess.run(["nsenter", f"--net={own}", "ip", *words], check=True, timeout=30)
        yield [f"--net={own}"], here
    finally:
        machine.kill()
        machine.wait()


def listeners(stage: Stage) -> dict[tuple[str, int], str]:
    """(address, TCP port) to the part of the trial that listens there.  Raises AssertionError for IPv6 ones."""
    inodes = {}
    for part in PARTS:
        pid = stage.parts.daemons[part].pid()
        for one in Path(f"/proc/{pid}/fd").iterdir() if pid else ():
            with contextlib.suppress(OSError):
                inodes[os.readlink(one)] = part
    found = {}
    for file, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{file}").read_text().splitlines()[1:]:
            words = line.split()
            part = inodes.get(f"socket:[{words[9]}]", "")
            if words[3] == "0A" and part:
                assert family == socket.AF_INET, f"{part} listens at an address of IPv6: {line}"
                address, port = words[1].split(":")
                found[socket.inet_ntoa(bytes.fromhex(address)[::-1]), int(port, 16)] = part
    return found


def sockets(stage: Stage) -> list[tuple[str, str]]:
    """Part and path of each Unix socket that a part of ours listens at."""
    ours = {}
    for part in ("cloudcore", "edgecore", "mapper"):
        for one in Path(f"/proc/{stage.pid(part)}/fd").iterdir():
            with contextlib.suppress(OSError):
                ours[os.readlink(one)] = part
    found = []
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        words = line.split()
        # __SO_ACCEPTCON: it listens
        if int(words[3], 16) & 0x10000 and (part := ours.get(f"socket:[{words[6]}]")):
            found.append((part, words[7] if len(words) > 7 else ""))
    return found


@pytest.mark.quick
def test_a18_a_stranger_finds_nothing_but_what_asks_who_he_is(stage: Stage) -> None:
    found = listeners(stage)
    assert set(found.values()) >= {"cloudcore", "edgecore", "mosquitto"}
    api = [where for where, part in found.items() if part == "edgecore"]
    assert [where for where in found if where not in api and where[0] != "127.0.0.1"] == []
    # pods reach this one: an address of this machine alone, which asks for a token
    assert all(address.startswith("169.254.") for address, _ in api), api
    with stranger(stage.skerry.port_base % 250) as (namespace, here):
        tried = [f"{address}:{port}" for address, port in found if (address, port) not in api]
        tried += [f"{here}:{port}" for _, port in found]
        assert inside(namespace, _SCAN, *tried) == []
        for address, port in api:
            script = (
                "import ssl, sys, urllib.request, urllib.error\n"
                "no = ssl._create_unverified_context()\n"
                "for path in ('api/v1/pods', 'api/v1/namespaces/default/secrets', 'metrics', 'debug/pprof', 'logs/'):\n"
                "    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}),\n"
                "        urllib.request.HTTPSHandler(context=no))\n"
                "    try:\n"
                "        print(opener.open(f'https://{sys.argv[1]}/{path}', timeout=20).status)\n"
                "    except urllib.error.HTTPError as error:\n"
                "        print(error.code)\n"
                "    except (urllib.error.URLError, OSError):\n"
                "        print('unreached')\n"
            )
            assert set(inside(namespace, script, f"{address}:{port}")) <= {"401", "403", "404", "unreached"}


@pytest.mark.quick
def test_a18_sockets_are_files_that_only_root_opens(stage: Stage) -> None:
    found = sockets(stage)
    assert found
    for part, path in found:
        assert path.startswith("/"), f"{part} listens at an abstract socket or one without a name: {path!r}"
    made = [path for path in stage.skerry.home.rglob("*") if path.is_socket()]
    assert made
    for one in made:
        folder = one.parent.stat()
        assert (folder.st_mode & 0o777, folder.st_uid) == (0o700, 0), one
        assert one.stat().st_mode & 0o007 == 0, one


def test_a18_a_pod_does_not_reach_the_loopback_of_its_machine(stage: Stage) -> None:
    """Not even beside a pod with a host port, for which its bridge routes 127.0.0.0/8."""
    port = free_port()
    stage.skerry.kubectl("apply", "-f", "-", stdin=_MAPPED.format(node=stage.skerry.node_name, port=port))
    try:
        eventually(stage.is_agreed, "the pod with a host port", 60)
        pod = ["-t", str(stage.container_of("herd-2").pid), "-n"]
        found = listeners(stage)
        gateway = stage.skerry.address(stage.container_of("herd-2")).rsplit(".", 1)[0] + ".1"
        assert inside(pod, _SCAN, *[f"{gateway}:{port}" for _, port in found]) == []
        # what the plugin did it for: the machine itself reaches the pod there
        with socket.create_connection(("127.0.0.1", port), 10):
            pass
        target = str(stage.skerry.mqtt_port)
        assert inside(pod, _KNOCK, target) == []
        assert inside(pod, _KNOCK, str(stage.skerry.hub_port)) == []
        # with the rule gone the answer comes, so it is the rule; and edgecore makes it again
        rules = subprocess.run(["iptables-save", "-t", "raw"], capture_output=True, text=True, check=True)
        (rule,) = [line for line in rules.stdout.splitlines() if f"-i {stage.parts.home.bridge} " in line]
        words = shlex.split(rule.removeprefix("-A "))
        subprocess.run(["iptables", "-w", "-t", "raw", "-D", *words], check=True)
        assert inside(pod, _KNOCK, target) == ["answered"]
        eventually(lambda: inside(pod, _KNOCK, target) == [], "the rule, again", 120)
    finally:
        stage.drop_pods("reach")
        eventually(stage.is_agreed, "the end of the pod", 60)
