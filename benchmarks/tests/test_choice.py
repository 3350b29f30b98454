"""Choosing among regressors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from planted_runs import planted_model, planted_runs
from tunecast.predictor.calibration import Calibration
from tunecast.predictor.examples import Examples, examples_of
from tunecast_benchmarks.regressors import FAMILIES
from tunecast_benchmarks.regressors.base import Family
from tunecast_benchmarks.regressors.choice import (
    CHOSEN,
    calibrate_unseen,
    choose,
    nested,
    score_unseen_models,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

FAST = ("nearest-task", "ridge")


@pytest.fixture(scope="module")
def examples() -> Examples:
    return examples_of(planted_runs(tasks=8, runs=12))


def test_the_better_family_is_chosen(examples: Examples) -> None:
    chosen = choose(examples, 0, FAST)
    assert chosen.log_scores[chosen.family] == max(chosen.log_scores.values())


class Seen(Family):
    """Notes which datasets and base models it learned from, and which it predicts."""

    name: ClassVar[str] = "seen"

    def __init__(self, examples: Examples) -> None:
        rows = zip(examples.features, examples.model.tolist(), examples.task.tolist(), strict=True)
        self.known = {row.tobytes(): (model, task) for row, model, task in rows}
        self.pairs: list[tuple[set[tuple[int, int]], set[tuple[int, int]]]] = []

    def of(self, features: NDArray[np.float64]) -> set[tuple[int, int]]:
        return {self.known[row.tobytes()] for row in features}

    def fit(self, examples: Examples, seed: int) -> Any:
        learned = self.of(examples.features)

        def predict(features: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            self.pairs.append((learned, self.of(features)))
            return np.zeros(len(features)), np.ones(len(features))

        return SimpleNamespace(predict=predict)


def test_for_an_unknown_base_model_neither_it_nor_the_task_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [planted_model(width) for width in (128, 192, 256)]
    examples = examples_of([run for n, model in enumerate(models) for run in planted_runs(8, 6, n, model)])
    spy = Seen(examples)
    monkeypatch.setitem(FAMILIES, "seen", spy)
    calibration = Calibration(np.ones(4), np.zeros(4))
    assert np.all(calibrate_unseen("seen", examples, 0, calibration).inflation >= 1)
    assert len(spy.pairs) == 3
    for learned, predicted in spy.pairs:
        assert predicted
        assert not {model for model, _ in predicted} & {model for model, _ in learned}
        assert not {task for _, task in predicted} & {task for _, task in learned}
    spy.pairs.clear()
    found = score_unseen_models("seen", examples)
    assert sum(row.rows for row in found) == len(examples)


def test_nested_scores(examples: Examples) -> None:
    scores, taken = nested(examples, 0, FAST)
    assert sum(taken.values()) == 8
    assert {row.name for row in scores} == {*FAST, CHOSEN}
    for row in scores:
        assert row.groups == 8
        assert 0.5 < row.coverage <= 1.0
    late = next(row for row in scores if row.stage == "to 0.7" and row.name == "ridge")
    early = next(row for row in scores if row.stage == "no curve" and row.name == "ridge")
    assert late.rank_correlation > 0.8
    assert late.log_score > early.log_score
