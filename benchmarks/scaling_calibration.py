"""Measures how often 90% intervals of forecasts hold, by table and horizon, before and after calibration.

    python benchmarks/scaling_calibration.py --data FOLDER

FOLDER contains wide tables of the benchmark of arXiv 2402.02314; the shipped runs of ``plans/study.yaml`` add
a table for each of their tasks. Every size of a table from the third on is taken for the largest measured
one in turn, and all larger sizes are predicted. A calibration multiplies the intervals' half-widths by one
number, or by one for each horizon. It is *nested*: its numbers are fitted to all tables but the one that it
is judged on. Takes some minutes; set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaling_study import markdown
from study_design import RunSpec, complete_curves, read_cells
from tunecast.arrays import Floats, Ints
from tunecast.scaling import LossRow, LossTable, build_table, read_table
from tunecast.scaling.forecasting import MIN_SIZES, posteriors
from tunecast.scaling.predicting import LEVEL
from tunecast.store import open_for_reading
from tunecast.store.redaction import shared_session

SHOWN = (2, 5, 7, 9)
"""Horizons of the tables, in doublings: 4, 32, 128 and 512 times the largest measured size."""
MAX_DOUBLINGS = 9
GROUP = 5
"""Candidates of one choice."""
TEMPERS: Floats = np.arange(0.1, 1.55, 0.05)


@dataclass(frozen=True, eq=False)
class Errors:
    """Forecasts of one table beside the truth; arrays of shape (points,).

    Args:
        cut: Largest measured size.
        doublings: Horizon: rounded log2 of target over largest measured size.
        ratio: Error of log loss over the half of the interval on its side: held if at most 1.
        width: Width of the interval in log loss.
    """

    cut: Floats
    doublings: Ints
    ratio: Floats
    width: Floats


@dataclass(frozen=True, eq=False)
class Choices:
    """Choices among models: their chances, shape (choices, models), and the best one's place."""

    chances: Floats
    best: Ints


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="Folder with wide tables.")
    wide = {
        path.stem: read_table(path, ["model"])
        for path in sorted(parser.parse_args(arguments).data.glob("*.csv"))
    }
    measured = {name: measure(table) for name, table in wide.items()}
    errors = {name: found[0] for name, found in measured.items()}
    errors |= {name: measure(table)[0] for name, table in study_tables().items()}
    print(markdown(["table", "calibration", "all", *(f"{2**d} times" for d in SHOWN)], show_errors(errors)))
    print()
    print(markdown(["table", *(f"{2**d} times" for d in SHOWN)], show_common(errors)))
    print()
    choices = {name: found[1] for name, found in measured.items() if found[1] is not None}
    header = ["table", "tempered by", "exponent", "said", "true", "log score"]
    print(markdown(header, show_choices(choices)))


def study_tables() -> dict[str, LossTable]:
    """Return the complete curves of the shipped scaling study by task, with final test losses."""
    with open_for_reading(None) as store:
        runs = [run for run in store.runs() if run.session in ("study", shared_session("study"))]
    cells = complete_curves(read_cells(runs))
    tasks = sorted({cell.task for cell in cells})
    return {task: build_table(map(_row, (c for c in cells if c.task == task)), (), task) for task in tasks}


def _row(cell: RunSpec) -> LossRow:
    labels = {"model": cell.model, "method": cell.method, "pipeline": cell.pipeline}
    factors = {"model_parameters": float(cell.parameters), "pretraining_tokens": float(cell.pretraining)}
    return LossRow(cell.losses["test"], cell.data_size, labels, factors)


def measure(table: LossTable) -> tuple[Errors, Choices | None]:
    """Forecast every size of a table from every smaller one."""
    sizes = np.unique(np.concatenate([curve.data_sizes for curve in table.curves]))
    truth = {curve.name: dict(zip(curve.data_sizes, curve.losses, strict=True)) for curve in table.curves}
    points, chances, best = [], [], []
    random = np.random.default_rng(0)
    for place in range(MIN_SIZES - 1, len(sizes) - 1):
        targets = sizes[place + 1 :]
        (part,) = posteriors(table.up_to(sizes[place]))
        draws = part.predict(targets).measured()
        tail = (1 - LEVEL) / 2
        centre = part.predict(targets).centre
        low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
        for row, curve in enumerate(part.table.curves):
            for column, size in enumerate(targets):
                error = float(np.log(truth[curve.name][size])) - centre[row, column]
                side = (
                    high[row, column] - centre[row, column]
                    if error > 0
                    else centre[row, column] - low[row, column]
                )
                points.append(
                    (
                        sizes[place],
                        np.log2(size / curve.data_sizes[-1]),
                        abs(error) / max(side, 1e-9),
                        high[row, column] - low[row, column],
                    )
                )
        final = np.array([truth[curve.name][sizes[-1]] for curve in part.table.curves])
        for chosen in _groups(random, len(final)):
            lowest = np.argmin(draws[:, chosen, -1], axis=1)
            chances.append(np.bincount(lowest, minlength=GROUP) / len(lowest))
            best.append(int(np.argmin(final[chosen])))
    cut, doublings, ratio, width = np.array(points).T
    found = Choices(np.array(chances), np.array(best)) if chances else None
    return Errors(cut, np.round(doublings).astype(np.intp), ratio, width), found


def _groups(random: np.random.Generator, count: int) -> Ints:
    """Draw four partitions into groups of :data:`GROUP`, shape (groups, models)."""
    whole = count - count % GROUP
    return np.concatenate([random.permutation(count)[:whole].reshape(-1, GROUP) for _ in range(4)])


def show_errors(tables: dict[str, Errors]) -> list[list[str]]:
    """Coverage and mean width for each table and horizon."""
    rows = []
    for name, errors in tables.items():
        needed = needed_widths([other for key, other in tables.items() if key != name])
        one = np.full(MAX_DOUBLINGS, float(np.exp(np.mean(np.log(needed)))))
        for way, factors in {
            "none": np.ones(MAX_DOUBLINGS),
            "one number": one,
            "by horizon": needed,
        }.items():
            factor = factors[np.clip(errors.doublings, 1, MAX_DOUBLINGS) - 1]
            parts = [errors.doublings > 0, *(errors.doublings == d for d in SHOWN)]
            rows.append([name, way, *(_cell(errors, factor, part) for part in parts)])
    return rows


def _cell(errors: Errors, factor: Floats, part: Floats | Ints) -> str:
    if not np.any(part):
        return "-"
    held = np.mean((errors.ratio <= factor)[part])
    return f"{held:.0%}, {np.mean((factor * errors.width)[part]):.2f}"


def needed_widths(tables: Sequence[Errors]) -> Floats:
    """Return what half-widths need to be multiplied by to hold 90%, for every number of doublings.

    Tables have equal weight. Where none reaches, the nearest horizon's number stands.
    """
    known = {}
    for doublings in range(1, MAX_DOUBLINGS + 1):
        parts = [t.ratio[t.doublings == doublings] for t in tables]
        parts = [part for part in parts if len(part)]
        if parts:
            values = np.concatenate(parts)
            weights = np.concatenate([np.full(len(part), 1 / len(part)) for part in parts])
            order = np.argsort(values)
            share = np.cumsum(weights[order]) / weights.sum()
            known[doublings] = float(values[order][np.searchsorted(share, LEVEL)])
    return np.interp(np.arange(1, MAX_DOUBLINGS + 1), list(known), list(known.values()))


def show_common(tables: dict[str, Errors]) -> list[list[str]]:
    """Lowest and highest coverage over the largest measured sizes, where there are several."""
    rows = []
    for name, errors in tables.items():
        row = [name]
        for doublings in SHOWN:
            part = errors.doublings == doublings
            cuts = np.unique(errors.cut[part])
            held = [np.mean(errors.ratio[part & (errors.cut == cut)] <= 1) for cut in cuts]
            row.append(f"{min(held):.0%} to {max(held):.0%} in {len(cuts)}" if len(held) > 1 else "-")
        rows.append(row)
    return [row for row in rows if set(row[1:]) != {"-"}]


def show_choices(tables: dict[str, Choices]) -> list[list[str]]:
    """Chances of the likeliest candidate beside how often it was best, tempered and not."""
    rows = []
    for name, choices in tables.items():
        others = [other for key, other in tables.items() if key != name]
        ways = {
            "nothing": 1.0,
            "the other tables": fitted_temper(others),
            "this table (not nested)": fitted_temper([choices]),
        }
        for way, exponent in ways.items():
            chances = tempered(choices.chances, exponent)
            said, true = np.mean(chances.max(axis=1)), np.mean(chances.argmax(axis=1) == choices.best)
            score = log_score(choices, exponent)
            rows.append([name, way, f"{exponent:.2f}", f"{said:.0%}", f"{true:.0%}", f"{score:.3f}"])
    return rows


def tempered(chances: Floats, exponent: float) -> Floats:
    """Raise chances to a power and let them add up to 1 again; below 1 they become more alike."""
    powers = (chances + 1e-3) ** exponent
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def log_score(choices: Choices, exponent: float) -> float:
    """Return the mean of minus the log of the chance that the best one was given."""
    chances = tempered(choices.chances, exponent)
    return float(-np.mean(np.log(chances[np.arange(len(chances)), choices.best])))


def fitted_temper(tables: Sequence[Choices]) -> float:
    """Return the exponent with the lowest log score over tables of equal weight."""
    scores = [sum(log_score(choices, exponent) for choices in tables) for exponent in TEMPERS]
    return float(TEMPERS[int(np.argmin(scores))])


if __name__ == "__main__":
    main()
