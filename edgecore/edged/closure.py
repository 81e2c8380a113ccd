"""What a pod needs to start again on this node alone, and what of it is not here.  Pure.

A pod is started from what is stored: its objects, tokens, images, the data of its claims.  Whatever is not here holds it back
after the next reboot without a link, be it running now or not, so it is said in a condition of the pod while there is time."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from edgecore.edged.imagegc import normalize
from edgecore.edged.pod import Container, Pod

CONDITION = "skerry.dev/Stored"
"""False while something is missing; absent on a pod that never lacked anything."""
REASON = "Incomplete"
MAX_NAMED = 8


def required(pod: Pod) -> tuple[set[str], set[str]]:
    """Names of the configmaps and secrets that the pod cannot start without."""
    config_maps: set[str] = set()
    secrets: set[str] = set()
    for container in pod.every_container():
        _required_by(container, config_maps, secrets)
    for volume in pod.spec.volumes:
        if volume.config_map is not None and not volume.config_map.optional:
            config_maps.add(volume.config_map.name)
        if volume.secret is not None and not volume.secret.optional:
            secrets.add(volume.secret.secret_name)
        for source in volume.projected.sources if volume.projected is not None else ():
            if source.config_map is not None and not source.config_map.optional:
                config_maps.add(source.config_map.name)
            if source.secret is not None and not source.secret.optional:
                secrets.add(source.secret.name)
    return config_maps - {""}, secrets - {""}


def _required_by(container: Container, config_maps: set[str], secrets: set[str]) -> None:
    for source in container.env_from:
        if source.config_map_ref is not None and not source.config_map_ref.optional:
            config_maps.add(source.config_map_ref.name)
        if source.secret_ref is not None and not source.secret_ref.optional:
            secrets.add(source.secret_ref.name)
    for variable in container.env:
        wanted = variable.value_from
        if wanted is None:
            continue
        if wanted.config_map_key_ref is not None and not wanted.config_map_key_ref.optional:
            config_maps.add(wanted.config_map_key_ref.name)
        if wanted.secret_key_ref is not None and not wanted.secret_key_ref.optional:
            secrets.add(wanted.secret_key_ref.name)


def missing(
    pod: Pod,
    lacking: Mapping[tuple[str, str], str],
    *,
    tokens: str = "",
    claims: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """What is not here, each with why.

    lacking: (`configmap` or `secret`, name) of what could not be had, and why.   tokens: why one is not here.
    claims: name of a claim whose data cannot be used, and why."""
    config_maps, secrets = required(pod)
    needed = {("configmap", name) for name in config_maps} | {("secret", name) for name in secrets}
    found = [
        f"{kind} {name}: {why}" for (kind, name), why in sorted(lacking.items()) if (kind, name) in needed
    ]
    if tokens:
        found.append(f"token of its account: {tokens}")
    found += [f"claim {name}: {why}" for name, why in sorted((claims or {}).items())]
    return tuple(found)


def lost_images(
    pod: Pod, present: Collection[str], *, started: Mapping[str, str], failed: Collection[str] = ()
) -> tuple[str, ...]:
    """The images that it needs and that are not here.  One that is on its way for the first time is not among them.

    present: what the images of this node are called, as `imagegc.names`.   started: reference to the id that it was started
    from.   failed: references that could not be had."""
    return tuple(
        f"image {ref}: not on this node"
        for ref in sorted(pod.image_references())
        if (ref in started or ref in failed)
        and normalize(ref) not in present
        and started.get(ref) not in present
    )


def sentence(found: tuple[str, ...]) -> str:
    """For the condition."""
    more = f"; and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    return f"this node lacks: {'; '.join(found[:MAX_NAMED])}{more}"
