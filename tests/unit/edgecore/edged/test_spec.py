from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from edgecore.edged import cri, spec
from edgecore.edged.config import EdgedConfig
from edgecore.edged.errors import Held
from edgecore.edged.pod import Pod
from edgecore.edged.runtime import ContainerConfig, Dns, ImageUser, SecurityProfile
from tests.unit.edgecore.edged.builders import c, make

CONFIG = EdgedConfig(log_dir=Path("/logs"), seccomp_dir=Path("/seccomp"))
HOST = Dns(servers=("1.1.1.1",), searches=("lan",), options=("timeout:1",))
ROOT = ImageUser()


def told(pod: Pod, user: ImageUser = ROOT) -> ContainerConfig:
    return spec.container_config(
        pod,
        pod.spec.containers[0],
        restart_count=2,
        image="sha256:1",
        image_user=user,
        env={"A": "1"},
        command=("run",),
        args=(),
        mounts=(),
        config=CONFIG,
        memory_capacity=1000 * 2**20,
    )


def box_of(pod: Pod) -> Any:
    return spec.sandbox_config(pod, attempt=1, config=CONFIG, dns=HOST, kept=b"{}")


def test_a_sandbox_is_labelled_as_a_kubelet_does() -> None:
    config = box_of(
        make(meta={"labels": {"a": "b", "io.kubernetes.pod.uid": "forged"}, "annotations": {"x": "y"}})
    )
    assert config.labels == {
        "a": "b",
        "io.kubernetes.pod.name": "p",
        "io.kubernetes.pod.namespace": "ns",
        "io.kubernetes.pod.uid": "u",
    }
    assert config.annotations == {"x": "y", "skerry.dev/pod": "{}"}
    assert config.log_directory == "/logs/ns_p_u"
    assert config.hostname == "p"
    assert box_of(make(hostNetwork=True)).hostname == ""


def test_a_container_is_labelled_as_a_kubelet_does() -> None:
    pod = make(c(lifecycle={"preStop": {"exec": {"command": ["bye"]}}}))
    config = told(pod)
    assert config.labels == {
        "io.kubernetes.container.name": "c",
        "io.kubernetes.pod.name": "p",
        "io.kubernetes.pod.namespace": "ns",
        "io.kubernetes.pod.uid": "u",
    }
    assert config.annotations["io.kubernetes.container.restartCount"] == "2"
    assert config.annotations["io.kubernetes.pod.terminationGracePeriod"] == "30"
    assert config.annotations["io.kubernetes.container.preStopHandler"] == '{"exec":{"command":["bye"]}}'
    assert config.log_path == "c/2.log"
    assert (config.image, config.user_image) == ("sha256:1", "i:1")


@pytest.mark.parametrize(
    ("resources", "parent"),
    [
        ({}, "/kubepods/besteffort/podu"),
        ({"requests": {"cpu": "1"}}, "/kubepods/burstable/podu"),
        ({"limits": {"cpu": "1", "memory": "1"}}, "/kubepods/podu"),
    ],
)
def test_cgroup_parents(resources: dict[str, Any], parent: str) -> None:
    pod = make(c(resources=resources))
    assert spec.cgroup_parent(CONFIG, pod) == parent
    assert spec.cgroup_parent(replace(CONFIG, cgroup_root=""), pod) == ""


def test_systemd_slices_escape() -> None:
    pod = make(meta={"uid": "a-b"})
    config = replace(CONFIG, cgroup_driver="systemd")
    assert spec.cgroup_parent(config, pod) == "kubepods-besteffort-poda_b.slice"


def test_host_ports() -> None:
    ports = [
        {"containerPort": 80},
        {"containerPort": 53, "hostPort": 5353, "protocol": "UDP", "hostIP": "127.0.0.1"},
    ]
    (mapped,) = box_of(make(c(ports=ports))).ports
    assert (mapped.container_port, mapped.host_port, mapped.protocol, mapped.host_ip) == (
        53,
        5353,
        "UDP",
        "127.0.0.1",
    )
    assert box_of(make(c(ports=ports), hostNetwork=True)).ports == ()


@pytest.mark.parametrize(
    ("pod_context", "context", "image", "says"),
    [
        ({"runAsNonRoot": True}, {}, ROOT, "will run as root"),
        ({"runAsNonRoot": True}, {}, ImageUser(uid=0), "will run as root"),
        ({}, {"runAsNonRoot": True, "runAsUser": 0}, ROOT, "breaks non-root policy"),
        ({"runAsUser": 0}, {"runAsNonRoot": True}, ImageUser(uid=5), "breaks non-root policy"),
        ({}, {"runAsNonRoot": True}, ImageUser(name="web"), "non-numeric user"),
        ({}, {"runAsUser": 2**32}, ROOT, "runAsUser must be between"),
        ({"runAsNonRoot": True}, {}, ImageUser(uid=2**32), "image's user must be between"),
        ({}, {}, ImageUser(uid=-1), "image's user must be between"),
        ({}, {"runAsUser": -1}, ROOT, "runAsUser must be between"),
        ({}, {"runAsGroup": 2**31}, ROOT, "runAsGroup must be between"),
        ({}, {"seccompProfile": {"type": "Localhost"}}, ROOT, "seccomp profile cannot be used"),
        ({}, {"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}}, ROOT, "seccomp"),
        ({}, {"seccompProfile": {"type": "Localhost", "localhostProfile": "/x"}}, ROOT, "seccomp"),
        ({}, {"seccompProfile": {"type": "Odd"}}, ROOT, "seccomp profile cannot be used"),
        ({}, {"appArmorProfile": {"type": "Localhost"}}, ROOT, "AppArmor profile cannot be used"),
    ],
)
def test_what_a_kubelet_refuses(pod_context: Any, context: Any, image: ImageUser, says: str) -> None:
    with pytest.raises(Held) as held:
        told(make(c(securityContext=context), securityContext=pod_context), image)
    assert says in str(held.value)
    assert held.value.reason == "CreateContainerConfigError"


@pytest.mark.parametrize(
    ("pod_context", "context", "image", "user"),
    [
        ({}, {}, ROOT, (None, None, "")),
        ({}, {}, ImageUser(uid=7), (7, None, "")),
        ({}, {}, ImageUser(name="web"), (None, None, "web")),
        ({"runAsUser": 1, "runAsGroup": 2}, {}, ImageUser(name="web"), (1, 2, "")),
        ({"runAsUser": 1}, {"runAsUser": 3}, ROOT, (3, None, "")),
        ({"runAsNonRoot": True}, {"runAsNonRoot": False}, ROOT, (None, None, "")),
        ({}, {"runAsNonRoot": True}, ImageUser(uid=7), (7, None, "")),
    ],
)
def test_users(pod_context: Any, context: Any, image: ImageUser, user: tuple[Any, ...]) -> None:
    config = told(make(c(securityContext=context), securityContext=pod_context), image)
    assert (config.run_as_user, config.run_as_group, config.run_as_username) == user


def test_security_settings() -> None:
    plain = told(make())
    assert plain.seccomp == SecurityProfile(kind="Unconfined")
    assert "/proc/kcore" in plain.masked_paths
    assert not plain.no_new_privs
    context = {
        "privileged": True,
        "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
    }
    strict = told(make(c(securityContext=context), securityContext={"supplementalGroups": [5], "fsGroup": 6}))
    assert strict.masked_paths == ()
    assert (strict.capabilities_add, strict.capabilities_drop) == (("NET_ADMIN",), ("ALL",))
    assert strict.no_new_privs
    assert strict.readonly_rootfs
    assert strict.supplemental_groups == (5, 6)
    default = told(make(securityContext={"seccompProfile": {"type": "RuntimeDefault"}}))
    assert default.seccomp == SecurityProfile(kind="RuntimeDefault")
    local = told(
        make(securityContext={"seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}})
    )
    assert local.seccomp == SecurityProfile(kind="Localhost", localhost_ref="/seccomp/a/b.json")


def test_sysctls() -> None:
    ok = box_of(make(securityContext={"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}))
    assert ok.sysctls == {"net.ipv4.tcp_syncookies": "1"}
    slashes = {"name": "net/ipv4/ip_local_port_range", "value": "1024 65535"}
    assert box_of(make(securityContext={"sysctls": [slashes]})).sysctls == {
        "net.ipv4.ip_local_port_range": "1024 65535"
    }
    odd = {"name": "net/ipv4.x", "value": "1"}
    with pytest.raises(Held, match=r"net\.ipv4/x"):
        box_of(make(securityContext={"sysctls": [odd]}))
    with pytest.raises(Held) as held:
        box_of(make(securityContext={"sysctls": [{"name": "kernel.panic", "value": "1"}]}))
    assert held.value.reason == "SysctlForbidden"


@pytest.mark.parametrize(
    ("resources", "shares", "quota", "memory", "oom"),
    [
        ({}, 2, 0, 0, 1000),
        ({"limits": {"cpu": "500m", "memory": "100Mi"}}, 512, 50_000, 100 * 2**20, -997),
        ({"requests": {"cpu": "250m", "memory": "100Mi"}}, 256, 0, 0, 900),
        ({"limits": {"cpu": "1m"}}, 2, 1000, 0, 999),
        ({"requests": {"cpu": "100000"}}, 262144, 0, 0, 999),
    ],
)
def test_resources(resources: Any, shares: int, quota: int, memory: int, oom: int) -> None:
    got = told(make(c(resources=resources))).resources
    assert (got.cpu_shares, got.cpu_quota_us, got.memory_limit_bytes, got.oom_score_adj) == (
        shares,
        quota,
        memory,
        oom,
    )


def test_a_container_may_use_what_its_pod_may() -> None:
    own = {"limits": {"memory": "10Mi"}, "requests": {"cpu": "100m", "memory": "10Mi"}}
    pod = make(
        c("a"),
        c("b", resources=own),
        resources={"requests": {"cpu": "500m", "memory": "110Mi"}, "limits": {"cpu": "1", "memory": "200Mi"}},
    )
    first, second = (spec.resources(pod, container, 1000 * 2**20) for container in pod.spec.containers)
    assert (first.cpu_shares, first.cpu_quota_us, first.memory_limit_bytes) == (1024, 100_000, 200 * 2**20)
    assert (second.cpu_shares, second.cpu_quota_us, second.memory_limit_bytes) == (102, 100_000, 10 * 2**20)
    # 100Mi of 1000Mi that no container asks for are shared by both
    assert (first.oom_score_adj, second.oom_score_adj) == (950, 940)


def test_a_sidecar_lives_as_long_as_what_it_serves() -> None:
    def asks(amount: str) -> dict[str, Any]:
        return {"resources": {"requests": {"memory": amount}}}

    pod = make(
        c("a", **asks("300Mi")),
        c("b", **asks("200Mi")),
        initContainers=[c("s", restartPolicy="Always", **asks("10Mi")), c("i", **asks("10Mi"))],
    )
    scores = {e.name: spec.oom_score_adj(pod, e, 1000 * 2**20) for e in pod.all_containers()}
    assert scores == {"a": 700, "b": 800, "s": 800, "i": 990}


def test_a_pod_without_the_machines_users_gets_no_sandbox() -> None:
    with pytest.raises(Held, match="user namespaces are not supported") as held:
        box_of(make(hostUsers=False))
    assert held.value.reason in spec.WAITS
    assert box_of(make(hostUsers=True)).name == "p"
    with pytest.raises(Held, match="dynamic resource allocation") as held:
        box_of(make(resourceClaims=[{"name": "gpu", "resourceClaimName": "x"}]))
    assert held.value.reason in spec.WAITS


def test_groups_that_are_to_be_kept_out() -> None:
    strict = make(securityContext={"supplementalGroupsPolicy": "Strict"})
    assert told(strict).strict_groups
    assert box_of(strict).strict_groups
    assert not told(make()).strict_groups


def test_a_signal_of_ones_own() -> None:
    assert told(make(c(lifecycle={"stopSignal": "SIGUSR1"}))).stop_signal == "SIGUSR1"
    assert told(make(c())).stop_signal == ""


def test_dns() -> None:
    cluster = replace(CONFIG, cluster_dns=("10.96.0.10",))
    got = spec.resolver(make(), cluster, HOST)
    assert got.servers == ("10.96.0.10",)
    assert got.searches == ("ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan")
    assert got.options == ("ndots:5",)
    assert spec.resolver(make(), CONFIG, HOST) == HOST
    assert spec.resolver(make(dnsPolicy="Default"), cluster, HOST) == HOST
    assert spec.resolver(make(hostNetwork=True), cluster, HOST) == HOST
    assert spec.resolver(make(hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet"), cluster, HOST) == got
    own = {
        "nameservers": ["9.9.9.9"],
        "searches": ["x"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}],
    }
    assert spec.resolver(make(dnsPolicy="None", dnsConfig=own), cluster, HOST) == Dns(
        servers=("9.9.9.9",), searches=("x",), options=("ndots:2", "rotate")
    )
    assert spec.resolver(make(dnsConfig=own), cluster, HOST).options == ("ndots:2", "rotate")


def test_resolv_conf() -> None:
    text = "# x\nnameserver 1.1.1.1\nnameserver ::1\nsearch a b\nsearch c .\noptions ndots:1 rotate\nodd\n"
    assert spec.parse_resolv_conf(text) == Dns(
        servers=("1.1.1.1", "::1"), searches=("c",), options=("ndots:1", "rotate")
    )


def test_hosts() -> None:
    pod = make(
        hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a", "b"]}, {"ip": "1.1.1.1\nx", "hostnames": ["evil"]}],
        subdomain="sub",
    )
    text = spec.hosts_file(pod, ips=["10.0.0.2"], domain="cluster.local", host_hosts="")
    assert "10.0.0.2\tp.sub.ns.svc.cluster.local\tp\n" in text
    assert "1.2.3.4\ta\tb\n" in text
    assert "evil" not in text
    host = spec.hosts_file(make(hostNetwork=True), ips=[], domain="d", host_hosts="127.0.0.1 here\n")
    assert "127.0.0.1 here" in host


def test_hostnames_are_cut() -> None:
    assert spec.hostname(make(meta={"name": "a" * 62 + ".b"})) == "a" * 62


def test_the_whole_name_as_hostname() -> None:
    asks = {"hostname": "web", "subdomain": "sub", "setHostnameAsFQDN": True}
    assert box_of(make(**asks)).hostname == "web.sub.ns.svc.cluster.local"
    # without a subdomain there is no longer name
    assert box_of(make(hostname="web", setHostnameAsFQDN=True)).hostname == "web"
    assert box_of(make(hostname="web", subdomain="sub")).hostname == "web"
    with pytest.raises(Held, match="too long"):
        box_of(make(**{**asks, "subdomain": "s" * 60}))


def test_a_container_out_of_memory_ends_as_a_whole_where_cgroups_can() -> None:
    pod = make(c(resources={"limits": {"memory": "1Mi"}}))
    for unified, files in ((False, {}), (True, {"memory.oom.group": "1"})):
        made = spec.container_config(
            pod,
            pod.spec.containers[0],
            restart_count=0,
            image="sha256:1",
            image_user=ImageUser(),
            env={},
            command=(),
            args=(),
            mounts=(),
            config=CONFIG,
            memory_capacity=2**30,
            unified=unified,
        )
        assert dict(cri._container_config(made).linux.resources.unified) == files
