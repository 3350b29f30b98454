"""Recorded runs of several tasks, made up for strategies that learn from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sample_runs import (
    FULL_LENGTH_TOKENS,
    diverged_run,
    sample_curve,
    sample_dataset,
    sample_model,
    sample_pipeline,
    sample_run,
    sample_score,
)
from tunecast.records import Outcome, Pipeline, Run
from tunecast.search import Context, History, Remaining, TrialView, get_strategy

PIPELINES = [sample_pipeline(learning_rate=rate, lora_r=8) for rate in (1e-4, 1e-3, 1e-2, 1e-1)]


def task_runs(
    name: str, losses: Sequence[float | None], pipelines: Sequence[Pipeline] = PIPELINES, size: float = 1.0
) -> list[Run]:
    """A run of every pipeline on one task; a loss of None is a run that diverged."""
    dataset = sample_dataset(name, meta_features={"size": size, "constant": 1.0})
    runs = []
    for number, (pipeline, loss) in enumerate(zip(pipelines, losses, strict=True)):
        shared = {"dataset": dataset, "pipeline": pipeline, "id": f"{name}-{number}"}
        if loss is None:
            runs.append(diverged_run(number, **shared))
        else:
            run = sample_run(number, **shared, curve=sample_curve(floor=loss), validation=sample_score(loss))
            runs.append(run)
    return runs


def context(tasks: Mapping[str, Sequence[Run]], size: float = 1.0) -> Context:
    """A new task of a size, which knows these tasks' runs."""
    dataset = sample_dataset("new", meta_features={"size": size, "constant": 1.0})
    runs = tuple(replace(run, id=f"{run.id}") for many in tasks.values() for run in many)
    return Context(dataset, sample_model(), FULL_LENGTH_TOKENS, 400, runs=runs)


FULL = [Pipeline("full", {"learning_rate": rate, "optim": "adamw"}) for rate in (1e-5, 1e-4, 1e-3)]


def order_of(name: str, known: Context, candidates: list[Pipeline]) -> list[Pipeline]:
    """The candidates in the order in which a strategy starts them, each trained to its end in one step."""
    policy = get_strategy(name).policy(known)
    views = [TrialView(pipeline, next_share=1.0) for pipeline in candidates]
    tried = []
    while (index := policy(History(tuple(views)), Remaining(1.0))) is not None:
        tried.append(candidates[index])
        views[index] = replace(views[index], next_share=None, outcome=Outcome.COMPLETED)
    return tried
