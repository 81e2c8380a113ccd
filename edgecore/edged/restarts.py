"""Whether a container that ended is started again: by its own rules, its own policy, or its pod's.  Pure.

Source: KEP-5307 (container restart rules); kubernetes, pkg/api/v1/pod/util.go (ContainerShouldRestart).
"""

from __future__ import annotations

from edgecore.edged.pod import Container, Pod

# What a container is said to have ended with when it was cut off and nobody saw how.
CUT_OFF = 137


def _ruled(container: Container, exit_code: int) -> bool:
    """Whether one of its rules says so; the first that fits decides, and Restart is all they can say."""
    for rule in container.restart_policy_rules:
        codes = rule.exit_codes
        if rule.action != "Restart" or codes is None:
            continue
        if (codes.operator == "In" and exit_code in codes.values) or (
            codes.operator == "NotIn" and exit_code not in codes.values
        ):
            return True
    return False


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
    return _ruled(container, exit_code) or (container.restart_policy or pod.spec.restart_policy) != "Never"
