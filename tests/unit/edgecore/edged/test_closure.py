"""What a pod lacks on this node, and how it is said."""

from edgecore.edged import closure
from tests.unit.edgecore.edged.builders import c, make


def test_what_is_optional_is_not_lacked() -> None:
    pod = make(
        c(
            envFrom=[
                {"configMapRef": {"name": "whole"}},
                {"secretRef": {"name": "whole-not-needed", "optional": True}},
            ],
            env=[
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}},
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k", "optional": True}}},
            ],
        ),
        volumes=[
            {"name": "v", "configMap": {"name": "files"}},
            {"name": "w", "secret": {"secretName": "not-needed", "optional": True}},
            {
                "name": "x",
                "projected": {"sources": [{"secret": {"name": "part"}}, {"configMap": {"name": "files"}}]},
            },
        ],
        imagePullSecrets=[{"name": "pull"}],
    )
    assert closure.required(pod) == ({"whole", "files"}, {"key", "part"})
    lacking = {
        ("configmap", "files"): "no link to the cloud",
        ("secret", "not-needed"): "not found",
        ("secret", "pull"): "not found",
    }
    found = closure.missing(pod, lacking, tokens="no link", claims={"data": "claim data is not bound"})
    assert found == (
        "configmap files: no link to the cloud",
        "token of its account: no link",
        "claim data: claim data is not bound",
    )
    assert closure.sentence(found).startswith("this node lacks: configmap files: no link to the cloud; token")
    assert closure.missing(pod, {}) == ()


def test_a_long_list_is_cut() -> None:
    found = tuple(f"secret {number}: not found" for number in range(20))
    text = closure.sentence(found)
    assert text.endswith("; and 12 more")
    assert "secret 8" not in text


def test_an_image_that_was_here_or_cannot_be_had_is_lacked() -> None:
    pod = make(c(image="a"), c("b", image="reg.test/b:1"), c("n", image="reg.test/new:1"))
    present = {"docker.io/library/a:latest", "sha256:b2"}
    assert closure.lost_images(pod, present, started={"a": "sha256:a", "reg.test/b:1": "sha256:b2"}) == ()
    # one that was never here may be on its way: the pod's containers say so
    lost = closure.lost_images(pod, present, started={"reg.test/b:1": "sha256:b1"})
    assert lost == ("image reg.test/b:1: not on this node",)
    lost = closure.lost_images(pod, set(), started={}, failed={"reg.test/new:1"})
    assert lost == ("image reg.test/new:1: not on this node",)
