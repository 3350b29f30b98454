"""Finetunings whose end is known, recorded or published, as questions to a predictor with their answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunecast.arrays import Floats
from tunecast.predictor.examples import WORST, ZeroShotLosses, teaching_runs
from tunecast.predictor.features import log_loss
from tunecast.predictor.task import TaskDescription
from tunecast.predictor.task_groups import dataset_families
from tunecast.records import Outcome, Pipeline, Run

RECORDED = ""
"""The table of recorded runs."""


@dataclass(frozen=True)
class Ending:
    """A finetuning and how it ended.

    Args:
        value: Logarithm of the final loss in nats per label token, between the floor and the cap of
            :mod:`tunecast.predictor.examples`. For a published table of a metric, the metric, negative if
            higher is better.
        table: The published table; empty for recorded runs.
        is_loss: Whether ``value`` is the logarithm of a loss, so that differences count and not only order.
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
    diverged: bool = False
    run: Run | None = None

    @property
    def group(self) -> tuple[object, ...]:
        """What endings must share to compete. Lengths differ within a published table, as its rows do."""
        task = self.task
        own = (self.table, task.dataset.identity, task.model.identity)
        return own if self.table else (*own, task.full_length_tokens, task.unique_examples)

    def without_zero_shot(self) -> Ending:
        """Return the same ending as it is asked about before the base model was measured."""
        return replace(self, task=replace(self.task, zero_shot_loss=None))


@dataclass(frozen=True)
class Answer:
    """Predicted endings; all arrays have shape (endings,).

    Args:
        mean: Of the logarithm of the final loss.
        variance: Its variance.
        shared: The part of the variance that all endings of a group have in common.
    """

    mean: Floats
    variance: Floats
    shared: Floats

    @classmethod
    def put_together(cls, count: int, parts: Iterable[tuple[Sequence[int], Answer]]) -> Answer:
        """Join answers to parts of ``count`` questions, each with the places of its questions."""
        found = np.zeros((3, count))
        for places, answer in parts:
            found[:, list(places)] = answer.mean, answer.variance, answer.shared
        return cls(*found)


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
        task = TaskDescription(
            run.dataset, run.model, run.full_length_tokens, run.unique_examples, start, _bytes_per_token(run)
        )
        found.append(
            Ending(
                task=task,
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


def by_group(endings: Sequence[Ending]) -> dict[tuple[object, ...], list[int]]:
    """Return the places of the endings of each group."""
    found: dict[tuple[object, ...], list[int]] = {}
    for place, ending in enumerate(endings):
        found.setdefault(ending.group, []).append(place)
    return found


def _bytes_per_token(run: Run) -> float:
    """Return completion bytes per label token, from a loss in both units; 1 if no point has both."""
    for point in run.curve:
        loss, bits = point.validation.loss, point.validation.bits_per_byte
        if math.isfinite(loss) and loss > 0 and math.isfinite(bits) and bits > 0:
            return loss / (bits * math.log(2))
    return 1.0
