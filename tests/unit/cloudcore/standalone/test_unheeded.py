"""What a client is warned of."""

from __future__ import annotations

from typing import Any

import pytest

from cloudcore.standalone import signing, unheeded
from cloudcore.standalone.kinds import Registry

REGISTRY = Registry.core()


def warned(group: str, version: str, plural: str, body: dict[str, Any]) -> list[str]:
    kind = REGISTRY.by_path(group, version, plural)
    assert kind is not None
    return unheeded.warnings(kind, body)


def test_a_kind_that_nothing_acts_upon_is_said_to_be_so() -> None:
    (text,) = warned("networking.k8s.io", "v1", "networkpolicies", {})
    assert text.startswith("networkpolicies: ")


@pytest.mark.parametrize(
    ("where", "body", "words"),
    [
        (("", "v1", "pods"), {}, []),
        (("batch", "v1", "jobs"), {"spec": {"podFailurePolicy": {"rules": []}}}, ["spec.podFailurePolicy"]),
        (("batch", "v1", "jobs"), {"spec": {"podFailurePolicy": None}}, []),
        (("batch", "v1", "jobs"), {"spec": []}, []),
        (("", "v1", "services"), {"spec": {"type": "LoadBalancer"}}, ["LoadBalancer"]),
        (("", "v1", "services"), {"spec": {"type": "ClusterIP"}}, []),
        (
            ("apps", "v1", "statefulsets"),
            {"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}},
            ["whenScaled"],
        ),
        (
            ("autoscaling", "v2", "horizontalpodautoscalers"),
            {"spec": {"metrics": [{"type": "Resource"}, {"type": "External"}]}},
            ["spec.metrics[1]"],
        ),
        (
            ("certificates.k8s.io", "v1", "certificatesigningrequests"),
            {"spec": {"signerName": "example.com/mine"}},
            ["example.com/mine"],
        ),
        (
            ("certificates.k8s.io", "v1", "certificatesigningrequests"),
            {"spec": {"signerName": sorted(signing.SIGNERS)[0]}},
            [],
        ),
    ],
)
def test_each_field_that_is_not_heeded_is_named(
    where: tuple[str, str, str], body: dict[str, Any], words: list[str]
) -> None:
    told = warned(*where, body)
    assert len(told) == len(words), told
    for word, text in zip(words, told, strict=True):
        assert word in text
