"""Which images go when the disk is full, and which never do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecore.edged.imagegc import Disk, Limits, bytes_to_free, choose, names, normalize
from edgecore.edged.runtime import Image

D = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1", "docker.io/library/busybox:1"),
        ("docker.io/busybox:1", "docker.io/library/busybox:1"),
        ("team/app", "docker.io/team/app:latest"),
        ("r.test/app", "r.test/app:latest"),
        ("r.test:5000/app", "r.test:5000/app:latest"),
        ("localhost/app:2", "localhost/app:2"),
        (f"r.test:5000/app:1@{D}", f"r.test:5000/app@{D}"),
        (f"app@{D}", f"docker.io/library/app@{D}"),
        (D, D),
    ],
)
def test_normalize(ref: str, expected: str) -> None:
    assert normalize(ref) == expected


@pytest.mark.parametrize(("free", "expected"), [(200, 0), (150, 50), (10, 190), (0, 200)])
def test_how_much_must_go(free: int, expected: int) -> None:
    disk = Disk(bytes_total=1000, bytes_free=free)
    assert bytes_to_free(disk, Limits(high_percent=85, low_percent=80)) == expected


def test_an_unknown_disk_frees_nothing() -> None:
    assert bytes_to_free(Disk(), Limits(high_percent=0)) == 0


def image(n: int, **fields: object) -> Image:
    return Image(id=f"sha256:{n}", tags=(f"r.test/i:{n}",), size_bytes=10, **fields)  # type: ignore[arg-type]


def pick(
    images: list[Image], needed: set[str], *, to_free: int, used: dict[str, float] | None = None
) -> list[str]:
    chosen = choose(
        images,
        needed=needed,
        seen_at={i.id: 0.0 for i in images},
        used_at=used or {},
        to_free=to_free,
        min_age_s=100,
        now=1000,
    )
    return [i.id for i in chosen]


def test_longest_unused_first_and_no_more_than_asked() -> None:
    three = [image(1), image(2), image(3)]
    used = {"sha256:1": 30.0, "sha256:2": 10.0, "sha256:3": 20.0}
    assert pick(three, set(), to_free=15, used=used) == ["sha256:2", "sha256:3"]


@pytest.mark.parametrize("ref", ["sha256:1", "r.test/i:1"])
def test_what_is_needed_stays_by_any_of_its_names(ref: str) -> None:
    assert pick([image(1), image(2)], {ref}, to_free=100) == ["sha256:2"]


def test_a_short_name_protects_the_full_one() -> None:
    hub = Image(id="sha256:9", tags=("docker.io/library/busybox:latest",), size_bytes=10)
    assert pick([hub], {"busybox"}, to_free=100) == []


def test_pinned_and_new_ones_stay() -> None:
    new = image(2)
    chosen = choose(
        [image(1, pinned=True), new],
        needed=(),
        seen_at={"sha256:1": 0.0, new.id: 950.0},
        used_at={},
        to_free=100,
        min_age_s=100,
        now=1000,
    )
    assert chosen == []


@given(st.sets(st.integers(0, 8)), st.integers(0, 200))
def test_never_one_that_is_needed(needed: set[int], to_free: int) -> None:
    images = [image(n) for n in range(9)]
    refs = {f"r.test/i:{n}" for n in needed}
    chosen = choose(
        images,
        needed=refs,
        seen_at={i.id: 0.0 for i in images},
        used_at={},
        to_free=to_free,
        min_age_s=0,
        now=1,
    )
    assert not {n for i in chosen for n in names(i)} & refs
