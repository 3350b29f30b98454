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

from tunecast.methods.rates import STEPS_EXPONENT
from tunecast.predictor import TaskDescription
from tunecast.recommender.known_runs import KnownRuns, Plan
from tunecast.records import ZERO_SHOT, DatasetFacts, Outcome, Run
from tunecast.store import Store
from tunecast.store.final_results import FinalResult, read_final_results
from tunecast.store.shipping import shipped

PRETRAINING_EXPONENT = 0.32
LEAST_RATIO = 2.0
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


def pairs(results: Sequence[FinalResult]) -> Iterator[tuple[FinalResult, FinalResult]]:
    """Yield completed runs of one pipeline on one task, the second at least twice as long as the first."""
    groups = defaultdict(list)
    for result in results:
        if result.outcome is Outcome.COMPLETED and result.pipeline.method != ZERO_SHOT.method:
            groups[result.dataset, result.model.name, result.pipeline.id].append(result)
    for group in groups.values():
        for short in group:
            for long in group:
                longer = long.full_length_tokens >= LEAST_RATIO * short.full_length_tokens
                if longer and long.unique_examples >= short.unique_examples:
                    yield short, long


def show_gains(results: Sequence[FinalResult]) -> None:
    """Print the quantiles of measured over predicted changes of ln(loss)."""
    by_task = defaultdict(list)
    for pair in pairs(results):
        by_task[pair[0].dataset].append(pair)
    factors = []
    for task, of_task in by_task.items():
        known = KnownRuns([result for result in results if result.dataset != task])
        untouched = {
            one.model.name: one.bits_per_byte
            for one in results
            if one.dataset == task and one.pipeline.method == ZERO_SHOT.method
        }
        for short, long in of_task:
            ends = [
                _predicted(known, one, untouched.get(one.model.name), short.total_steps)
                for one in (short, long)
            ]
            measured = math.log((long.bits_per_byte or math.nan) / (short.bits_per_byte or math.nan))
            factors.append(measured / (ends[1] - ends[0]))
    low, middle, high = np.quantile(factors, [0.05, 0.5, 0.95])
    print(f"{len(factors)} pairs on {len(by_task)} tasks: measured over predicted change of ln(loss)")
    print(f"5% {low:.2f}, median {middle:.2f}, 95% {high:.2f}")


def _predicted(known: KnownRuns, result: FinalResult, bits: float | None, steps: int) -> float:
    facts = DatasetFacts(result.dataset, "", "", {}, {}, result.meta_features, 0)
    untouched = None if bits is None else bits * math.log(2)
    task = TaskDescription(facts, result.model, result.full_length_tokens, result.unique_examples, untouched)
    return known.predict(task, [Plan(result.pipeline, result.full_length_tokens, steps)])[0].log_loss


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", help="The store that plans/longer-runs.yaml was collected into.")
    options = parser.parse_args(arguments)
    if options.store:
        with Store.open(options.store, create=False) as store:
            show_rates(list(store.runs()))
    if (file := shipped()) is not None:
        show_gains(read_final_results(file))


if __name__ == "__main__":
    main()
