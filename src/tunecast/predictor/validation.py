"""Which family of surrogates to take, and how good it is on tasks, and on base models, that it never saw.

Everything is decided inside the training folds: a family is chosen, and its spread corrected, by leaving out
tasks among those that it may learn from; only then is it judged on the tasks of the outer fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tunecast.predictor.calibration import EDGES, Calibration, stage
from tunecast.predictor.examples import Examples
from tunecast.predictor.prediction import NORMAL_90
from tunecast.predictor.regressors import FAMILIES

if TYPE_CHECKING:
    from numpy.typing import NDArray

INNER_FOLDS = 4
ROWS_OF_A_MODEL = 400
"""A base model with more rows counts for this many where base models are left out."""
OUTER_FOLDS = 8
CHOSEN = "chosen inside"
"""The row of the nested table that uses in each fold the family that its inner folds chose."""
STAGES = ("no curve", "to 0.2", "to 0.7", "beyond 0.7")

Predictions = tuple["NDArray[np.float64]", "NDArray[np.float64]"]


@dataclass(frozen=True)
class Scores:
    """How good predictions of the end of the schedule are at one stage.

    Args:
        name: The family, :data:`CHOSEN`, or the base model that was left out.
        stage: Which stage of the schedule the curve had reached.
        rows: Number of predictions.
        log_score: Mean logarithm of the density that was given to what happened.
        rank_correlation: Mean over groups of trials that compete of Spearman's correlation.
        regret: Mean over these groups of the logarithm of the loss of the trial that was predicted to be best
            over that of the best.
        coverage: Share of what happened inside the 90% intervals.
        groups: Groups of at least four trials.
    """

    name: str
    stage: str
    rows: int
    log_score: float
    rank_correlation: float
    regret: float
    coverage: float
    groups: int


@dataclass(frozen=True)
class Trusted:
    """A family that was chosen, and what corrects its spread.

    Args:
        family: Its name.
        calibration: From tasks that were left out, for base models that it knows.
        abroad: From base models that were left out together with tasks, for others.
        log_scores: Mean log score of every family.
    """

    family: str
    calibration: Calibration
    abroad: Calibration
    log_scores: Mapping[str, float]


def left_out(family: str, examples: Examples, folds: NDArray[np.int64], seed: int) -> Predictions:
    """Predictions for every row by surrogates that saw none of its fold: means and variances."""
    mean, variance = np.zeros(len(examples)), np.ones(len(examples))
    for fold in np.unique(folds):
        out = folds == fold
        learned = FAMILIES[family].fit(examples.where(~out), seed)
        mean[out], variance[out] = learned.predict(examples.features[out])
    return mean, variance


def choose(examples: Examples, seed: int, families: Sequence[str] = tuple(FAMILIES)) -> Trusted:
    """The family with the best log score on tasks left out, corrected by what was seen there.

    Args:
        examples: Rows of at least two families of datasets.
        seed: Seed of folds and training.
        families: Names of those that compete.
    """
    calibrations = _calibrations(examples, seed, families)
    scores = {name: found for name, (_, found) in calibrations.items()}
    best = max(scores, key=lambda name: scores[name])
    calibration = calibrations[best][0]
    return Trusted(best, calibration, abroad(best, examples, seed, calibration), scores)


def abroad(family: str, examples: Examples, seed: int, calibration: Calibration) -> Calibration:
    """What corrects the spread for a base model that was not learned from, on a task that was not either.

    Args:
        family: Name of the family.
        examples: Rows; of a single base model, nothing can be told of others.
        seed: Seed of training.
        calibration: For base models that were, which is the least.
    """
    folds = examples.folds(INNER_FOLDS, seed)
    cells = []
    for place, model in enumerate(np.unique(examples.model)):
        # Each base model is judged on one fold of tasks: on every fold it would take four times as long.
        present = np.unique(folds[examples.model == model])
        cells.append((int(model), int(present[place % len(present)])))
    mean, variance, judged = _both_left_out(family, examples, folds, cells, seed)
    if not judged.any():
        return calibration
    part = examples.where(judged)
    rows = np.bincount(part.model)[part.model]
    weight = np.minimum(1.0, ROWS_OF_A_MODEL / rows)
    return calibration.at_least(Calibration.of(part, mean[judged], variance[judged], weight))


def _both_left_out(
    family: str,
    examples: Examples,
    folds: NDArray[np.int64],
    cells: Sequence[tuple[int, int]],
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Predictions for a base model's rows in a fold of tasks by surrogates that saw neither of the two.

    Args:
        family: Name of the family.
        examples: Rows.
        folds: The fold of each, shape (rows,).
        cells: Pairs of a base model and a fold.
        seed: Seed of training.

    Returns:
        Means, variances, and of which rows they are; each of shape (rows,).
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


def models_left_out(family: str, examples: Examples, seed: int = 0) -> list[Scores]:
    """Judge a family on each base model that it never saw, on tasks that it never saw either, its spread
    corrected by what was seen of others.

    Args:
        family: Name of the family.
        examples: Rows of at least three base models.
        seed: Seed of folds and training.

    Returns:
        Scores by base model and stage, each under the base model's name.
    """
    folds = examples.folds(INNER_FOLDS, seed)
    found = []
    for number, name in enumerate(examples.models):
        calibration = choose(examples.where(examples.model != number), seed, (family,)).abroad
        cells = [(number, fold) for fold in range(INNER_FOLDS)]
        mean, variance, out = _both_left_out(family, examples, folds, cells, seed)
        part = examples.where(out)
        found += score(name, part, mean[out], calibration.corrected(variance[out], part.share)[0])
    return found


def _calibrations(
    examples: Examples, seed: int, families: Sequence[str]
) -> dict[str, tuple[Calibration, float]]:
    """By family, what corrects its spread, and its log score with it; stages weigh the same."""
    folds = examples.folds(INNER_FOLDS, seed)
    found = {}
    for name in families:
        mean, variance = left_out(name, examples, folds, seed)
        calibration = Calibration.of(examples, mean, variance)
        logs = log_density(examples.target, mean, calibration.corrected(variance, examples.share)[0])
        begun = examples.share > 0
        parts = [logs[mask].mean() for mask in (begun, ~begun) if mask.any()]
        found[name] = calibration, float(np.mean(parts))
    return found


def nested(
    examples: Examples, seed: int = 0, families: Sequence[str] = tuple(FAMILIES)
) -> tuple[list[Scores], dict[str, int]]:
    """Judge every family, and the choice among them, on tasks left out.

    Args:
        examples: Rows of at least three families of datasets.
        seed: Seed of folds and training.
        families: Names of those that compete.

    Returns:
        Scores by family and stage, and in how many outer folds each family was chosen.
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


def score(
    name: str, examples: Examples, mean: NDArray[np.float64], variance: NDArray[np.float64]
) -> list[Scores]:
    """Scores of predictions by stage.

    Args:
        name: What the rows are called.
        examples: What happened.
        mean: Means, shape (rows,).
        variance: Variances, shape (rows,).
    """
    rows = []
    stages = stage(examples.share)
    for number in range(len(EDGES) + 1):
        chosen = stages == number
        if not chosen.any():
            continue
        part, predicted, spread = examples.where(chosen), mean[chosen], np.sqrt(variance[chosen])
        missed = np.abs(part.target - predicted)
        # The end relative to the zero-shot loss: what is comparable between trials at different points.
        ends = part.end - part.target + predicted
        correlations, regrets = _by_group(part, ends)
        rows.append(
            Scores(
                name,
                STAGES[number],
                len(part),
                float(log_density(part.target, predicted, spread**2).mean()),
                float(np.mean(correlations)) if correlations else float("nan"),
                float(np.mean(regrets)) if regrets else float("nan"),
                float((missed <= NORMAL_90 * spread).mean()),
                len(correlations),
            )
        )
    return rows


def _by_group(part: Examples, ends: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """Spearman's correlation, and the regret of the first choice, in each group of at least four trials."""
    from scipy.stats import spearmanr

    correlations, regrets = [], []
    for number in np.unique(part.group):
        rows = np.flatnonzero(part.group == number)
        # The latest point of each run in this stage stands for it.
        last = {int(part.run[row]): row for row in rows[np.argsort(part.share[rows], kind="stable")]}
        kept = np.array(list(last.values()))
        if len(kept) < 4 or np.ptp(part.end[kept]) == 0:
            continue
        spread = np.ptp(ends[kept]) > 0
        correlations.append(float(spearmanr(ends[kept], part.end[kept]).statistic) if spread else 0.0)
        best = kept[int(np.argmin(ends[kept]))]
        regrets.append(float(part.end[best] - part.end[kept].min()))
    return correlations, regrets


def log_density(
    value: NDArray[np.float64], mean: NDArray[np.float64], variance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Logarithm of the normal density."""
    from scipy.stats import norm

    return np.asarray(norm.logpdf(value, mean, np.sqrt(variance)))
