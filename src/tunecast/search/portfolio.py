"""The portfolio: pipelines that together contain a good choice for every known task."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tunecast.records import Pipeline
from tunecast.search.context import Context
from tunecast.search.distance import stand_ins
from tunecast.search.fixed_order import Order
from tunecast.search.run_based import RunBased
from tunecast.search.task_tables import MEASURED_SHARE, WORST, TaskTable, best_known

MEMBERS = 16


class Portfolio(RunBased):
    """Tries pipelines that together contain a good choice for every recorded task."""

    name = "portfolio"

    def find_order(self, context: Context) -> Order:
        """Order candidates as they join the portfolio.

        If at least a third of the candidates was measured on known tasks, the portfolio is chosen from these.
        Otherwise it is chosen from all known pipelines, and the candidate most like a member replaces it.
        """
        tables = best_known(context)

        def order(candidates: Sequence[Pipeline]) -> list[int]:
            places = {pipeline.id: index for index, pipeline in reversed(list(enumerate(candidates)))}
            members = _greedy(tables, len(candidates), places.keys())
            if len(members) >= MEASURED_SHARE * len(candidates):
                return [places[member.id] for member in members]
            return stand_ins(candidates, _greedy(tables, MEMBERS))

        return order


def _greedy(
    tables: Sequence[TaskTable], count: int, allowed: Collection[str] | None = None
) -> list[Pipeline]:
    """Choose pipelines one by one, each lowering the mean over tasks of the best badness so far the most.

    A pipeline that was not measured on a task counts as :data:`WORST` there, so pipelines that are known to
    be good on many tasks come first. The first of equals wins, by mean badness, then by id.
    """
    import numpy as np

    pipelines = {name: pipeline for table in tables for name, pipeline in table.pipelines.items()}
    names = sorted(pipelines if allowed is None else pipelines.keys() & set(allowed))
    if not names:
        return []
    badness = np.array([[table.badness.get(name, WORST) for table in tables] for name in names])
    by_mean = np.argsort(badness.mean(axis=1), kind="stable")
    names, badness = [names[index] for index in by_mean], badness[by_mean]
    reached = np.full(len(tables), WORST)
    free = np.ones(len(names), dtype=bool)
    chosen: list[Pipeline] = []
    while len(chosen) < min(count, len(names)):
        means = np.where(free, np.minimum(badness, reached).mean(axis=1), np.inf)
        # Once no pipeline lowers the mean, this is the best of the rest by its own mean.
        best = int(np.argmin(means))
        free[best] = False
        reached = np.minimum(reached, badness[best])
        chosen.append(pipelines[names[best]])
    return chosen
