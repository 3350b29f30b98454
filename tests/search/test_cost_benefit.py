"""Whether what a trial may gain is worth its seconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunecast.search.cost_benefit import worth_its_seconds


def test_seconds_are_worth_what_the_expected_gain_is() -> None:
    def worth(means: Sequence[float], minutes: float, failure: float = 0.0) -> list[bool]:
        mean = np.array(means)
        sure, seconds = np.full(len(mean), 1e-9), np.full(len(mean), 90.0)
        return worth_its_seconds(mean, sure, 0.0, seconds, minutes, failure).tolist()

    assert worth([-0.02, -0.01, 0.0, 0.01], 1.0) == [True, False, False, False]
    assert worth([-0.02, -0.01], 2.0) == [True, True]
    assert worth([-0.02], 1.0, failure=0.5) == [False]
