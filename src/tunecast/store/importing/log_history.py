"""Extraction of evaluations from a Trainer's log entries, in its state file or in MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tunecast.store.importing.arguments import number, whole
from tunecast.store.importing.foreign import LoggedEvaluation

LOSS_NAMES = (
    *("eval_loss", "eval/loss", "validation_loss", "val_loss", "valid_loss"),
    *("validation/loss", "val/loss"),
)
"""Names of a logged validation loss."""

TRAIN_LOSS_NAMES = ("loss", "train/loss", "train_loss")
"""Names of the logged training loss since the previous entry."""


def evaluations_of(history: Iterable[Mapping[str, Any]]) -> Iterator[LoggedEvaluation]:
    """Extract evaluations, each with the training metrics since the previous one.

    Args:
        history: Entries in order of time, each with ``step`` and any of ``eval_loss``, ``loss``,
            ``learning_rate``, ``grad_norm``, ``num_input_tokens_seen``, ``eval_runtime``.

    Raises:
        ValueError: An evaluation was logged at a step that is not an integer.
    """
    losses: list[float] = []
    norms: list[float] = []
    rate: float | None = None
    for entry in history:
        loss = first_number(entry, LOSS_NAMES)
        rate = number(entry.get("learning_rate")) if number(entry.get("learning_rate")) is not None else rate
        # The summary at the end of training has an average over all of it.
        if "train_runtime" not in entry or "loss" in entry:
            losses += _listed(first_number(entry, TRAIN_LOSS_NAMES))
            norms += _listed(number(entry.get("grad_norm")))
        if loss is None or number(entry.get("step")) is None:
            continue
        step = whole(entry["step"])
        if step is None:
            raise ValueError(f"an evaluation was logged at step {number(entry['step']):g}")
        yield LoggedEvaluation(
            step=step,
            loss=loss,
            tokens_seen=whole(entry.get("num_input_tokens_seen")) or None,
            learning_rate=rate,
            train_loss=_mean(losses),
            gradient_norm=_mean(norms),
            evaluation_seconds=number(entry.get("eval_runtime")),
        )
        losses, norms = [], []


def first_number(entry: Mapping[str, Any], names: Iterable[str]) -> float | None:
    """Return the first number under one of the names, None if there is none."""
    return next((value for name in names if (value := number(entry.get(name))) is not None), None)


def _listed(value: float | None) -> list[float]:
    return [] if value is None else [value]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
