"""Corrections of the spread."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planted_runs import planted_runs
from tunecast.predictor.calibration import Calibration, stage
from tunecast.predictor.examples import Examples, examples_of


@pytest.fixture(scope="module")
def many() -> Examples:
    examples = examples_of(planted_runs(tasks=8, runs=40))
    return examples.where(examples.share == 0)


def test_stages() -> None:
    assert list(stage(np.array([0.0, 0.01, 0.19, 0.5, 0.9]))) == [0, 1, 1, 2, 3]


def test_overconfidence_is_corrected(many: Examples) -> None:
    draw = np.random.default_rng(0)
    truth = replace(many, target=draw.normal(0, 2.0, len(many)))
    found = Calibration.of(truth, np.zeros(len(many)), np.ones(len(many)))
    assert found.inflation[0] == pytest.approx(4.0, rel=0.25)
    assert found.shared[0] == pytest.approx(0.0, abs=0.05)


def test_a_miss_that_a_task_shares_is_told_apart(many: Examples) -> None:
    draw = np.random.default_rng(0)
    by_task = draw.normal(0, 1.0, len(many.tasks))[many.task]
    truth = replace(many, target=by_task + draw.normal(0, 0.3, len(many)))
    found = Calibration.of(truth, np.zeros(len(many)), np.ones(len(many)))
    assert found.shared[0] > 0.6
    whole, shared = found.corrected(np.ones(2), np.zeros(2))
    assert shared == pytest.approx(whole * found.shared[0])


def test_one_diverged_trial_does_not_hide_what_its_task_shares(many: Examples) -> None:
    draw = np.random.default_rng(0)
    target = draw.normal(0, 1.0, len(many.tasks))[many.task] + draw.normal(0, 0.3, len(many))
    target[0] += 100.0
    found = Calibration.of(replace(many, target=target), np.zeros(len(many)), np.ones(len(many)))
    assert found.shared[0] > 0.4


def test_one_wild_miss_does_not_widen_everything(many: Examples) -> None:
    target = np.random.default_rng(0).normal(0, 1.0, len(many))
    target[0] = 100.0
    found = Calibration.of(replace(many, target=target), np.zeros(len(many)), np.ones(len(many)))
    assert found.inflation[0] < 1.3
