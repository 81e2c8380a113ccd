"""Clocks that jump, certificates that end and are made anew: F-T."""

from __future__ import annotations

import base64
import json
import random
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.hashes import SHA256

from cloudcore.identity import pki
from cloudcore.identity.succession import Held, begin
from edgecore.edgehub.certificate import Files
from edgecore.edgehub.identity import Identity
from tests.e2e.skerry import eventually
from tests.fakes import edge
from tests.fakes.hub import Authority
from tests.faults.disk import Disk, Shim, laid_out, read
from tests.faults.skew import Skew
from tests.faults.stage import BACK_S, Stage

HOUR_S = 3600
YEARS_S = 7 * 365 * 24 * HOUR_S


@pytest.fixture
def skewed(stage: Stage, tmp_path: Path) -> Iterator[Skew]:
    """Edge and hub with a wall clock that can be stepped."""
    skew = Skew(stage, tmp_path)
    try:
        eventually(stage.api_is_ready, "the API", 60)
        eventually(stage.is_linked, "the link", 60)
        eventually(stage.is_agreed, "agreement", 60)
        yield skew
    finally:
        skew.end()


def lease(stage: Stage) -> str:
    found: str = stage.skerry.get("lease", "-n", "kube-node-lease", stage.skerry.node_name)["spec"][
        "renewTime"
    ]
    return found


def is_ready(stage: Stage) -> bool:
    conditions = stage.skerry.get("node", stage.skerry.node_name)["status"]["conditions"]
    return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)


@pytest.mark.parametrize(
    ("part", "seconds"),
    [
        ("edgecore", HOUR_S),
        ("edgecore", -HOUR_S),
        ("cloudcore", HOUR_S),
        # no more, or the certificate with which this test asks, made a minute ago, is not valid yet
        ("cloudcore", -240),
    ],
)
def test_f_t05_a_clock_steps_while_connected(stage: Stage, skewed: Skew, part: str, seconds: int) -> None:
    before, restarts = stage.containers(), stage.restarts()
    number = stage.session()
    skewed.step(part, seconds)
    time.sleep(14)
    assert stage.session() == number
    first = lease(stage)
    eventually(lambda: lease(stage) != first, "the lease, renewed", 60)
    assert is_ready(stage)
    if seconds > 0:
        # certificates that were made a minute ago are not valid an hour ago; in an hour they are
        stage.line.cut()
        eventually(lambda: stage.is_linked() and stage.session() > number, "the link", BACK_S)
    skewed.step(part, 0)
    time.sleep(3)
    assert is_ready(stage)
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.containers() == before
    assert stage.restarts() == restarts


@pytest.mark.parametrize("seconds", [YEARS_S, -5 * 365 * 24 * HOUR_S], ids=["ahead", "behind"])
def test_f_t05_a_machine_starts_with_a_clock_that_is_years_wrong(
    stage: Stage, skewed: Skew, seconds: int
) -> None:
    before, restarts = stage.containers(), stage.restarts()
    pair = (stage.edge / "pki" / "node.pem").read_bytes()
    stage.kill("edgecore")
    skewed.step("edgecore", seconds)
    skewed.start("edgecore")
    eventually(stage.is_linked, "the link", BACK_S)
    eventually(stage.is_agreed, "agreement", BACK_S)
    eventually(lambda: is_ready(stage), "the node, ready", BACK_S)
    ahead_s = stage.edge_status()["clockAheadSeconds"]
    assert abs(ahead_s - max(0, seconds)) < HOUR_S
    if seconds > 0:
        # what is told of times is true: the lease is as a cluster's own controllers want to see it
        renewed = datetime.fromisoformat(lease(stage))
        assert abs(renewed - datetime.now(UTC)) < timedelta(minutes=10)
    # while it is linked somebody sets the clock
    skewed.step("edgecore", 0)
    eventually(lambda: stage.edge_status()["clockAheadSeconds"] == 0, "a clock that is right", 60)
    first = lease(stage)
    eventually(lambda: lease(stage) != first, "the lease, renewed", 60)
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.containers() == before
    assert stage.restarts() == restarts
    assert (stage.edge / "pki" / "node.pem").read_bytes() == pair


def shorten(stage: Stage, life_s: float, *, used: float = 0.0) -> Files:
    """Give the node a certificate of its authority for the key that it has: with that life, of which a part is used."""
    secret = stage.skerry.get("secret", "-n", "kubeedge", "casecret")["data"]
    ca = pki.from_der(*(base64.b64decode(secret[name]) for name in ("cadata", "cakeydata")))
    files = Files(stage.edge / "pki")
    held, mine = files.identity(), stage.identity()
    key = mine.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(mine.key, SHA256())
    began = datetime.now(UTC) - timedelta(seconds=life_s * used)
    signed = pki.sign_request(
        ca,
        request.public_bytes(serialization.Encoding.PEM),
        common_name=f"system:node:{held.node}",
        organizations=["system:nodes"],
        lifetime=timedelta(seconds=life_s),
        now=began,
    )
    identity = Identity(
        node=held.node,
        clouds=held.clouds,
        not_before=began.timestamp(),
        not_after=began.timestamp() + life_s,
    )
    files.write(identity, key=key.decode(), certificate=signed.decode(), ca=files.ca.read_text())
    return files


def is_pair(path: Path) -> bool:
    """Whether key and certificate of a file belong together."""
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path)  # raises what is wrong
    return True


def test_f_t01_the_certificate_ends_while_the_node_is_away(stage: Stage) -> None:
    """The way back is a token; pods do not notice either way."""
    before, restarts = stage.containers(), stage.restarts()
    stage.kill("edgecore")
    files = shorten(stage, 15.0)
    stage.line.line.refuse = True
    stage.line.cut()
    stage.start("edgecore")
    eventually(stage.edge_status, "the agent", 60)
    ends = files.identity().not_after
    eventually(lambda: time.time() > ends + 1, "the certificate's end", 60)
    stage.line.good()

    def told() -> bool:
        return "edgecore join --token" in stage.edge_status().get("cloud", {}).get("lastError", "")

    eventually(told, "what to do", 90)
    assert not stage.is_linked()
    assert stage.containers() == before
    # what is said is done
    words = ["join", "--config", str(stage.edge / "edgecore.yaml"), "--token"]
    stage.skerry.program("edgecore", *words, stage.token(node=stage.skerry.node_name))
    stage.kill("edgecore")
    stage.start("edgecore")
    eventually(stage.is_linked, "the link", BACK_S)
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.containers() == before
    assert stage.restarts() == restarts


@pytest.mark.parametrize("part", ["edgecore", "cloudcore"])
def test_f_t02_killed_while_a_certificate_is_renewed(stage: Stage, part: str) -> None:
    before = stage.containers()
    rng = random.Random(4)
    stage.kill("edgecore")
    files = shorten(stage, 2 * HOUR_S, used=0.95)
    first = files.node.read_bytes()
    for _ in range(8):
        stage.start("edgecore")
        time.sleep(rng.random() * 4)
        stage.kill(part)
        # the old pair or a new one, and never half of each
        assert is_pair(files.node)
        if files.node.read_bytes() != first:
            files = shorten(stage_api_back(stage, part), 2 * HOUR_S, used=0.95)
            first = files.node.read_bytes()
        stage.kill("edgecore")
        stage.start(part)
    # an attempt without a cloud is made again after minutes, at a start at once
    stage.start("cloudcore")
    eventually(stage.api_is_ready, "the API", 60)
    stage.kill("edgecore")
    stage.start("edgecore")
    eventually(lambda: files.node.read_bytes() != first, "a renewed certificate", 120)
    assert is_pair(files.node)
    stage.line.cut()
    eventually(stage.is_linked, "the link, with the new one", BACK_S)
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.containers() == before


def stage_api_back(stage: Stage, part: str) -> Stage:
    if part == "cloudcore":
        stage.start(part)
        eventually(stage.api_is_ready, "the API", 60)
    return stage


RENEW = """
import sys
from pathlib import Path
from edgecore.edgehub.certificate import Files
from edgecore.edgehub.identity import Identity
folder, new = Path(sys.argv[1]), Path(sys.argv[2])
identity = Identity(node="edge-1", clouds=(), not_before=1, not_after=2)
key, certificate, ca = [(new / name).read_text() for name in ("key", "cert", "ca")]
Files(folder).write(identity, key=key, certificate=certificate, ca=ca)
"""


def test_f_t02_the_power_is_cut_at_each_step_of_a_renewal(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    shim = Shim(tmp_path)
    files = authority.joined(shim.disk, "edge-1")
    before = {str(path): path.read_bytes() for path in (files.node, files.ca)}
    pair, new = authority.node("edge-1"), tmp_path / "new"
    new.mkdir()
    (new / "key").write_bytes(pair.key_pem)
    (new / "cert").write_bytes(pair.certificate_pem)
    (new / "ca").write_bytes(authority.ca.certificate_pem)
    subprocess.run(
        [sys.executable, "-c", RENEW, str(shim.disk), str(new)], env=shim.environment, check=True, timeout=60
    )
    after = files.node.read_bytes()
    calls, rng, seen = read(shim.trace), random.Random(5), set[bytes]()
    for point in range(len(calls) + 1):
        disk = Disk(before)
        for call in calls[:point]:
            disk.apply(call)
        for lazy in (True, *[False] * 12):
            with laid_out(disk.after_a_cut(rng, lazy=lazy), shim.disk, tmp_path / "found") as folder:
                found = (folder / "node.pem").read_bytes()
                seen.add(found)
                assert is_pair(folder / "node.pem")
                assert (folder / "ca.pem").read_bytes() == before[str(files.ca)]
    assert seen == {before[str(files.node)], after}


def authority(stage: Stage, *words: str) -> subprocess.CompletedProcess[str]:
    """`cloudcore authority`, as an operator calls it."""
    config = str(stage.skerry.home / "cloud" / "cloudcore.yaml")
    verb, *others = words
    return stage.skerry.program("cloudcore", "authority", verb, "--config", config, *others)


def standing(stage: Stage) -> dict[str, Any]:
    """What `authority status` says."""
    found: dict[str, Any] = json.loads(authority(stage, "status", "-o", "json").stdout)
    return found


def has_followed(stage: Stage) -> bool:
    (node,) = standing(stage)["nodes"]
    return bool(node["trusts"] and node["holds"])


def takes(stage: Stage, identity: edge.Identity) -> bool:
    """Whether the hub's TLS takes this certificate; what is asked with it is refused in any case."""
    host, _, port = stage.hub.partition(":")
    context = edge.client_tls(identity.ca, identity.certificate, edge.key_pem(identity.key))
    context.verify_mode = ssl.CERT_NONE  # it is the hub that judges here
    try:
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            context.wrap_socket(plain) as line,
        ):
            line.sendall(b"GET /nowhere HTTP/1.1\r\nHost: hub\r\n\r\n")
            return line.recv(100).startswith(b"HTTP/1.1 403 ")
    except (ssl.SSLError, ConnectionError):
        return False


def is_alone(stage: Stage) -> None:
    """End what a case before left, so that each begins with one authority."""
    if standing(stage)["window"] is not None:
        eventually(lambda: has_followed(stage), "the node to follow", 150)
        authority(stage, "finish")
    eventually(lambda: "oldcakeydata" not in stored(stage), "the old key to be gone", 30)


def stored(stage: Stage) -> dict[str, str]:
    found: dict[str, str] = stage.skerry.get("secret", "-n", "kubeedge", "casecret")["data"]
    return found


def test_f_t03_both_authorities_count_in_the_window_and_the_old_one_no_more_after_it(stage: Stage) -> None:
    is_alone(stage)
    before, restarts = stage.containers(), stage.restarts()
    old, files = stage.identity(), Files(stage.edge / "pki")
    was = standing(stage)["authority"]
    assert takes(stage, old)
    authority(stage, "rotate", "--window", "3m")
    assert standing(stage)["window"]["old"] == was
    eventually(lambda: has_followed(stage), "the node to follow", 150)
    # it holds a certificate of the new one; the old one counts as well
    assert [known.hash for known in files.trusted()] == [was, standing(stage)["authority"]]
    assert takes(stage, stage.identity())
    assert takes(stage, old)
    authority(stage, "extend", "2s")
    eventually(lambda: not takes(stage, old), "rejection of the old one", 60)
    assert takes(stage, stage.identity())
    eventually(lambda: "oldcakeydata" not in stored(stage), "the old key to be gone", 30)
    assert standing(stage)["window"] is None
    # the way back is there, and after it the node knows the new one only
    stage.line.cut()
    eventually(stage.is_linked, "the link", BACK_S)
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert [known.hash for known in files.trusted()] == [standing(stage)["authority"]]
    assert stage.containers() == before
    assert stage.restarts() == restarts


def test_f_t03_a_node_that_was_away_during_the_rotation_follows_in_the_window(stage: Stage) -> None:
    is_alone(stage)
    before = stage.containers()
    stage.line.line.refuse = True
    stage.line.cut()
    eventually(lambda: not stage.is_linked(), "no link", 60)
    stage.kill("edgecore")
    authority(stage, "rotate", "--window", "3m")
    # the hub is not the one that began it
    stage.kill("cloudcore")
    stage.start("cloudcore")
    eventually(stage.api_is_ready, "the API", 60)
    assert not has_followed(stage)
    stage.start("edgecore")
    stage.line.good()
    eventually(lambda: has_followed(stage), "the node to follow", 200)
    assert standing(stage)["window"]["shows"] == "new"
    authority(stage, "finish")
    eventually(stage.is_linked, "the link", BACK_S)
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.containers() == before


def test_f_t03_a_node_that_comes_back_after_the_window_says_what_to_do(stage: Stage) -> None:
    is_alone(stage)
    before = stage.containers()
    stage.kill("edgecore")
    authority(stage, "rotate", "--window", "10m")
    refused = authority_fails(stage, "finish")
    assert stage.skerry.node_name in refused
    authority(stage, "finish", "--force")
    stage.start("edgecore")

    def told() -> bool:
        return "authority readmit" in stage.edge_status().get("cloud", {}).get("lastError", "")

    eventually(told, "what to do", 90)
    assert not stage.is_linked()
    assert stage.containers() == before
    # nobody has to go there
    authority(stage, "readmit", stage.skerry.node_name)
    eventually(lambda: has_followed(stage), "the node to follow", 150)
    eventually(stage.is_linked, "the link", BACK_S)
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.containers() == before


def authority_fails(stage: Stage, *words: str) -> str:
    with pytest.raises(AssertionError) as caught:
        authority(stage, *words)
    return str(caught.value)


def test_f_t03_an_edge_that_is_killed_again_and_again_follows(stage: Stage) -> None:
    is_alone(stage)
    before, files, rng = stage.containers(), Files(stage.edge / "pki"), random.Random(6)
    authority(stage, "rotate", "--window", "3m")
    for _ in range(8):
        time.sleep(rng.random() * 4)
        stage.kill("edgecore")
        # whatever it was doing, both files are whole, and it has something to come back with
        assert is_pair(files.node)
        assert 1 <= len(files.trusted()) <= 2
        stage.start("edgecore")
    eventually(lambda: has_followed(stage), "the node to follow", 200)
    authority(stage, "finish")
    eventually(stage.is_linked, "the link", BACK_S)
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.containers() == before


def test_f_t03_a_hub_that_is_killed_at_any_step_goes_on_with_the_rotation(stage: Stage) -> None:
    is_alone(stage)
    before, rng = stage.containers(), random.Random(7)
    was = standing(stage)["authority"]

    def killed_during(*words: str) -> None:
        config = str(stage.skerry.home / "cloud" / "cloudcore.yaml")
        program = [
            sys.executable,
            "-m",
            "cloudcore.cli",
            "authority",
            words[0],
            "--config",
            config,
            *words[1:],
        ]
        command = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5 + rng.random() * 2)
        stage.kill("cloudcore")
        command.wait(60)
        stage.start("cloudcore")
        eventually(stage.api_is_ready, "the API", 60)

    for _ in range(5):
        killed_during("rotate", "--window", "3m")
        # it was begun as a whole or not at all
        found = standing(stage)
        assert (found["authority"] != was) == (found["window"] is not None)
        if found["window"] is not None:
            break
    else:
        authority(stage, "rotate", "--window", "3m")
    eventually(lambda: has_followed(stage), "the node to follow", 200)
    new = standing(stage)["authority"]
    for _ in range(5):
        killed_during("finish")
        found = standing(stage)
        assert found["authority"] == new
        assert ("oldcakeydata" in stored(stage)) == (found["window"] is not None)
        if found["window"] is None:
            break
    else:
        authority(stage, "finish")
    eventually(stage.is_linked, "the link", BACK_S)
    eventually(stage.is_agreed, "agreement", BACK_S)
    assert stage.containers() == before


FOLLOW = """
import sys
from pathlib import Path
from edgecore.edgehub import trust
from edgecore.edgehub.certificate import Files
files = Files(Path(sys.argv[1]))
files.replace_trusted(trust.follow(files.trusted(), sys.argv[2], float(sys.argv[3])))
"""


def test_f_t03_the_power_is_cut_at_each_step_of_following(tmp_path: Path) -> None:
    first = Authority(tmp_path / "authority")
    shim = Shim(tmp_path)
    files = first.joined(shim.disk, "edge-1")
    before = {str(path): path.read_bytes() for path in (files.node, files.ca)}
    now = datetime.now(UTC)
    held = begin(
        Held(first.ca),
        pki.make_ca("next", lifetime=timedelta(days=9), now=now),
        now=now,
        window=timedelta(days=1),
        certificate_life=timedelta(days=1),
    )
    arguments = [str(shim.disk), held.statements[0], str(now.timestamp())]
    subprocess.run([sys.executable, "-c", FOLLOW, *arguments], env=shim.environment, check=True, timeout=60)
    after = files.ca.read_bytes()
    assert len(files.trusted()) == 2
    calls, rng, seen = read(shim.trace), random.Random(8), set[bytes]()
    for point in range(len(calls) + 1):
        disk = Disk(before)
        for call in calls[:point]:
            disk.apply(call)
        for lazy in (True, *[False] * 12):
            with laid_out(disk.after_a_cut(rng, lazy=lazy), shim.disk, tmp_path / "found") as folder:
                seen.add((folder / "ca.pem").read_bytes())
                assert (folder / "node.pem").read_bytes() == before[str(files.node)]
    assert seen == {before[str(files.ca)], after}
