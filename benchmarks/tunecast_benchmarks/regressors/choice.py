"""Chooses a regressor, and judges it on tasks and base models that it never saw.

Everything is decided inside the training folds: inner folds hold tasks out to choose a regressor and to
correct its variance. Only then is it judged on the tasks of the outer fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tunecast.arrays import Flags, Floats, Ints
from tunecast.predictor.calibration import Calibration
from tunecast.predictor.examples import Examples
from tunecast.predictor.validation import OUTER_FOLDS, Scores, log_density, score
from tunecast_benchmarks.regressors import FAMILIES

INNER_FOLDS = 4
ROWS_OF_A_MODEL = 400
"""A base model with more rows counts as this many when base models are held out."""
CHOSEN = "chosen inside"
"""The row of the nested table that uses, in each fold, the regressor that its inner folds chose."""
Predictions = tuple[Floats, Floats]


@dataclass(frozen=True)
class Choice:
    """A chosen regressor and the corrections to its variance.

    Args:
        calibration: From held-out tasks, for known base models.
        unseen_calibration: From base models held out together with tasks, for other base models.
    """

    family: str
    calibration: Calibration
    unseen_calibration: Calibration
    log_scores: Mapping[str, float]


def held_out(family: str, examples: Examples, folds: Ints, seed: int) -> Predictions:
    """Predict every row by a regressor that saw none of its fold; return means and variances."""
    mean, variance = np.zeros(len(examples)), np.ones(len(examples))
    for fold in np.unique(folds):
        out = folds == fold
        learned = FAMILIES[family].fit(examples.where(~out), seed)
        mean[out], variance[out] = learned.predict(examples.features[out])
    return mean, variance


def choose(examples: Examples, seed: int, families: Sequence[str] = tuple(FAMILIES)) -> Choice:
    """Choose the regressor with the best log score on held-out tasks, and calibrate it there.

    The examples are of at least two families of datasets.
    """
    calibrations = _calibrations(examples, seed, families)
    scores = {name: found for name, (_, found) in calibrations.items()}
    best = max(scores, key=lambda name: scores[name])
    calibration = calibrations[best][0]
    unseen = calibrate_unseen(best, examples, seed, calibration)
    return Choice(best, calibration, unseen, scores)


def calibrate_unseen(family: str, examples: Examples, seed: int, calibration: Calibration) -> Calibration:
    """Calibrate predictions for a new base model on a new task.

    ``calibration``, for known base models, is the minimum; it is returned if there is a single base model.
    """
    folds = examples.folds(INNER_FOLDS, seed)
    cells = []
    for place, model in enumerate(np.unique(examples.model)):
        # One fold of tasks per base model, because all folds would take four times as long.
        present = np.unique(folds[examples.model == model])
        cells.append((int(model), int(present[place % len(present)])))
    mean, variance, judged = _both_held_out(family, examples, folds, cells, seed)
    if not judged.any():
        return calibration
    part = examples.where(judged)
    rows = np.bincount(part.model)[part.model]
    weight = np.minimum(1.0, ROWS_OF_A_MODEL / rows)
    return calibration.at_least(Calibration.of(part, mean[judged], variance[judged], weight))


def _both_held_out(
    family: str, examples: Examples, folds: Ints, cells: Sequence[tuple[int, int]], seed: int
) -> tuple[Floats, Floats, Flags]:
    """Predict rows of pairs of a base model and a fold of tasks by regressors that saw neither.

    Returns means, variances, and the mask of their rows; each of shape (rows,).
    """
    mean, variance, judged = np.zeros(len(examples)), np.ones(len(examples)), np.zeros(len(examples), bool)
    for model, fold in cells:
        inside = (examples.model != model) & (folds != fold)
        out = (examples.model == model) & (folds == fold)
        if inside.any() and out.any():
            learned = FAMILIES[family].fit(examples.where(inside), seed)
            mean[out], variance[out] = learned.predict(examples.features[out])
            judged |= out
    return mean, variance, judged


def score_unseen_models(family: str, examples: Examples, seed: int = 0) -> list[Scores]:
    """Judge a regressor on each of three or more base models, on tasks and a base model that it never saw."""
    folds = examples.folds(INNER_FOLDS, seed)
    found = []
    for number, name in enumerate(examples.models):
        calibration = choose(examples.where(examples.model != number), seed, (family,)).unseen_calibration
        cells = [(number, fold) for fold in range(INNER_FOLDS)]
        mean, variance, out = _both_held_out(family, examples, folds, cells, seed)
        part = examples.where(out)
        found += score(name, part, mean[out], calibration.corrected(variance[out], part.share)[0])
    return found


def _calibrations(
    examples: Examples, seed: int, families: Sequence[str]
) -> dict[str, tuple[Calibration, float]]:
    """Return the calibration of each regressor and its log score; both stages weigh the same."""
    folds = examples.folds(INNER_FOLDS, seed)
    found = {}
    for name in families:
        mean, variance = held_out(name, examples, folds, seed)
        calibration = Calibration.of(examples, mean, variance)
        logs = log_density(examples.target, mean, calibration.corrected(variance, examples.share)[0])
        begun = examples.share > 0
        parts = [logs[mask].mean() for mask in (begun, ~begun) if mask.any()]
        found[name] = calibration, float(np.mean(parts))
    return found


def nested(
    examples: Examples, seed: int = 0, families: Sequence[str] = tuple(FAMILIES)
) -> tuple[list[Scores], dict[str, int]]:
    """Judge every regressor, and the choice among them, on at least three held-out families of datasets.

    Returns:
        Scores by regressor and stage, and the number of outer folds that chose each regressor.
    """
    outer = examples.folds(OUTER_FOLDS, seed)
    names = [*families, CHOSEN]
    means = {name: np.zeros(len(examples)) for name in names}
    variances = {name: np.ones(len(examples)) for name in names}
    taken = dict.fromkeys(families, 0)
    for fold in np.unique(outer):
        out = outer == fold
        inside = examples.where(~out)
        calibrations = _calibrations(inside, seed, families)
        for name in families:
            mean, variance = FAMILIES[name].fit(inside, seed).predict(examples.features[out])
            means[name][out] = mean
            variances[name][out] = calibrations[name][0].corrected(variance, examples.share[out])[0]
        best = max(families, key=lambda name: calibrations[name][1])
        taken[best] += 1
        means[CHOSEN][out], variances[CHOSEN][out] = means[best][out], variances[best][out]
    found = [row for name in names for row in score(name, examples, means[name], variances[name])]
    return found, taken
