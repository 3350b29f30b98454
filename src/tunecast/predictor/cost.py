"""Seconds per training token of pipelines relative to each other, and the odds that one diverges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunecast.arrays import Floats
from tunecast.predictor.features import PIPELINE, columns, feature_rows
from tunecast.predictor.linear import Line, by_device, families_of, fit_line, is_enough
from tunecast.predictor.regressors.base import Scaling
from tunecast.predictor.task import TaskDescription
from tunecast.records import ZERO_SHOT, Outcome, Run

COST_FEATURES = (
    *(name for name in PIPELINE if name.startswith(("method_", "optimizer_"))),
    *("trains_weights", "low_rank", "log_rank", "attention_only", "dora", "dropout", "log_batch"),
    *("log_tokens_per_update", "log_parameters", "log_width"),
)
"""Features that the seconds of a step depend on, besides the number of operations."""
FAILURE_FEATURES = (
    *("log_effective_rate", "trains_weights", "low_rank", "log_travel", "log_parameters"),
    *(name for name in PIPELINE if name.startswith("optimizer_")),
    *("schedule_constant", "warmup"),
)
EXCLUSIVE_WEIGHT = 5.0
"""Weight of a run with the machine to itself: its seconds are accurate, but few methods have such runs."""


@dataclass(frozen=True)
class CostModel:
    """Seconds per training token relative to the number of operations, for one kind of device.

    The predicted logarithm is that of the operations of a forward and backward pass over one token, plus a
    line in features. The machine itself is not a feature: rates measured beside other work vary more than
    machines of one kind differ, and a session uses its own runtime model anyway. The deviation around the
    line was measured on held-out tasks.
    """

    line: Line
    deviation: float

    def log_seconds_per_token(self, features: Floats) -> Floats:
        """Predict the logarithm of seconds per token on the machine of the runs, shape (rows,)."""
        return _log_operations(features) + self.line(features[:, columns(COST_FEATURES)])


@dataclass(frozen=True)
class FailureModel:
    """The logit of the odds that a trial diverges, as a logistic regression."""

    line: Line

    def probability(self, features: Floats) -> Floats:
        """Predict the probability of divergence, shape (rows,), from the whole feature matrix."""
        logits = np.clip(self.line(features[:, columns(FAILURE_FEATURES)]), -30.0, 30.0)
        return np.asarray(1.0 / (1.0 + np.exp(-logits)))


@dataclass(frozen=True)
class FailureScores:
    """The accuracy of the odds of divergence on held-out families of datasets.

    ``log_loss`` is in nats per run; ``base_log_loss`` is the same for the share of other runs that diverged,
    which ignores the pipeline. ``auc`` is the probability that a run which diverged was given higher odds
    than one which did not.
    """

    log_loss: float
    base_log_loss: float
    auc: float


def fit_cost(runs: Sequence[Run]) -> dict[str, CostModel]:
    """Learn the seconds per token that runs would take on an idle machine, by kind of device.

    All runs show how pipelines compare; the slowdown on shared machines is fitted separately. There is no
    model for a device with fewer than ten timed runs, or with runs of a single family of datasets.
    """
    found = {}
    for kind, many in by_device(runs).items():
        timed = [(run, seconds) for run in many if (seconds := _seconds_per_token(run)) is not None]
        if is_enough([run for run, _ in timed]):
            found[kind] = _fit_cost(timed)
    return found


def _fit_cost(timed: Sequence[tuple[Run, float]]) -> CostModel:
    """Learn the seconds per token of one kind of device.

    Sharing is the only separate effect; threads and the type of the weights have none. All shipped exclusive
    runs had two threads and all others one, so the cost of sharing and the gain of a thread are known only as
    a sum, which is this effect, and is left out of predictions. On held-out tasks, a further column for
    either changes the error of the logarithm, 0.308 (0.320 without any effect), by less than 0.001. Both are
    the same for all trials of a session, which uses its own runtime model.
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
    """Learn which pipelines diverge; return None if no run did.

    Runs that ran out of memory do not count, because that depends on the session's worker; see
    :mod:`tunecast.predictor.memory`.
    """
    ended = _ended(runs)
    return _fit_failure(_features(ended), _diverged(ended)) if ended else None


def score_failure(runs: Sequence[Run]) -> FailureScores | None:
    """Judge :func:`fit_failure` on held-out families; None if no run diverged, or there is one family."""
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


def _diverged(ended: Sequence[Run]) -> Floats:
    return np.array([run.outcome is Outcome.DIVERGED for run in ended], dtype=float)


def _is_mixed(diverged: Floats) -> bool:
    return bool(diverged.any() and not diverged.all())


def _fit_failure(features: Floats, diverged: Floats) -> FailureModel | None:
    if not _is_mixed(diverged):
        return None
    from sklearn.linear_model import LogisticRegression

    rows = features[:, columns(FAILURE_FEATURES)]
    scaling = Scaling.of(rows)
    odds = LogisticRegression(solver="newton-cholesky", tol=1e-8).fit(scaling(rows), diverged)
    return FailureModel(Line(scaling, np.array([*odds.intercept_, *odds.coef_[0]])))


def _log_operations(features: Floats) -> Floats:
    """Return the logarithm of the operations to train on one token, shape (rows,).

    Each parameter takes two operations in the forward pass, two for its activations in the backward pass, and
    two for its gradient if it is trained (Kaplan et al. 2020, arXiv:2001.08361, §2.1, for full finetuning).
    MeZO, which has no backward pass, and methods whose backward pass ends early take fewer. The residual has
    a term for each method, fitted on this basis, that corrects for it. The estimates count the true passes.
    """
    log_parameters, log_share = features[:, columns(("log_parameters", "log_trainable_share"))].T
    return np.asarray(log_parameters + np.log(4.0 + 2.0 * np.minimum(1.0, np.exp(log_share))))


def _seconds_per_token(run: Run) -> float | None:
    tokens = run.curve[-1].tokens_seen if run.curve else 0
    seconds = sum(run.machine.undisturbed(p.training, exclusive=run.exclusive) for p in run.curve)
    return seconds / tokens if tokens > 0 and seconds > 0 else None


def _features(runs: Sequence[Run]) -> Floats:
    """Return features of runs before their first point; the zero-shot loss is not used here and set to 1."""
    tasks = (TaskDescription(r.dataset, r.model, r.full_length_tokens, r.unique_examples, 1.0) for r in runs)
    rows = [feature_rows(task, [run.pipeline]) for task, run in zip(tasks, runs, strict=True)]
    return np.concatenate(rows)
