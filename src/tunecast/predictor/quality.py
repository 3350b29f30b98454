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
from tunecast.predictor.rate_law import USUAL_SCALE, RateLaw
from tunecast.predictor.regressors.base import Arrays, part, prefixed
from tunecast.predictor.regressors.forest import ForestModel
from tunecast.predictor.task import TaskDescription
from tunecast.records import ModelFacts, Pipeline

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
class CalibratedForest:
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

    def arrays(self) -> Arrays:
        """Return everything learned."""
        return {
            **prefixed("forest", self.forest.arrays),
            **prefixed("known", vars(self.known)),
            **prefixed("unseen", vars(self.unseen)),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Rebuild it from the result of :meth:`arrays`."""
        known, unseen = (Calibration.from_arrays(part(name, arrays)) for name in ("known", "unseen"))
        return cls(ForestModel(part("forest", arrays)), known, unseen)


@dataclass(frozen=True)
class Forests:
    """What recorded runs teach.

    Args:
        measured: Answers where the zero-shot loss is known.
        unmeasured: Answers where it is not.
        models: Identities of the base models, and the logarithms of their language losses.
    """

    measured: CalibratedForest
    unmeasured: CalibratedForest
    models: Mapping[str, float]

    def predict(self, trials: Sequence[Trial]) -> tuple[Floats, Floats, Floats]:
        """Return means, variances and shared variances of log losses of trials of one task and model."""
        task = trials[0].task
        part = self.unmeasured if task.zero_shot_loss is None else self.measured
        rows = np.array([quality_row(trial) for trial in trials])
        mean, variance, shared = part.predict(rows, self._distance(task.model))
        return mean + np.array([level(trial.task) for trial in trials]), variance, shared

    def _distance(self, model: ModelFacts) -> float:
        """Return how far a model's ability is from known ones; 0 for these, at least a little for others."""
        if model.identity in self.models:
            return 0.0
        own = ln_language_loss(model)
        return max(LEAST_DISTANCE, min(abs(own - other) for other in self.models.values()))

    def arrays(self) -> Arrays:
        """Return everything learned but the identities of models."""
        return {
            **prefixed("measured", self.measured.arrays()),
            **prefixed("unmeasured", self.unmeasured.arrays()),
            "models": np.array(list(self.models.values())),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, models: Sequence[str]) -> Self:
        """Rebuild them from the result of :meth:`arrays` and the identities of models in its order."""
        measured, unmeasured = (
            CalibratedForest.from_arrays(part(name, arrays)) for name in ("measured", "unmeasured")
        )
        return cls(measured, unmeasured, dict(zip(models, arrays["models"].tolist(), strict=True)))


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


def level(task: TaskDescription) -> float:
    """Return the logarithm of the loss that a forest's target is relative to, in nats per label token."""
    if task.zero_shot_loss is not None:
        return log_loss(task.zero_shot_loss)
    return math.log(task.bytes_per_label_token) + ln_language_loss(task.model) + _ln_compressed(task)


def _ln_compressed(task: TaskDescription) -> float:
    """Return the logarithm of the completions' compressed bits per byte; 0 if not measured."""
    ratio = task.dataset.meta_features.get("completion_compression_ratio", 0.0)
    return math.log(8 * max(ratio, LEAST_RATIO)) if ratio > 0 else 0.0


def quality_row(trial: Trial) -> Floats:
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
