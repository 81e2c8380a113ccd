"""Volumes: what is in them, who may read it, and how it follows its source."""

from __future__ import annotations

import base64
import subprocess
from typing import Any

from tests.conformance.case import Scene, case, container, is_ready, pod, status_of
from tests.conformance.environment import CONFORMANCE

STORAGE = "e2e/common/storage"
Volume = dict[str, Any]
SHOW = "cat /v/{0}; stat -L -c '%a %u %g' /v/{0}"


def source(kind: str, name: str, **more: Any) -> Volume:
    """A volume v of an object: configMap, secret, or one of them projected.  items and optional go where they belong."""
    mode = {key: more.pop(key) for key in ("defaultMode",) if key in more}
    inner = kind.removeprefix("projected-")
    naming = {"secretName" if kind == "secret" else "name": name}
    if kind.startswith("projected-"):
        return {"projected": {"sources": [{inner: {**naming, **more}}], **mode}}
    return {kind: {**naming, **more, **mode}}


def value(kind: str, text: str) -> str:
    return base64.b64encode(text.encode()).decode() if kind.endswith("secret") else text


def kind_of(kind: str) -> str:
    return "secrets" if kind.endswith("secret") else "configmaps"


def mounted(*script: str, volume: Volume, **spec: Any) -> dict[str, Any]:
    made = container(*script, volumeMounts=[{"name": "v", "mountPath": "/v"}])
    return pod(made, volumes=[{"name": "v", **volume}], **spec)


_USER = {"securityContext": {"runAsUser": 1000}}
_GROUP = {"securityContext": {"runAsUser": 1000, "fsGroup": 1001}}
_ITEM = {"items": [{"key": "data-1", "path": "path/to/data-2"}]}
_KEYED: tuple[tuple[str, dict[str, Any], dict[str, Any], str, str], ...] = (
    ("is readable, mode 0644", {}, {}, "data-1", "644 0 0"),
    ("with a default mode", {"defaultMode": 0o400}, {}, "data-1", "400 0 0"),
    ("at another path", _ITEM, {}, "path/to/data-2", "644 0 0"),
    (
        "at another path with a mode of its own",
        {"items": [{"key": "data-1", "path": "path/to/data-2", "mode": 0o400}]},
        {},
        "path/to/data-2",
        "400 0 0",
    ),
    ("for a user other than root", {}, _USER, "data-1", "644 0 0"),
    ("for a user other than root at another path", _ITEM, _USER, "path/to/data-2", "644 0 0"),
    ("with a default mode and a group", {"defaultMode": 0o440}, _GROUP, "data-1", "440 0 1001"),
    ("at another path with a group", _ITEM, _GROUP, "path/to/data-2", "644 0 1001"),
)
_KINDS = {
    "configMap": "ConfigMap volumes",
    "secret": "Secret volumes",
    "projected-configMap": "Projected volumes: ConfigMap",
    "projected-secret": "Projected volumes: Secret",
}

for _kind, _area in _KINDS.items():
    for _asks, _more, _spec, _path, _shown in _KEYED:

        @case(
            _area,
            f"a key {_asks}",
            f"{STORAGE} {CONFORMANCE}",
            quick=_kind == "secret" and "default mode and a group" in _asks,
        )
        async def keyed(
            scene: Scene,
            kind: str = _kind,
            more: dict[str, Any] = _more,
            spec: dict[str, Any] = _spec,
            path: str = _path,
            shown: str = _shown,
        ) -> None:
            await scene.make(kind_of(kind), "o", data={"data-1": value(kind, "value-1\n")})
            said = await scene.says(mounted(SHOW.format(path), volume=source(kind, "o", **more), **spec))
            assert said == f"value-1\n{shown}\n", said

    @case(_area, "the same object in two volumes", f"{STORAGE} {CONFORMANCE}")
    async def twice(scene: Scene, kind: str = _kind) -> None:
        await scene.make(kind_of(kind), "o", data={"data-1": value(kind, "value-1\n")})
        mounts = [{"name": name, "mountPath": f"/{name}"} for name in "ab"]
        volumes = [{"name": name, **source(kind, "o")} for name in "ab"]
        said = await scene.says(
            pod(container("cat /a/data-1 /b/data-1", volumeMounts=mounts), volumes=volumes)
        )
        assert said == "value-1\nvalue-1\n"

    @case(
        _area,
        "optional ones that are made, changed and deleted",
        f"{STORAGE} {CONFORMANCE}",
        quick=_kind == "configMap",
    )
    async def optional(scene: Scene, kind: str = _kind) -> None:
        for name in ("delete", "update"):
            await scene.make(kind_of(kind), name, data={"data-1": value(kind, "value-1\n")})
        names = ("delete", "update", "create")
        mounts = [{"name": name, "mountPath": f"/{name}"} for name in names]
        volumes = [{"name": name, **source(kind, name, optional=True)} for name in names]
        await scene.ready(pod(container("sleep 600", volumeMounts=mounts), volumes=volumes))
        assert await scene.sh("p", "cat /delete/data-1 /update/data-1; ls /create") == "value-1\nvalue-1\n"
        await scene.delete(kind_of(kind), "delete")
        new = value(kind, "value-3\n")
        await scene.patch(kind_of(kind), "update", {"data": {"data-1": None, "data-3": new}})
        await scene.make(kind_of(kind), "create", data={"data-1": value(kind, "value-1\n")})

        async def all_there() -> bool:
            said = await scene.sh("p", "ls /delete; cat /update/* /create/* 2>&1 || true")
            seen.append(said)
            return said == "value-3\nvalue-1\n"

        seen: list[str] = []
        try:
            await scene.settled(all_there, "the changes in the volumes", 40)
        except AssertionError as error:
            raise AssertionError(f"{error}; last: {seen[-1]!r}") from None

    @case(_area, "a missing object holds the pod", STORAGE)
    async def absent(scene: Scene, kind: str = _kind) -> None:
        await scene.start(mounted("true", volume=source(kind, "o")))
        await scene.event("p", "FailedMount")
        assert scene.seen("p")[-1]["status"]["phase"] == "Pending"

    @case(_area, "a missing key holds the pod, an optional one does not", STORAGE)
    async def absent_key(scene: Scene, kind: str = _kind) -> None:
        await scene.make(kind_of(kind), "o", data={"data-1": value(kind, "value-1\n")})
        items = [{"key": "no", "path": "no"}]
        await scene.start(mounted("true", volume=source(kind, "o", items=items)))
        await scene.event("p", "FailedMount")
        other = mounted("ls /v", volume=source(kind, "o", items=items, optional=True))
        other["metadata"]["name"] = "q"
        assert await scene.says(other) == ""


for _kind in ("configMap", "projected-configMap"):

    @case(_KINDS[_kind], "a change shows in the volume", f"{STORAGE} {CONFORMANCE}")
    async def changed(scene: Scene, kind: str = _kind) -> None:
        await scene.make("configmaps", "o", data={"data-1": "value-1"})
        await scene.ready(mounted("sleep 600", volume=source(kind, "o")))
        assert await scene.sh("p", "cat /v/data-1") == "value-1"
        await scene.patch("configmaps", "o", {"data": {"data-1": "value-2"}})

        async def there() -> bool:
            return await scene.sh("p", "cat /v/data-1") == "value-2"

        await scene.settled(there, "value-2")


@case("ConfigMap volumes", "text and bytes side by side", f"{STORAGE}/configmap_volume.go {CONFORMANCE}")
async def binary(scene: Scene) -> None:
    raw = bytes([0xDE, 0xCA, 0xFE, 0xBA, 0xD0, 0xFE, 0xFF])
    await scene.make(
        "configmaps", "o", data={"a": "text\n"}, binaryData={"b": base64.b64encode(raw).decode()}
    )
    said = await scene.says(
        mounted("cat /v/a; hexdump -e '1/1 \"%02x\"' /v/b", volume=source("configMap", "o"))
    )
    assert said == f"text\n{raw.hex()}", said


for _kind in ("configmaps", "secrets"):

    @case(
        "ConfigMap volumes" if _kind == "configmaps" else "Secret volumes",
        "an immutable one takes no change but of labels",
        f"{STORAGE} [Conformance]",
    )
    async def immutable(scene: Scene, kind: str = _kind) -> None:
        await scene.make(kind, "o", data={"k": "b25l"})
        await scene.patch(kind, "o", {"data": {"k": "dHdv"}})
        await scene.patch(kind, "o", {"immutable": True})
        for change in ({"data": {"k": "b25l"}}, {"immutable": False}, {"immutable": None}):
            try:
                await scene.patch(kind, "o", change)
            except Exception as error:
                assert "422" in str(error), error
            else:
                raise AssertionError(f"taken: {change}")
        await scene.patch(kind, "o", {"metadata": {"labels": {"a": "b"}}})
        await scene.delete(kind, "o")


@case(
    "Secret volumes",
    "not the secret of that name in another namespace",
    f"{STORAGE}/secrets_volume.go {CONFORMANCE}",
)
async def other_namespace(scene: Scene) -> None:
    other = Scene(scene.world, f"{scene.namespace}-other")
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other.namespace}}
    await scene.world.call("POST", "/api/v1/namespaces", made)
    try:
        await other.make("secrets", "o", data={"data-1": value("secret", "wrong\n")})
        await scene.make("secrets", "o", data={"data-1": value("secret", "right\n")})
        assert await scene.says(mounted("cat /v/data-1", volume=source("secret", "o"))) == "right\n"
    finally:
        await scene.world.call("DELETE", f"/api/v1/namespaces/{other.namespace}")


@case(
    "Projected volumes",
    "secret, configMap and downward API in one",
    f"{STORAGE}/projected_combined.go {CONFORMANCE}",
    quick=True,
)
async def combined(scene: Scene) -> None:
    await scene.make("configmaps", "o", data={"c": "from-map\n"})
    await scene.make("secrets", "o", data={"s": value("secret", "from-secret\n")})
    sources = [
        {"configMap": {"name": "o", "items": [{"key": "c", "path": "all/c"}]}},
        {"secret": {"name": "o", "items": [{"key": "s", "path": "all/s"}]}},
        {"downwardAPI": {"items": [{"path": "all/name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600, "audience": "somebody"}},
    ]
    said = await scene.says(
        mounted(
            "cat /v/all/c /v/all/s /v/all/name; test -s /v/token", volume={"projected": {"sources": sources}}
        )
    )
    assert said == "from-map\nfrom-secret\np", said


# -- downward API

_RESOURCES = {"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}}
_DOWNWARD: tuple[tuple[str, dict[str, Any], dict[str, Any], str], ...] = (
    ("the pod's name", {"fieldRef": {"fieldPath": "metadata.name"}}, {}, "p"),
    (
        "the limit of cpu",
        {"resourceFieldRef": {"resource": "limits.cpu", "containerName": "c"}},
        _RESOURCES,
        "2",
    ),
    (
        "the limit of memory",
        {"resourceFieldRef": {"resource": "limits.memory", "containerName": "c"}},
        _RESOURCES,
        "67108864",
    ),
    (
        "the request of cpu, in thousandths",
        {"resourceFieldRef": {"resource": "requests.cpu", "containerName": "c", "divisor": "1m"}},
        _RESOURCES,
        "250",
    ),
    (
        "the request of memory",
        {"resourceFieldRef": {"resource": "requests.memory", "containerName": "c"}},
        _RESOURCES,
        "33554432",
    ),
    (
        "the node's cpu without a limit",
        {"resourceFieldRef": {"resource": "limits.cpu", "containerName": "c"}},
        {},
        "cpu",
    ),
    (
        "the node's memory without a limit",
        {"resourceFieldRef": {"resource": "limits.memory", "containerName": "c"}},
        {},
        "memory",
    ),
)


def downward(projected: bool, items: list[dict[str, Any]], **more: Any) -> Volume:
    if projected:
        return {"projected": {"sources": [{"downwardAPI": {"items": items}}], **more}}
    return {"downwardAPI": {"items": items, **more}}


for _projected in (False, True):
    _area = "Projected volumes: downward API" if _projected else "Downward API volumes"
    for _asks, _item, _resources, _shown in _DOWNWARD:

        @case(_area, _asks, f"{STORAGE} {CONFORMANCE}", quick=_asks == "the node's memory without a limit")
        async def told(
            scene: Scene,
            projected: bool = _projected,
            item: dict[str, Any] = _item,
            resources: dict[str, Any] = _resources,
            shown: str = _shown,
        ) -> None:
            if shown in ("cpu", "memory"):
                node = await scene.world.call("GET", f"/api/v1/nodes/{scene.world.node}")
                can = node["status"]["allocatable"][shown]
                shown = str(int(can[:-2]) * 1024) if can.endswith("Ki") else can
            made = mounted("cat /v/f", volume=downward(projected, [{"path": "f", **item}]))
            made["spec"]["containers"][0]["resources"] = resources
            assert await scene.says(made) == shown

    @case(_area, "modes of the volume and of one file", f"{STORAGE} {CONFORMANCE}")
    async def modes(scene: Scene, projected: bool = _projected) -> None:
        name = {"fieldRef": {"fieldPath": "metadata.name"}}
        items = [{"path": "a", **name}, {"path": "b", "mode": 0o440, **name}]
        said = await scene.says(
            mounted("stat -L -c %a /v/a /v/b", volume=downward(projected, items, defaultMode=0o400))
        )
        assert said == "400\n440\n", said

    @case(_area, "for a user other than root, with a group", STORAGE)
    async def grouped(scene: Scene, projected: bool = _projected) -> None:
        items = [{"path": "a", "fieldRef": {"fieldPath": "metadata.name"}}]
        volume = downward(projected, items, defaultMode=0o440)
        said = await scene.says(mounted(SHOW.format("a"), volume=volume, **_GROUP))
        assert said == "p440 0 1001\n", said

    for _what in ("labels", "annotations"):

        @case(_area, f"changed {_what}", f"{STORAGE} {CONFORMANCE}")
        async def followed(scene: Scene, projected: bool = _projected, what: str = _what) -> None:
            items = [{"path": "f", "fieldRef": {"fieldPath": f"metadata.{what}"}}]
            made = mounted("sleep 600", volume=downward(projected, items), meta={what: {"key1": "value1"}})
            await scene.ready(made)
            assert await scene.sh("p", "cat /v/f") == 'key1="value1"'
            await scene.patch(
                "pods",
                "p",
                {"metadata": {what: {"key3": 'a "b"\n'}}}
                if what == "annotations"
                else {"metadata": {what: {"key3": "value3"}}},
            )
            last = 'key3="a \\"b\\"\\n"' if what == "annotations" else 'key3="value3"'

            async def there() -> bool:
                return await scene.sh("p", "cat /v/f") == f'key1="value1"\n{last}'

            await scene.settled(there, last)


# -- emptyDir and hostPath

for _user in (0, 1001):
    for _medium in ("", "Memory"):
        for _mode in ("644", "666", "777"):

            @case(
                "emptyDir",
                f"a file with mode {_mode}, by {'another user' if _user else 'root'}, "
                f"{'in memory' if _medium else 'on disk'}",
                f"{STORAGE}/empty_dir.go {CONFORMANCE}",
                quick=_user == 1001 and _mode == "644",
            )
            async def file_mode(
                scene: Scene, user: int = _user, medium: str = _medium, mode: str = _mode
            ) -> None:
                script = (
                    f"echo content > /v/f; chmod {mode} /v/f; stat -c '%a %u' /v/f; cat /v/f; "
                    "grep -c ' /v tmpfs ' /proc/mounts || true"
                )
                volume = {"emptyDir": {"medium": medium} if medium else {}}
                said = await scene.says(mounted(script, volume=volume, securityContext={"runAsUser": user}))
                assert said == f"{mode} {user}\ncontent\n{1 if medium else 0}\n", said


for _medium in ("", "Memory"):

    @case(
        "emptyDir",
        f"the volume's own mode, {'in memory' if _medium else 'on disk'}",
        f"{STORAGE}/empty_dir.go {CONFORMANCE}",
    )
    async def own_mode(scene: Scene, medium: str = _medium) -> None:
        volume = {"emptyDir": {"medium": medium} if medium else {}}
        assert await scene.says(mounted("stat -c %a /v", volume=volume)) == "777\n"

    @case(
        "emptyDir",
        f"files of a group, {'in memory' if _medium else 'on disk'}",
        f"{STORAGE}/empty_dir.go [FSGroup]",
    )
    async def group(scene: Scene, medium: str = _medium) -> None:
        volume = {"emptyDir": {"medium": medium} if medium else {}}
        said = await scene.says(
            mounted("stat -c '%a %g' /v; touch /v/f; stat -c '%u %g' /v/f; id -G", volume=volume, **_GROUP)
        )
        assert said.splitlines()[:2] == ["2777 1001", "1000 1001"], said
        assert "1001" in said.splitlines()[2]


@case("emptyDir", "shared between containers", f"{STORAGE}/empty_dir.go [Conformance]", quick=True)
async def shared(scene: Scene) -> None:
    mounts = [{"name": "v", "mountPath": "/v"}]
    made = pod(
        container("until test -f /v/f; do sleep 0.1; done; cat /v/f", volumeMounts=mounts),
        container("echo hello > /v/.f; mv /v/.f /v/f", name="d", volumeMounts=mounts),
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    assert await scene.says(made) == "hello\n"


@case("emptyDir", "in memory as large as its limit", f"{STORAGE}/empty_dir.go")
async def memory_size(scene: Scene) -> None:
    volume = {"emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}
    said = await scene.says(mounted("df -k /v | awk 'END {print $2}'", volume=volume))
    assert said == "8192\n", said


@case(
    "hostPath",
    "a folder's mode, and what a container writes is on the host",
    f"{STORAGE}/host_path.go [NodeConformance]",
)
async def host_path(scene: Scene) -> None:
    folder = scene.world.home / "shared" / scene.namespace
    volume = {"hostPath": {"path": str(folder), "type": "DirectoryOrCreate"}}
    await scene.says(mounted("echo hi > /v/f", volume=volume))
    assert (folder / "f").read_text() == "hi\n"
    (folder / "sub").mkdir()
    (folder / "sub" / "g").write_text("there\n")
    made = mounted("cat /v/g", volume={"hostPath": {"path": str(folder)}})
    made["metadata"]["name"] = "q"
    made["spec"]["containers"][0]["volumeMounts"][0]["subPath"] = "sub"
    assert await scene.says(made) == "there\n"


for _type, _ok in (
    ("Directory", "folder"),
    ("File", "file"),
    ("Socket", ""),
    ("FileOrCreate", "new"),
    ("CharDevice", "/dev/null"),
    ("BlockDevice", ""),
):

    @case(
        "hostPath",
        f"type {_type}: what fits is mounted, what does not holds the pod",
        "e2e/storage/host_path_type.go",
    )
    async def host_type(scene: Scene, kind: str = _type, fits: str = _ok) -> None:
        folder = scene.world.home / "shared" / scene.namespace
        (folder / "folder").mkdir(parents=True)
        (folder / "file").write_text("x")
        wrong = "folder" if kind in ("File", "FileOrCreate") else "file"
        await scene.start(mounted("true", volume={"hostPath": {"path": str(folder / wrong), "type": kind}}))
        await scene.event("p", "FailedMount", "hostPath type check failed")
        if fits:
            made = mounted("test -e /v", volume={"hostPath": {"path": str(folder / fits), "type": kind}})
            made["metadata"]["name"] = "q"
            await scene.says(made)


# -- subPath

for _kind in ("configMap", "secret", "downwardAPI", "projected"):

    @case(
        "subPath",
        f"a file and a folder of a {_kind} volume",
        "e2e/storage/subpath.go [Conformance]",
        quick=_kind == "projected",
    )
    async def sub_path(scene: Scene, kind: str = _kind) -> None:
        await scene.make("configmaps", "o", data={"f": "text"})
        await scene.make("secrets", "o", data={"f": value("secret", "text")})
        items = [{"key": "f", "path": "sub/f"}]
        field = [{"path": "sub/f", "fieldRef": {"fieldPath": "metadata.annotations['a']"}}]
        volume = {
            "configMap": {"configMap": {"name": "o", "items": items}},
            "secret": {"secret": {"secretName": "o", "items": items}},
            "downwardAPI": {"downwardAPI": {"items": field}},
            "projected": {"projected": {"sources": [{"configMap": {"name": "o", "items": items}}]}},
        }[kind]
        mounts = [
            {"name": "v", "mountPath": "/folder", "subPath": "sub"},
            {"name": "v", "mountPath": "/etc/passwd", "subPath": "sub/f"},
        ]
        said = await scene.says(
            pod(
                container("cat /folder/f /etc/passwd", volumeMounts=mounts),
                volumes=[{"name": "v", **volume}],
                meta={"annotations": {"a": "text"}},
            )
        )
        assert said == "texttext", said


def expanded(
    expression: str, env: list[dict[str, Any]], script: str = "sleep 600", **more: Any
) -> dict[str, Any]:
    mounts = [
        {"name": "v", "mountPath": "/sub", "subPathExpr": expression},
        {"name": "v", "mountPath": "/all"},
    ]
    made = container(script, env=env, volumeMounts=mounts)
    return pod(made, volumes=[{"name": "v", "emptyDir": {}}], **more)


_NAME = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
_NOTE = {"name": "NOTE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['note']"}}}


@case("subPath", "an expression with variables", "e2e/common/node/expansion.go [Conformance]")
async def expression(scene: Scene) -> None:
    said = await scene.says(expanded("$(POD_NAME)", [_NAME], "touch /sub/f; ls -d /all/p/f"))
    assert said == "/all/p/f\n"


for _asks, _value, _expression in (
    ("an expression that becomes an absolute path is refused", "/tmp", "$(POD_NAME)"),
    ("an expression with backticks is no shell", "..", "`$(POD_NAME)`/.."),
):

    @case("subPath", _asks, "e2e/common/node/expansion.go [Conformance]")
    async def bad_expression(scene: Scene, text: str = _value, expression: str = _expression) -> None:
        made = expanded(expression, [{"name": "POD_NAME", "value": text}])
        try:
            await scene.start(made)
        except Exception as error:
            assert "422" in str(error), error
            return
        await scene.until(
            "p",
            lambda p: (
                status_of(p).get("state", {}).get("waiting", {}).get("reason") == "CreateContainerConfigError"
            ),
            "CreateContainerConfigError",
        )


@case(
    "subPath",
    "an expression that fails is mended by an annotation",
    "e2e/common/node/expansion.go [Slow] [Conformance]",
)
async def mended(scene: Scene) -> None:
    await scene.start(expanded("$(NOTE)/$(POD_NAME)", [_NAME, _NOTE]))
    await scene.until(
        "p",
        lambda p: (
            status_of(p).get("state", {}).get("waiting", {}).get("reason") == "CreateContainerConfigError"
        ),
        "CreateContainerConfigError",
    )
    await scene.patch("pods", "p", {"metadata": {"annotations": {"note": "mypath"}}})
    await scene.ready("p")
    assert await scene.sh("p", "ls -d /all/mypath/p") == "/all/mypath/p\n"


@case(
    "subPath",
    "what is written stays when the annotation changes, and goes with the pod",
    "e2e/common/node/expansion.go [Conformance]",
)
async def written(scene: Scene) -> None:
    await scene.ready(expanded("$(NOTE)/$(POD_NAME)", [_NAME, _NOTE], meta={"annotations": {"note": "foo"}}))
    await scene.sh("p", "touch /sub/test.log; test -f /all/foo/p/test.log")
    await scene.patch("pods", "p", {"metadata": {"annotations": {"note": "bar"}}})
    await scene.sh("p", "test -f /sub/test.log")
    await scene.delete("pods", "p", gracePeriodSeconds=0)
    await scene.is_gone("p")


@case("subPath", "a link out of the volume is not followed", "e2e/storage/testsuites/subpath.go")
async def outside(scene: Scene) -> None:
    mounts = [{"name": "v", "mountPath": "/v"}]
    made = pod(
        container("cat /sub/passwd", volumeMounts=[{"name": "v", "mountPath": "/sub", "subPath": "link"}]),
        initContainers=[container("ln -s /etc /v/link", name="i", volumeMounts=mounts)],
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    await scene.start(made)
    await scene.until(
        "p",
        lambda p: (
            status_of(p).get("state", {}).get("waiting", {}).get("reason") == "CreateContainerConfigError"
        ),
        "CreateContainerConfigError",
    )
    assert not is_ready(scene.seen("p")[-1])


@case("Mounts", "read only, for one container of two", "e2e/common/storage")
async def read_only(scene: Scene) -> None:
    made = pod(
        container("echo no > /v/f", volumeMounts=[{"name": "v", "mountPath": "/v", "readOnly": True}]),
        container("echo yes > /v/g", name="d", volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    ended = await scene.ran(made)
    assert status_of(ended)["state"]["terminated"]["exitCode"] != 0
    assert status_of(ended, "d")["state"]["terminated"]["exitCode"] == 0


@case("Mounts", "a configMap volume takes no writes", "e2e/common/storage")
async def config_read_only(scene: Scene) -> None:
    await scene.make("configmaps", "o", data={"f": "x"})
    ended = await scene.ran(mounted("touch /v/new", volume=source("configMap", "o")))
    assert ended["status"]["phase"] == "Failed"


@case(
    "Mounts", "fifty configMap volumes in one pod", "e2e/storage/empty_dir_wrapper.go [Serial] [Conformance]"
)
async def fifty(scene: Scene) -> None:
    names = [f"m{number}" for number in range(50)]
    for name in names:
        await scene.make("configmaps", name, data={"f": f"{name}\n"})
    mounts = [{"name": name, "mountPath": f"/v/{name}"} for name in names]
    volumes = [{"name": name, **source("configMap", name)} for name in names]
    said = await scene.says(pod(container("cat /v/*/f | wc -l", volumeMounts=mounts), volumes=volumes))
    assert said == "50\n"


@case(
    "Mounts",
    "a container sees a mount that another makes, with mount propagation",
    "e2e_node/mount_propagation [privileged]",
)
async def propagation(scene: Scene) -> None:
    def mount(how: str) -> list[dict[str, Any]]:
        return [{"name": "v", "mountPath": "/v", "mountPropagation": how}]

    folder = scene.world.home / "shared" / scene.namespace
    made = pod(
        container(
            "mkdir -p /v/m; mount -t tmpfs t /v/m; echo x > /v/m/f; "
            "touch /v/made; until test -f /v/seen; do sleep 0.2; done; umount /v/m",
            securityContext={"privileged": True},
            volumeMounts=mount("Bidirectional"),
        ),
        container(
            "until test -f /v/made; do sleep 0.2; done; cat /v/m/f; touch /v/seen",
            name="d",
            volumeMounts=mount("HostToContainer"),
        ),
        volumes=[{"name": "v", "hostPath": {"path": str(folder), "type": "Directory"}}],
    )
    folder.mkdir(parents=True)
    for command in (["mount", "--bind", folder, folder], ["mount", "--make-shared", folder]):
        subprocess.run(command, check=True)
    try:
        await scene.says(made)
        assert await scene.logs("p", "d") == "x\n"
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
