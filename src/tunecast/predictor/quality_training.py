"""Fits the predictor of final losses to recorded and published runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tunecast.arrays import Flags, Ints
from tunecast.predictor.calibration import Calibration
from tunecast.predictor.divergence import fit_divergence
from tunecast.predictor.endings import Ending, observations, recorded, trial_of
from tunecast.predictor.examples import Examples, ZeroShotLosses, examples_of
from tunecast.predictor.features import columns, log_loss
from tunecast.predictor.language_law import ln_language_loss
from tunecast.predictor.published_endings import published_endings
from tunecast.predictor.quality import (
    UNKNOWN_LOSS,
    CalibratedForest,
    Forests,
    Quality,
    level,
    quality_row,
)
from tunecast.predictor.rate_law import fit_rate_law
from tunecast.predictor.regressors.forest import Forest
from tunecast.records import Run

FOLDS = 4
LEAF = 2
"""Runs in a leaf; with all points of curves as rows it is 5, because a run's points resemble each other."""
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
    starts = [zero_shot.for_run(run) for run in owned]
    ends = examples.end + np.array([log_loss(start or UNKNOWN_LOSS) for start in starts])
    parts = []
    for start in (starts, [None] * len(owned)):
        trials = [trial_of(run, loss) for run, loss in zip(owned, start, strict=True)]
        rows = np.array([quality_row(trial) for trial in trials])
        target = ends - np.array([level(trial.task) for trial in trials])
        parts.append(_calibrated(replace(examples, features=rows, target=target)))
    return Forests(parts[0], parts[1], {run.model.identity: ln_language_loss(run.model) for run in owned})


def _calibrated(examples: Examples) -> CalibratedForest:
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
    return CalibratedForest(family.fit(examples, 0), known, unseen)


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
