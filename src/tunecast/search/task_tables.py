"""Tables of recorded runs of other tasks: how far each pipeline ended from its task's best."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tunecast.methods.rates import adapter_rate
from tunecast.methods.space import minimises_measured
from tunecast.records import DatasetFacts, ModelFacts, Outcome, Pipeline, Run
from tunecast.search.context import Context

WORST = 2.0
"""Badness of a failed pipeline, and the largest possible: its distance beyond the median equals that from the
best.
"""
MEASURED_SHARE = 1 / 3
"""Part of the candidates that must have been measured on known tasks to order these alone."""
MIN_RUNS = 4
"""With fewer runs of one task, their best and median tell little."""
SAME_LENGTH = 2.0
"""Full lengths within this factor count as equal."""


@dataclass(frozen=True)
class TaskTable:
    """The ends of pipelines on one task at one full length, on the same examples.

    Args:
        pipelines: By id.
        badness: By the same ids: 0 for the best end loss, 1 for the median one, at most :data:`WORST`.
    """

    dataset: DatasetFacts
    model: ModelFacts
    full_length_tokens: int
    pipelines: Mapping[str, Pipeline]
    badness: Mapping[str, float]


def known_tables(runs: Iterable[Run]) -> tuple[TaskTable, ...]:
    """Group candidates' runs by task, base model, full length and unique examples.

    Paused runs are left out, since their end is unknown, and so are runs that minimised another loss than the
    measured one, imported runs without model or full length, and groups of fewer than four runs or without
    two that ended.
    """
    groups: dict[tuple[str, str, int, int], list[Run]] = defaultdict(list)
    for run in runs:
        ended = run.is_candidate and run.is_described and run.outcome is not Outcome.PAUSED
        if ended and minimises_measured(run.pipeline):
            key = (run.dataset.identity, run.model.identity, run.full_length_tokens, run.unique_examples)
            groups[key].append(run)
    tables = (_table(group) for group in groups.values() if len(group) >= MIN_RUNS)
    return tuple(table for table in tables if table is not None)


def best_known(context: Context) -> tuple[TaskTable, ...]:
    """Return the tables that are most relevant to a context.

    These are the tables of the same base model at about the same full length; otherwise those of the same
    base model; otherwise all tables with their learning rates adapted to the context's model, in proportion
    to the rate around which adapters of its width are searched.
    """
    tables = known_tables(context.runs)
    same_model = [table for table in tables if table.model.name == context.model.name]
    ratio = math.log(SAME_LENGTH)
    alike = [
        table
        for table in same_model
        if abs(math.log(table.full_length_tokens / context.full_length_tokens)) <= ratio
    ]
    return tuple(alike or same_model or (_carried_over(table, context.model) for table in tables))


def _carried_over(table: TaskTable, model: ModelFacts) -> TaskTable:
    """Return a table with the learning rates that its pipelines would have on another base model."""
    factor = adapter_rate(model) / adapter_rate(table.model)
    pipelines: dict[str, Pipeline] = {}
    badness: dict[str, float] = {}
    for name, pipeline in table.pipelines.items():
        rate = pipeline.hyperparameters.get("learning_rate")
        if isinstance(rate, int | float):
            scaled = {**pipeline.hyperparameters, "learning_rate": float(f"{rate * factor:.4g}")}
            pipeline = replace(pipeline, hyperparameters=scaled)
        pipelines[pipeline.id], badness[pipeline.id] = pipeline, table.badness[name]
    return replace(table, pipelines=pipelines, badness=badness)


def _table(runs: Sequence[Run]) -> TaskTable | None:
    losses = {run.pipeline.id: run.end_loss for run in reversed(runs)}
    ended = sorted(loss for loss in losses.values() if math.isfinite(loss))
    if len(ended) < 2:
        return None
    best, median = ended[0], statistics.median(ended)
    scale = median - best or abs(best) or 1.0
    return TaskTable(
        runs[0].dataset,
        runs[0].model,
        runs[0].full_length_tokens,
        {run.pipeline.id: run.pipeline for run in runs},
        {name: min(WORST, (loss - best) / scale) for name, loss in losses.items()},
    )
