"""Compares the best learning rates of a steady schedule and of a cosine, and the losses there.

    tunecast collect --plan plans/steady.yaml --store steady.sqlite
    python benchmarks/steady_rates.py [--store steady.sqlite]

Both have the same rates, lengths and data. A best rate is the minimum of a parabola through the best measured
rate and its neighbours, in logarithms. Losses are those of the validation split at the best measured rate, in
nats per label token. By default the runs in ``results/steady.parquet`` are read. The mean ratio is the source
of :data:`tunecast.methods.rates.STEADY_MULTIPLE`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from longer_runs import sweeps
from meta_dataset_figures import table
from tunecast.methods.rates import STEADY
from tunecast.records import Outcome, Run
from tunecast.store import open_for_reading

RUNS = Path(__file__).parent / "results" / "steady.parquet"


@dataclass(frozen=True)
class Pair:
    """The best rates and losses of both schedules for one method on one task."""

    task: str
    method: str
    rates: tuple[float, float]
    losses: tuple[float, float]

    @property
    def log_ratio(self) -> float:
        """The logarithm of the steady schedule's best rate over the cosine's."""
        return math.log(self.rates[1] / self.rates[0])

    @property
    def log_gain(self) -> float:
        """The logarithm of the steady schedule's loss over the cosine's."""
        return math.log(self.losses[1] / self.losses[0])


def pairs(runs: Sequence[Run]) -> Iterator[Pair]:
    """Pair the schedules of every task and method, by runs that came to their ends."""
    ended = [run for run in runs if run.outcome is Outcome.COMPLETED and run.pipeline.learning_rate]
    found = [
        sweeps([run for run in ended if run.pipeline.hyperparameters["lr_scheduler_type"] == name])
        for name in ("cosine", STEADY)
    ]
    for task, method in found[0]:
        (cosine,), (steady,) = (by_key[task, method] for by_key in found)
        best = math.exp(cosine.best), math.exp(steady.best)
        yield Pair(task, method, best, (min(cosine.losses.values()), min(steady.losses.values())))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", default=str(RUNS), help="store or Parquet file of the plan's runs")
    with open_for_reading(parser.parse_args(arguments).store) as store:
        found = list(pairs(list(store.runs())))
    rows = [
        (
            *(one.task, one.method),
            *(f"{rate:.2g}" for rate in one.rates),
            f"{math.exp(one.log_ratio):.2f}",
            *(f"{loss:.3f}" for loss in one.losses),
        )
        for one in found
    ]
    names = ("task", "method", "best rate, cosine", "steady", "ratio", "loss, cosine", "steady")
    print(table(names, rows))
    ratios = [one.log_ratio for one in found]
    print(f"\nratio of best rates: mean {math.exp(mean(ratios)):.2f}, median {math.exp(median(ratios)):.2f}")
    for method in sorted({one.method for one in found}):
        gains = [one.log_gain for one in found if one.method == method]
        lower = sum(gain < 0 for gain in gains)
        change = math.exp(mean(gains)) - 1
        print(f"{method}: loss {change:+.1%} on average, lower on {lower} of {len(gains)} tasks")


if __name__ == "__main__":
    main()
