"""Objects of built-in kinds, read by their types."""

from __future__ import annotations

from typing import Any

import pytest

from cloudcore.standalone import coretypes
from cloudcore.standalone.coretypes import WrongType
from cloudcore.standalone.quantity import BadQuantity


def test_quantities_become_texts() -> None:
    amounts = {"limits": {"cpu": 1, "memory": "1024Ki"}, "unheard": 1}
    assert coretypes.decode("V1ResourceRequirements", amounts) == (
        {"limits": {"cpu": "1", "memory": "1Mi"}},
        ["unheard"],
    )
    assert coretypes.decode("V1EmptyDirVolumeSource", {"sizeLimit": 5})[0] == {"sizeLimit": "5"}


@pytest.mark.parametrize("limits", [0, "1", ["1"], True])
def test_one_quantity_is_no_map_of_them(limits: Any) -> None:
    with pytest.raises(WrongType, match=r"field ResourceRequirements\.limits of type map"):
        coretypes.decode("V1ResourceRequirements", {"limits": limits})


def test_a_map_of_quantities_is_not_one() -> None:
    with pytest.raises(BadQuantity):
        coretypes.decode("V1EmptyDirVolumeSource", {"sizeLimit": {"a": "1"}})
