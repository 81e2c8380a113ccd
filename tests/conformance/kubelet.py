"""The node: logs, names, images, its status, and what it measures."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from pathlib import Path

from tests.conformance.case import NotHere, Scene, case, container, pod, restarts, status_of
from tests.conformance.environment import CONFORMANCE
from tests.conformance.world import Json

SOURCE = "e2e/common/node/kubelet.go"


@case("Kubelet", "what a container says is its log", f"{SOURCE} {CONFORMANCE}")
async def log(scene: Scene) -> None:
    assert await scene.says(pod("echo Hello World; echo err >&2")) in (
        "Hello World\nerr\n",
        "err\nHello World\n",
    )


@case("Kubelet", "a command that always fails has a reason, and can be deleted", f"{SOURCE} {CONFORMANCE}")
async def fails(scene: Scene) -> None:
    ended = await scene.ran(pod(container("/bin/false") | {"command": ["/bin/false"]}))
    state = status_of(ended)["state"]["terminated"]
    assert (state["reason"], state["exitCode"]) == ("Error", 1)
    assert state["startedAt"] <= state["finishedAt"]
    assert state["containerID"].startswith("containerd://")
    await scene.delete("pods", "p")
    await scene.is_gone("p")


@case("Kubelet", "a command that is not there: StartError", "e2e_node")
async def no_command(scene: Scene) -> None:
    ended = await scene.ran(pod(container("x") | {"command": ["/no/such"]}))
    state = status_of(ended)["state"]["terminated"]
    assert (state["reason"], state["exitCode"]) == ("StartError", 128), state


@case("Kubelet", "host aliases are in /etc/hosts", f"{SOURCE} {CONFORMANCE}", quick=True)
async def aliases(scene: Scene) -> None:
    said = await scene.says(
        pod("cat /etc/hosts", hostAliases=[{"ip": "123.45.67.89", "hostnames": ["foo", "bar"]}])
    )
    assert said.startswith("# Kubernetes-managed hosts file."), said
    assert "123.45.67.89\tfoo\tbar" in said, said


@case("Kubelet", "a root that is read only takes no file", f"{SOURCE} {CONFORMANCE}")
async def read_only(scene: Scene) -> None:
    said = await scene.says(
        pod(container("echo test > /file; sleep 0", securityContext={"readOnlyRootFilesystem": True}))
    )
    assert "Read-only file system" in said or "can't create /file" in said, said


@case(
    "Kubelet",
    "/etc/hosts is managed, unless a volume is there or the network is the host's",
    f"e2e/common/node/kubelet_etc_hosts.go {CONFORMANCE}",
)
async def etc_hosts(scene: Scene) -> None:
    mount = [{"name": "h", "mountPath": "/etc/hosts"}]
    made = pod(
        container("cat /etc/hosts", name="a"),
        container("cat /etc/hosts", name="b"),
        container("cat /etc/hosts", name="own", volumeMounts=mount),
        volumes=[{"name": "h", "hostPath": {"path": "/etc/hosts", "type": "File"}}],
    )
    await scene.ran(made)
    hosts = Path("/etc/hosts").read_text()
    for name in ("a", "b"):
        assert (await scene.logs("p", name)).startswith("# Kubernetes-managed hosts file.\n")
    assert await scene.logs("p", "own") == hosts
    said = await scene.says(pod("cat /etc/hosts", name="host", hostNetwork=True))
    assert said.startswith("# Kubernetes-managed hosts file (host network).\n"), said
    assert hosts in said


# -- names


@case("Names", "a pod's name is its host name, cut at 63", "e2e_node/hostname")
async def host_name(scene: Scene) -> None:
    assert await scene.says(pod("hostname; cat /etc/hostname")) == "p\np\n"
    name = "a" * 62 + ".b"
    said = await scene.says(pod("hostname", name=name))
    assert said == "a" * 62 + "\n", said


@case(
    "Names", "host name and subdomain, as a full name where asked", "e2e/common/node/pod_hostnameoverride.go"
)
async def subdomain(scene: Scene) -> None:
    made = pod(
        "hostname; hostname -f; grep myname /etc/hosts | cut -f2,3", hostname="myname", subdomain="sub"
    )
    said = (await scene.says(made)).splitlines()
    full = f"myname.sub.{scene.namespace}.svc.cluster.local"
    assert said == ["myname", full, f"{full}\tmyname"], said
    made = pod("hostname", name="q", hostname="myname", subdomain="sub", setHostnameAsFQDN=True)
    assert await scene.says(made) == f"{full}\n"


@case("Names", "hostnameOverride decides", "e2e/common/node/pod_hostnameoverride.go [HostnameOverride]")
async def override(scene: Scene) -> None:
    said = await scene.says(
        pod("hostname; grep -c override.example /etc/hosts", hostnameOverride="override.example")
    )
    assert said == "override.example\n1\n", said


@case("Names", "name servers, searches and options of one's own", "e2e/network/dns.go [Conformance]")
async def dns(scene: Scene) -> None:
    config = {
        "nameservers": ["1.1.1.1"],
        "searches": ["resolv.conf.local"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    }
    said = await scene.says(pod("cat /etc/resolv.conf", dnsPolicy="None", dnsConfig=config))
    assert [line.strip() for line in said.splitlines() if line.strip()] == [
        "nameserver 1.1.1.1",
        "search resolv.conf.local",
        "options ndots:2 edns0",
    ] or set(said.split("\n")) >= {
        "nameserver 1.1.1.1",
        "search resolv.conf.local",
        "options ndots:2 edns0",
    }, said


@case("Names", "the host's name servers by dnsPolicy Default", "e2e/network/dns.go")
async def dns_default(scene: Scene) -> None:
    said = await scene.says(pod("cat /etc/resolv.conf", dnsPolicy="Default"))
    wanted = re.findall(r"^nameserver\s+(\S+)", Path("/etc/resolv.conf").read_text(), re.M)
    assert re.findall(r"^nameserver\s+(\S+)", said, re.M) == wanted[:3], said


# -- network

WEB = "mkdir -p /tmp/www; hostname > /tmp/www/name; httpd -f -p 8080 -h /tmp/www"


@case("Network", "pod to pod by HTTP", f"e2e/common/network/networking.go {CONFORMANCE}", quick=True)
async def pod_to_pod(scene: Scene) -> None:
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    server = await scene.ready(pod(container(WEB, readinessProbe=probe), name="server"))
    address = server["status"]["podIP"]
    assert await scene.says(pod(f"wget -qO- http://{address}:8080/name", name="client")) == "server\n"


@case("Network", "node to pod by HTTP", f"e2e/common/network/networking.go {CONFORMANCE}")
async def node_to_pod(scene: Scene) -> None:
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    server = await scene.ready(pod(container(WEB, readinessProbe=probe), name="server"))
    address = server["status"]["podIP"]
    assert (
        await scene.says(pod(f"wget -qO- http://{address}:8080/name", name="client", hostNetwork=True))
        == "server\n"
    )


_UDP = r"""
#include <arpa/inet.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>
int main(int argc, char **argv) {
  int s = socket(AF_INET, SOCK_DGRAM, 0);
  char b[512];
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(8081)}, from;
  socklen_t l = sizeof from;
  struct timeval second = {.tv_sec = 1};
  if (argc > 1) {
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);
    inet_pton(AF_INET, argv[1], &to.sin_addr);
    for (int i = 0; i < 20; i++) {
      sendto(s, "who", 3, 0, (void *)&to, sizeof to);
      ssize_t n = recv(s, b, sizeof b, 0);
      if (n > 0) return write(1, b, n) != n;
    }
    return 1;
  }
  if (bind(s, (void *)&to, sizeof to)) return 1;
  while (recvfrom(s, b, 100, 0, (void *)&from, &l) >= 0) {
    gethostname(b, 500);
    strcat(b, "\n");
    sendto(s, b, strlen(b), 0, (void *)&from, l);
  }
  return 1;
}
"""


for _host in (False, True):

    @case(
        "Network",
        f"{'node' if _host else 'pod'} to pod by UDP",
        f"e2e/common/network/networking.go {CONFORMANCE}",
    )
    async def udp(scene: Scene, host: bool = _host) -> None:
        folder = scene.world.home / "shared" / scene.namespace
        folder.mkdir(parents=True)
        (folder / "udp.c").write_text(_UDP)
        made = subprocess.run(
            ["gcc", "-static", "-w", "-o", folder / "udp", folder / "udp.c"], check=False, capture_output=True
        )
        if made.returncode != 0:
            raise NotHere("no C compiler with a static libc")
        more = {"volumes": [{"name": "v", "hostPath": {"path": str(folder)}}]}
        mount = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
        server = await scene.ready(pod(container("exec /v/udp", **mount), name="server", **more))
        client = pod(
            container(f"/v/udp {server['status']['podIP']}", **mount), name="client", hostNetwork=host, **more
        )
        assert await scene.says(client) == "server\n"


@case("Network", "a host port leads to the pod", "e2e/network/hostport.go [Conformance]")
async def host_port(scene: Scene) -> None:
    ports = [{"containerPort": 8080, "hostPort": 21998, "hostIP": scene.world.host}]
    await scene.ready(
        pod(
            container(WEB, ports=ports, readinessProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1}),
            name="server",
        )
    )
    url = f"http://{scene.world.host}:21998/name"
    assert await scene.says(pod(f"wget -qO- {url}", name="client", hostNetwork=True)) == "server\n"
    assert await scene.says(pod(f"wget -qO- {url}", name="client2")) == "server\n"


# -- images


@case(
    "Images",
    "one that may not be pulled and is not here: ErrImageNeverPull",
    "e2e/common/node/runtime.go [NodeConformance]",
)
async def never_pull(scene: Scene) -> None:
    await scene.start(pod({"name": "c", "image": "skerry.test/no/such:1", "imagePullPolicy": "Never"}))
    await scene.until(
        "p",
        lambda p: status_of(p).get("state", {}).get("waiting", {}).get("reason") == "ErrImageNeverPull",
        "ErrImageNeverPull",
    )
    await scene.event("p", "ErrImageNeverPull")


@case(
    "Images",
    "one that is in no registry: ErrImagePull, then ImagePullBackOff",
    "e2e/common/node/runtime.go [NodeConformance]",
    quick=True,
)
async def no_image(scene: Scene) -> None:
    await scene.start(pod({"name": "c", "image": "127.0.0.1:1/no/such:1"}))
    for reason in ("ErrImagePull", "ImagePullBackOff"):
        await scene.until(
            "p",
            lambda p, r=reason: any(
                status_of(s).get("state", {}).get("waiting", {}).get("reason") == r for s in scene.seen("p")
            ),
            reason,
        )
    await scene.event("p", "Pulling", 'Pulling image "127.0.0.1:1/no/such:1"')
    await scene.event("p", "Failed", 'Failed to pull image "127.0.0.1:1/no/such:1"')
    await scene.event("p", "Failed", "Error: ErrImagePull")
    await scene.event("p", "BackOff", 'Back-off pulling image "127.0.0.1:1/no/such:1"')


@case("Images", "a name that is none: InvalidImageName", "e2e/common/node/runtime.go")
async def bad_name(scene: Scene) -> None:
    await scene.start(pod({"name": "c", "image": "UPPER/case:::1"}))
    await scene.until(
        "p",
        lambda p: status_of(p).get("state", {}).get("waiting", {}).get("reason") == "InvalidImageName",
        "InvalidImageName",
    )


@case("Images", "its name and digest are in the status", "e2e_node/image_id_test.go")
async def image_id(scene: Scene) -> None:
    ready = await scene.ready(pod("sleep 600"))
    assert re.fullmatch(r"(\S+@)?sha256:[0-9a-f]{64}", status_of(ready)["imageID"]), status_of(ready)


@case("Images", "with credentials from a registry", "e2e/common/node/runtime.go [NodeConformance]")
async def credentials(scene: Scene) -> None:
    raise NotHere("no registry on this machine; tests of edged's images ask this of a registry's answers")


# -- the node


@case("Node", "renews its lease, which is the node's", "e2e/common/node/node_lease.go [NodeConformance]")
async def lease(scene: Scene) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{scene.world.node}"
    first = await scene.world.call("GET", path)
    node = await scene.world.call("GET", f"/api/v1/nodes/{scene.world.node}")
    assert first["spec"]["holderIdentity"] == scene.world.node
    assert first["spec"]["leaseDurationSeconds"] == 40
    owner = first["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["uid"]) == ("Node", node["metadata"]["uid"])

    async def renewed() -> bool:
        return bool((await scene.world.call("GET", path))["spec"]["renewTime"] > first["spec"]["renewTime"])

    await scene.settled(renewed, "a renewal", 40)


@case(
    "Node",
    "tells conditions, capacity, images and what it is",
    "e2e/common/node/node_lease.go [NodeConformance]",
)
async def node_status(scene: Scene) -> None:
    status = (await scene.world.call("GET", f"/api/v1/nodes/{scene.world.node}"))["status"]
    conditions = {one["type"]: one["status"] for one in status["conditions"]}
    expected = {"Ready": "True", "MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False"}
    assert expected.items() <= conditions.items(), conditions
    for kind in ("cpu", "memory", "pods", "ephemeral-storage"):
        assert kind in status["capacity"], status["capacity"]
        assert kind in status["allocatable"], status["allocatable"]
    info = status["nodeInfo"]
    for field in (
        "architecture",
        "bootID",
        "containerRuntimeVersion",
        "kernelVersion",
        "kubeletVersion",
        "machineID",
        "operatingSystem",
        "osImage",
        "systemUUID",
    ):
        assert info.get(field), (field, info)
    assert any("busybox" in name for image in status["images"] for name in image["names"])
    assert {one["type"] for one in status["addresses"]} >= {"InternalIP", "Hostname"}


@case(
    "Node",
    "labels of system and architecture come back",
    "e2e_node/os_label_rename_test.go [Serial]",
    alone=True,
)
async def label(scene: Scene) -> None:
    path = f"/api/v1/nodes/{scene.world.node}"
    await scene.world.call(
        "PATCH",
        path,
        {"metadata": {"labels": {"kubernetes.io/os": "dummyOS", "kubernetes.io/arch": "dummy"}}},
        kind="application/merge-patch+json",
    )

    async def back() -> bool:
        labels = (await scene.world.call("GET", path))["metadata"]["labels"]
        return bool(
            labels.get("kubernetes.io/os") == "linux"
            and labels.get("kubernetes.io/arch") not in ("dummy", None)
        )

    await scene.settled(back, "the labels again", 400)


def proxy(scene: Scene, path: str) -> str:
    return f"/api/v1/nodes/{scene.world.node}/proxy/{path}"


def within(told: Json, bounds: dict[str, tuple[float, float]]) -> None:
    """Each figure is there, in its bounds."""
    for path, (low, high) in bounds.items():
        value = told
        for part in path.split("."):
            assert part in value, f"{path}: no {part} in {value}"
            value = value[part]
        assert low <= float(value) <= high, f"{path}: {value} is not in {low} to {high}"


_MB, _BIG = 1 << 20, 1e15


@case("Measures", "/stats/summary of node and pods", "e2e_node/summary_test.go [NodeConformance]")
async def summary(scene: Scene) -> None:
    made = pod(
        container(
            "while :; do echo hi > /v/f; wget -qO- http://127.0.0.1:1 2>/dev/null; sleep 0.1; done",
            volumeMounts=[{"name": "v", "mountPath": "/v"}],
            resources={"limits": {"memory": "80Mi"}},
        ),
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    await scene.ready(made)
    seen: list[Json] = []

    async def there() -> bool:
        told = await scene.world.call("GET", proxy(scene, "stats/summary"))
        ours = [one for one in told["pods"] if one["podRef"]["namespace"] == scene.namespace]
        seen[:] = [told, *ours]
        try:
            return (
                bool(ours)
                and bool(ours[0]["containers"][0]["cpu"].get("usageNanoCores"))
                and "volume" in ours[0]
                and ours[0]["containers"][0]["rootfs"].get("usedBytes") is not None
            )
        except LookupError:
            return False

    await scene.settled(there, "the pod in the summary", 90)
    told, ours = seen
    within(
        told["node"],
        {
            "cpu.usageNanoCores": (1e4, 64e9),
            "cpu.usageCoreNanoSeconds": (1e6, _BIG),
            "memory.availableBytes": (100 * _MB, _BIG),
            "memory.usageBytes": (10 * _MB, _BIG),
            "memory.workingSetBytes": (10 * _MB, _BIG),
            "memory.rssBytes": (1024, _BIG),
            "memory.pageFaults": (1, _BIG),
            "memory.majorPageFaults": (0, _BIG),
            "network.rxBytes": (0, _BIG),
            "network.txBytes": (0, _BIG),
            "network.rxErrors": (0, _BIG),
            "fs.availableBytes": (100 * _MB, _BIG),
            "fs.capacityBytes": (100 * _MB, _BIG),
            "fs.usedBytes": (1024, _BIG),
            "fs.inodes": (1e3, _BIG),
            "fs.inodesFree": (1e3, _BIG),
            "fs.inodesUsed": (0, _BIG),
            "runtime.imageFs.availableBytes": (100 * _MB, _BIG),
            "runtime.imageFs.usedBytes": (1024, _BIG),
            "rlimit.maxpid": (0, 1e8),
            "rlimit.curproc": (0, 1e8),
        },
    )
    assert told["node"]["nodeName"] == scene.world.node
    assert told["node"]["startTime"]
    within(
        ours,
        {
            "cpu.usageNanoCores": (1, 2e9),
            "cpu.usageCoreNanoSeconds": (1, _BIG),
            "memory.workingSetBytes": (1024, 200 * _MB),
            "memory.usageBytes": (1024, 200 * _MB),
            "network.rxBytes": (0, _BIG),
            "network.txBytes": (0, _BIG),
            "ephemeral-storage.usedBytes": (1, _BIG),
            "ephemeral-storage.availableBytes": (100 * _MB, _BIG),
            "process_stats.process_count": (1, 1000),
        },
    )
    within(
        ours["containers"][0],
        {
            "cpu.usageNanoCores": (1, 2e9),
            "memory.availableBytes": (1, 80 * _MB),
            "memory.workingSetBytes": (1024, 80 * _MB),
            "memory.rssBytes": (1, 80 * _MB),
            "memory.pageFaults": (1, 1e9),
            "rootfs.usedBytes": (0, 100 * _MB),
            "rootfs.capacityBytes": (100 * _MB, _BIG),
            "rootfs.inodesUsed": (0, 1e6),
            "logs.usedBytes": (0, 100 * _MB),
            "logs.availableBytes": (100 * _MB, _BIG),
        },
    )
    volume = next(one for one in ours["volume"] if one["name"] == "v")
    within(
        volume,
        {
            "usedBytes": (1, _MB),
            "capacityBytes": (100 * _MB, _BIG),
            "availableBytes": (100 * _MB, _BIG),
            "inodesUsed": (1, 1000),
            "inodes": (1e3, _BIG),
        },
    )


@case(
    "Measures",
    "/metrics/resource of node, pods and containers",
    "e2e_node/resource_metrics_test.go [NodeConformance]",
)
async def resource_metrics(scene: Scene) -> None:
    await scene.ready(pod("while :; do :; done"))
    names = (
        "node_cpu_usage_seconds_total",
        "node_memory_working_set_bytes",
        "pod_cpu_usage_seconds_total",
        "pod_memory_working_set_bytes",
        "container_cpu_usage_seconds_total",
        "container_memory_working_set_bytes",
        "container_start_time_seconds",
        "resource_scrape_error",
        "scrape_error",
    )

    async def there() -> bool:
        text = await scene.world.text(proxy(scene, "metrics/resource"))
        return f'namespace="{scene.namespace}"' in text and all(
            re.search(rf"^{name}[{{ ]", text, re.M) for name in names
        )

    await scene.settled(there, "all of " + ", ".join(names), 60)
    text = await scene.world.text(proxy(scene, "metrics/resource"))
    assert re.search(r"^resource_scrape_error 0", text, re.M), text[:500]
    assert re.search(
        rf'^container_memory_working_set_bytes{{container="c",namespace="{scene.namespace}",pod="p"}} ',
        text,
        re.M,
    )


@case("Measures", "/healthz, /metrics and /pods", "e2e_node")
async def endpoints(scene: Scene) -> None:
    assert await scene.world.text(proxy(scene, "healthz")) == "ok"
    await scene.ready(pod("sleep 600"))
    listed = await scene.world.call("GET", proxy(scene, "pods"))
    assert any(one["metadata"]["namespace"] == scene.namespace for one in listed["items"])
    assert "_total" in await scene.world.text(proxy(scene, "metrics"))


@case("Measures", "/metrics/cadvisor of containers", "e2e_node/container_metrics_test.go [NodeConformance]")
async def cadvisor(scene: Scene) -> None:
    await scene.ready(pod("sleep 600"))

    async def there() -> bool:
        text = await scene.world.text(proxy(scene, "metrics/cadvisor"))
        return f'namespace="{scene.namespace}"' in text and "container_cpu_usage_seconds_total" in text

    await scene.settled(there, "the container", 60)


@case("Measures", "/metrics/probes counts probes", "e2e_node/container_metrics_test.go")
async def probe_metrics(scene: Scene) -> None:
    await scene.ready(
        pod(container("sleep 600", readinessProbe={"exec": {"command": ["true"]}, "periodSeconds": 1}))
    )

    async def there() -> bool:
        text = await scene.world.text(proxy(scene, "metrics/probes"))
        return bool(
            re.search(
                rf'^prober_probe_total{{[^}}]*namespace="{scene.namespace}"[^}}]*result="successful"',
                text,
                re.M,
            )
        )

    await scene.settled(there, "prober_probe_total", 60)


@case(
    "Measures",
    "logs of the machine's containers lie where collectors look",
    "e2e_node/log_path_test.go [NodeConformance]",
)
async def log_path(scene: Scene) -> None:
    ready = await scene.ready(pod("echo hello; sleep 600"))
    identity = f"{scene.namespace}_p_{ready['metadata']['uid']}"
    found = [folder for folder in (scene.world.home / "edge" / "logs").rglob(identity) if folder.is_dir()]
    assert found, identity
    log = found[0] / "c" / "0.log"

    async def written() -> bool:
        return re.fullmatch(r"\S+ stdout F hello\n", log.read_text()) is not None

    await scene.settled(written, "the line", 20)


@case("Kubelet", "events of a pod's life", "e2e/common/events.go")
async def events(scene: Scene) -> None:
    await scene.ready(pod("sleep 600"))
    await scene.event("p", "Scheduled", f"Successfully assigned {scene.namespace}/p to {scene.world.node}")
    await scene.event("p", "Pulled", "already present on machine")
    for reason, words in (("Created", "c"), ("Started", "c")):
        found = await scene.event("p", reason, words)
        assert found["involvedObject"]["fieldPath"] == "spec.containers{c}", found
        assert found["source"]["component"] == "kubelet", found
        assert found["source"]["host"] == scene.world.node, found
    await scene.delete("pods", "p")
    await scene.is_gone("p")
    await scene.event("p", "Killing", "Stopping container c")


@case(
    "Kubelet",
    "critical pods make room by ending others",
    "e2e_node/critical_pod_test.go [Serial]",
    alone=True,
)
async def critical(scene: Scene) -> None:
    node = await scene.world.call("GET", f"/api/v1/nodes/{scene.world.node}")
    can = node["status"]["allocatable"]["cpu"]
    cpu = int(can[:-1]) if can.endswith("m") else int(can) * 1000
    listed = await scene.world.call("GET", "/api/v1/pods")
    used = 0
    for one in listed["items"]:
        if one["status"].get("phase") in ("Succeeded", "Failed"):
            continue
        for item in one["spec"]["containers"]:
            asked = item.get("resources", {}).get("requests", {}).get("cpu", "0")
            used += int(asked[:-1]) if asked.endswith("m") else int(float(asked) * 1000)
    free = cpu - used
    large = {"requests": {"cpu": f"{free - 200}m"}}
    await scene.ready(
        pod(container("sleep 600", resources=large), name="burstable", nodeName=scene.world.node)
    )
    await scene.ready(pod(container("sleep 600"), name="besteffort", nodeName=scene.world.node))
    critical = pod(
        container("sleep 600", resources={"requests": {"cpu": f"{free - 300}m"}}),
        name="critical",
        nodeName=scene.world.node,
        priorityClassName="system-node-critical",
    )
    await scene.ready(critical)
    seen = await scene.until("burstable", lambda p: p["status"]["phase"] == "Failed", "preempted")
    assert seen["status"]["reason"] == "Preempting", seen["status"]
    assert scene.seen("besteffort")[-1]["status"]["phase"] == "Running"


@case("Kubelet", "a container is restarted after it was killed from outside", "e2e_node/restart_test.go")
async def killed(scene: Scene) -> None:
    await scene.ready(pod("sleep 600", restartPolicy="Always"))
    await scene.exec("p", "kill", "-9", "-1")
    await scene.exec("p", "kill", "1")
    await asyncio.sleep(0)
    await scene.settled(lambda: kill(scene), "a restart", 60)


async def kill(scene: Scene) -> bool:
    name = status_of(scene.seen("p")[-1]).get("containerID", "").removeprefix("containerd://")
    if restarts(scene.seen("p")[-1]):
        return True
    socket = scene.world.home / "containerd" / "containerd.sock"
    subprocess.run(
        ["ctr", "-a", socket, "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", name],
        check=False,
        capture_output=True,
    )
    await asyncio.sleep(1)
    return bool(restarts(scene.seen("p")[-1]))


@case("Kubelet", "figures of the node as `kubectl top` reads them", "e2e/instrumentation")
async def top(scene: Scene) -> None:
    await scene.ready(pod("sleep 600"))

    async def there() -> bool:
        try:
            told = await scene.world.call(
                "GET", f"/apis/metrics.k8s.io/v1beta1/namespaces/{scene.namespace}/pods/p"
            )
        except Exception:
            return False
        return bool(json.dumps(told["containers"][0]["usage"]))

    await scene.settled(there, "metrics.k8s.io", 90)
