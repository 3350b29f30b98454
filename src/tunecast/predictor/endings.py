"""Finetunings whose end is known, recorded or published."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunecast.predictor.examples import WORST, ZeroShotLosses, teaching_runs
from tunecast.predictor.features import log_loss
from tunecast.predictor.rate_law import RateObservation, Source
from tunecast.predictor.task import TaskDescription, task_of
from tunecast.predictor.task_groups import dataset_families
from tunecast.records import Outcome, Pipeline, Run

LORA_FA = "lora-fa"
"""The optimiser of PEFT that trains one of LoRA's two matrices."""
RECORDED = ""
"""The table of recorded runs."""


@dataclass(frozen=True)
class Ending:
    """A finetuning and how it ended.

    Args:
        value: Logarithm of the final loss in nats per label token, between the floor and the cap of
            :mod:`tunecast.predictor.examples`. For a published table of a metric, the metric, negative if
            higher is better; percentages as shares.
        table: The published table; empty for recorded runs.
        is_loss: Whether ``value`` is the logarithm of a loss.
        is_share: Whether ``value`` is minus a share of right answers. Of other metrics only the order counts.
        family: The family of tasks of a recorded run, the model family of a published one; as in the law of
            rates, mixtures of experts are of the family of their dense models.
        run: The run itself; None if it was made up.
    """

    task: TaskDescription
    pipeline: Pipeline
    total_steps: int
    value: float
    table: str
    is_loss: bool
    family: str
    is_share: bool = False
    diverged: bool = False
    run: Run | None = None

    @property
    def group(self) -> tuple[object, ...]:
        """What endings must share to compete. Lengths differ within a published table, as its rows do."""
        task = self.task
        own = (self.table, task.dataset.identity, task.model.identity)
        if not self.table:
            return (*own, task.full_length_tokens, task.unique_examples)
        return own if self.run is None else (*own, self.run.task.metric)

    def without_zero_shot(self) -> Ending:
        """Return the same ending as it is asked about before the base model was measured."""
        return replace(self, task=replace(self.task, zero_shot_loss=None))


def recorded(runs: Sequence[Run]) -> list[Ending]:
    """Return the endings of the runs that the predictor learns from."""
    zero_shot = ZeroShotLosses.of(runs)
    taught = teaching_runs(runs)
    families = dataset_families(run.task.dataset for run in taught)
    found = []
    for run in taught:
        start = zero_shot.for_run(run)
        assert start is not None
        diverged = run.outcome is Outcome.DIVERGED
        end = math.inf if diverged else log_loss(run.curve[-1].validation.loss)
        found.append(
            Ending(
                task=task_of(run, start),
                pipeline=run.pipeline,
                total_steps=run.total_steps,
                value=min(end, log_loss(start) + WORST),
                table=RECORDED,
                is_loss=True,
                family=families[run.task.dataset],
                diverged=diverged,
                run=run,
            )
        )
    return found


def observations(endings: Sequence[Ending]) -> list[RateObservation]:
    """Return what a law of rates learns from: losses, and shares of right answers, without divergence.

    Published runs by an optimiser with other rates than Adam's, of those that Tunecast does not have, are
    left out.
    """
    return [
        RateObservation(one.task.model, one.pipeline, one.total_steps, one.value, one.group, source)
        for one in endings
        if not one.diverged
        and one.pipeline.hyperparameters.get("optim") != LORA_FA
        and (source := _source(one)) is not None
    ]


def _source(ending: Ending) -> Source | None:
    """Return what an ending's value is to the law of rates; None if it is in no unit of the law."""
    if not ending.table:
        return "recorded"
    return "loss" if ending.is_loss else "score" if ending.is_share else None
