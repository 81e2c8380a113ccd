"""No pod can be written so that judging it ends in anything but a kubelet's reason on that pod."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from hypothesis import given, settings

from edgecore.edged import (
    admission,
    cgroups,
    claims,
    cri,
    csi,
    disk,
    env,
    evict,
    images,
    plan,
    policy,
    probes,
    resize,
    spec,
    status,
    volumes,
)
from edgecore.edged.config import EdgedConfig
from edgecore.edged.errors import BadPod, EdgedError
from edgecore.edged.pod import Pod, PodStatus
from edgecore.edged.podread import decode_pod
from edgecore.edged.resources import qos_class
from edgecore.edged.runtime import Dns, ImageUser, PodRuntime
from tests.support.hostilepods import POD, encoded, pods
from tests.unit.edgecore.edged.builders import EXITED, box, ran

CONFIG = EdgedConfig(root_dir=Path("/r"), log_dir=Path("/l"), cluster_dns=("10.96.0.10",))
FACTS = env.Facts(node_name="n", host_ips=("10.0.0.1",), pod_ips=("10.1.0.1",), allocatable={"cpu": 10**9})
VIEW = {"now": 200.0, "previous": PodStatus(), "host_ips": ("10.0.0.1",), "outcome": None}


def judge(pod: Pod) -> None:
    """Everything that is decided of a pod before and while it runs."""
    allocatable = FACTS.allocatable
    for other in (pod, pod):
        admission.decide(other, [pod], admission.Room(allocatable=allocatable))
    policy.refuse(pod, policy.Policy(allow_privileged=False, allow_host_paths=["/data"]))
    cgroups.pod_values(pod, pids=10)
    cgroups.files(cgroups.pod_values(pod, pids=10))
    cgroups.class_values([pod])
    evict.rank({pod.uid: (pod, evict.Usage())}, "memory")
    evict.over_limits(pod, evict.Usage(volumes={"e": 2**40}))
    evict.left(pod, evict.Usage())
    claims.claims(pod)
    disk.paths_of(CONFIG, pod)
    qos_class(pod)
    refs = env.references(pod)
    assert all(isinstance(name, str) for names in refs for name in names)
    volumes.claims_of(pod)
    tokens = {key: "t" for key in volumes.tokens_needed(pod)}
    sources = volumes.Sources(facts=FACTS, tokens=tokens)
    for volume in pod.spec.volumes:
        with contextlib.suppress(EdgedError):
            volumes.payload(pod, volume, sources)
        volumes.memory_size(pod, volume, 10**18)
        if volume.csi is not None:
            csi.inline(pod, volume)
    spec.hosts_file(pod, ips=["10.1.0.1"], domain="cluster.local", host_hosts="")
    for runtime in (
        PodRuntime(),
        PodRuntime(sandboxes=(box(),)),
        PodRuntime(sandboxes=(box(),), containers=tuple(ran(pod, c.name) for c in pod.every_container())),
        PodRuntime(
            sandboxes=(box(),),
            containers=tuple(ran(pod, c.name, EXITED, code=42) for c in pod.every_container()),
        ),
    ):
        plan.compute_pod_actions(pod, runtime, memory=plan.Memory(), health=plan.Health(), exited_for_s={})
        found = status.compute_status(pod, runtime, status.View(**VIEW))
        assert found.phase
    with contextlib.suppress(EdgedError):
        made = spec.sandbox_config(
            pod, attempt=1, config=CONFIG, dns=spec.resolver(pod, CONFIG, Dns()), kept=b"{}"
        )
        cri._sandbox_config(made).SerializeToString()
    for c in pod.every_container():
        images.is_reference(c.image.strip())
        images.credentials(c.image, [{".dockerconfigjson": b'{"auths":{"x":{"auth":"YTpi"}}}'}])
        for probe in (c.liveness_probe, c.readiness_probe, c.startup_probe):
            if probe is not None:
                probes.first_delay_s(probe, running_for_s=1.0)
                assert probes.period_s(probe) > 0
                assert probes.timeout_s(probe) > 0
        _start(pod, c)


def _start(pod: Pod, c: Any) -> None:
    with contextlib.suppress(EdgedError):
        variables = env.environment(pod, c, env.References(), FACTS)
        for m in c.volume_mounts:
            env.expand_strict(m.sub_path_expr, variables)
        command, args = env.command(c, variables)
        mounts = volumes.mounts(
            pod, c.name, root=CONFIG.root_dir, sub_paths={}, images={v.name: "i" for v in pod.spec.volumes}
        )
        made = spec.container_config(
            pod,
            c,
            restart_count=0,
            image="sha256:1",
            image_user=ImageUser(),
            env=variables,
            command=command,
            args=args,
            mounts=mounts,
            config=CONFIG,
            memory_capacity=2**30,
        )
        resize.decide(c, None, resize.applied(made.resources))
        cri._container_config(made).SerializeToString()


def test_the_pod_that_all_others_are_made_of_is_a_good_one() -> None:
    judge(decode_pod(encoded(POD)))


@given(pods())
@settings(max_examples=400)
def test_any_pod_is_judged_or_refused(pod: dict[str, Any]) -> None:
    try:
        found = decode_pod(encoded(pod))
    except BadPod:
        return
    judge(found)
