"""Every method once, at the rate that was best on other tasks."""

from __future__ import annotations

import pytest

from search.known_runs import FULL, PIPELINES, context, order_of, task_runs
from tunecast.search.fixed_best import best_rates
from tunecast.search.task_tables import best_known


def test_fixed_best_tries_every_method_once_at_its_best_rate() -> None:
    pipelines = [*FULL, *PIPELINES]
    known = context({name: task_runs(name, [3.0, 1.0, 3.0, 3.0, 3.0, 2.0, 3.0], pipelines) for name in "abc"})
    rates = best_rates(best_known(known))
    assert [(best.method, best.learning_rate) for best in rates] == [
        ("full", pytest.approx(1e-4)),
        ("lora", pytest.approx(1e-2)),
    ]
    assert order_of("fixed-best", known, pipelines) == [FULL[1], PIPELINES[2]]
