"""How many epochs pay, and whether training for too long is foreseen.

    python benchmarks/epochs.py [--store URL]

The first table has the slopes of the losses of recorded curves, d ln(loss) / d ln(tokens), by base model and
by epochs so far: medians between neighbouring points, of cosine schedules within a factor of three of the
best rate. Then the law that fits these slopes: E > 1 epochs count as 1 + R (1 - exp(-(E - 1) / R)), as in
Muennighoff et al. (arXiv 2305.16264, section 3), with a power of the language that the base model has left to
learn for R. It is the source of :data:`tunecast.predictor.quality.USEFUL_EPOCHS`.

The second table judges the probability that a loss ends more than 2% above its lowest, with families of tasks
and with base models left out: area under the ROC curve and Brier score, beside that of the share of all other
runs.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np
from scipy.optimize import least_squares
from sklearn.metrics import brier_score_loss, roc_auc_score

from meta_dataset_figures import table
from tunecast.arrays import Floats, Ints
from tunecast.predictor.endings import recorded
from tunecast.predictor.examples import examples_of
from tunecast.predictor.features import log_loss
from tunecast.predictor.language_law import excess_share
from tunecast.predictor.prior import load_prior
from tunecast.predictor.quality import OVERTRAINED
from tunecast.predictor.quality_training import fit_forests
from tunecast.records import Run
from tunecast.store import open_for_reading

EDGES = (0.25, 0.5, 1, 2, 4, 8, 16)
NEAR = math.log(3.0)
"""Rates farther from the best one than this, as a logarithm, do not count."""
MIN_RATIO = 1.5
"""Least ratio of the tokens of neighbouring points."""
USUAL_SLOPE, WEIGHT_OF_USUAL = 0.15, 0.1
"""Slope within the first epoch to which groups of few points are drawn, and how strongly."""


@dataclass(frozen=True)
class Slope:
    """The slope between two neighbouring points of a curve, at the geometric mean of their epochs."""

    model: str
    family: str
    left: float
    epochs: float
    value: float


def slopes(runs: Sequence[Run]) -> Iterator[Slope]:
    """Yield the slopes of curves with a cosine and nearly the best rate."""
    law = load_prior().quality.law
    for ending in recorded(runs):
        run, pipeline = ending.run, ending.pipeline
        assert run is not None
        is_cosine = pipeline.hyperparameters.get("lr_scheduler_type", "cosine") == "cosine"
        if ending.diverged or not is_cosine:
            continue
        distances, _ = law.judge(run.model, [(pipeline, run.total_steps)])
        if abs(distances[0]) > NEAR:
            continue
        epoch = ending.task.mean_tokens * run.unique_examples
        points = [point for point in run.curve if point.share > 0 and math.isfinite(point.validation.loss)]
        for one, other in pairwise(points):
            ratio = other.tokens_seen / one.tokens_seen
            if ratio >= MIN_RATIO:
                rise = log_loss(other.validation.loss) - log_loss(one.validation.loss)
                yield Slope(
                    run.task.model,
                    ending.family,
                    excess_share(run.model),
                    math.sqrt(one.tokens_seen * other.tokens_seen) / epoch,
                    rise / math.log(ratio),
                )


def fit(found: Sequence[Slope]) -> tuple[float, float]:
    """Return R where all language is left to learn, and the exponent of what is left.

    The slope within the first epoch differs by family of tasks and base model; each pair has the same weight.
    """
    keys = sorted({(one.family, one.model) for one in found})
    group = np.array([keys.index((one.family, one.model)) for one in found])
    weight = 1 / np.sqrt(np.bincount(group)[group])
    epochs = np.array([one.epochs for one in found])
    left, value = np.array([one.left for one in found]), np.array([one.value for one in found])

    def errors(unknown: Floats) -> Floats:
        useful = np.exp(unknown[0] + unknown[1] * np.log(left))
        decay = np.exp(-np.minimum(np.maximum(epochs - 1, 0) / useful, 50.0))
        worth = np.where(epochs <= 1, 1.0, epochs * decay / (1 + useful * (1 - decay)))
        own = unknown[2:]
        kept = WEIGHT_OF_USUAL * (own - math.log(USUAL_SLOPE))
        return np.concatenate([weight * (value + np.exp(own[group]) * worth), kept])

    start = np.concatenate([[1.5, 0.0], np.full(len(keys), math.log(USUAL_SLOPE))])
    solved = least_squares(errors, start, loss="soft_l1", f_scale=0.1).x
    return math.exp(solved[0]), float(solved[1])


def slope_table(found: Sequence[Slope]) -> str:
    """Medians of slopes, and their numbers, by base model and epochs so far."""
    edges = (0.0, *EDGES, math.inf)
    rows = []
    for model in sorted({one.model for one in found}):
        own = [one for one in found if one.model == model]
        cells = []
        for low, high in pairwise(edges):
            values = [one.value for one in own if low < one.epochs <= high]
            cells.append(f"{median(values):+.2f} ({len(values)})" if values else "")
        rows.append((model, *cells))
    names = [*(f"to {edge:g}" for edge in EDGES), "more"]
    return table(("base model", *names), rows)


def overtraining_table(runs: Sequence[Run], seed: int) -> str:
    """How well overtraining is foreseen, with families of tasks and sizes of base models left out."""
    examples = examples_of(runs)
    gains = examples.where(examples.share == 0)
    truth = gains.rise > OVERTRAINED
    rows = []
    folds: dict[str, Ints] = {"families of tasks": examples.folds(4, seed), "base models": examples.model % 4}
    for name, fold in folds.items():
        chances, shares = np.zeros(len(gains)), np.zeros(len(gains))
        own = fold[examples.share == 0]
        for number in np.unique(fold):
            forests = fit_forests(examples.where(fold != number), runs, seed=seed)
            chances[own == number] = forests.late.predict(gains.features[own == number])[0]
            shares[own == number] = truth[own != number].mean()
        rows.append(
            (
                name,
                f"{roc_auc_score(truth, chances):.2f}",
                f"{brier_score_loss(truth, chances):.3f}",
                f"{brier_score_loss(truth, shares):.3f}",
                f"{truth.sum()} of {len(truth):,}",
            )
        )
    return table(("left out", "AUC", "Brier score", "of the share", "overtrained"), rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", help="recorded runs (default: what is shipped)")
    parser.add_argument("--seed", type=int, default=0, help="seed of folds and trees")
    options = parser.parse_args(arguments)
    with open_for_reading(options.store) as store:
        runs = list(store.runs())
    found = list(slopes(runs))
    print(slope_table(found))
    useful, exponent = fit(found)
    print(f"\nR = {useful:.1f} x (share of language left) ^ {exponent:.2f}\n")
    print(overtraining_table(runs, options.seed))


if __name__ == "__main__":
    main()
