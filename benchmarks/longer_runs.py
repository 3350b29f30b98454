"""How the best learning rate falls with the number of optimiser steps, and what a longer run gains.

    tunecast collect --plan plans/longer-runs.yaml --store longer.sqlite
    python benchmarks/longer_runs.py --store longer.sqlite

Prints, for every task and method of the plan, the best rate of a short and of a long run (the minimum of a
parabola through the best rate and its neighbours, in logarithms), and the exponent between them. Then the
regret of three rates in the long run: the one that was best in the short run, the one that
:func:`tunecast.methods.rates.with_rate_for_steps` makes of it, and the one by the exponent of Bjorck et al.
(arXiv 2409.19913, pretraining). Regret is in per cent of the loss at the best measured rate; between measured
rates ln(loss) is interpolated linearly.

Last, how far shipped runs that differ in their length alone lie from their predictions, made without runs of
their task: the source of :data:`tunecast.session.longer_run.GAIN_FACTORS`.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tunecast.methods.rates import STEPS_EXPONENT, with_rate_for_steps
from tunecast.predictor.endings import recorded
from tunecast.predictor.examples import ZeroShotLosses, examples_of, teaching_runs
from tunecast.predictor.published_endings import published_endings
from tunecast.predictor.quality import Trial
from tunecast.predictor.quality_training import fit_quality
from tunecast.predictor.task import task_of
from tunecast.records import Outcome, Run
from tunecast.store import Store, published_runs
from tunecast.store.meta_dataset import shipped_runs

PRETRAINING_EXPONENT = 0.32
MIN_RATIO = 2.0
"""Least ratio of lengths of a pair of shipped runs."""


@dataclass(frozen=True)
class Sweep:
    """Losses of one pipeline on one task at one length, by learning rate."""

    steps: int
    losses: Mapping[float, float]

    def parabola(self) -> tuple[float, float, float]:
        """Return the parabola of ln(loss) over ln(rate) through the best rate and its neighbours.

        At an end of the grid it goes through the last three rates; its minimum may lie outside.
        """
        rates = sorted(self.losses)
        middle = min(max(rates.index(min(rates, key=self.losses.__getitem__)), 1), len(rates) - 2)
        chosen = rates[middle - 1 : middle + 2]
        fitted = np.polyfit(np.log(chosen), np.log([self.losses[rate] for rate in chosen]), 2)
        return float(fitted[0]), float(fitted[1]), float(fitted[2])

    @property
    def best(self) -> float:
        """The logarithm of the best rate, kept within the grid."""
        square, slope, _ = self.parabola()
        low, high = math.log(min(self.losses)), math.log(max(self.losses))
        return min(max(-slope / (2 * square), low), high) if square > 0 else (low if slope > 0 else high)

    def regret(self, log_rate: float) -> float:
        """Return by which share the loss is higher than at the best measured rate."""
        rates = sorted(self.losses)
        known = np.log(rates), np.log([self.losses[rate] for rate in rates])
        best = min(self.losses.values())
        return math.exp(float(np.interp(log_rate, *known))) / best - 1


def sweeps(runs: Sequence[Run]) -> dict[tuple[str, str], list[Sweep]]:
    """Return the sweeps of every task and method, shortest first."""
    found: dict[tuple[str, str], dict[int, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
    steps: dict[tuple[str, str, int], int] = {}
    for run in runs:
        rate = run.pipeline.learning_rate
        if rate is None or not math.isfinite(run.end_loss):
            continue
        found[run.task.dataset, run.pipeline.method][run.full_length_tokens][rate] = run.end_loss
        steps[run.task.dataset, run.pipeline.method, run.full_length_tokens] = run.total_steps
    return {
        key: [Sweep(steps[*key, length], losses) for length, losses in sorted(by_length.items())]
        for key, by_length in sorted(found.items())
    }


def show_rates(runs: Sequence[Run]) -> None:
    """Print exponents and regrets."""
    exponents, regrets = [], defaultdict(list)
    print("task, method: steps, best rate -> steps, best rate: exponent; regret kept, derived, pretraining")
    for (task, method), (short, long) in sweeps(runs).items():
        ratio = math.log(long.steps / short.steps)
        exponent = (short.best - long.best) / ratio
        exponents.append(exponent)
        tried = {"kept": 0.0, "derived": STEPS_EXPONENT, "pretraining": PRETRAINING_EXPONENT}
        for name, power in tried.items():
            regrets[name].append(100 * long.regret(short.best - power * ratio))
        shown = ", ".join(f"{regrets[name][-1]:.1f}%" for name in tried)
        print(
            f"{task}, {method}: {short.steps}, {math.exp(short.best):.2g} -> {long.steps}, "
            f"{math.exp(long.best):.2g}: {exponent:.2f}; {shown}"
        )
    print(f"exponent: mean {statistics.mean(exponents):.2f}, median {statistics.median(exponents):.2f}")
    for name, values in regrets.items():
        print(f"regret {name}: mean {statistics.mean(values):.1f}%, largest {max(values):.1f}%")


def pairs(runs: Sequence[Run]) -> Iterator[tuple[Run, Run]]:
    """Yield completed runs of one pipeline on one task, the second at least twice as long as the first."""
    groups = defaultdict(list)
    for run in teaching_runs(runs):
        if run.outcome is Outcome.COMPLETED:
            groups[run.dataset.identity, run.model.identity, run.pipeline.id].append(run)
    for group in groups.values():
        for short in group:
            for long in group:
                longer = long.full_length_tokens >= MIN_RATIO * short.full_length_tokens
                if longer and long.unique_examples >= short.unique_examples:
                    yield short, long


def show_gains(runs: Sequence[Run]) -> None:
    """Print the quantiles of measured over predicted changes of ln(loss), where a fall is predicted."""
    by_task = defaultdict(list)
    for pair in pairs(runs):
        by_task[pair[0].task.dataset].append(pair)
    zero_shot, tables = ZeroShotLosses.of(runs), published_endings(published_runs())
    predicted, measured = [], []
    for task, of_task in by_task.items():
        known = [run for run in runs if run.task.dataset != task]
        quality = fit_quality(examples_of(known), known, [*recorded(known), *tables])
        for pair in of_task:
            # As a session asks: the longer run has a rate that suits its steps as well.
            found_in = pair[0].total_steps
            trials = [
                Trial(
                    task_of(run, zero_shot.for_run(run)),
                    with_rate_for_steps(run.pipeline, found_in, run.total_steps),
                    run.total_steps,
                )
                for run in pair
            ]
            before, after = quality.predict(trials).mean
            predicted.append(after - before)
            measured.append(math.log(pair[1].end_loss / pair[0].end_loss))
    falls = np.array(predicted) < 0
    factors = np.array(measured)[falls] / np.array(predicted)[falls]
    low, middle, high = np.quantile(factors, [0.05, 0.5, 0.95])
    print(f"{len(factors)} of {len(falls)} pairs on {len(by_task)} tasks: measured over predicted change")
    print(f"5% {low:.2f}, median {middle:.2f}, 95% {high:.2f}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", help="The store that plans/longer-runs.yaml was collected into.")
    options = parser.parse_args(arguments)
    if options.store:
        with Store.open(options.store, create=False) as store:
            show_rates(list(store.runs()))
    show_gains(shipped_runs())


if __name__ == "__main__":
    main()
