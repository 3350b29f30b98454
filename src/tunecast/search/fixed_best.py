"""A constant that is hard to beat: for every method the learning rate that was best on known tasks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tunecast.methods.rates import rate_multiple
from tunecast.records import Pipeline
from tunecast.search.context import Context
from tunecast.search.fixed_order import Order
from tunecast.search.run_based import RunBased
from tunecast.search.task_tables import TaskTable, best_known

WIDTH_DECADES = 0.2
"""Standard deviation, in decades, of the neighbourhood over which runs count for a learning rate."""
MIN_WEIGHT = 3.0
"""Number of runs that the median's badness of 1 counts for; with few runs it dominates."""


@dataclass(frozen=True)
class BestRate:
    """The learning rate of a method that is best on average over the known tasks.

    ``learning_rate`` is a multiple of the optimiser's usual rate, hence AdamW's own; ``badness`` is the mean
    of the runs around it.
    """

    method: str
    learning_rate: float
    badness: float


class FixedBest(RunBased):
    """Trains one candidate per method, at the learning rate that is best on average over other tasks."""

    name = "fixed-best"
    only_listed = True

    def find_order(self, context: Context) -> Order:
        """Order one candidate per method, nearest to its best known learning rate, the best method first."""
        rates = best_rates(best_known(context))

        def order(candidates: Sequence[Pipeline]) -> list[int]:
            places = []
            for best in rates:
                own = [index for index, pipeline in enumerate(candidates) if pipeline.method == best.method]
                centre = math.log(best.learning_rate)
                rates_of = {i: rate for i in own if (rate := _log_rate(candidates[i])) is not None}
                if rates_of:
                    places.append(min(rates_of, key=lambda i: abs(rates_of[i] - centre)))
            return places

        return order


def best_rates(tables: Sequence[TaskTable]) -> list[BestRate]:
    """Return each method's best learning rate, the best method first.

    At every measured rate, the badness of the method's runs is averaged with Gaussian weights in the
    logarithm of the rate.
    """
    import numpy as np

    measured: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for table in tables:
        for name, pipeline in table.pipelines.items():
            rate = _log_rate(pipeline)
            if rate is not None:
                measured[pipeline.method].append((rate, table.badness[name]))
    found = []
    for method, pairs in sorted(measured.items()):
        rates, badness = np.array(pairs).T
        weights = np.exp(-0.5 * ((rates[:, None] - rates) / (WIDTH_DECADES * math.log(10))) ** 2)
        means = (weights @ badness + MIN_WEIGHT) / (weights.sum(axis=1) + MIN_WEIGHT)
        best = int(np.argmin(means))
        found.append(BestRate(method, math.exp(rates[best]), float(means[best])))
    return sorted(found, key=lambda best: best.badness)


def _log_rate(pipeline: Pipeline) -> float | None:
    """Return the logarithm of the learning rate in AdamW's terms; None without a rate."""
    rate = pipeline.number("learning_rate")
    if rate <= 0:
        return None
    return math.log(rate / rate_multiple(pipeline.hyperparameters))
