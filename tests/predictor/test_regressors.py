"""What holds for every family of surrogates: a new one is tested here by its place in the table."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from planted_runs import planted_runs
from tunecast.predictor.examples import Examples, examples_of
from tunecast.predictor.regressors import FAMILIES

families = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def examples() -> Examples:
    return examples_of(planted_runs(tasks=8, runs=16))


@families
def test_finds_the_planted_law_on_tasks_left_out(name: str, examples: Examples) -> None:
    out = examples.task >= 6
    learned = FAMILIES[name].fit(examples.where(~out), seed=0)
    mean, variance = learned.predict(examples.features[out])
    assert (variance > 0).all()
    blank = examples.share[out] == 0
    assert spearmanr(mean[blank], examples.target[out][blank]).statistic > 0.6
    missed = np.sqrt(np.mean((mean - examples.target[out]) ** 2))
    assert missed < 0.95 * examples.target[out].std()


@families
def test_taken_apart_and_put_together_it_says_the_same(name: str, examples: Examples) -> None:
    learned = FAMILIES[name].fit(examples, seed=0)
    copied = {key: np.array(values) for key, values in learned.arrays().items()}
    again = FAMILIES[name].regressor.from_arrays(copied)
    for one, other in zip(learned.predict(examples.features), again.predict(examples.features), strict=True):
        assert np.array_equal(one, other)


@families
def test_the_seed_decides(name: str, examples: Examples) -> None:
    some = examples.where(examples.task < 4)
    first, second = (FAMILIES[name].fit(some, seed=3).predict(some.features[:5]) for _ in range(2))
    assert np.allclose(first, second, atol=1e-5)


@families
def test_far_from_everything_it_stays_finite(name: str, examples: Examples) -> None:
    learned = FAMILIES[name].fit(examples, seed=0)
    mean, variance = learned.predict(100.0 * examples.features[:3])
    assert np.isfinite(mean).all()
    assert np.isfinite(variance).all()


def test_flat_trees_say_what_scikit_learn_says(examples: Examples) -> None:
    from sklearn.ensemble import ExtraTreesRegressor

    from tunecast.predictor.regressors.forest import ForestModel, _flat

    grown = ExtraTreesRegressor(10, min_samples_leaf=3, random_state=0)
    grown.fit(examples.features, examples.target)
    flat = ForestModel(_flat([tree.tree_ for tree in grown.estimators_]))
    assert flat.predict(examples.features)[0] == pytest.approx(grown.predict(examples.features), abs=1e-5)


@pytest.mark.parametrize("name", ["gp", "deep-kernel"])
def test_numpy_says_what_gpytorch_says(name: str, examples: Examples) -> None:
    import gpytorch
    import torch

    from tunecast.predictor.regressors import process
    from tunecast.predictor.regressors.base import Scaling

    some = examples.where(examples.task < 4)
    scaling = Scaling.of(some.features)
    inputs, target = torch.tensor(scaling(some.features)).float(), torch.tensor(some.target).float()
    torch.manual_seed(0)
    model, encoder = process._built(inputs, target, name == "deep-kernel")
    ours = process.ProcessModel(process._taken_apart(scaling, model, encoder))
    model.eval()
    columns = torch.tensor(scaling.stretch != 0)
    rows = (inputs[:7] + 0.1 * columns).clip(-5, 5)
    with torch.no_grad(), gpytorch.settings.fast_pred_var(False):
        theirs = model.likelihood(model(rows))
    plain = rows.numpy() / np.where(scaling.stretch == 0, 1, scaling.stretch) + scaling.mean
    inside = np.where(scaling.stretch == 0, scaling.mean, plain)
    mean, variance = ours.predict(inside)
    assert np.allclose(scaling(inside), rows.numpy(), atol=1e-4)
    assert mean == pytest.approx(theirs.mean.numpy(), abs=1e-3)
    assert variance == pytest.approx(theirs.variance.numpy(), rel=1e-2)
