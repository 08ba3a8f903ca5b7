from __future__ import annotations

import pytest

from deploy.agent.client import EdgeTpu
from deploy.deployer import target_runtime
from deploy.errors import PlacementError, RuntimeTooOldError
from deploy.placement import place

TPUS = [EdgeTpu(1, "pcie", "/dev/apex_1"), EdgeTpu(0, "pcie", "/dev/apex_0")]


def test_each_segment_gets_its_own() -> None:
    assert place([True, True], TPUS).tpus == (0, 1)
    assert place([False, True, False], TPUS).tpus == (None, 0, None)
    assert place([False], []).tpus == (None,)


def test_too_few() -> None:
    with pytest.raises(PlacementError, match=r"3 segments need an Edge TPU each, board has 2") as caught:
        place([True] * 3, TPUS, where="board")
    assert "2 segments" in caught.value.advice
    with pytest.raises(PlacementError) as caught:
        place([True], [])
    assert "plugged in" in caught.value.advice


@pytest.mark.parametrize(("offered", "required", "target"), [(12, 10, 12), (14, 12, 14), (15, 10, 14), (13, 13, 13)])
def test_target_runtime(offered: int, required: int, target: int) -> None:
    assert target_runtime(offered, required, where="x") == target


def test_target_runtime_refuses() -> None:
    with pytest.raises(RuntimeTooOldError, match=r"requires runtime version \(13\).*this runtime version \(12\)\."):
        target_runtime(12, 13, where="x")
