"""What to measure next."""

from __future__ import annotations

import pytest

from tunecast.scaling import table_of_points
from tunecast.scaling.advice import candidate_sizes


@pytest.mark.parametrize(
    ("measured", "target", "sizes"),
    [
        ([500, 1000], 8000, [2000, 4000, 8000]),
        ([500, 1000], 5000, [2000, 4000]),
        ([100, 1600], 3200, [400, 3200]),
        ([500, 1000, 1000], 600, [2000]),
    ],
    ids=["doublings", "up to the target", "a wide gap", "a target that was passed"],
)
def test_sizes_to_consider(measured: list[float], target: float, sizes: list[float]) -> None:
    (curve,) = table_of_points(measured, [3.0 - 0.1 * place for place in range(len(measured))]).curves
    assert candidate_sizes(curve, target).tolist() == sizes
