"""One predictor of final losses: forests among recorded runs, and the law of rates beyond them.

The forests (:mod:`tunecast.predictor.regressors.forest`) learn from recorded runs before their first point,
on the features of :mod:`tunecast.predictor.features` and some of the laws. One predicts the loss over the
zero-shot loss. The other answers as long as that is unknown: it predicts the loss over that of the laws of
pretraining and compression. Both are calibrated on families of tasks and on models that they did not see.
Models far larger than the recorded ones get their level from a forest, and the differences between
pipelines from the law of rates, with divergence as a second outcome.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunecast.arrays import Flags, Floats, Ints
from tunecast.methods.rates import STEPS_EXPONENT
from tunecast.predictor.calibration import Calibration
from tunecast.predictor.divergence import Attempt, Divergence
from tunecast.predictor.examples import WORST, Examples, ZeroShotLosses, examples_of
from tunecast.predictor.features import columns, feature_rows, log_loss
from tunecast.predictor.language_law import excess_share, ln_language_loss
from tunecast.predictor.rate_law import USUAL_SCALE, RateLaw
from tunecast.predictor.regressors.forest import Forest, ForestModel
from tunecast.predictor.task import TaskDescription
from tunecast.records import ModelFacts, Pipeline, Run

FOLDS = 4
LEAF = 2
"""Runs in a leaf; with all points of curves as rows it is 5, because a run's points resemble each other."""
UNKNOWN_LOSS = 1.0
"""Zero-shot loss in the features of the forest that answers without one."""
INTERPOLATED, SHARPNESS = 3e8, 3.0
"""Parameters at which forest and law count half each for differences between pipelines, and how quickly the
forest's part falls beyond: it is off by tenths of nats there, where pipelines differ by hundredths. The
largest recorded model has half of these parameters, the smallest of the published sweep four times as many.
"""
LAW_ERROR, LEAST_ERROR = 0.3, 0.01
"""Deviation of a log loss from the law: per unit of its cost, and at least."""
ABILITY_SLOPE, LEAST_DISTANCE = 0.4, 0.01
"""Deviation of a task's level for each unit by which a model's log language loss differs from known ones."""
LEAST_SIZES = 3
"""Sizes of base models from which on these are left out, and not single base models."""
EFFECTIVE_RATE = columns(("log_effective_rate",))[0]
META = ("log_distinct_completions", "prompt_log_bytes_mean", "completion_log_bytes_mean")
LEAST_RATIO = 0.005


@dataclass(frozen=True)
class Trial:
    """A pipeline on a task, and the optimiser steps of its schedule."""

    task: TaskDescription
    pipeline: Pipeline
    steps: int


@dataclass(frozen=True)
class Ends:
    """Predicted logarithms of final losses in nats per label token; all arrays have shape (trials,).

    Args:
        shared: The part of the variance that all trials of a task have in common.
        failure: Probability of divergence.
    """

    mean: Floats
    variance: Floats
    shared: Floats
    failure: Floats


@dataclass(frozen=True)
class _Calibrated:
    """A forest with its calibrations, for known base models and for others."""

    forest: ForestModel
    known: Calibration
    unseen: Calibration

    def predict(self, rows: Floats, distance: float) -> tuple[Floats, Floats, Floats]:
        """Return means, variances and their shared parts for a model at a distance from the known ones."""
        mean, variance = self.forest.predict(rows)
        calibration = self.unseen if distance else self.known
        whole, shared = calibration.corrected(variance, np.zeros(len(rows)))
        apart = (ABILITY_SLOPE * distance) ** 2
        return mean, whole + apart, shared + apart


@dataclass(frozen=True)
class Forests:
    """What recorded runs teach.

    Args:
        measured: Answers where the zero-shot loss is known.
        unmeasured: Answers where it is not.
        models: Identities of the base models, and the logarithms of their language losses.
    """

    measured: _Calibrated
    unmeasured: _Calibrated
    models: Mapping[str, float]

    def predict(self, trials: Sequence[Trial]) -> tuple[Floats, Floats, Floats]:
        """Return means, variances and shared variances of log losses of trials of one task and model."""
        task = trials[0].task
        part = self.unmeasured if task.zero_shot_loss is None else self.measured
        rows = np.array([_row(trial) for trial in trials])
        mean, variance, shared = part.predict(rows, self._distance(task.model))
        return mean + np.array([_level(trial.task) for trial in trials]), variance, shared

    def _distance(self, model: ModelFacts) -> float:
        """Return how far a model's ability is from known ones; 0 for these, at least a little for others."""
        if model.identity in self.models:
            return 0.0
        own = ln_language_loss(model)
        return max(LEAST_DISTANCE, min(abs(own - other) for other in self.models.values()))


@dataclass(frozen=True)
class Quality:
    """The fitted predictor."""

    forests: Forests
    law: RateLaw
    divergence: Divergence | None

    def predict(self, trials: Sequence[Trial]) -> Ends:
        """Predict the ends of trials that share a dataset and a base model."""
        mean, variance, shared = self.forests.predict(trials)
        model = trials[0].task.model
        attempts = [Attempt(model, trial.pipeline, trial.steps, False) for trial in trials]
        failure = self.divergence.probability(attempts) if self.divergence else np.zeros(len(trials))
        scale = math.exp(USUAL_SCALE[True])
        costs = scale * np.array([self.law.cost(model, trial.pipeline, trial.steps) for trial in trials])
        # The likelier outcome counts: small odds are not known well enough to outweigh hundredths of nats.
        by_law = mean.mean() + (costs - costs.mean()) + WORST * (failure > 0.5)
        own = LEAST_ERROR**2 + (LAW_ERROR * costs) ** 2 + failure * (1 - failure) * WORST**2
        weight = 1.0 / (1.0 + (model.parameters / INTERPOLATED) ** SHARPNESS)
        free = weight * (variance - shared) + (1 - weight) * own
        return Ends(weight * mean + (1 - weight) * by_law, shared + free, shared, failure)


def fit_forests(runs: Sequence[Run]) -> Forests:
    """Learn from recorded runs, with those of untouched models among them."""
    known = {run.id: run for run in runs}
    examples = examples_of(runs)
    examples = examples.where(examples.share == 0)
    owned = [known[examples.runs[number]] for number in examples.run]
    zero_shot = ZeroShotLosses.of(runs)
    starts = [zero_shot.for_run(run) for run in owned]
    ends = examples.end + np.array([log_loss(start or UNKNOWN_LOSS) for start in starts])
    parts = []
    for start in (starts, [None] * len(owned)):
        trials = [_trial(run, loss) for run, loss in zip(owned, start, strict=True)]
        rows = np.array([_row(trial) for trial in trials])
        target = ends - np.array([_level(trial.task) for trial in trials])
        parts.append(_calibrated(replace(examples, features=rows, target=target)))
    return Forests(parts[0], parts[1], {run.model.identity: ln_language_loss(run.model) for run in owned})


def _calibrated(examples: Examples) -> _Calibrated:
    family = Forest(LEAF)
    folds = examples.folds(FOLDS, 0)
    known = _calibration(family, examples, [(folds == fold, folds != fold) for fold in np.unique(folds)])
    models = _sizes(examples)
    if len(np.unique(models)) < LEAST_SIZES:
        models = examples.model
    apart = []
    for place, model in enumerate(np.unique(models)):
        # One fold of tasks for each, because all folds would take four times as long.
        present = np.unique(folds[models == model])
        fold = present[place % len(present)]
        apart.append(((models == model) & (folds == fold), (models != model) & (folds != fold)))
    usable = [(out, inside) for out, inside in apart if inside.any()]
    unseen = known.at_least(_calibration(family, examples, usable)) if usable else known
    return _Calibrated(family.fit(examples, 0), known, unseen)


def _calibration(family: Forest, examples: Examples, splits: Sequence[tuple[Flags, Flags]]) -> Calibration:
    """Calibrate on rows that were left out together; each size of models has the same weight."""
    mean, variance, judged = np.zeros(len(examples)), np.ones(len(examples)), np.zeros(len(examples), bool)
    for out, inside in splits:
        mean[out], variance[out] = family.fit(examples.where(inside), 0).predict(examples.features[out])
        judged |= out
    part = examples.where(judged)
    _, size, counts = np.unique(_sizes(part), return_inverse=True, return_counts=True)
    weight = (len(part) / len(counts) / counts)[size]
    return Calibration.of(part, mean[judged], variance[judged], weight)


def _sizes(examples: Examples) -> Ints:
    """Return the base models' sizes, as powers of three of parameters, shape (rows,)."""
    logs = examples.features[:, columns(("log_parameters",))[0]]
    return np.round(logs / math.log(3)).astype(np.int64)


def _trial(run: Run, start: float | None) -> Trial:
    bytes_per_token = 1.0
    for point in run.curve:
        loss, bits = point.validation.loss, point.validation.bits_per_byte
        if 0 < loss < math.inf and 0 < bits < math.inf:
            bytes_per_token = loss / (bits * math.log(2))
            break
    task = TaskDescription(
        run.dataset, run.model, run.full_length_tokens, run.unique_examples, start, bytes_per_token
    )
    return Trial(task, run.pipeline, run.total_steps)


def _level(task: TaskDescription) -> float:
    """Return the logarithm of the loss that a forest's target is relative to, in nats per label token."""
    if task.zero_shot_loss is not None:
        return log_loss(task.zero_shot_loss)
    return math.log(task.bytes_per_label_token) + ln_language_loss(task.model) + _ln_compressed(task)


def _ln_compressed(task: TaskDescription) -> float:
    """Return the logarithm of the completions' compressed bits per byte; 0 if not measured."""
    ratio = task.dataset.meta_features.get("completion_compression_ratio", 0.0)
    return math.log(8 * max(ratio, LEAST_RATIO)) if ratio > 0 else 0.0


def _row(trial: Trial) -> Floats:
    """Return the features of a trial before its first point."""
    task, model = trial.task, trial.task.model
    start = UNKNOWN_LOSS if task.zero_shot_loss is None else task.zero_shot_loss
    completion = task.dataset.meta_features.get("completion_log_tokens_mean", 0.0)
    per_token = math.log(task.bytes_per_label_token)
    own = [
        ln_language_loss(model),
        excess_share(model),
        _ln_compressed(task),
        *(task.dataset.meta_features.get(name, 0.0) for name in META),
        completion + math.log(max(1, task.unique_examples)),
        math.log(max(1, trial.steps)),
        per_token,
        log_loss(start) - per_token if task.zero_shot_loss is not None else 0.0,
    ]
    row = feature_rows(replace(task, zero_shot_loss=start), [trial.pipeline])[0]
    # The best rate falls with the number of steps, and a rate above it costs otherwise than one below.
    surplus = row[EFFECTIVE_RATE] + STEPS_EXPONENT * math.log(max(1, trial.steps))
    return np.concatenate([row, own, [surplus, max(0.0, surplus) ** 2, min(0.0, surplus) ** 2]])
