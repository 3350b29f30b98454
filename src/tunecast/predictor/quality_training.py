"""Fits the predictor of final losses to recorded and published runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from tunecast.arrays import Flags, Floats, Ints
from tunecast.predictor.calibration import Calibration
from tunecast.predictor.divergence import fit_divergence
from tunecast.predictor.endings import Ending, observations, recorded, trial_of
from tunecast.predictor.examples import Examples, ZeroShotLosses, examples_of
from tunecast.predictor.features import columns
from tunecast.predictor.language_law import ln_language_loss
from tunecast.predictor.published_endings import published_endings
from tunecast.predictor.quality import (
    START,
    Calibrations,
    Forests,
    Quality,
    quality_row,
    untouched_level,
    untouched_row,
    with_start,
)
from tunecast.predictor.rate_law import fit_rate_law
from tunecast.predictor.regressors.forest import Forest
from tunecast.records import Run

FOLDS = 4
LEAF = 2
"""Runs in a leaf; with all points of curves as rows it is 5, because a run's points resemble each other."""
FAMILY = Forest(LEAF)
LEAST_SIZES = 3
"""Sizes of base models from which on these are left out, and not single base models."""


def fit_quality(runs: Sequence[Run], published: Sequence[Run]) -> Quality:
    """Learn forests from recorded runs, and laws of rates and of divergence from published runs too.

    Args:
        runs: Recorded runs, with those of untouched models among them.
        published: Runs of published tables.
    """
    return join(fit_forests(runs), [*recorded(runs), *published_endings(published)])


def join(forests: Forests, endings: Sequence[Ending]) -> Quality:
    """Add laws that these endings teach to forests."""
    law = fit_rate_law(observations(endings))
    return Quality(forests, law, fit_divergence(law, [ending.attempt for ending in endings]))


def fit_forests(runs: Sequence[Run]) -> Forests:
    """Learn from recorded runs, with those of untouched models among them."""
    known = {run.id: run for run in runs}
    examples = examples_of(runs)
    examples = examples.where(examples.share == 0)
    owned = [known[examples.runs[number]] for number in examples.run]
    zero_shot = ZeroShotLosses.of(runs)
    trials = [trial_of(run, zero_shot.for_run(run)) for run in owned]
    gains = replace(examples, features=np.array([quality_row(trial) for trial in trials]))
    places: dict[tuple[str, str], int] = {}
    for place, run in enumerate(owned):
        places.setdefault((run.dataset.identity, run.model.identity), place)
    first = np.array(list(places.values()))
    untouched = _Untouched(
        np.array([untouched_row(trials[place].task) for place in first]),
        np.array([untouched_level(trials[place].task) for place in first]),
        np.array([list(places).index((run.dataset.identity, run.model.identity)) for run in owned]),
        first,
    )
    measured, unmeasured, of_start = _calibrations(gains, untouched)
    return Forests(
        FAMILY.fit(gains, 0),
        FAMILY.fit(untouched.examples(gains), 0),
        measured,
        unmeasured,
        of_start,
        {run.model.identity: ln_language_loss(run.model) for run in owned},
    )


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

    def examples(self, gains: Examples) -> Examples:
        """Return one row for each pair, whose target is the zero-shot loss over the law's."""
        chosen = {
            item.name: getattr(gains, item.name)[self.first]
            for item in fields(gains)
            if item.name not in ("tasks", "models", "runs")
        }
        target = gains.features[self.first, START] - self.levels
        return replace(gains, **{**chosen, "features": self.features, "target": target})


def _calibrations(gains: Examples, untouched: _Untouched) -> list[Calibrations]:
    """Calibrate gains from measured losses, ends from predicted ones, and predicted zero-shot losses."""
    folds = gains.folds(FOLDS, 0)
    by_task = [(folds == fold, folds != fold) for fold in np.unique(folds)]
    models = _sizes(gains)
    if len(np.unique(models)) < LEAST_SIZES:
        models = gains.model
    apart = []
    for place, model in enumerate(np.unique(models)):
        # One fold of tasks for each, because all folds would take four times as long.
        present = np.unique(folds[models == model])
        fold = present[place % len(present)]
        apart.append(((models == model) & (folds == fold), (models != model) & (folds != fold)))
    usable = [(out, inside) for out, inside in apart if inside.any()]
    known = _calibrated(gains, untouched, by_task)
    unseen = _calibrated(gains, untouched, usable) if usable else known
    return [Calibrations(one, one.at_least(other)) for one, other in zip(known, unseen, strict=True)]


def _calibrated(
    gains: Examples, untouched: _Untouched, splits: Sequence[tuple[Flags, Flags]]
) -> list[Calibration]:
    """Calibrate on rows that were left out together, as :func:`_calibrations` does."""
    starts = untouched.examples(gains)
    found = np.zeros((3, 2, len(gains)))
    judged = np.zeros(len(gains), bool)
    for out, inside in splits:
        pairs = untouched.pair[out]
        start, uncertain = FAMILY.fit(starts.where(inside[untouched.first]), 0).predict(starts.features)
        forest, rows = FAMILY.fit(gains.where(inside), 0), gains.features[out]
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
        _calibration(of, mean, variance, which)
        for (of, which), (mean, variance) in zip(asked, found, strict=True)
    ]


def _calibration(examples: Examples, mean: Floats, variance: Floats, judged: Flags) -> Calibration:
    """Calibrate on judged rows; each size of models has the same weight."""
    part = examples.where(judged)
    _, size, counts = np.unique(_sizes(part), return_inverse=True, return_counts=True)
    weight = (len(part) / len(counts) / counts)[size]
    return Calibration.of(part, mean[judged], variance[judged], weight)


def _sizes(examples: Examples) -> Ints:
    """Return the base models' sizes, as powers of three of parameters, shape (rows,)."""
    logs = examples.features[:, columns(("log_parameters",))[0]]
    return np.round(logs / math.log(3)).astype(np.int64)
