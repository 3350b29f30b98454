"""The best rates of a steady schedule, from the published runs."""

from __future__ import annotations

import math
from statistics import mean

import pytest

from steady_rates import RUNS, main, pairs
from tunecast.methods.rates import STEADY_MULTIPLE
from tunecast.store import open_for_reading


def test_the_multiple_is_that_of_the_published_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with open_for_reading(str(RUNS)) as store:
        found = list(pairs(list(store.runs())))
    assert len(found) == 16
    ratio = math.exp(mean(one.log_ratio for one in found))
    assert ratio == pytest.approx(STEADY_MULTIPLE, abs=0.03)
    main([])
    assert f"mean {ratio:.2f}" in capsys.readouterr().out
