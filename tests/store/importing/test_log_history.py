"""Evaluations out of logged entries."""

from __future__ import annotations

import math

import pytest

from tunecast.store.importing.foreign import LoggedEvaluation
from tunecast.store.importing.log_history import evaluations_of


def test_training_since_the_evaluation_before() -> None:
    history = [
        {"step": 1, "loss": 4.0, "grad_norm": 1.0, "learning_rate": 0.1},
        {"step": 2, "loss": 3.0, "grad_norm": 2.0, "learning_rate": 0.05},
        {"step": 2, "eval_loss": 3.5, "eval_runtime": 0.5, "num_input_tokens_seen": 640},
        {"step": 3, "loss": 2.0},
        {"step": 3, "train_runtime": 9.0, "train_loss": 3.0},
        {"step": 3, "eval_loss": 2.5},
        {"eval_loss": 1.0},
    ]
    assert list(evaluations_of(history)) == [
        LoggedEvaluation(2, 3.5, 640, 0.05, 3.5, 1.5, 0.5),
        LoggedEvaluation(3, 2.5, None, 0.05, 2.0, None, None),
    ]


def test_one_entry_may_hold_both() -> None:
    history = [
        {"step": 1, "train_loss": 4.0, "val_loss": 3.5},
        {"step": 2, "train_loss": 3.0, "val_loss": 3.25},
    ]
    assert [(e.train_loss, e.loss) for e in evaluations_of(history)] == [(4.0, 3.5), (3.0, 3.25)]


@pytest.mark.parametrize("step", [math.inf, math.nan, 1e30, -1, 2.5])
def test_an_invalid_step_is_an_error(step: float) -> None:
    with pytest.raises(ValueError, match="was logged at step"):
        list(evaluations_of([{"step": step, "eval_loss": 2.5}]))
