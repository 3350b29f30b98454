"""A quality model from recorded runs and the literature: known tasks, scaling laws, rules for rates.

It models the logarithm of the loss in bits per completion byte, the unit that base models share. That is a
linear function of the base model's pretraining (:mod:`tunecast.predictor.language_law`), the compression
of completions, data, method, rank and distance from the rule's learning rate, plus an intercept that similar
datasets share (:mod:`tunecast.recommender.regression`). The prior means of the weights come from the
literature; recorded runs move them, and the intervals show how far they could move.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tunecast.arrays import Floats
from tunecast.predictor.language_law import excess_share, ln_language_loss
from tunecast.predictor.novelty import Novelty
from tunecast.predictor.prediction import Prediction
from tunecast.predictor.task import TaskDescription
from tunecast.recommender.rate_rules import rate_surplus
from tunecast.recommender.regression import Design, Posterior, fit
from tunecast.records import ZERO_SHOT, ModelFacts, Outcome, Pipeline
from tunecast.store.final_results import FinalResult

TASK_FEATURES = (
    *("prompt_log_bytes_mean", "completion_log_bytes_mean", "log_distinct_completions"),
    *("distinct_completions_share", "label_entropy_nats", "top_completion_share", "copied_words_share"),
    *("prompt_compression_ratio", "completion_compression_ratio", "prompt_digit_share"),
    *("completion_digit_share", "completion_punctuation_share", "completion_code_share"),
    *("prompt_latin_share", "completion_upper_case_share", "prompt_common_beginning_share"),
    *("multi_turn_share", "without_prompt_share"),
)
"""Meta-features that datasets are compared by; none of them depends on a tokenizer."""
WEIGHTS: Mapping[str, tuple[float, float]] = {
    "intercept": (-0.5, 1.0),
    # A model that knows the language better by some per cent should be as much better after training.
    "ln_language_loss": (1.0, 0.3),
    # The bits of a compressor that sees the completions alone: a model that learned these and no more.
    "ln_compressed_bits": (1.0, 0.3),
    # Exponents of the joint law, in the range of Zhang et al. (arXiv 2402.17193).
    "ln_full_length_tokens": (-0.08, 0.04),
    "ln_unique_examples": (-0.05, 0.04),
    "ln_rank": (-0.005, 0.002),
    "ln_rank_if_small": (0.0, 0.01),
    # With little data adapters, with much data full finetuning (ibid., section 4); prompts fall behind.
    "is_full": (0.0, 0.15),
    "is_full_ln_full_length_tokens": (-0.01, 0.02),
    "is_ia3": (0.1, 0.15),
    "is_prompt": (0.25, 0.2),
    "is_other": (0.05, 0.15),
    "other_optimizer": (0.05, 0.1),
    # At equal tokens a larger batch takes fewer steps.
    "ln_batch": (0.02, 0.03),
    # A learning rate off by a factor of three costs some per cent of the loss.
    "surplus": (0.0, 0.1),
    "surplus_squared": (0.03, 0.02),
    # More steps need a lower rate; lengths in the runs vary too little to tell how much.
    "surplus_ln_steps": (0.01, 0.005),
}
ZERO_SHOT_WEIGHTS: Mapping[str, tuple[float, float]] = {
    "intercept": (1.5, 1.0),
    "ln_language_loss": (1.0, 0.3),
    # The surprise of an unknown format is spread over the bytes of a completion.
    "ln_completion_bytes": (-0.3, 0.2),
}
PROMPTS = frozenset({"prompt_tuning", "prefix_tuning", "p_tuning"})
MOST_SURPLUS = 4.0
NEIGHBOURS = 3
"""Number of nearest datasets to name."""
MOST_RUNS = 400
"""Number of runs to condition on, those of the nearest tasks first: the time grows with its cube."""
CARRIED = 0.5
"""Part of a surprise in the measured zero-shot loss that the loss after training should share."""


@dataclass(frozen=True)
class Plan:
    """A pipeline and its length of training: tokens of the schedule, and its optimiser steps."""

    pipeline: Pipeline
    full_length_tokens: int
    total_steps: int


@dataclass(frozen=True)
class Neighbour:
    """A known task near the one at hand.

    Args:
        dataset: Its name.
        distance: Root mean squared difference of the meta-features, in their standard deviations over all
            known datasets.
        runs: Number of its known runs.
        alike: Meta-features in which the two agree most, among those in which known datasets differ.
    """

    dataset: str
    distance: float
    runs: int
    alike: tuple[str, ...]


class KnownRuns:
    """Predicts the loss of finetunings from the ends of recorded runs, or from the literature alone."""

    def __init__(self, results: Sequence[FinalResult]) -> None:
        self._results = [result for result in results if _is_usable(result)]
        self._scales = _Scales({result.dataset: result.meta_features for result in self._results})
        self._untouched = {
            (result.dataset, result.model.name): result.bits_per_byte
            for result in self._results
            if result.pipeline.method == ZERO_SHOT.method
        }
        self._fits: dict[str, tuple[Posterior, Posterior]] = {}

    def predict(self, task: TaskDescription, plans: list[Plan]) -> list[Prediction]:
        """Predict the loss at the end of each plan, in the order of ``plans``."""
        if not plans:
            return []
        tuned, _ = self._posteriors(task)
        rows = [
            features(task.model, plan, task.unique_examples, task.dataset.meta_features) for plan in plans
        ]
        mean, deviation = tuned.predict(self._design(rows, task))
        shift = self._surprise(task)
        return [
            _in_nats(m + CARRIED * shift, s, task.bytes_per_label_token)
            for m, s in zip(mean, deviation, strict=True)
        ]

    def zero_shot(self, task: TaskDescription) -> Prediction:
        """Predict the loss of the base model, from known models on known tasks."""
        mean, deviation = self._zero_shot_log(task)
        return _in_nats(mean, deviation, task.bytes_per_label_token)

    def unlike(self, task: TaskDescription) -> str:
        """Return the meta-feature that makes a task's text unlike all known ones; empty if none does."""
        # The task may have been described without the base model's tokenizer.
        known = {
            one.dataset: {name: value for name, value in one.meta_features.items() if "tokens" not in name}
            for one in self._results
        }
        return Novelty.of(known.items()).farthest(task.dataset.meta_features)

    def neighbours(self, task: TaskDescription) -> tuple[Neighbour, ...]:
        """Return the nearest known datasets."""
        runs = Counter(result.dataset for result in self._results)
        own = self._scales.of(task.dataset.meta_features)
        found = []
        for name, values in self._scales.known.items():
            gap = np.abs(values - own)
            order = np.argsort(gap - self._scales.informative, kind="stable")[:3]
            alike = tuple(TASK_FEATURES[int(index)] for index in order)
            found.append(Neighbour(name, float(np.sqrt((gap**2).mean())), runs[name], alike))
        return tuple(sorted(found, key=lambda neighbour: neighbour.distance)[:NEIGHBOURS])

    def _surprise(self, task: TaskDescription) -> float:
        if task.zero_shot_loss is None:
            return 0.0
        measured = math.log(task.zero_shot_loss / (math.log(2) * task.bytes_per_label_token))
        return measured - self._zero_shot_log(task)[0]

    def _zero_shot_log(self, task: TaskDescription) -> tuple[float, float]:
        _, untouched = self._posteriors(task)
        row = zero_shot_features(task.model, task.dataset.meta_features)
        mean, deviation = untouched.predict(self._design([row], task))
        return float(mean[0]), float(deviation[0])

    def _posteriors(self, task: TaskDescription) -> tuple[Posterior, Posterior]:
        """Return the posteriors after and before training, conditioned on the nearest runs."""
        key = repr(sorted(task.dataset.meta_features.items()))
        if key not in self._fits:
            chosen = self._nearest_runs(task)
            untouched = [one for one in chosen if one.pipeline.method == ZERO_SHOT.method]
            before = [zero_shot_features(one.model, one.meta_features) for one in untouched]
            trained = [one for one in chosen if one.pipeline.method != ZERO_SHOT.method]
            rows = [_features_of(one) for one in trained]
            self._fits[key] = (
                self._fit(trained, rows, WEIGHTS),
                self._fit(untouched, before, ZERO_SHOT_WEIGHTS),
            )
        return self._fits[key]

    def _nearest_runs(self, task: TaskDescription) -> list[FinalResult]:
        own = self._scales.of(task.dataset.meta_features)
        distance = {name: float(((v - own) ** 2).mean()) for name, v in self._scales.known.items()}
        return sorted(self._results, key=lambda result: distance[result.dataset])[:MOST_RUNS]

    def _fit(
        self,
        results: Sequence[FinalResult],
        rows: Sequence[Sequence[float]],
        weights: Mapping[str, tuple[float, float]],
    ) -> Posterior:
        targets = np.array([math.log(self._bits(result)) for result in results])
        prior = np.array(list(weights.values()))
        design = Design(
            np.array(rows, dtype=np.float64).reshape(len(rows), len(prior)),
            np.array([self._scales.known[one.dataset] for one in results]).reshape(
                len(rows), len(TASK_FEATURES)
            ),
            [result.dataset for result in results],
            np.array([ln_language_loss(result.model) for result in results], dtype=np.float64),
        )
        return fit(design, targets, prior[:, 0], prior[:, 1])

    def _bits(self, result: FinalResult) -> float:
        """Return bits per byte at the end; a run that diverged is worth no more than the base model."""
        measured = result.bits_per_byte or math.nan
        if result.outcome is Outcome.COMPLETED:
            return measured
        untouched = self._untouched.get((result.dataset, result.model.name)) or DIVERGED_BITS
        return max(untouched, measured) if math.isfinite(measured) else untouched

    def _design(self, rows: Sequence[Sequence[float]], task: TaskDescription) -> Design:
        own = self._scales.of(task.dataset.meta_features)
        return Design(
            np.array(rows, dtype=np.float64),
            np.tile(own, (len(rows), 1)),
            [task.dataset.name] * len(rows),
            np.full(len(rows), ln_language_loss(task.model)),
        )


DIVERGED_BITS = 8.0
"""Bits per byte of a model that guesses bytes."""


class _Scales:
    """Meta-features of known datasets in units of their spread."""

    def __init__(self, known: Mapping[str, Mapping[str, float]]) -> None:
        raw = np.array([[of.get(name, 0.0) for name in TASK_FEATURES] for of in known.values()])
        raw = raw.reshape(len(known), len(TASK_FEATURES))
        self._mean = raw.mean(axis=0) if len(raw) else np.zeros(len(TASK_FEATURES))
        spread = raw.std(axis=0) if len(raw) else np.ones(len(TASK_FEATURES))
        self._spread = np.maximum(spread, LEAST_SPREAD)
        self.informative: Floats = np.minimum(1.0, spread / self._spread)
        self.known: dict[str, Floats] = {
            name: (row - self._mean) / self._spread for name, row in zip(known, raw, strict=True)
        }

    def of(self, meta_features: Mapping[str, float]) -> Floats:
        """Standardise meta-features; values far beyond all known ones are clipped."""
        raw = np.array([meta_features.get(name, 0.0) for name in TASK_FEATURES])
        return np.clip((raw - self._mean) / self._spread, -MOST_DEVIATIONS, MOST_DEVIATIONS)


LEAST_SPREAD = 0.05
REFERENCE_BYTES = 20.0
"""Completion bytes at which the zero-shot intercept applies."""
LEAST_RATIO = 0.005
"""No text counts as compressed below this share of its bytes."""
MOST_DEVIATIONS = 4.0


def features(
    model: ModelFacts, plan: Plan, unique_examples: int, meta_features: Mapping[str, float]
) -> list[float]:
    """Return the row of a plan in the regression, in the order of :data:`WEIGHTS`."""
    pipeline = plan.pipeline
    method = pipeline.method
    surplus = max(-MOST_SURPLUS, min(MOST_SURPLUS, rate_surplus(model, pipeline)))
    # With better models the choice of method matters less (Su et al., arXiv 2306.02320), and deviations of
    # poor models from the rules tell little about them (benchmarks/large_models_advice.py).
    apart = excess_share(model)
    is_full = apart * (method == "full")
    length = math.log(max(1, plan.full_length_tokens) / 1e4)
    rank = math.log(pipeline.number("lora_r", 16.0) / 16) if method in ("lora", "qlora") else 0.0
    return [
        1.0,
        ln_language_loss(model),
        _ln_compressed_bits(meta_features),
        length,
        math.log(max(1, unique_examples) / 200),
        rank,
        apart * rank,
        is_full,
        is_full * length,
        apart * (method == "ia3"),
        apart * (method in PROMPTS),
        apart * (method not in ("lora", "qlora", "full", "ia3", *PROMPTS)),
        float(pipeline.hyperparameters.get("optim", "adamw") not in ("adamw", "adamw_8bit")),
        math.log(pipeline.number("per_device_train_batch_size", 16.0) / 16),
        apart * surplus,
        surplus**2,
        apart * surplus * math.log(max(1, plan.total_steps) / 100),
    ]


def zero_shot_features(model: ModelFacts, meta_features: Mapping[str, float]) -> list[float]:
    """Return the row of a base model, in the order of :data:`ZERO_SHOT_WEIGHTS`."""
    ln_bytes = meta_features.get("completion_log_bytes_mean", math.log(REFERENCE_BYTES))
    return [1.0, ln_language_loss(model), ln_bytes - math.log(REFERENCE_BYTES)]


def _ln_compressed_bits(meta_features: Mapping[str, float]) -> float:
    """Return the logarithm of the completions' compressed bits per byte; 0 if not measured."""
    ratio = meta_features.get("completion_compression_ratio", 0.0)
    return math.log(8 * max(ratio, LEAST_RATIO)) if ratio > 0 else 0.0


def _features_of(result: FinalResult) -> list[float]:
    plan = Plan(result.pipeline, result.full_length_tokens, result.total_steps)
    return features(result.model, plan, result.unique_examples, result.meta_features)


def _is_usable(result: FinalResult) -> bool:
    if result.outcome is Outcome.DIVERGED:
        return True
    bits = result.bits_per_byte
    return result.outcome is Outcome.COMPLETED and bits is not None and math.isfinite(bits) and bits > 0


def _in_nats(log_bits: float, deviation: float, bytes_per_label_token: float) -> Prediction:
    """Convert ln(bits per byte) to nats per label token."""
    return Prediction(log_bits + math.log(math.log(2) * bytes_per_label_token), deviation)
