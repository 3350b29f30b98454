from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from planted_runs import planted_runs
from tunecast.predictor.examples import Examples, examples_of
from tunecast.predictor.scaling import Scaling
from tunecast_benchmarks.regressors.process import ProcessModel
from tunecast_benchmarks.regressors.processes import PROCESSES, _arrays_of, _built

gpytorch = pytest.importorskip("gpytorch")
families = pytest.mark.parametrize("name", PROCESSES)


@pytest.fixture(scope="module")
def examples() -> Examples:
    return examples_of(planted_runs(tasks=8, runs=16))


@families
def test_finds_the_planted_law_on_held_out_tasks(name: str, examples: Examples) -> None:
    out = examples.task >= 6
    fitted = PROCESSES[name].fit(examples.where(~out), seed=0)
    mean, variance = fitted.predict(examples.features[out])
    assert (variance > 0).all()
    blank = examples.share[out] == 0
    assert spearmanr(mean[blank], examples.target[out][blank]).statistic > 0.6
    missed = np.sqrt(np.mean((mean - examples.target[out]) ** 2))
    assert missed < 0.95 * examples.target[out].std()


@families
def test_the_seed_decides(name: str, examples: Examples) -> None:
    some = examples.where(examples.task < 4)
    first, second = (PROCESSES[name].fit(some, seed=3).predict(some.features[:5]) for _ in range(2))
    assert np.allclose(first, second, atol=1e-5)


@families
def test_numpy_predicts_as_gpytorch_does(name: str, examples: Examples) -> None:
    some = examples.where(examples.task < 4)
    scaling = Scaling.of(some.features)
    inputs, target = torch.tensor(scaling(some.features)).float(), torch.tensor(some.target).float()
    torch.manual_seed(0)
    model, encoder = _built(inputs, target, name == "deep-kernel")
    ours = ProcessModel(_arrays_of(scaling, model, encoder))
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
