"""Extremely randomised trees."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from planted_runs import planted_runs
from tunecast.predictor.examples import Examples, examples_of
from tunecast.predictor.forest import ForestModel, _flat, grow


@pytest.fixture(scope="module")
def examples() -> Examples:
    return examples_of(planted_runs(tasks=8, runs=16))


def test_finds_the_planted_law_on_tasks_left_out(examples: Examples) -> None:
    out = examples.task >= 6
    mean, variance = grow(examples.where(~out), 48, 5, 0).predict(examples.features[out])
    assert (variance > 0).all()
    blank = examples.share[out] == 0
    assert spearmanr(mean[blank], examples.target[out][blank]).statistic > 0.6
    missed = np.sqrt(np.mean((mean - examples.target[out]) ** 2))
    assert missed < 0.95 * examples.target[out].std()


def test_the_seed_decides(examples: Examples) -> None:
    some = examples.where(examples.task < 4)
    first, second, other = (grow(some, 48, 5, seed).predict(some.features[:5])[0] for seed in (3, 3, 4))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_far_from_everything_it_stays_finite(examples: Examples) -> None:
    mean, variance = grow(examples, 48, 5, 0).predict(100.0 * examples.features[:3])
    assert np.isfinite([mean, variance]).all()


def test_flat_trees_predict_as_scikit_learn_does(examples: Examples) -> None:
    from sklearn.ensemble import ExtraTreesRegressor

    grown = ExtraTreesRegressor(10, min_samples_leaf=3, random_state=0)
    grown.fit(examples.features, examples.target)
    flat = ForestModel(_flat([tree.tree_ for tree in grown.estimators_]))
    assert flat.predict(examples.features)[0] == pytest.approx(
        grown.predict(examples.features), rel=1e-3, abs=1e-5
    )
