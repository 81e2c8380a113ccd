"""Whether a container that ended is started again: by its own rules, its own policy, or its pod's.  Pure.

Source: KEP-5307 (container restart rules), KEP-5532 (RestartAllContainers); kubernetes, pkg/api/v1/pod/util.go
(ContainerShouldRestart).
"""

from __future__ import annotations

from edgecore.edged.pod import Container, Pod

# What a container is said to have ended with when it was cut off and nobody saw how.
CUT_OFF = 137
ALL = "RestartAllContainers"
# Where a restart of all containers is, as it is remembered: they are being ended, or started.
ENDING, STARTING = "ending", "starting"


def _ruled(container: Container, exit_code: int) -> str:
    """What one of its rules says; the first that fits decides.  Empty: none fits."""
    for rule in container.restart_policy_rules:
        codes = rule.exit_codes
        if rule.action not in ("Restart", ALL) or codes is None:
            continue
        if (codes.operator == "In" and exit_code in codes.values) or (
            codes.operator == "NotIn" and exit_code not in codes.values
        ):
            return rule.action
    return ""


def app(pod: Pod, container: Container, exit_code: int) -> bool:
    """An app container."""
    if _ruled(container, exit_code):
        return True
    policy = container.restart_policy or pod.spec.restart_policy
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def init(pod: Pod, container: Container, exit_code: int) -> bool:
    """An init container, which is over when it succeeded."""
    if exit_code == 0:
        return False
    return (
        bool(_ruled(container, exit_code)) or (container.restart_policy or pod.spec.restart_policy) != "Never"
    )


def everything(pod: Pod, container: Container, exit_code: int) -> bool:
    """Whether the end of this one starts all containers of the pod anew; an init container that succeeded never does."""
    plain = container in pod.spec.init_containers and not pod.is_sidecar(container)
    return not (plain and exit_code == 0) and _ruled(container, exit_code) == ALL
