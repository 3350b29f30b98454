"""Rules by which a session spends its budget."""

from __future__ import annotations

import numpy as np
import pytest

from tunecast.records import Pipeline
from tunecast.session.rules import is_probe
from tunecast.training.plan import plan_trial


@pytest.mark.parametrize("batch_size", [4, 8, 16])
def test_the_points_up_to_a_quarter_are_probes(batch_size: int) -> None:
    lengths = np.random.default_rng(0).integers(20, 200, 900)
    pipeline = Pipeline("full", {"per_device_train_batch_size": batch_size, "warmup_ratio": 0.0})
    plan = plan_trial([int(length) for length in lengths], pipeline, seed=0, full_length_tokens=60_000)
    probes = [step for step in plan.grid if is_probe(plan.share_at(step))]
    assert probes == [*plan.grid[:-2]]
    assert plan.share_at(probes[-1]) == pytest.approx(0.25, abs=0.04)
