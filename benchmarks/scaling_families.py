"""Families and architectures in published tables of scaling: what their sizes and kinds say about each other.

    python benchmarks/scaling_families.py --data FOLDER

FOLDER contains wide tables of the benchmark of arXiv 2402.02314 (``flan.csv``, ``wmt19.csv``) with the
columns ``size`` and ``family``. Prints two tables as Markdown. The first leaves out the largest model of each
family, its largest data sizes, or both, and predicts them by laws of model size and data, by the pooled
rectified law, and by the nearest measured loss. The second compares encoder-decoders with decoders at equal
size and data.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from scaling_study import markdown
from study_findings import RIVALS, Target, score
from tunecast.arrays import Floats
from tunecast.scaling import LossTable, read_table
from tunecast.scaling.forecasting import posteriors
from tunecast.scaling.table import Curve

SHARE = 32
"""Sizes above the largest divided by this are the far ones."""
MIN_SIZES = 3
ENCODER_DECODERS = ("BART", "T5", "Switch Transformer")
COMPARED_SIZES = (1e3, 1e4, 1e5, 1e6)
COMPARED_MODEL = 1e9
CONSTANTS = ("level", "onset", "beta", "share of E")
WAYS = {"far sizes": (True, False), "largest model": (False, True), "both": (True, True)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="Folder with wide tables.")
    tables = {path.stem: path for path in sorted(parser.parse_args(arguments).data.glob("*.csv"))}
    print(show_families({name: by_family(path) for name, path in tables.items()}))
    print()
    print(show_architectures({name: by_architecture(path) for name, path in tables.items()}))


def by_family(path: Path) -> LossTable:
    """Return the curves of families of three model sizes or more; the label ``method`` names the family."""
    table = _labelled(path, lambda family: family)
    sizes: dict[str, set[float]] = {}
    for curve in table.curves:
        sizes.setdefault(curve.labels["method"], set()).add(curve.factors["model_parameters"])
    kept = (curve for curve in table.curves if len(sizes[curve.labels["method"]]) >= MIN_SIZES)
    return replace(table, curves=tuple(kept))


def by_architecture(path: Path) -> LossTable:
    """Return all curves; the label ``method`` names the architecture."""
    return _labelled(path, lambda family: "encoder-decoder" if family in ENCODER_DECODERS else "decoder")


def _labelled(path: Path, name: Callable[[str], str]) -> LossTable:
    with path.open(encoding="utf-8") as file:
        families = {row["config name"]: row["family"] for row in csv.DictReader(file)}
    table = read_table(path, by=["model"])
    labels = ({**curve.labels, "method": name(families[curve.labels["model"]])} for curve in table.curves)
    curves = zip(table.curves, labels, strict=True)
    return replace(table, curves=tuple(replace(curve, labels=label) for curve, label in curves))


def show_families(tables: dict[str, LossTable]) -> str:
    """Errors of log loss at held-out points."""
    rows = []
    for name, table in tables.items():
        for way, (far, largest) in WAYS.items():
            visible, targets = hold_out(table, far, largest)
            errors = [f"{score(law, visible, targets):.3f}" for law in RIVALS]
            rows.append([name, way, str(len(targets)), *errors])
    return markdown(["table", "held out", "points", *RIVALS], rows)


def hold_out(table: LossTable, far: bool, largest: bool) -> tuple[LossTable, list[Target]]:
    """Return the table without its far sizes, the largest models of its families, or both; and the targets.

    Only points at far sizes are targets, so that the three ways compare.
    """
    limit = table.largest_size / SHARE
    visible, targets = [], []
    for curve in table.curves:
        hidden = largest and _is_largest(curve, table)
        if not hidden:
            visible.append(curve.up_to(limit) if far else curve)
        if hidden or not largest:
            targets += [
                Target(
                    curve.labels["method"],
                    curve.factors["model_parameters"],
                    float(size),
                    float(np.log(loss)),
                )
                for size, loss in zip(curve.data_sizes, curve.losses, strict=True)
                if size > limit
            ]
    return LossTable(tuple(visible), table.source), targets


def _is_largest(curve: Curve, table: LossTable) -> bool:
    family = [other for other in table.curves if other.labels["method"] == curve.labels["method"]]
    return curve.factors["model_parameters"] == max(other.factors["model_parameters"] for other in family)


def show_architectures(tables: dict[str, LossTable]) -> str:
    """Differences of the population's constants, and ratios of losses at equal size and data."""
    rows = []
    for name, table in tables.items():
        differences, ratios = contrast(table)
        shown = [_interval(differences[:, column], "+.2f") for column in range(differences.shape[1])]
        rows.append([name, *shown, *(_interval(np.exp(ratio), ".2f") for ratio in ratios.T)])
    header = [f"{name}, difference" for name in CONSTANTS] + [
        f"loss ratio at {size:g}" for size in COMPARED_SIZES
    ]
    return markdown(["table", *header], rows)


def contrast(table: LossTable) -> tuple[Floats, Floats]:
    """Compare the typical encoder-decoder with the typical decoder of one size.

    Returns:
        Draws of the difference of the population's constants, shape (draws, constants): ln level, ln onset in
            examples, ln beta, logit of the share of E; and draws of the log ratio of the losses of models of
            :data:`COMPARED_MODEL` parameters at :data:`COMPARED_SIZES`, shape (draws, sizes).
    """
    part = posteriors(table.without_zero_shot(), "joint-rectified")[0]
    draws = part.draws[0]
    data = draws.observations
    first = {
        name: next(row for row, curve in enumerate(part.table.curves) if curve.labels["method"] == name)
        for name in ("encoder-decoder", "decoder")
    }
    centre = np.mean([np.log(curve.factors["model_parameters"]) for curve in part.table.curves])
    log_size = np.log(COMPARED_SIZES)[None] - data.frame.log_size
    constants, losses = [], []
    for row in first.values():
        covariates = data.covariates[row].copy()
        covariates[1] = np.log(COMPARED_MODEL) - centre
        parameters = covariates @ draws.effects
        constants.append(parameters)
        theta = draws.law.from_population(parameters)[:, None, :]
        losses.append(draws.law.log_loss(theta, log_size, np.zeros((1, 0)))[:, 0])
    return constants[0] - constants[1], losses[0] - losses[1]


def _interval(draws: Floats, how: str) -> str:
    low, middle, high = np.quantile(draws, [0.05, 0.5, 0.95])
    return f"{middle:{how}} [{low:{how}}, {high:{how}}]"


if __name__ == "__main__":
    main()
