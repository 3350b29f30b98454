"""What a worker answers: the measurements of a trial's step, and the score of a model on a split."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunecast.records import Outcome, Point, RunError, Score, Seconds
from tunecast.results import SampleOutput

if TYPE_CHECKING:
    import numpy as np

SKIPPED = "skipped_steps"
"""In ``Run.extra``: zeroth-order steps without an update, because a loss was not finite."""
HELD_BEFORE = "held_bytes"
"""In ``Run.extra``: bytes on the worker's device before the trial's first step. All peaks of the trial
include them."""


@dataclass(frozen=True)
class Measurement:
    """The result of advancing a trial by one fidelity step.

    Args:
        point: The new point; None where the trial failed before it could be measured.
        outcome: ``paused``, ``completed``, or why the trial ended.
        error: Why it ended early, None if it did not.
        validation: Score of all validation examples that the session uses, at the last point only.
        measured: What :meth:`Loss.measure` gave for each of them.
        validation_seconds: The part of its wall seconds that is not the subset's.
        retrained_tokens: Tokens trained again because their checkpoint was lost.
        retraining_seconds: Wall seconds of that; no point includes them.
        held_bytes: Bytes on the worker's device before the trial began.
        choosing_seconds: Wall seconds in which the method looked at the data, before the first step; no point
            includes them.
        skipped_steps: Zeroth-order steps without an update, because a loss was not finite.
    """

    run: str
    point: Point | None
    outcome: Outcome
    error: RunError | None = None
    validation: Score | None = None
    measured: np.ndarray | None = field(default=None, compare=False)
    validation_seconds: float = 0.0
    trainable_parameters: int = 0
    retrained_tokens: int = 0
    retraining_seconds: float = 0.0
    held_bytes: int = 0
    choosing_seconds: float = 0.0
    skipped_steps: int = 0


@dataclass(frozen=True)
class Scored:
    """The result of scoring a model on a split, with generated texts; fields as in :class:`Measurement`.

    Args:
        evaluation: Duration of measuring the loss.
        measured: What :meth:`Loss.measure` gave for each example, in the order of the split.
        answering_seconds: Wall seconds of giving ``outputs``.
        labelled: The labels that the model chose; ``outputs`` themselves if they are chosen.
    """

    score: Score
    evaluation: Seconds
    measured: np.ndarray
    outputs: tuple[SampleOutput, ...] = ()
    retrained_tokens: int = 0
    answering_seconds: float = 0.0
    labelled: tuple[SampleOutput, ...] = ()
