"""Judges predictions of final losses and of divergence on families of datasets that they never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunecast.arrays import Floats
from tunecast.predictor.calibration import EDGES, stage
from tunecast.predictor.endings import Ending, observations
from tunecast.predictor.examples import Examples, ZeroShotLosses, examples_of
from tunecast.predictor.prediction import NORMAL_90
from tunecast.predictor.quality import START
from tunecast.predictor.quality_training import divergence_of, divergence_probability, fit_forests
from tunecast.predictor.rate_law import fit_rate_law
from tunecast.predictor.task import task_of
from tunecast.records import Run

OUTER_FOLDS = 8
STAGES = ("no curve", "to 0.2", "to 0.7", "beyond 0.7")


@dataclass(frozen=True)
class Scores:
    """The accuracy of predicted final losses at one stage.

    Args:
        name: Whether the zero-shot loss was measured.
        log_score: Mean logarithm of the predicted density at the true value.
        rank_correlation: Spearman's correlation within groups of competing trials, averaged over groups.
        regret: Logarithm of the loss of the trial predicted best over that of the best, averaged over groups.
        coverage: Share of true values inside the 90% intervals.
        groups: Number of groups with at least four trials.
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
class FailureScores:
    """The accuracy of the probabilities of divergence on held-out families of datasets.

    ``log_loss`` is in nats per run; ``base_log_loss`` is the same for the share of other runs that diverged,
    which ignores the pipeline. ``auc`` is the probability that a run which diverged was given a higher one
    than one which did not.
    """

    log_loss: float
    base_log_loss: float
    auc: float


def held_out_scores(runs: Sequence[Run], seed: int = 0) -> list[Scores]:
    """Judge the forests on at least three families of datasets, each left out with its calibration."""
    examples, by_id, zero_shot = examples_of(runs), {run.id: run for run in runs}, ZeroShotLosses.of(runs)
    tasks = [task_of(by_id[name], zero_shot.for_run(by_id[name])) for name in examples.runs]
    found = np.ones((2, 2, len(examples)))
    outer = examples.folds(OUTER_FOLDS, seed)
    for fold in np.unique(outer):
        forests = fit_forests(examples.where(outer != fold), runs, seed=seed)
        for number in np.unique(examples.run[outer == fold]):
            task, own = tasks[number], examples.run == number
            before, begun = own & (examples.share == 0), own & (examples.share > 0)
            known, unknown = task, replace(task, zero_shot_loss=None)
            found[0][:, before] = forests.before(known, examples.features[before])[:2]
            found[1][:, before] = forests.before(unknown, examples.features[before])[:2]
            found[0][:, begun] = forests.after(known, examples.features[begun])[:2]
    # Targets are relative to the last point, predictions are not.
    found[:, 0] -= examples.features[:, START] + examples.end - examples.target
    measured, unknown = found
    first = examples.share == 0
    return [
        *score("measured", examples, *measured),
        *score("unknown", examples.where(first), *unknown[:, first]),
    ]


def score_divergence(endings: Sequence[Ending]) -> FailureScores | None:
    """Judge the probabilities of divergence of recorded endings, each family of datasets left out.

    Published endings teach beside the others. None if no recorded run diverged, or there is one family.
    """
    from sklearn.metrics import log_loss, roc_auc_score

    judged = [one for one in endings if not one.table and one.pipeline.number("learning_rate") > 0]
    diverged = np.array([one.diverged for one in judged], dtype=float)
    families = {one.family for one in judged}
    if len(np.unique(diverged)) < 2 or len(families) < 2:
        return None
    chances, base = np.zeros(len(judged)), np.zeros(len(judged))
    for family in sorted(families):
        known = [one for one in endings if one.table or one.family != family]
        law = fit_rate_law(observations(known))
        learned = divergence_of(law, known)
        out = np.array([one.family == family for one in judged])
        # Laplace's rule of succession: no probability of 0 or 1, whatever was seen.
        base[out] = (diverged[~out].sum() + 1.0) / ((~out).sum() + 2.0)
        chances[out] = (
            divergence_probability(law, learned, [one for one in judged if one.family == family])
            if learned
            else base[out]
        )
    return FailureScores(
        float(log_loss(diverged, chances)),
        float(log_loss(diverged, base)),
        float(roc_auc_score(diverged, chances)),
    )


def score(name: str, examples: Examples, mean: Floats, variance: Floats) -> list[Scores]:
    """Score predicted means and variances, shape (rows,), by stage."""
    rows = []
    stages = stage(examples.share)
    for number in range(len(EDGES) + 1):
        chosen = stages == number
        if not chosen.any():
            continue
        part, predicted, spread = examples.where(chosen), mean[chosen], np.sqrt(variance[chosen])
        missed = np.abs(part.target - predicted)
        # The final loss relative to the zero-shot loss, which is comparable between trials at different
        # points.
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


def _by_group(part: Examples, ends: Floats) -> tuple[list[float], list[float]]:
    """Return Spearman's correlation and the regret of the first choice, for groups of four or more trials."""
    from scipy.stats import spearmanr

    correlations, regrets = [], []
    for number in np.unique(part.group):
        rows = np.flatnonzero(part.group == number)
        # Only the latest point of each run in this stage counts.
        last = {int(part.run[row]): row for row in rows[np.argsort(part.share[rows], kind="stable")]}
        kept = np.array(list(last.values()))
        if len(kept) < 4 or np.ptp(part.end[kept]) == 0:
            continue
        spread = np.ptp(ends[kept]) > 0
        correlations.append(float(spearmanr(ends[kept], part.end[kept]).statistic) if spread else 0.0)
        best = kept[int(np.argmin(ends[kept]))]
        regrets.append(float(part.end[best] - part.end[kept].min()))
    return correlations, regrets


def log_density(value: Floats, mean: Floats, variance: Floats) -> Floats:
    """Return the logarithm of the normal density."""
    from scipy.stats import norm

    return np.asarray(norm.logpdf(value, mean, np.sqrt(variance)))
