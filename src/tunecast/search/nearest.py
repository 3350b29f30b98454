"""The nearest task: start with the best pipelines of the task with the most similar dataset."""

from __future__ import annotations

from collections.abc import Sequence

from tunecast.arrays import Floats
from tunecast.records import Pipeline
from tunecast.search.context import Context
from tunecast.search.distance import stand_ins
from tunecast.search.fixed_order import Order
from tunecast.search.run_based import RunBased
from tunecast.search.task_tables import MEASURED_SHARE, TaskTable, best_known


class NearestTask(RunBased):
    """Tries candidates as they ranked on the recorded task whose dataset is most like the new one."""

    name = "nearest-task"

    def find_order(self, context: Context) -> Order:
        """Order candidates as they ranked on the nearest known task.

        Candidates that were not measured there follow in the order of the next task, and so on. If less than
        a third of the candidates was measured on any known task, each of the nearest task's pipelines is
        replaced by the candidate most like it.
        """
        tables = tables_by_nearness(context)

        def order(candidates: Sequence[Pipeline]) -> list[int]:
            places = {pipeline.id: index for index, pipeline in reversed(list(enumerate(candidates)))}
            measured = [places[name] for table in tables for name in _ranked(table) if name in places]
            if len(set(measured)) >= MEASURED_SHARE * len(candidates):
                return measured
            return stand_ins(candidates, (t.pipelines[name] for t in tables[:1] for name in _ranked(t)))

        return order


def tables_by_nearness(context: Context) -> list[TaskTable]:
    """Return the known tasks, most similar dataset first.

    The distance is Euclidean over the meta-features that all datasets have, each divided by its standard
    deviation over the known tasks and the new one. Tasks without meta-features, such as those of imported
    runs, come last.
    """
    import numpy as np

    known = best_known(context)
    tables = [table for table in known if table.dataset.meta_features]
    features = [context.dataset.meta_features, *(table.dataset.meta_features for table in tables)]
    shared = sorted(set.intersection(*(set(one) for one in features)))
    values: Floats = np.array([[one[name] for name in shared] for one in features])
    spread = values.std(axis=0)
    kept = np.isfinite(spread) & (spread > 0)
    distances = np.linalg.norm((values[1:, kept] - values[0, kept]) / spread[kept], axis=1)
    nearest = [tables[index] for index in np.argsort(distances, kind="stable")]
    return [*nearest, *(table for table in known if not table.dataset.meta_features)]


def _ranked(table: TaskTable) -> list[str]:
    return sorted(table.badness, key=lambda name: (table.badness[name], name))
