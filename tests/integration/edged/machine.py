"""A containerd of the tests' own: private root, state, socket, bridge and image; nothing is left behind."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

CNI_BIN = Path("/usr/lib/cni")
BUSYBOX = Path("/bin/busybox")
IMAGE = "skerry.test/busybox:1"
PAUSE = "skerry.test/pause:1"
NEEDED = ("containerd", "ctr", "runc", "ip")


def missing() -> str:
    """Why these tests cannot run here; empty when they can."""
    if os.geteuid() != 0:
        return "not root"
    for program in NEEDED:
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if not (CNI_BIN / "bridge").exists():
        return f"no CNI plugins in {CNI_BIN}"
    if not BUSYBOX.exists():
        return f"no {BUSYBOX} (busybox-static)"
    return ""


def image_archive(
    ref: str,
    entrypoint: list[str] | None = None,
    user: str = "",
    arguments: list[str] | None = None,
    *,
    more: Mapping[str, object] = MappingProxyType({}),
    zeros: int = 0,
) -> bytes:
    """A docker archive with busybox and its links as the one layer.

    user: whom the image says it runs as; arguments: what its entrypoint gets when nobody says anything else; more: further
    members of its config; zeros: bytes of a file in it that packs to a thousandth, as the layer then is."""
    names = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for directory in ("bin", "tmp", "etc", "var", "root"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            tar.addfile(entry)
        tar.add(BUSYBOX, "bin/busybox")
        for name in names:
            if name != "busybox":
                entry = tarfile.TarInfo(f"bin/{name}")
                entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, "busybox", 0o777
                tar.addfile(entry)
        passwd = b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/tmp:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        tar.addfile(entry, io.BytesIO(passwd))
        if zeros:
            entry = tarfile.TarInfo("zeros")
            entry.size = zeros
            tar.addfile(entry, io.BytesIO(bytes(zeros)))
    body = layer.getvalue()
    packed = gzip.compress(body, 9) if zeros else body
    config: dict[str, object] = {"Env": ["PATH=/bin"], "Cmd": ["sh"]}
    if user:
        config["User"] = user
    if entrypoint:
        config = {"Env": ["PATH=/bin"], "Entrypoint": entrypoint, "Cmd": arguments or []}
    config |= more
    text = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "arm"),
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(body).hexdigest()]},
        }
    ).encode()
    digest = hashlib.sha256(text).hexdigest()
    manifest = json.dumps([{"Config": f"{digest}.json", "RepoTags": [ref], "Layers": ["layer.tar"]}]).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in ((f"{digest}.json", text), ("layer.tar", packed), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def _crun(home: Path) -> str:
    """crun, or a script that shows it no second hierarchy of cgroups: it refuses to run beside one that has controllers."""
    program = shutil.which("crun") or "crun"
    unified = Path("/sys/fs/cgroup/unified")
    controllers = unified / "cgroup.controllers"
    if not controllers.exists() or not controllers.read_text().strip():
        return program
    script = home / "crun.sh"
    script.write_text(
        f'#!/bin/sh\nexec unshare -m sh -c \'umount {unified} && exec {program} "$@"\' crun "$@"\n'
    )
    script.chmod(0o755)
    return str(script)


class Containerd:
    """One private containerd; start(), stop() and kill() as often as a test likes, close() at the end."""

    def __init__(self, home: Path, number: int) -> None:
        self.home = home
        self.bridge = f"sktest{number}"
        self.subnet = f"10.244.{100 + number}.0/24"
        self.socket = home / "c.sock"
        self.process: subprocess.Popen[bytes] | None = None
        self.log = home / "containerd.log"
        for name in ("root", "state", "cni"):
            (home / name).mkdir(parents=True, exist_ok=True)
        (home / "cni" / "10-test.conflist").write_text(
            json.dumps(
                {
                    "cniVersion": "0.4.0",
                    "name": self.bridge,
                    "plugins": [
                        {
                            "type": "bridge",
                            "bridge": self.bridge,
                            "isGateway": True,
                            "ipMasq": False,
                            "ipam": {
                                "type": "host-local",
                                "dataDir": str(home / "ipam"),
                                "ranges": [[{"subnet": self.subnet}]],
                            },
                        }
                    ],
                }
            )
        )
        (home / "config.toml").write_text(
            f"""version = 2
root = "{home}/root"
state = "{home}/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]
[grpc]
address = "{self.socket}"
[ttrpc]
address = "{self.socket}.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true
sandbox_image = "{PAUSE}"
netns_mounts_under_state_dir = true
stream_server_address = "127.0.0.1"
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun.options]
BinaryName = "{_crun(home)}"
Root = "{home}/crun"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_BIN}"
conf_dir = "{home}/cni"
"""
        )

    def start(self) -> None:
        """Start it and wait until its socket answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["containerd", "-c", str(self.home / "config.toml"), "--log-level", "warn"],
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=0o022,
            )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            if self.socket.exists() and self.ctr("version", check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise AssertionError(f"containerd does not start: {self.log.read_text()[-2000:]}")

    def stop(self, sig: int = signal.SIGTERM) -> None:
        """End the daemon only; containers keep running under their shims."""
        if self.process is not None:
            self.process.send_signal(sig)
            self.process.wait(20)
            self.process = None

    def ctr(self, *args: str, check: bool = True, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run ctr in the CRI namespace."""
        return subprocess.run(
            ["ctr", "-a", str(self.socket), "-n", "k8s.io", *args],
            check=check,
            capture_output=True,
            input=stdin,
            timeout=60,
        )

    def load_images(self) -> None:
        """Import the image the tests run and the sandbox image."""
        for ref, entrypoint in ((IMAGE, None), (PAUSE, ["/bin/sleep", "2147483647"])):
            archive = self.home / "image.tar"
            archive.write_bytes(image_archive(ref, entrypoint))
            self.ctr("images", "import", "--snapshotter", "overlayfs", str(archive))
            archive.unlink()

    def shims(self) -> list[int]:
        """Pids of the shims that serve this containerd."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if line and b"containerd-shim" in line[0] and os.fsencode(self.socket) in line:
                    found.append(int(entry.name))
        return found

    def close(self) -> None:
        """Remove every pod, the daemon, its shims, mounts and the bridge.  Asserts that nothing is left."""
        if self.process is None:
            self.start()
        from tests.integration.edged.wipe import wipe

        wipe(str(self.socket))
        self.stop()
        for pid in self.shims():
            os.kill(pid, signal.SIGKILL)
        subprocess.run(["ip", "link", "del", self.bridge], check=False, capture_output=True)
        for target in self.mounts():
            subprocess.run(["umount", "-l", target], check=False, capture_output=True)
        shutil.rmtree(self.home)
        assert self.mounts() == []
        assert self.shims() == []
        assert not Path(f"/sys/class/net/{self.bridge}").exists()

    def mounts(self) -> list[str]:
        """Mount points below our folder, deepest first."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return sorted(
            (p for p in (s.split()[4] for s in lines) if p.startswith(f"{self.home}/")), reverse=True
        )
