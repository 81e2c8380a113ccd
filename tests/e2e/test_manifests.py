"""deploy/manifests, on the trial's control plane: a cloudcore with the account and the rights that they give carries a node."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

import deploy
from tests.e2e.skerry import BIN, Skerry, eventually
from tests.support.ports import free_port

MANIFESTS = Path(deploy.__file__).parent / "manifests"
ACCOUNT = "system:serviceaccount:kubeedge:cloudcore"


@contextmanager
def running(*command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def kubeconfig_of(trial: Skerry, token: str) -> str:
    held = yaml.safe_load((trial.home / "kubeconfig").read_text())
    held["users"] = [{"name": one["name"], "user": {"token": token}} for one in held["users"]]
    return yaml.safe_dump(held)


def test_the_account_may_do_what_cloudcore_does_and_no_more(trial: Skerry) -> None:
    with tempfile.TemporaryDirectory(prefix="skt-", dir="/tmp") as name:
        try:
            trial.kubectl("apply", "-f", str(MANIFESTS))
            carry(trial, Path(name))
            for allowed, words in {
                "yes": (
                    "impersonate users",
                    "create serviceaccounts --subresource=token -n default",
                    "list services",
                ),
                "no": (
                    "delete nodes",
                    "update pods -n default",
                    "create secrets -n default",
                    "update services -n default",
                ),
            }.items():
                for asked in words:
                    told = trial.kubectl("auth", "can-i", *asked.split(), "--as", ACCOUNT, check=False)
                    assert told.stdout.strip() == allowed, asked
        finally:
            documents = yaml.safe_load_all((MANIFESTS / "cloudcore.yaml").read_text())
            ours = [item for item in documents if item["kind"] != "Namespace"]
            trial.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=yaml.safe_dump_all(ours))


def carry(trial: Skerry, folder: Path) -> None:
    """A node joins the second cloudcore, and is carried by it."""
    token = trial.kubectl("-n", "kubeedge", "create", "token", "cloudcore").stdout.strip()
    (folder / "kubeconfig").write_text(kubeconfig_of(trial, token))
    port = free_port()
    cloud, edge = folder / "cloudcore.yaml", folder / "edgecore.yaml"
    cloud.write_text(
        f"""
dataDir: {folder}/cloud
kubeAPIConfig: {{kubeConfig: {folder}/kubeconfig}}
commonConfig: {{monitorServer: {{bindAddress: ""}}}}
compat: {{kubeedge: true}}
modules:
  cloudHub:
    websocket: {{address: 127.0.0.1, port: {port}}}
    https: {{address: 127.0.0.1, port: {free_port()}}}
  cloudStream: {{endpointAddress: 127.0.0.1, tunnelPort: 0}}
"""
    )
    off = "{enable: false}"
    edge.write_text(
        f"dataDir: {folder}/edge\nmodules: {{edged: {off}, eventBus: {off}, metaManager: {{metaServer: {off}}}}}\n"
    )
    log = folder / "cloudcore.log"
    with running(str(BIN / "cloudcore"), "run", "--config", str(cloud), log=log):
        made = trial.program("cloudcore", "token", "create", "--config", str(cloud), "--node", "board-2")
        joining = ("edgecore", "join", "--config", str(edge), "--cloud", f"127.0.0.1:{port}")
        eventually(
            lambda: (
                trial.program(
                    *joining, "--node-name", "board-2", "--token", made.stdout.strip(), "--force", check=False
                ).returncode
                == 0
            ),
            "the node to join",
            60,
        )
        edge_log = folder / "edgecore.log"
        with running(str(BIN / "edgecore"), "run", "--config", str(edge), log=edge_log):
            eventually(
                lambda: "The store holds all that the cloud wants" in edge_log.read_text(), "the link", 60
            )
        identifier = made.stdout.split(".")[1]
        trial.program("cloudcore", "token", "revoke", "--config", str(cloud), identifier)
    told = log.read_text()
    assert "forbidden" not in told.lower(), told
