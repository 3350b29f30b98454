"""Fits the predictor of final losses to recorded and published runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

from tunecast.arrays import Flags, Floats, Ints
from tunecast.predictor.calibration import Calibration
from tunecast.predictor.divergence import Divergence, fit_divergence
from tunecast.predictor.endings import Ending, observations
from tunecast.predictor.examples import Examples
from tunecast.predictor.features import columns, feature_rows
from tunecast.predictor.forest import ForestModel, grow
from tunecast.predictor.language_law import ln_language_loss
from tunecast.predictor.quality import (
    OVERTRAINED,
    START,
    Calibrations,
    Forests,
    Quality,
    length_law,
    untouched_level,
    untouched_row,
    with_start,
    within_recorded_lengths,
)
from tunecast.predictor.rate_law import RateLaw, fit_rate_law
from tunecast.predictor.task import task_of
from tunecast.records import Run

FOLDS = 4
TREES, TREES_OF_POINTS = 144, 48
"""Trees before the first point, and with the points of curves. Before it, more trees rank the pipelines of
held-out tasks a little better: the first choice costs 0.07 in log loss with 144, 0.09 with 48."""
LEAF, LEAF_OF_POINTS = 2, 5
"""Rows in a leaf before the first point, and with the points of curves, because a run's points are alike.
Probabilities too need leaves of the second size."""
BY_LAW = (
    "log_full_length",
    "log_unique_examples",
    "log_unique_completion_tokens",
    "log_steps",
    "log_travel",
)
"""Features that trees do not learn from before the first point. Lengths hardly differ within a recorded
task, so trees that see them tell tasks apart by them: with some seeds, longer trainings were predicted to end
worse."""
MIN_SIZES = 3
"""Sizes of base models from which on these are left out, and not single base models."""
Split = tuple[Flags, Flags]
"""Rows to predict, and rows to learn from; each of shape (rows,)."""
HeldOut = tuple[Floats, Floats, Flags]
"""Means, variances, and whether a row was predicted; each of shape (rows,)."""


def fit_quality(
    examples: Examples,
    runs: Sequence[Run],
    endings: Sequence[Ending],
    *,
    seed: int = 0,
    hidden: Sequence[str] = (),
) -> Quality:
    """Learn forests from recorded runs, and laws of rates and of divergence from published runs too.

    Args:
        examples: Rows of recorded runs.
        runs: The recorded runs, by which the rows' tasks are known.
        endings: Of recorded and published runs.
        seed: Seed of folds and trees.
        hidden: Features that forests do not learn from.
    """
    return join(fit_forests(examples, runs, seed=seed, hidden=hidden), endings)


def join(forests: Forests, endings: Sequence[Ending]) -> Quality:
    """Add laws that these endings teach to forests."""
    law = fit_rate_law(observations(endings))
    return Quality(forests, law, divergence_of(law, endings))


def fit_forests(
    examples: Examples, runs: Sequence[Run], *, seed: int = 0, hidden: Sequence[str] = ()
) -> Forests:
    """Grow the forests and calibrate them; see :func:`fit_quality`."""
    gains, begun = examples.where(examples.share == 0), examples.where(examples.share > 0)
    if not len(begun):
        begun = examples
    late = replace(gains, target=(gains.rise > OVERTRAINED).astype(np.float64))
    gains = replace(
        gains,
        target=gains.target - length_law(gains.features),
        features=within_recorded_lengths(gains.features),
    )
    by_id = {run.id: run for run in runs}
    owners = [by_id[examples.runs[number]] for number in gains.run]
    untouched = _Untouched.of(gains, owners)
    before = _Grower(TREES, LEAF, seed, (*hidden, *BY_LAW))
    after = _Grower(TREES_OF_POINTS, LEAF_OF_POINTS, seed, hidden)
    by_task, by_model = _splits(gains, seed)
    known = _before(gains, untouched, by_task, before)
    unseen = _before(gains, untouched, by_model, before) if by_model else list(known)
    by_task, by_model = _splits(begun, seed)
    known.append(_calibration(begun, _held_out(begun, by_task, after)))
    unseen.append(_calibration(begun, _held_out(begun, by_model, after)) if by_model else known[-1])
    measured, unmeasured, of_start, of_rest = (
        Calibrations(one, one.at_least(other)) for one, other in zip(known, unseen, strict=True)
    )
    return Forests(
        gain=before.fit(gains),
        start=before.fit(untouched.examples(gains)),
        rest=after.fit(begun),
        late=after.fit(late),
        measured=measured,
        unmeasured=unmeasured,
        untouched=of_start,
        begun=of_rest,
        models={run.model.identity: ln_language_loss(run.model) for run in owners},
    )


def divergence_of(law: RateLaw, endings: Sequence[Ending]) -> Divergence | None:
    """Learn the probability of divergence from endings with a learning rate."""
    rated = [one for one in endings if one.pipeline.number("learning_rate") > 0]
    if not rated:
        return None
    return fit_divergence(*_described(law, rated), np.array([one.diverged for one in rated]))


def divergence_probability(law: RateLaw, divergence: Divergence, endings: Sequence[Ending]) -> Floats:
    """Return the probability that each finetuning diverges, shape (endings,); outcomes are ignored."""
    return divergence.probability(*_described(law, endings))


def _described(law: RateLaw, endings: Sequence[Ending]) -> tuple[Floats, list[int], Floats]:
    """Return distances from the best rates, steps and features; see :class:`Divergence`."""
    distances = [law.judge(one.task.model, [(one.pipeline, one.total_steps)])[0][0] for one in endings]
    rows = [feature_rows(one.task, [one.pipeline]) for one in endings]
    return np.array(distances), [one.total_steps for one in endings], np.concatenate(rows)


@dataclass(frozen=True)
class _Grower:
    """How a forest is grown: trees, rows in a leaf, seed, and features that it does not learn from."""

    trees: int
    leaf: int
    seed: int
    hidden: Sequence[str]

    def fit(self, examples: Examples) -> ForestModel:
        shown = examples.features.copy()
        shown[:, columns(self.hidden)] = 0.0  # no tree splits on a constant
        return grow(replace(examples, features=shown), self.trees, self.leaf, self.seed)


@dataclass(frozen=True)
class _Untouched:
    """Base models on datasets, each once.

    Args:
        features: Shape (pairs, features).
        levels: Logarithms of the losses by the law of pretraining, shape (pairs,).
        pair: Each run's pair, shape (runs,).
        first: Each pair's first run, shape (pairs,).
    """

    features: Floats
    levels: Floats
    pair: Ints
    first: Ints

    @classmethod
    def of(cls, gains: Examples, owners: Sequence[Run]) -> Self:
        """Collect the pairs of rows without points, given the run of each."""
        pairs = np.stack([gains.task, gains.model], axis=1)
        _, first, pair = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
        tasks = [task_of(owners[place], None) for place in first]
        features = np.array([untouched_row(task) for task in tasks])
        return cls(features, np.array([untouched_level(task) for task in tasks]), pair.ravel(), first)

    def examples(self, gains: Examples) -> Examples:
        """Return one row for each pair, whose target is the zero-shot loss over the law's."""
        chosen = {
            item.name: getattr(gains, item.name)[self.first]
            for item in fields(gains)
            if item.name not in ("tasks", "models", "runs")
        }
        target = gains.features[self.first, START] - self.levels
        return replace(gains, **{**chosen, "features": self.features, "target": target})


def _splits(examples: Examples, seed: int) -> tuple[list[Split], list[Split]]:
    """Leave out families of tasks; and base models, each together with a fold of tasks."""
    folds = examples.folds(FOLDS, seed)
    by_task = [(folds == fold, folds != fold) for fold in np.unique(folds)]
    models = _sizes(examples)
    if len(np.unique(models)) < MIN_SIZES:
        models = examples.model
    by_model = []
    for place, model in enumerate(np.unique(models)):
        # One fold of tasks for each, because all folds would take four times as long.
        present = np.unique(folds[models == model])
        fold = present[place % len(present)]
        by_model.append(((models == model) & (folds == fold), (models != model) & (folds != fold)))
    return by_task, [(out, inside) for out, inside in by_model if inside.any()]


def _before(
    gains: Examples, untouched: _Untouched, splits: Sequence[Split], grower: _Grower
) -> list[Calibration]:
    """Calibrate gains from measured losses, ends from predicted ones, and predicted zero-shot losses."""
    starts = untouched.examples(gains)
    found = np.zeros((3, 2, len(gains)))
    judged = np.zeros(len(gains), bool)
    for out, inside in splits:
        pairs = untouched.pair[out]
        start, uncertain = grower.fit(starts.where(inside[untouched.first])).predict(starts.features)
        forest, rows = grower.fit(gains.where(inside)), gains.features[out]
        found[0][:, out] = forest.predict(rows)
        mean, variance = forest.predict(with_start(rows, (untouched.levels + start)[pairs]))
        # The target is over the true zero-shot loss.
        found[1][:, out] = mean + (start - starts.target)[pairs], variance + uncertain[pairs]
        found[2][:, out] = start[pairs], uncertain[pairs]
        judged |= out
    once = np.zeros(len(gains), bool)
    once[untouched.first] = True
    own = replace(gains, target=starts.target[untouched.pair])
    asked = ((gains, judged), (gains, judged), (own, judged & once))
    return [
        _calibration(of, (mean, variance, which))
        for (of, which), (mean, variance) in zip(asked, found, strict=True)
    ]


def _held_out(examples: Examples, splits: Sequence[Split], grower: _Grower) -> HeldOut:
    mean, variance, judged = np.zeros(len(examples)), np.ones(len(examples)), np.zeros(len(examples), bool)
    for out, inside in splits:
        mean[out], variance[out] = grower.fit(examples.where(inside)).predict(examples.features[out])
        judged |= out
    return mean, variance, judged


def _calibration(examples: Examples, held_out: HeldOut) -> Calibration:
    """Calibrate on predicted rows; each size of models has the same weight."""
    mean, variance, judged = held_out
    part = examples.where(judged)
    _, size, counts = np.unique(_sizes(part), return_inverse=True, return_counts=True)
    weight = (len(part) / len(counts) / counts)[size]
    return Calibration.of(part, mean[judged], variance[judged], weight)


def _sizes(examples: Examples) -> Ints:
    """Return the base models' sizes, as powers of three of parameters, shape (rows,)."""
    logs = examples.features[:, columns(("log_parameters",))[0]]
    return np.round(logs / math.log(3)).astype(np.int64)
