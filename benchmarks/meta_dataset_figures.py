"""Prints figures of a meta-dataset as Markdown: ``benchmarks/meta_dataset_figures.py [--store URL]``."""

from __future__ import annotations

import argparse
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np

from tunecast.errors import report_user_errors
from tunecast.methods.rates import adapter_rate, optimizer_rate
from tunecast.records import ZERO_SHOT, Outcome, Run

MIN_RUNS = 4
"""Fewest runs of a group for a meaningful rank correlation, and fewest rates for a best rate."""
SHARES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
SNAP = 1.3
"""A point within this factor of a share of the fidelity grid belongs to that share."""
ADJUSTED = frozenset({"learning_rate", "per_device_train_batch_size"})
"""Hyperparameters in which one draw may differ between settings: rates follow the model's width, and the
batch is halved if examples are long."""

Row = tuple[str, ...]


def counts(runs: Sequence[Run], key: Callable[[Run], Hashable]) -> list[Row]:
    """Number of runs by key and outcome: rows of (key, all, completed, diverged, other)."""
    found: dict[str, Counter[Outcome]] = defaultdict(Counter)
    for run in runs:
        found[str(key(run))][run.outcome] += 1
    rows = []
    for name, outcomes in sorted(found.items(), key=lambda item: _natural(item[0])):
        completed, diverged = outcomes[Outcome.COMPLETED], outcomes[Outcome.DIVERGED]
        everything = outcomes.total()
        rows.append((name, *map(str, (everything, completed, diverged, everything - completed - diverged))))
    return rows


def best_rates(runs: Sequence[Run]) -> list[Row]:
    """Learning rate of the best run by method, full length and width.

    The best rate of a group has the lowest last validation loss among the runs of one method in one setting.
    A group of fewer than four rates is left out. Rates are AdamW's equivalents. Rows of (method, full length,
    width, groups, median of the best, quartiles).
    """
    groups: dict[Hashable, list[Run]] = defaultdict(list)
    for run in _rated(runs):
        groups[run.pipeline.method, setting(run)].append(run)
    best: dict[tuple[str, int, int], list[float]] = defaultdict(list)
    for group in groups.values():
        if len({_adamw_rate(run) for run in group}) >= MIN_RUNS:
            run = min(group, key=_final)
            key = (run.pipeline.method, run.full_length_tokens, run.model.width)
            best[key].append(_adamw_rate(run))
    rows: list[Row] = []
    for (method, length, width), rates in sorted(best.items()):
        low, middle, high = np.quantile(rates, [0.25, 0.5, 0.75], method="nearest")
        row = (method, length, width, len(rates), f"{middle:.1e}", f"{low:.1e} to {high:.1e}")
        rows.append(tuple(map(str, row)))
    return rows


def diverged_share(runs: Sequence[Run]) -> list[Row]:
    """Share of diverged runs by method and half decade of the learning rate: (method, rate, runs, share).

    Rates are AdamW's equivalents, as multiples of the expected rate of adapters at the model's width. This
    makes optimisers and widths comparable.
    """
    groups: dict[tuple[str, float], list[bool]] = defaultdict(list)
    for run in _rated(runs):
        half_decade = math.floor(2 * math.log10(_adamw_rate(run) / adapter_rate(run.model))) / 2
        groups[run.pipeline.method, half_decade].append(run.outcome is Outcome.DIVERGED)
    return [
        (
            method,
            f"{_short(10**low)} to {_short(10 ** (low + 0.5))}",
            str(len(flags)),
            f"{np.mean(flags):.0%}",
        )
        for (method, low), flags in sorted(groups.items())
    ]


def fidelity_correlations(runs: Sequence[Run]) -> list[Row]:
    """Rank correlation of the loss at each share of the full length with the last: (share, groups, mean).

    Groups are the runs of one setting, as a session compares them.
    """
    groups: dict[Hashable, list[Run]] = defaultdict(list)
    for run in trained(runs):
        if run.outcome is Outcome.COMPLETED:
            groups[setting(run)].append(run)
    rows: list[Row] = []
    for share in SHARES:
        found = []
        for group in groups.values():
            pairs = [(loss, _final(run)) for run in group if (loss := _loss_at(run, share)) is not None]
            found.append(rank_correlation(pairs))
        rows.append((f"1/{round(1 / share)}", *_mean(found)))
    return rows


def between_datasets(runs: Sequence[Run]) -> list[Row]:
    """Rank correlation of the same draws between two datasets, for one base model.

    Rows of (first, second, groups, mean), and the mean of all at the end.
    """
    # A base model has one range of rates, so another rate belongs to another plan's draw.
    return _between(
        runs,
        lambda run: run.task.model,
        lambda run: run.task.dataset,
        lambda run: run.pipeline.number("learning_rate"),
    )


def between_models(runs: Sequence[Run]) -> list[Row]:
    """Rank correlation of the same draws between two base models, for one dataset.

    Rows of (first, second, groups, mean), and the mean of all at the end.
    """
    # A dataset has one choice of subsets, so another number of examples belongs to another plan's draw.
    return _between(
        runs, lambda run: run.task.dataset, lambda run: run.task.model, lambda run: run.unique_examples
    )


def _between(
    runs: Sequence[Run],
    inside: Callable[[Run], Hashable],
    across: Callable[[Run], str],
    besides: Callable[[Run], Hashable],
) -> list[Row]:
    """Rank correlation of the same draws between two values of a setting.

    Args:
        runs: Runs; only those count whose draw both values share.
        inside: What must be equal besides the draw.
        across: The setting to compare.
        besides: What else is equal in runs of the same draw.
    """
    tables: dict[Hashable, dict[str, dict[Hashable, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for run in trained(runs):
        if run.extra.get("number", -1) >= 0 and run.outcome in (Outcome.COMPLETED, Outcome.DIVERGED):
            tables[inside(run)][across(run)][_draw(run), besides(run)].append(_final(run))
    found: dict[tuple[str, str], list[float | None]] = defaultdict(list)
    for draws in tables.values():
        once = {name: _only(losses) for name, losses in draws.items()}
        for first, second in combinations(sorted(once, key=_natural), 2):
            common = once[first].keys() & once[second].keys()
            pairs = [(once[first][draw], once[second][draw]) for draw in common]
            found[first, second].append(rank_correlation(pairs))
    rows = [(*names, *_mean(values)) for names, values in found.items() if any(v is not None for v in values)]
    return [*rows, ("all", "", *_mean([v for values in found.values() for v in values]))]


def _draw(run: Run) -> Hashable:
    """What one draw's runs have in common; its number is not enough, because plans share numbers."""
    settled = {name: value for name, value in run.pipeline.hyperparameters.items() if name not in ADJUSTED}
    place = (run.extra["number"], run.extra.get("shared"), run.full_length_tokens, run.seed)
    return (*place, run.pipeline.method, tuple(sorted(settled.items())))


def _only(losses: dict[Hashable, list[float]]) -> dict[Hashable, float]:
    """Losses of draws that were run once; with several runs of a draw, counterparts are unknown."""
    return {draw: values[0] for draw, values in losses.items() if len(values) == 1}


def evaluation_share(runs: Iterable[Run]) -> list[float]:
    """Processor seconds of evaluation over those of training, for every completed run that records both."""
    shares = []
    for run in trained(runs):
        training = sum(point.training.cpu for point in run.curve)
        evaluation = sum(point.evaluation.cpu for point in run.curve)
        if run.outcome is Outcome.COMPLETED and training > 0 and math.isfinite(evaluation):
            shares.append(evaluation / training)
    return shares


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's rank correlation; None for fewer than four pairs, or if one side never changes."""
    from scipy.stats import spearmanr

    if len(pairs) < MIN_RUNS or any(len(set(side)) == 1 for side in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def markdown(runs: Sequence[Run]) -> str:
    """All figures as Markdown tables."""
    outcomes = ("runs", "completed", "diverged", "other")
    keys: dict[str, Callable[[Run], Hashable]] = {
        "model": lambda run: run.task.model,
        "dataset": lambda run: run.task.dataset,
        "method": lambda run: run.pipeline.method,
        "full length": lambda run: run.full_length_tokens,
    }
    parts = [f"{len(runs)} runs, {sum(len(run.curve) for run in runs)} points."]
    if shares := evaluation_share(runs):
        parts.append(
            f"Evaluation took a median of {np.median(shares):.0%} of training's processor seconds in "
            f"{len(shares)} completed runs, and over 15% in {np.mean(np.array(shares) > 0.15):.0%} of them."
        )
    parts += [table((name, *outcomes), counts(runs, key)) for name, key in keys.items()]
    rates = ("method", "full length", "width", "groups", "best rate as AdamW's (median)", "quartiles")
    parts.append(table(rates, best_rates(runs)))
    multiples = ("method", "rate as AdamW's, times the width's", "runs", "diverged")
    parts.append(table(multiples, diverged_share(runs)))
    parts.append(table(("share", "groups", "correlation with the last"), fidelity_correlations(runs)))
    parts.append(table(("dataset", "dataset", "groups", "correlation"), _extremes(between_datasets(runs))))
    parts.append(table(("model", "model", "groups", "correlation"), between_models(runs)))
    return "\n\n".join(parts)


def trained(runs: Iterable[Run]) -> Iterator[Run]:
    return (run for run in runs if run.pipeline.method != ZERO_SHOT.method)


def _rated(runs: Iterable[Run]) -> Iterator[Run]:
    """Runs with a comparable rate; imported runs may lack the rate or the model's width."""
    return (run for run in trained(runs) if run.pipeline.number("learning_rate") > 0 and run.model.width > 0)


def setting(run: Run) -> Hashable:
    """Dataset, base model, full length and number of examples; within it only pipelines differ."""
    return run.task.dataset, run.task.model, run.full_length_tokens, run.unique_examples


def _adamw_rate(run: Run) -> float:
    """The learning rate at which AdamW takes steps as large as the run's optimiser at its own rate."""
    values = run.pipeline.hyperparameters
    equivalent = run.pipeline.number("learning_rate") / optimizer_rate(str(values.get("optim", "")), 1.0)
    return float(f"{equivalent:.4g}")


def _short(value: float) -> str:
    """Format with two digits, and without an exponent for a hundred."""
    return f"{float(f'{value:.2g}'):g}"


def _final(run: Run) -> float:
    """Last validation loss; infinite for a run that diverged."""
    loss = run.final_loss
    return math.inf if loss is None or run.outcome is not Outcome.COMPLETED or math.isnan(loss) else loss


def _loss_at(run: Run, share: float) -> float | None:
    """Validation loss of the point nearest to a share of the full length; None if no point is near."""
    near = [p for p in run.curve if 1 / SNAP <= p.share / share <= SNAP]
    return min(near, key=lambda p: abs(math.log(p.share / share))).validation.loss if near else None


def _mean(values: Sequence[float | None]) -> tuple[str, str]:
    known = [value for value in values if value is not None]
    return str(len(known)), f"{np.mean(known):.2f}" if known else "-"


def _natural(text: str) -> tuple[int, float, str]:
    """Numbers by size before words."""
    return (0, float(text), "") if text.isdigit() else (1, 0.0, text)


def _extremes(rows: list[Row], shown: int = 8) -> list[Row]:
    """The highest and lowest correlations, and the mean of all."""
    ordered = sorted(rows[:-1], key=lambda row: -float(row[-1]))
    return [*(ordered if len(ordered) <= 2 * shown else ordered[:shown] + ordered[-shown:]), rows[-1]]


def table(names: Sequence[str], rows: Iterable[Row]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures of a store, or of the shipped meta-dataset.

    Raises:
        SystemExit: With code 2, after a message, if the store does not exist.
    """
    from tunecast.store import open_for_reading

    parser = argparse.ArgumentParser("meta_dataset_figures.py", description=__doc__)
    parser.add_argument("--store", help="URL, SQLite file or Parquet export; default: what is shipped")
    with report_user_errors(), open_for_reading(parser.parse_args(arguments).store) as store:
        print(markdown(list(store.runs())))


if __name__ == "__main__":
    main()
