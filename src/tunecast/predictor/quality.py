"""One predictor of final losses: forests among recorded runs, and the law of rates beyond them.

The forests (:mod:`tunecast.predictor.regressors.forest`) learn from recorded runs before their first point,
on the features of :mod:`tunecast.predictor.features` and some of the laws. One predicts the final loss over
the zero-shot loss. As long as that is unknown, another predicts it, over the loss by the law of pretraining.
Both are calibrated on families of tasks and on models that they did not see.
Models far larger than the recorded ones get their level from a forest, and the differences between
pipelines from the law of rates, with divergence as a second outcome.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from tunecast.arrays import Floats
from tunecast.methods.rates import STEPS_EXPONENT
from tunecast.predictor.calibration import Calibration
from tunecast.predictor.divergence import Attempt, Divergence
from tunecast.predictor.examples import WORST
from tunecast.predictor.features import columns, feature_rows, log_loss
from tunecast.predictor.language_law import excess_share, ln_language_loss
from tunecast.predictor.linear import Line
from tunecast.predictor.prediction import Prediction
from tunecast.predictor.rate_law import USUAL_SCALE, RateLaw
from tunecast.predictor.regressors.base import Arrays, part, prefixed
from tunecast.predictor.regressors.forest import ForestModel
from tunecast.predictor.task import TaskDescription
from tunecast.records import ModelFacts, Pipeline

REFERENCE = Pipeline("lora", {"learning_rate": 1e-3, "lora_r": 16, "lora_alpha": 32})
"""The pipeline that stands for all others in the level of a task."""
INTERPOLATED, SHARPNESS = 3e8, 3.0
"""Parameters at which forest and law count half each for differences between pipelines, and how quickly the
forest's part falls beyond: it is off by tenths of nats there, where pipelines differ by hundredths. The
largest recorded model has half of these parameters, the smallest of the published sweep four times as many.
"""
LAW_ERROR, LEAST_ERROR = 0.3, 0.01
"""Deviation of a log loss from the law: per unit of its cost, and at least."""
ABILITY_SLOPE, LARGE_SLOPE, LEAST_DISTANCE = 0.4, 0.9, 0.01
"""Deviation of a task's level for each unit by which a model's log language loss differs from known ones.

The first is for recorded sizes, the second for those far beyond: in published finetunings of five families of
decoders from 124 million to 13 billion parameters, slopes differ by 0.9 (Lin et al., arXiv 2402.02314).
"""
EFFECTIVE_RATE, START = columns(("log_effective_rate", "log_zero_shot"))
PER_TOKEN, OVER_TOKEN = -5, -4
"""Columns of a row, counted from its end."""
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

    def predictions(self) -> list[Prediction]:
        """Return one prediction for each trial."""
        rows = zip(self.mean, np.sqrt(self.variance), self.failure, strict=True)
        return [Prediction(float(mean), float(deviation), float(odds)) for mean, deviation, odds in rows]


@dataclass(frozen=True)
class Calibrations:
    """Corrections of variances, for known base models and for others."""

    known: Calibration
    unseen: Calibration

    def corrected(self, variance: Floats, apart: float) -> tuple[Floats, Floats]:
        """Return variances and their shared parts for a model off by this deviation, 0 for a known one."""
        calibration = self.unseen if apart else self.known
        whole, shared = calibration.corrected(variance, np.zeros(len(variance)))
        return whole + apart**2, shared + apart**2

    def arrays(self) -> Arrays:
        """Return everything learned."""
        return {**prefixed("known", vars(self.known)), **prefixed("unseen", vars(self.unseen))}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Rebuild them from the result of :meth:`arrays`."""
        return cls(*(Calibration.from_arrays(part(name, arrays)) for name in ("known", "unseen")))


@dataclass(frozen=True)
class Forests:
    """What recorded runs teach.

    Args:
        gain: Predicts the logarithm of the final loss over the zero-shot loss.
        start: Predicts the logarithm of the zero-shot loss over that of the law of pretraining.
        measured: Corrects ``gain`` where the zero-shot loss is known.
        unmeasured: Corrects the sum of both where it is not.
        untouched: Corrects ``start``.
        models: Identities of the base models, and the logarithms of their language losses.
    """

    gain: ForestModel
    start: ForestModel
    measured: Calibrations
    unmeasured: Calibrations
    untouched: Calibrations
    models: Mapping[str, float]

    def predict(self, trials: Sequence[Trial]) -> tuple[Floats, Floats, Floats]:
        """Return means, variances and shared variances of log losses of trials of one task and model."""
        task = trials[0].task
        rows = np.array([quality_row(trial) for trial in trials])
        if task.zero_shot_loss is not None:
            start, uncertain, calibrations = log_loss(task.zero_shot_loss), 0.0, self.measured
        else:
            (start, uncertain), calibrations = self._start(task), self.unmeasured
            rows = with_start(rows, start)
        mean, variance = self.gain.predict(rows)
        return (start + mean, *calibrations.corrected(variance + uncertain, self._apart(task.model)))

    def zero_shot(self, task: TaskDescription) -> Prediction:
        """Predict the loss of the base model."""
        mean, variance = self._start(task)
        whole, _ = self.untouched.corrected(np.array([variance]), self._apart(task.model))
        return Prediction(mean, math.sqrt(whole[0]))

    def _start(self, task: TaskDescription) -> tuple[float, float]:
        mean, variance = self.start.predict(untouched_row(task)[None])
        return untouched_level(task) + float(mean[0]), float(variance[0])

    def _apart(self, model: ModelFacts) -> float:
        """Return the deviation because a model's ability differs from known ones; 0 for these."""
        if model.identity in self.models:
            return 0.0
        own = ln_language_loss(model)
        distance = max(LEAST_DISTANCE, min(abs(own - other) for other in self.models.values()))
        weight = interpolated(model)
        return (weight * ABILITY_SLOPE + (1 - weight) * LARGE_SLOPE) * distance

    def arrays(self) -> Arrays:
        """Return everything learned but the identities of models."""
        return {
            **prefixed("gain", self.gain.arrays),
            **prefixed("start", self.start.arrays),
            **prefixed("measured", self.measured.arrays()),
            **prefixed("unmeasured", self.unmeasured.arrays()),
            **prefixed("untouched", self.untouched.arrays()),
            "models": np.array(list(self.models.values())),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, models: Sequence[str]) -> Self:
        """Rebuild them from the result of :meth:`arrays` and the identities of models in its order."""
        gain, start = (ForestModel(part(name, arrays)) for name in ("gain", "start"))
        measured, unmeasured, untouched = (
            Calibrations.from_arrays(part(name, arrays)) for name in ("measured", "unmeasured", "untouched")
        )
        losses = dict(zip(models, arrays["models"].tolist(), strict=True))
        return cls(gain, start, measured, unmeasured, untouched, losses)


@dataclass(frozen=True)
class Quality:
    """The fitted predictor."""

    forests: Forests
    law: RateLaw
    divergence: Divergence | None

    def predict(self, trials: Sequence[Trial]) -> Ends:
        """Predict the ends of trials that share a dataset and a base model."""
        if not trials:
            return Ends(*np.zeros((4, 0)))
        mean, variance, shared = self.forests.predict(trials)
        model = trials[0].task.model
        attempts = [Attempt(model, trial.pipeline, trial.steps, False) for trial in trials]
        failure = self.divergence.probability(attempts) if self.divergence else np.zeros(len(trials))
        costs = self._costs(trials)
        level, least = self._reference(trials)
        # The likelier outcome counts: small odds are not known well enough to outweigh hundredths of nats.
        by_law = level + (costs - least) + WORST * (failure > 0.5)
        own = LEAST_ERROR**2 + (LAW_ERROR * costs) ** 2 + failure * (1 - failure) * WORST**2
        weight = interpolated(model)
        free = weight * (variance - shared) + (1 - weight) * own
        return Ends(weight * mean + (1 - weight) * by_law, shared + free, shared, failure)

    def zero_shot(self, task: TaskDescription) -> Prediction:
        """Predict the loss of the base model."""
        return self.forests.zero_shot(task)

    def _costs(self, trials: Sequence[Trial]) -> Floats:
        scale = math.exp(USUAL_SCALE[True])
        costs = [self.law.cost(trial.task.model, trial.pipeline, trial.steps) for trial in trials]
        return scale * np.array(costs)

    def _reference(self, trials: Sequence[Trial]) -> tuple[float, float]:
        """Return mean and cost of LoRA at its best rate, from which the law counts, for the longest trial."""
        longest = max(trials, key=lambda trial: trial.task.full_length_tokens)
        pipeline = self.law.with_best_rate(longest.task.model, REFERENCE, longest.steps)
        reference = [replace(longest, pipeline=pipeline)]
        return float(self.forests.predict(reference)[0][0]), float(self._costs(reference)[0])

    def arrays(self) -> Arrays:
        """Return everything learned but names."""
        line = self.divergence.line.arrays() if self.divergence else {}
        return {
            **prefixed("forests", self.forests.arrays()),
            **prefixed("law", self.law.arrays()),
            **prefixed("divergence", line),
        }

    def names(self) -> dict[str, list[str]]:
        """Return the names that :meth:`from_arrays` needs beside the arrays."""
        return {"known_models": list(self.forests.models), **self.law.names_by_kind()}

    @classmethod
    def from_arrays(cls, arrays: Arrays, names: Mapping[str, Sequence[str]]) -> Self:
        """Rebuild the predictor from its arrays and names.

        Raises:
            KeyError, TypeError, ValueError, IndexError: Something is missing or does not fit.
        """
        law = RateLaw.from_arrays(part("law", arrays), names)
        line = part("divergence", arrays)
        return cls(
            Forests.from_arrays(part("forests", arrays), names["known_models"]),
            law,
            Divergence(law, Line.from_arrays(line)) if line else None,
        )


def interpolated(model: ModelFacts) -> float:
    """Return how much the forests count for a model, from 0 to 1; the law of rates has the rest."""
    return 1.0 / (1.0 + (model.parameters / INTERPOLATED) ** SHARPNESS)


def untouched_level(task: TaskDescription) -> float:
    """Return the logarithm of the loss of a base model by the law of pretraining, in nats per label token."""
    return math.log(task.bytes_per_label_token) + ln_language_loss(task.model)


def _ln_compressed(task: TaskDescription) -> float:
    """Return the logarithm of the completions' compressed bits per byte; 0 if not measured."""
    ratio = task.dataset.meta_features.get("completion_compression_ratio", 0.0)
    return math.log(8 * max(ratio, LEAST_RATIO)) if ratio > 0 else 0.0


def quality_row(trial: Trial) -> Floats:
    """Return the features of a trial before its first point; see :func:`with_start`."""
    task, model = trial.task, trial.task.model
    start = 1.0 if task.zero_shot_loss is None else task.zero_shot_loss
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
        log_loss(start) - per_token,
    ]
    row = feature_rows(replace(task, zero_shot_loss=start), [trial.pipeline])[0]
    # The best rate falls with the number of steps, and a rate above it costs otherwise than one below.
    surplus = row[EFFECTIVE_RATE] + STEPS_EXPONENT * math.log(max(1, trial.steps))
    return np.concatenate([row, own, [surplus, max(0.0, surplus) ** 2, min(0.0, surplus) ** 2]])


def with_start(rows: Floats, log_start: Floats | float) -> Floats:
    """Return rows of :func:`quality_row` with other logarithms of the zero-shot loss, shape (rows,)."""
    changed = rows.copy()
    changed[:, START] = log_start
    changed[:, OVER_TOKEN] = log_start - changed[:, PER_TOKEN]
    return changed


def untouched_row(task: TaskDescription) -> Floats:
    """Return the features of a base model on a dataset, whatever a trial would be."""
    same = replace(task, zero_shot_loss=None, full_length_tokens=10**6, unique_examples=1000)
    return quality_row(Trial(same, REFERENCE, 100))
