"""Seconds per training token of pipelines relative to each other, and the odds that one diverges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tunecast.records import ZERO_SHOT, Outcome, Run
from tunecast.surrogates.families.base import Arrays, Scaling
from tunecast.surrogates.features import PIPELINE, Setting, columns, feature_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CostModel", "FailureModel", "fit_cost", "fit_failure"]

COST_FEATURES = (
    *(name for name in PIPELINE if name.startswith(("method_", "optimizer_"))),
    *("trains_weights", "low_rank", "log_rank", "attention_only", "dora", "dropout", "log_batch"),
    *("log_tokens_per_update", "log_parameters", "log_width"),
)
"""What the seconds of a step depend on, beside their arithmetic."""
FAILURE_FEATURES = (
    *("log_effective_rate", "trains_weights", "low_rank", "log_travel", "log_parameters"),
    *(name for name in PIPELINE if name.startswith("optimizer_")),
    *("schedule_constant", "warmup"),
)
PENALTY = 10.0
EXCLUSIVE_WEIGHT = 5.0
"""What a run that had the machine to itself counts for against one that had not: its seconds are surer, but
there are never so many that every method is among them."""


@dataclass(frozen=True)
class CostModel:
    """Seconds per training token, for one kind of device: by how much they exceed their arithmetic.

    The logarithm is that of the operations of a pass forward and backward over one token, plus a line in
    features. Which machine it was made no difference that helped: rates that were measured while others
    used it scatter more than machines of one kind differ, and a session goes by its own pace anyway.

    Args:
        scaling: Of the features.
        weights: Shape (1 + features,).
        deviation: Standard deviation of the logarithm around the line, on tasks that were left out.
        device: ``cpu`` or ``cuda``: seconds of one say nothing of the other.
    """

    scaling: Scaling
    weights: NDArray[np.float64]
    deviation: float
    device: str

    def log_seconds_per_token(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Expected logarithm of seconds per token, as on the machine of the runs; shape (rows,).

        Args:
            features: Shape (rows, features), as of the whole matrix.
        """
        scaled = self.scaling(features[:, columns(COST_FEATURES)])
        return _log_operations(features) + self.weights[0] + scaled @ self.weights[1:]

    def arrays(self) -> Arrays:
        """Scaling and weights."""
        return {"mean": self.scaling.mean, "stretch": self.scaling.stretch, "weights": self.weights}

    @classmethod
    def from_arrays(cls, arrays: Arrays, deviation: float, device: str) -> CostModel:
        """Put together what :meth:`arrays` took apart."""
        found = {name: np.asarray(values, float) for name, values in arrays.items()}
        return cls(Scaling(found["mean"], found["stretch"]), found["weights"], deviation, device)


@dataclass(frozen=True)
class FailureModel:
    """The odds that a trial diverges, as a logistic regression.

    Args:
        scaling: Of the features.
        weights: Shape (1 + features,).
    """

    scaling: Scaling
    weights: NDArray[np.float64]

    def probability(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of divergence, shape (rows,), of the whole feature matrix."""
        scaled = self.scaling(features[:, columns(FAILURE_FEATURES)])
        logits = np.clip(self.weights[0] + scaled @ self.weights[1:], -30.0, 30.0)
        return np.asarray(1.0 / (1.0 + np.exp(-logits)))

    def arrays(self) -> Arrays:
        """Scaling and weights."""
        return {"mean": self.scaling.mean, "stretch": self.scaling.stretch, "weights": self.weights}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> FailureModel:
        """Put together what :meth:`arrays` took apart."""
        found = {name: np.asarray(values, float) for name, values in arrays.items()}
        return cls(Scaling(found["mean"], found["stretch"]), found["weights"])


def fit_cost(runs: Sequence[Run]) -> CostModel | None:
    """Learn seconds per token from runs, as they would be with the machine to themselves.

    All runs say how pipelines compare; by how much shared machines were slower is told apart.

    Args:
        runs: Runs of any kind; those of the commonest device are used.

    Returns:
        None where fewer than ten runs tell their seconds, or runs of a single dataset.
    """
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

    timed = [(run, found) for run in runs if (found := _seconds_per_token(run)) is not None]
    kinds = [run.machine.device.partition(":")[0] for run, _ in timed]
    device = max(sorted(set(kinds)), key=kinds.count, default="cpu")
    timed = [pair for pair, kind in zip(timed, kinds, strict=True) if kind == device]
    names = sorted({run.task.dataset for run, _ in timed})
    if len(timed) < 10 or len(names) < 2:
        return None
    whole = _features([run for run, _ in timed])
    features = whole[:, columns(COST_FEATURES)]
    target = np.array([math.log(seconds) for _, seconds in timed]) - _log_operations(whole)
    scaling = Scaling.of(features)
    shared = np.array([not run.exclusive for run, _ in timed], dtype=float)
    if shared.all():
        shared[:] = 0.0  # nothing to tell it from
    scaled = np.concatenate([scaling(features), shared[:, None]], axis=1)
    weight = np.array([EXCLUSIVE_WEIGHT if run.exclusive else 1.0 for run, _ in timed])
    fold = [names.index(run.task.dataset) % 5 for run, _ in timed]
    ridge, weights = Ridge(PENALTY), {"sample_weight": weight}
    expected = cross_val_predict(ridge, scaled, target, groups=fold, cv=LeaveOneGroupOut(), params=weights)
    deviation = float(np.sqrt(((target - expected) ** 2).mean()))
    line = ridge.fit(scaled, target, weight)
    return CostModel(scaling, np.array([line.intercept_, *line.coef_[:-1]]), deviation, device)


def fit_failure(runs: Sequence[Run]) -> FailureModel | None:
    """Learn which pipelines diverge; None where no run did."""
    ended = [
        run
        for run in runs
        if run.pipeline.method != ZERO_SHOT.method and run.outcome in (Outcome.COMPLETED, Outcome.DIVERGED)
    ]
    diverged = np.array([run.outcome is Outcome.DIVERGED for run in ended], dtype=float)
    if not diverged.any() or diverged.all():
        return None
    from sklearn.linear_model import LogisticRegression

    features = _features(ended)[:, columns(FAILURE_FEATURES)]
    scaling = Scaling.of(features)
    odds = LogisticRegression(solver="newton-cholesky", tol=1e-8).fit(scaling(features), diverged)
    return FailureModel(scaling, np.array([*odds.intercept_, *odds.coef_[0]]))


def _log_operations(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of the operations of training on one token, shape (rows,), of the whole feature matrix.

    Two for each parameter on the way forward, two for its activations on the way back, and two for its
    gradient where it is trained (Kaplan et al. 2020, arXiv:2001.08361, §2.1, for full finetuning).
    """
    log_parameters, log_share = features[:, columns(("log_parameters", "log_trainable_share"))].T
    return np.asarray(log_parameters + np.log(4.0 + 2.0 * np.minimum(1.0, np.exp(log_share))))


def _seconds_per_token(run: Run) -> float | None:
    tokens = run.curve[-1].tokens_seen if run.curve else 0
    seconds = sum(run.machine.undisturbed(p.training, exclusive=run.exclusive) for p in run.curve)
    return seconds / tokens if tokens > 0 and seconds > 0 else None


def _features(runs: Sequence[Run]) -> NDArray[np.float64]:
    """Features of runs before their first point; the zero-shot loss, which no one looks at here, is 1."""
    settings = (Setting(r.dataset, r.model, r.full_length_tokens, r.unique_examples, 1.0) for r in runs)
    rows = [feature_rows(setting, [run.pipeline]) for setting, run in zip(settings, runs, strict=True)]
    return np.concatenate(rows)
