"""The network: F-N."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.skerry import eventually
from tests.faults.stage import BACK_S, Stage, took_at_most
from tests.faults.test_storage import fat_configmap, small_configmap
from tests.support.badline import BadLine


@contextlib.contextmanager
def blackhole(port: int) -> Iterator[None]:
    """No packet to or from this port of loopback arrives any more; nobody is told."""
    rules = [
        ["INPUT", "-i", "lo", "-p", "tcp", side, str(port), "-j", "DROP"] for side in ("--dport", "--sport")
    ]
    done: list[list[str]] = []
    try:
        for rule in rules:
            subprocess.run(["/usr/sbin/iptables", "-w", "-I", *rule], check=True)
            done.append(rule)
        yield
    finally:
        for rule in done:
            subprocess.run(["/usr/sbin/iptables", "-w", "-D", *rule], check=True)


@pytest.mark.quick
def test_f_n03_a_silent_blackhole(stage: Stage) -> None:
    before = stage.containers()
    offset = stage.log_size("cloudcore")
    # between hub and relay, so that each end has a line that looks alive and says nothing
    stage.line.line.blackhole = True
    gone = f"Node {stage.skerry.node_name} disconnected"
    with took_at_most(20, "finding the dead line"):
        eventually(lambda: not stage.is_linked(), "the edge to notice", 60)
        eventually(lambda: gone in stage.log_since("cloudcore", offset), "the hub to notice", 60)
    eventually(lambda: stage.condition("CloudConnected") == "False", "the cloud to say so", 60)
    assert stage.condition("Autonomous") == "True"
    time.sleep(5)
    assert stage.containers() == before
    stage.line.line.blackhole = False
    with took_at_most(5, "coming back"):
        eventually(stage.is_linked, "the link", 60)
    eventually(stage.is_agreed, "agreement", BACK_S)
    eventually(lambda: stage.condition("CloudConnected") == "True", "the node to say that it is back", BACK_S)
    assert stage.condition("Autonomous") == "False"
    assert stage.containers() == before


def test_f_n03_packets_are_dropped(stage: Stage) -> None:
    before = stage.containers()
    with blackhole(stage.line.port), took_at_most(35, "the fault"):
        with took_at_most(20, "finding the dead line"):
            eventually(lambda: not stage.is_linked(), "the edge to notice", 60)
        time.sleep(10)
        assert stage.containers() == before
    with took_at_most(5, "coming back"):
        eventually(stage.is_linked, "the link", 60)
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.containers() == before


def until(check: Callable[[], bool], seconds: float) -> bool:
    """Whether it became so in that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.2)
    return False


@pytest.mark.quick
def test_f_n02_a_report_is_sent_and_its_acknowledgement_is_lost(stage: Stage) -> None:
    def version(name: str) -> str:
        return str(stage.skerry.get("pod", name)["metadata"]["resourceVersion"])

    for name in ("herd-5", "herd-6", "herd-7", "herd-8"):
        restarts, first = stage.restarts(), version(name)
        victim = stage.container_of(name)
        stage.line.line.mute_down = True
        os.kill(victim.pid, signal.SIGKILL)
        # of its end or of its new start: the second waits for the acknowledgement of the first.  Each end gives a line up
        # after 9 s of silence, and on a slow machine no report may pass in that time
        if until(lambda: version(name) != first, 8.0):  # noqa: B023
            break
        stage.line.good()
        eventually(stage.is_agreed, "agreement", BACK_S)
    else:
        raise AssertionError("no report came through a line that is mute in the other direction")
    stage.line.cut()
    stage.line.good()
    eventually(stage.is_linked, "the link", BACK_S)
    eventually(stage.is_agreed, "agreement", BACK_S)
    # it went again, and changed nothing
    wanted = restarts[victim.pod_uid] + 1
    eventually(lambda: stage.restarts()[victim.pod_uid] == wanted, "its restart, told", BACK_S)
    eventually(lambda: stage.edge_status()["outbox"]["waiting"] == 0, "an empty outbox", BACK_S)
    last = version(name)
    time.sleep(4)
    assert version(name) == last
    assert stage.restarts()[victim.pod_uid] == wanted


def test_f_n01_a_bad_line_and_churn(stage: Stage) -> None:
    """Delay and jitter, and a cut every few seconds, as a relay can make them; while pods come and go."""
    before = stage.containers()
    stage.line.line.delay_s, stage.line.line.jitter_s, stage.line.line.rate = 0.1, 0.2, 40_000
    for number in range(6):
        stage.make_pods("churn", 2)
        time.sleep(3)
        if number % 2:
            stage.line.cut()
        stage.drop_pods("churn")
        time.sleep(2)
    eventually(stage.is_linked, "the link", BACK_S)
    eventually(lambda: stage.is_agreed() and stage.containers() == before, "agreement", BACK_S)


def test_f_n06_pods_are_deleted_while_the_node_is_away(stage: Stage) -> None:
    stage.make_pods("doomed", 3)
    eventually(stage.is_agreed, "the doomed", BACK_S)
    doomed = {stage.container_of(f"doomed-{number}").pod_uid for number in range(3)}
    before = stage.containers()
    stage.line.line.refuse = True
    stage.line.cut()
    eventually(lambda: not stage.is_linked(), "the link's end", 60)
    stage.skerry.kubectl("delete", "pod", "doomed-0", "--wait=false")
    stage.skerry.kubectl("delete", "pod", "doomed-1", "--force", "--grace-period=0", "--wait=false")
    # one goes and comes again under its name
    stage.skerry.kubectl("delete", "pod", "doomed-2", "--force", "--grace-period=0")
    stage.make_pod("doomed-2", "doomed")
    time.sleep(5)
    assert stage.containers() == before
    stage.line.good()
    eventually(stage.is_linked, "the link", BACK_S)
    try:
        eventually(stage.is_agreed, "agreement", BACK_S)
        now = stage.containers()
        assert {uid for uid, _, _ in now} & doomed == set()
        assert {one for one in before if one[0] not in doomed} <= now
        assert len(now) == 11
    finally:
        stage.drop_pods("doomed")
    eventually(lambda: stage.is_agreed() and len(stage.containers()) == 10, "the end of the last", BACK_S)
    folders = stage.edge / "pods"
    eventually(lambda: len(list(folders.iterdir())) == 10, "the end of their folders", BACK_S)
    assert not {folder.name for folder in folders.iterdir()} & doomed


def test_f_n06_the_node_object_is_deleted_while_the_node_is_away(stage: Stage) -> None:
    before = stage.containers()
    uid = stage.skerry.get("node", stage.skerry.node_name)["metadata"]["uid"]
    stage.line.line.refuse = True
    stage.line.cut()
    eventually(lambda: not stage.is_linked(), "the link's end", 60)
    stage.skerry.kubectl("delete", "node", stage.skerry.node_name)
    time.sleep(3)
    stage.line.good()
    eventually(stage.is_linked, "the link", BACK_S)
    eventually(
        lambda: stage.skerry.get("node", stage.skerry.node_name)["metadata"]["uid"] != uid,
        "a new Node",
        BACK_S,
    )
    since = time.time()
    eventually(lambda: stage.is_fresh(since), "the lease", BACK_S)
    eventually(stage.is_agreed, "agreement", BACK_S)
    (ready,) = [
        one
        for one in stage.skerry.get("node", stage.skerry.node_name)["status"]["conditions"]
        if one["type"] == "Ready"
    ]
    assert ready["status"] == "True"
    assert stage.containers() == before


def test_f_n09_the_hub_has_moved(stage: Stage) -> None:
    """Nobody is at the old address any more; the other one of the list answers."""
    before = stage.containers()
    with BadLine("127.0.0.1", stage.skerry.hub_port, stage.other_port), blackhole(stage.line.port):
        stage.line.cut()
        with took_at_most(15, "finding out and moving"):
            eventually(lambda: str(stage.other_port) in stage.address(), "the other address", 60)
        assert stage.containers() == before
    # and back, as soon as the first is there again
    with took_at_most(5, "coming back"):
        eventually(lambda: str(stage.line.port) in stage.address(), "the first address", 60)
    assert stage.containers() == before


def test_f_n09_an_address_changes(stage: Stage) -> None:
    """While the edge waits for a hub that is away, a change of an interface makes it look at once."""
    before = stage.containers()
    stage.line.line.refuse = True
    stage.line.cut()
    eventually(lambda: not stage.is_linked(), "the link's end", 60)
    time.sleep(8)
    stage.line.good()
    address = ["dev", "lo", "127.77.7.7/32"]
    subprocess.run(["ip", "addr", "add", address[2], *address[:2]], check=True)
    try:
        with took_at_most(5, "coming back"):
            eventually(stage.is_linked, "the link", 60)
    finally:
        subprocess.run(["ip", "addr", "del", address[2], *address[:2]], check=True)
    assert stage.containers() == before


def test_f_n05_away_for_longer_than_a_node_may_be_silent(stage: Stage) -> None:
    """With the tolerations that every pod gets, which elsewhere end it after five minutes."""
    before, restarts = stage.containers(), stage.restarts()
    stage.line.line.refuse = True
    stage.line.cut()
    eventually(lambda: stage.condition("Ready") == "Unknown", "the cloud to count it as silent", 90)
    taints = stage.skerry.get("node", stage.skerry.node_name)["spec"]["taints"]
    assert {"NoExecute", "NoSchedule"} <= {one["effect"] for one in taints}
    time.sleep(10)
    # default: never taken away, never told to end
    assert not any("deletionTimestamp" in pod["metadata"] for pod in stage.all_pods())
    assert stage.containers() == before
    stage.line.good()
    eventually(stage.is_linked, "the link", BACK_S)
    eventually(lambda: stage.condition("Ready") == "True", "the node to be back", BACK_S)
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.containers() == before
    assert stage.restarts() == restarts


@contextlib.contextmanager
def narrow_path(port: int, mtu: int) -> Iterator[tuple[str, int]]:
    """A network namespace behind a line of that MTU, in which a relay leads back to this port of loopback over the same
    line; where the relay is."""
    name, number = f"sk{os.getpid() % 100000}", os.getpid() % 250
    ours, theirs = f"10.213.{number}.1", f"10.213.{number}.2"
    with contextlib.ExitStack() as exits:

        def do(*words: str) -> None:
            subprocess.run(words, check=True, timeout=20)

        # without `ip netns`, which leaves a mount behind; with the process the line is gone, too
        holder = exits.enter_context(subprocess.Popen(["unshare", "--net", "sleep", "1000"]))
        exits.callback(holder.kill)
        own, others = Path("/proc/self/ns/net"), Path(f"/proc/{holder.pid}/ns/net")
        eventually(lambda: own.readlink() != others.readlink(), "the namespace", 30)
        inside = ["nsenter", "-t", str(holder.pid), "-n"]
        do("ip", "link", "add", f"{name}a", "mtu", str(mtu), "type", "veth", "peer", "name", f"{name}b")
        exits.callback(do, "ip", "link", "del", f"{name}a")
        do("ip", "link", "set", f"{name}b", "netns", str(holder.pid), "mtu", str(mtu))
        do("ip", "addr", "add", f"{ours}/30", "dev", f"{name}a")
        do("ip", "link", "set", f"{name}a", "up")
        do(*inside, "ip", "addr", "add", f"{theirs}/30", "dev", f"{name}b")
        do(*inside, "ip", "link", "set", f"{name}b", "up")
        do(*inside, "ip", "link", "set", "lo", "up")
        # the hub listens on loopback only: a second relay takes it to the line
        back = exits.enter_context(BadLine("127.0.0.1", port, listen_host=ours))
        far = subprocess.Popen(
            [*inside, sys.executable, "-m", "tests.support.badline", ours, str(back.port), theirs],
            stdout=subprocess.PIPE,
            text=True,
        )

        def end() -> None:
            far.terminate()
            far.communicate(timeout=20)

        exits.callback(end)
        assert far.stdout is not None
        yield theirs, int(far.stdout.readline())


def carries(stage: Stage, text: str) -> None:
    """Whether a new link brings something big down, and its tunnel up."""
    number = stage.session()
    stage.line.cut()
    eventually(lambda: stage.is_linked() and stage.session() > number, "the link", BACK_S)
    (web,) = [one for one in stage.skerry.containers() if one.name == "web"]
    stage.skerry.kubectl("replace", "-f", "-", stdin=fat_configmap(text))
    eventually(lambda: stage.skerry.inside(web, "/www/index.html") == text, "900 KB, downwards", 120)
    # and upwards, over the other connection, with bytes that no compression takes away
    words = ("exec", "herd-1", "--", "/bin/sh", "-c", "head -c 300000 /dev/urandom | od -An -tx1")
    shown = stage.skerry.kubectl(*words).stdout
    assert len("".join(shown.split())) == 600_000
    stage.skerry.kubectl("replace", "-f", "-", stdin=fat_configmap("short\n"))
    eventually(lambda: stage.skerry.inside(web, "/www/index.html") == "short\n", "it, back", 120)


def test_f_n10_small_packets_torn_records_and_a_proxy_that_gathers(stage: Stage) -> None:
    before = stage.containers()
    text = f"Through a narrow path {time.time():.0f}\n"
    with narrow_path(stage.skerry.hub_port, 576) as (host, port):
        stage.line.redirect(host, port)
        try:
            for piece, gather_s in ((7, 0.0), (0, 0.3)):
                stage.line.line.piece, stage.line.line.gather_s = piece, gather_s
                carries(stage, text)
        finally:
            stage.line.redirect("127.0.0.1", stage.skerry.hub_port)
            stage.line.good()
            stage.skerry.kubectl("replace", "-f", "-", stdin=small_configmap("Hello from the edge.\n"))
            stage.line.cut()
    eventually(stage.is_linked, "the link", BACK_S)
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.containers() == before
