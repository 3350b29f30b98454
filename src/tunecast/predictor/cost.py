"""Seconds per training token of pipelines relative to each other, and the odds that one diverges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tunecast.predictor.features import PIPELINE, columns, feature_rows
from tunecast.predictor.linear import Line, by_device, families_of, fit_line, is_enough
from tunecast.predictor.regressors.base import Scaling
from tunecast.predictor.task import TaskDescription
from tunecast.records import ZERO_SHOT, Outcome, Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
EXCLUSIVE_WEIGHT = 5.0
"""What a run that had the machine to itself counts for against one that had not: its seconds are surer, but
there are never so many that every method is among them."""


@dataclass(frozen=True)
class CostModel:
    """Seconds per training token, for one kind of device: by how much they exceed their arithmetic.

    The logarithm is that of the operations of a pass forward and backward over one token, plus a line in
    features. Which machine it was made no difference that helped: rates that were measured while others
    used it scatter more than machines of one kind differ, and a session goes by its own runtime model anyway.

    Args:
        line: What is added to the logarithm of the operations.
        deviation: Standard deviation of the logarithm around the line, on tasks that were left out.
    """

    line: Line
    deviation: float

    def log_seconds_per_token(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Expected logarithm of seconds per token, as on the machine of the runs; shape (rows,).

        Args:
            features: Shape (rows, features), as of the whole matrix.
        """
        return _log_operations(features) + self.line(features[:, columns(COST_FEATURES)])


@dataclass(frozen=True)
class FailureModel:
    """The odds that a trial diverges, as a logistic regression.

    Args:
        line: The logit.
    """

    line: Line

    def probability(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of divergence, shape (rows,), of the whole feature matrix."""
        logits = np.clip(self.line(features[:, columns(FAILURE_FEATURES)]), -30.0, 30.0)
        return np.asarray(1.0 / (1.0 + np.exp(-logits)))


@dataclass(frozen=True)
class FailureScores:
    """How good odds of divergence are on families of datasets that were left out.

    Args:
        log_loss: Mean nats per run.
        base_log_loss: The same of the share of the other runs that diverged, which knows no pipeline.
        auc: Probability that a run which diverged was given higher odds than one which did not.
    """

    log_loss: float
    base_log_loss: float
    auc: float


def fit_cost(runs: Sequence[Run]) -> dict[str, CostModel]:
    """Learn seconds per token from runs, as they would be with the machine to themselves.

    All runs say how pipelines compare; by how much shared machines were slower is told apart.

    Args:
        runs: Runs of any kind.

    Returns:
        By kind of device; none where fewer than ten runs tell their seconds, or runs of a single family of
        datasets.
    """
    found = {}
    for kind, many in by_device(runs).items():
        timed = [(run, seconds) for run in many if (seconds := _seconds_per_token(run)) is not None]
        if is_enough([run for run, _ in timed]):
            found[kind] = _fit_cost(timed)
    return found


def _fit_cost(timed: Sequence[tuple[Run, float]]) -> CostModel:
    """Learn the seconds per token of one kind of device.

    Beside being shared, neither threads nor the type of the weights are told apart. All exclusive runs that
    are shipped had two threads and all others one, so that what sharing takes and what a thread brings are
    known as a sum alone: it is in this one effect, which no prediction holds. Either column beside it, tasks
    left out, changes the 0.308 that the logarithm is missed by (0.320 without any) by less than 0.001; both
    are the same for all trials of a session, which goes by its own runtime_model.
    """
    runs = [run for run, _ in timed]
    whole = _features(runs)
    target = np.array([math.log(seconds) for _, seconds in timed]) - _log_operations(whole)
    shared = np.array([not run.exclusive for run in runs], dtype=float)
    if shared.all():
        shared[:] = 0.0  # nothing to tell it from
    weight = np.array([EXCLUSIVE_WEIGHT if run.exclusive else 1.0 for run in runs])
    features = whole[:, columns(COST_FEATURES)]
    return CostModel(*fit_line(features, shared[:, None], target, families_of(runs), weight))


def fit_failure(runs: Sequence[Run]) -> FailureModel | None:
    """Learn which pipelines diverge; None where no run did.

    Runs whose memory ran out say nothing here: whether it does depends on the worker that a session has,
    which :mod:`tunecast.predictor.memory` is told.
    """
    ended = _ended(runs)
    return _fit_failure(_features(ended), _diverged(ended)) if ended else None


def score_failure(runs: Sequence[Run]) -> FailureScores | None:
    """Judge what :func:`fit_failure` learns on families of datasets that it did not learn from.

    Returns:
        None where no run diverged, or all runs are of one family.
    """
    from sklearn.metrics import log_loss, roc_auc_score

    ended = _ended(runs)
    diverged, groups = _diverged(ended), families_of(ended)
    if not _is_mixed(diverged) or len(np.unique(groups)) < 2:
        return None
    features = _features(ended)
    odds, base = np.zeros(len(ended)), np.zeros(len(ended))
    for group in np.unique(groups):
        out = groups == group
        learned = _fit_failure(features[~out], diverged[~out])
        # Laplace's rule of succession: no odds of 0 or 1, whatever was seen.
        base[out] = (diverged[~out].sum() + 1.0) / ((~out).sum() + 2.0)
        odds[out] = learned.probability(features[out]) if learned else base[out]
    return FailureScores(
        float(log_loss(diverged, odds)), float(log_loss(diverged, base)), float(roc_auc_score(diverged, odds))
    )


def _ended(runs: Sequence[Run]) -> list[Run]:
    known = (Outcome.COMPLETED, Outcome.DIVERGED)
    return [run for run in runs if run.pipeline.method != ZERO_SHOT.method and run.outcome in known]


def _diverged(ended: Sequence[Run]) -> NDArray[np.float64]:
    return np.array([run.outcome is Outcome.DIVERGED for run in ended], dtype=float)


def _is_mixed(diverged: NDArray[np.float64]) -> bool:
    return bool(diverged.any() and not diverged.all())


def _fit_failure(features: NDArray[np.float64], diverged: NDArray[np.float64]) -> FailureModel | None:
    if not _is_mixed(diverged):
        return None
    from sklearn.linear_model import LogisticRegression

    rows = features[:, columns(FAILURE_FEATURES)]
    scaling = Scaling.of(rows)
    odds = LogisticRegression(solver="newton-cholesky", tol=1e-8).fit(scaling(rows), diverged)
    return FailureModel(Line(scaling, np.array([*odds.intercept_, *odds.coef_[0]])))


def _log_operations(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of the operations of training on one token, shape (rows,), of the whole feature matrix.

    Two for each parameter on the way forward, two for its activations on the way back, and two for its
    gradient where it is trained (Kaplan et al. 2020, arXiv:2001.08361, §2.1, for full finetuning). MeZO,
    which has no backward pass, and methods whose backward pass ends early do less: the residual has a term
    for each method, fitted on this basis, that makes up for it. The estimates count the true passes.
    """
    log_parameters, log_share = features[:, columns(("log_parameters", "log_trainable_share"))].T
    return np.asarray(log_parameters + np.log(4.0 + 2.0 * np.minimum(1.0, np.exp(log_share))))


def _seconds_per_token(run: Run) -> float | None:
    tokens = run.curve[-1].tokens_seen if run.curve else 0
    seconds = sum(run.machine.undisturbed(p.training, exclusive=run.exclusive) for p in run.curve)
    return seconds / tokens if tokens > 0 and seconds > 0 else None


def _features(runs: Sequence[Run]) -> NDArray[np.float64]:
    """Features of runs before their first point; the zero-shot loss, which no one looks at here, is 1."""
    tasks = (TaskDescription(r.dataset, r.model, r.full_length_tokens, r.unique_examples, 1.0) for r in runs)
    rows = [feature_rows(task, [run.pipeline]) for task, run in zip(tasks, runs, strict=True)]
    return np.concatenate(rows)
