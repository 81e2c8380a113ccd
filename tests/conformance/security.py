"""Security contexts, sysctls, users and groups."""

from __future__ import annotations

from typing import Any

from tests.conformance.case import Scene, case, container, pod, status_of
from tests.conformance.environment import CONFORMANCE
from tests.conformance.images import NAMED, USER

SOURCE = "e2e/common/node/security_context.go"


def context(script: str, own: dict[str, Any], **of_pod: Any) -> dict[str, Any]:
    return pod(container(script, securityContext=own), **({"securityContext": of_pod} if of_pod else {}))


_SAYS: tuple[tuple[str, str, str, dict[str, Any], dict[str, Any], str], ...] = (
    ("runs as 65534", CONFORMANCE, "id -u", {"runAsUser": 65534}, {}, "65534"),
    ("runs as root", "[NodeConformance]", "id -u", {"runAsUser": 0}, {}, "0"),
    (
        "user and group of the container",
        "[Conformance]",
        "id -u; id -g",
        {"runAsUser": 1001, "runAsGroup": 2002},
        {},
        "1001\n2002",
    ),
    (
        "user and group of the pod",
        "[Conformance]",
        "id -u; id -g",
        {},
        {"runAsUser": 1001, "runAsGroup": 2002},
        "1001\n2002",
    ),
    ("the container's user before the pod's", "", "id -u", {"runAsUser": 1002}, {"runAsUser": 1001}, "1002"),
    (
        "supplemental groups",
        "",
        "id -G",
        {},
        {"runAsUser": 1, "runAsGroup": 5, "supplementalGroups": [1234, 5678]},
        "5 1234 5678",
    ),
    ("fsGroup is a group, too", "", "id -G", {"runAsUser": 1, "runAsGroup": 5}, {"fsGroup": 1234}, "5 1234"),
    (
        "a user that is not root, by number",
        "",
        "id -u",
        {"runAsNonRoot": True, "runAsUser": 1000},
        {},
        "1000",
    ),
    (
        "no new privileges",
        CONFORMANCE,
        "grep NoNewPrivs /proc/self/status",
        {"allowPrivilegeEscalation": False, "runAsUser": 1000},
        {},
        "NoNewPrivs:\t1",
    ),
    (
        "privileges may grow when nothing is said",
        "[NodeConformance]",
        "grep NoNewPrivs /proc/self/status",
        {"runAsUser": 1000},
        {},
        "NoNewPrivs:\t0",
    ),
    (
        "privileges may grow when it is allowed",
        "[NodeConformance]",
        "grep NoNewPrivs /proc/self/status",
        {"allowPrivilegeEscalation": True, "runAsUser": 1000},
        {},
        "NoNewPrivs:\t0",
    ),
    (
        "a root that can be written",
        CONFORMANCE,
        "touch /file && echo yes",
        {"readOnlyRootFilesystem": False},
        {},
        "yes",
    ),
    (
        "seccomp unconfined for a container",
        "",
        "grep ^Seccomp: /proc/self/status",
        {"seccompProfile": {"type": "Unconfined"}},
        {},
        "Seccomp:\t0",
    ),
    (
        "seccomp unconfined for a pod",
        "",
        "grep ^Seccomp: /proc/self/status",
        {},
        {"seccompProfile": {"type": "Unconfined"}},
        "Seccomp:\t0",
    ),
    (
        "seccomp of the runtime",
        "",
        "grep ^Seccomp: /proc/self/status",
        {},
        {"seccompProfile": {"type": "RuntimeDefault"}},
        "Seccomp:\t2",
    ),
    (
        "seccomp unconfined where nothing is said",
        "",
        "grep ^Seccomp: /proc/self/status",
        {},
        {},
        "Seccomp:\t0",
    ),
    (
        "all capabilities dropped",
        "",
        "grep CapEff /proc/self/status",
        {"capabilities": {"drop": ["ALL"]}},
        {},
        "CapEff:\t0000000000000000",
    ),
    (
        "one capability kept",
        "",
        "grep CapEff /proc/self/status",
        {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}},
        {},
        "CapEff:\t0000000000000400",
    ),
    (
        "unprivileged: no mounts",
        CONFORMANCE,
        "mount -t tmpfs t /tmp 2>&1 | grep -o 'permission denied'; true",
        {"privileged": False},
        {},
        "permission denied",
    ),
    (
        "privileged: mounts",
        "e2e/common/node/privileged.go",
        "mount -t tmpfs t /tmp && echo mounted",
        {"privileged": True},
        {},
        "mounted",
    ),
    (
        "privileged: the host's devices",
        "",
        "test -e /dev/kmsg && echo there",
        {"privileged": True},
        {},
        "there",
    ),
    (
        "masked paths of /proc",
        "",
        "wc -c < /proc/timer_list; test -w /proc/sysrq-trigger && echo no || echo yes",
        {"runAsUser": 0},
        {},
        "0\nyes",
    ),
)

for _asks, _tags, _script, _own, _pod, _said in _SAYS:

    @case(
        "Security context",
        _asks,
        f"{SOURCE} {_tags}",
        quick=_asks in ("no new privileges", "supplemental groups", "one capability kept"),
    )
    async def says(
        scene: Scene, script: str = _script, own: Any = _own, of_pod: Any = _pod, said: str = _said
    ) -> None:
        told = await scene.says(context(script, own, **of_pod))
        assert told.strip() == said, told


@case("Security context", "a root that cannot be written", f"{SOURCE} [NodeConformance]")
async def read_only_root(scene: Scene) -> None:
    ended = await scene.ran(context("touch /checkfile", {"readOnlyRootFilesystem": True}))
    assert ended["status"]["phase"] == "Failed"
    assert "Read-only file system" in await scene.logs("p")


@case("Security context", "the image's user", SOURCE)
async def image_user(scene: Scene) -> None:
    made = context("id -u", {"runAsNonRoot": True})
    made["spec"]["containers"][0]["image"] = USER
    assert await scene.says(made) == "1234\n"


for _asks, _own, _image in (
    ("root by number", {"runAsNonRoot": True, "runAsUser": 0}, USER),
    ("an image of root", {"runAsNonRoot": True}, ""),
    ("an image of a user by name", {"runAsNonRoot": True}, NAMED),
):

    @case("Security context", f"must not be root: {_asks} does not run", SOURCE)
    async def not_root(scene: Scene, own: Any = _own, image: str = _image) -> None:
        made = context("id -u", own)
        if image:
            made["spec"]["containers"][0]["image"] = image
        await scene.start(made)
        told = await scene.event("p", "Failed", "Error: container")
        assert f'(pod: "p_{scene.namespace}(' in told["message"], told["message"]
        await scene.until("p", lambda p: "CreateContainerConfigError" in str(status_of(p)), "its reason")


for _asks, _spec, _script, _host in (
    (
        "the host's processes",
        {"hostPID": True},
        "ls -l /proc/1/exe 2>/dev/null | wc -c; readlink /proc/self/ns/pid",
        "pid",
    ),
    ("the host's IPC", {"hostIPC": True}, "readlink /proc/self/ns/ipc", "ipc"),
    ("the host's network", {"hostNetwork": True}, "readlink /proc/self/ns/net", "net"),
):
    for _on in (True, False):

        @case("Namespaces", f"{_asks}: {'seen' if _on else 'not seen'}", f"{SOURCE} [NodeConformance]")
        async def namespaces(
            scene: Scene, spec: Any = _spec, script: str = _script, kind: str = _host, on: bool = _on
        ) -> None:
            import os

            said = await scene.says(pod(script, **(spec if on else {})))
            assert (said.splitlines()[-1] == os.readlink(f"/proc/self/ns/{kind}")) is on, said


@case(
    "Namespaces",
    "containers see each other's processes where they share them",
    "e2e_node/security_context_test.go [NodeConformance]",
)
async def shared_processes(scene: Scene) -> None:
    for share in (True, False):
        name = "shared" if share else "own"
        made = pod(
            container("sleep 612"), container("sleep 613", name="d"), name=name, shareProcessNamespace=share
        )
        await scene.ready(made)
        seen = await scene.sh(name, "ps")
        assert ("sleep 613" in seen) is share, seen


_SYSCTL = "e2e/common/node/sysctl.go"


@case("Sysctls", "a safe one is set", f"{_SYSCTL} {CONFORMANCE}", quick=True)
async def sysctl(scene: Scene) -> None:
    for number, name in enumerate(("kernel.shm_rmid_forced", "kernel/shm_rmid_forced")):
        made = pod(
            "cat /proc/sys/kernel/shm_rmid_forced",
            name=f"p{number}",
            securityContext={"sysctls": [{"name": name, "value": "1"}]},
        )
        assert await scene.says(made) == "1\n"


@case("Sysctls", "names that are none are refused, each by name", f"{_SYSCTL} {CONFORMANCE}")
async def invalid_sysctl(scene: Scene) -> None:
    names = ("foo-", "kernel.shmmax", "safe-and-unsafe", "bar..")
    made = pod("true", securityContext={"sysctls": [{"name": name, "value": "1"} for name in names]})
    await scene.refused(made, 'Invalid value: "foo-"', 'Invalid value: "bar.."')


@case("Sysctls", "an unsafe one that is not allowed fails the pod", f"{_SYSCTL} [NodeConformance]")
async def unsafe_sysctl(scene: Scene) -> None:
    made = pod(
        "true",
        securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "10000000000"}]},
        nodeName=scene.world.node,
    )
    await scene.start(made)
    seen = await scene.until("p", lambda p: p["status"].get("phase") == "Failed", "Failed")
    assert seen["status"]["reason"] == "SysctlForbidden", seen["status"]


@case(
    "Supplemental groups",
    "of the image's files are added, or are not",
    "e2e/common/node/security_context.go [SupplementalGroupsPolicy]",
)
async def groups_policy(scene: Scene) -> None:
    said = await scene.says(
        context(
            "id -G",
            {},
            runAsUser=1000,
            runAsGroup=1000,
            supplementalGroups=[60000],
            supplementalGroupsPolicy="Merge",
        )
    )
    assert said.split()[:2] == ["1000", "60000"], said
