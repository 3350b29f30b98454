"""Where learning rates are looked for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sample_runs import sample_model
from tunecast.methods.rates import adapter_rate, around


@pytest.mark.parametrize(("width", "best"), [(128, 1e-2), (576, 2e-3), (4096, 2.6e-4)])
def test_meets_the_best_rates_that_were_measured(width: int, best: float) -> None:
    low, high = around(adapter_rate(replace(sample_model(), width=width)))
    assert low < best / 3
    assert best * 3 < high


def test_interval_reads_well_and_is_symmetric() -> None:
    assert around(3e-4, 10) == (3e-5, 3e-3)
    assert around(1.23456) == (0.154, 9.88)
