"""Odds that a finetuning diverges, by how far its rate is above the best, its rank, width and steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunecast.arrays import Floats
from tunecast.predictor.linear import Line
from tunecast.predictor.rate_law import LORA, RANK, STEPS, WIDTH, RateLaw
from tunecast.predictor.regressors.base import Scaling
from tunecast.records import ModelFacts, Pipeline


@dataclass(frozen=True)
class Attempt:
    """A finetuning that diverged or did not."""

    model: ModelFacts
    pipeline: Pipeline
    steps: int
    diverged: bool


@dataclass(frozen=True)
class Divergence:
    """A logistic regression on distances from a law's best rates."""

    law: RateLaw
    line: Line

    def probability(self, attempts: Sequence[Attempt]) -> Floats:
        """Return the probability that each attempt diverges, shape (attempts,); its outcome is ignored."""
        return np.asarray(1.0 / (1.0 + np.exp(-self.line(_rows(self.law, attempts)))))


def fit_divergence(law: RateLaw, attempts: Sequence[Attempt]) -> Divergence | None:
    """Learn from attempts with a learning rate; None if all or none of them diverged."""
    from sklearn.linear_model import LogisticRegression

    rated = [one for one in attempts if one.pipeline.number("learning_rate") > 0]
    outcomes = np.array([one.diverged for one in rated])
    if not outcomes.any() or outcomes.all():
        return None
    rows = _rows(law, rated)
    scaling = Scaling.of(rows)
    found = LogisticRegression(solver="newton-cholesky", tol=1e-8).fit(scaling(rows), outcomes)
    return Divergence(law, Line(scaling, np.array([*found.intercept_, *found.coef_[0]])))


def _rows(law: RateLaw, attempts: Sequence[Attempt]) -> Floats:
    rows = []
    for one in attempts:
        above = law.distance(one.model, one.pipeline, one.steps)
        is_lora = one.pipeline.method in LORA
        width = math.log(max(1, one.model.width or WIDTH) / WIDTH)
        rank = math.log(max(1.0, one.pipeline.number("lora_r", RANK)) / RANK) if is_lora else 0.0
        positive = max(0.0, above)
        rows.append(
            [
                above,
                positive,
                positive * width,
                rank,
                width,
                math.log(max(1, one.steps) / STEPS),
                float(is_lora),
            ]
        )
    return np.array(rows, dtype=np.float64).reshape(len(rows), 7)
