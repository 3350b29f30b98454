"""Plots of hyperparameters against loss, one panel each, with only the trials where it is active."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from tunecast.records import Scalar
from tunecast.report.figures import (
    LossAxis,
    Plot,
    Style,
    log_axis,
    loss_axis,
    method_styles,
    new_figure,
    scatter,
)
from tunecast.report.numbers import compact, rate
from tunecast.report.trials import DOTS_DRAWN, DrawnTrial, chosen_to_draw, grouped
from tunecast.report.wording import value_text

PANELS = 13
MIN_TRIALS = 5
"""Fewer dots show no relation."""
ORDINAL_VALUES = 8
"""A hyperparameter with at most this many values is drawn in equal steps, if fractions are used often."""


def hyperparameter_plots(trials: Sequence[DrawnTrial], zero_shot: float | None) -> list[Plot]:
    """Draw a panel for each hyperparameter that varied, the learning rate first and largest.

    A panel has at least :data:`MIN_TRIALS` trials.
    """
    usable = [trial for trial in trials if trial.best_loss is not None]
    drawn = chosen_to_draw(usable, DOTS_DRAWN)
    varied = _varied(usable)
    if "learning_rate" in varied:
        varied.remove("learning_rate")
        varied.insert(0, "learning_rate")
    # All panels share one range of losses, so that they can be compared by eye.
    axis = loss_axis([trial.best_loss for trial in usable if trial.best_loss is not None], zero_shot)
    return [_panel(name, drawn, method_styles(trials), axis) for name in varied[:PANELS]]


def _varied(trials: Sequence[DrawnTrial]) -> list[str]:
    """List the names with at least two values in enough trials, most used first."""
    values: dict[str, set[str]] = {}
    uses: dict[str, int] = {}
    for trial in trials:
        for name, value in trial.run.pipeline.hyperparameters.items():
            values.setdefault(name, set()).add(repr(value))
            uses[name] = uses.get(name, 0) + 1
    enough = [name for name in values if len(values[name]) > 1 and uses[name] >= MIN_TRIALS]
    return sorted(enough, key=lambda name: -uses[name])


def _panel(name: str, trials: Sequence[DrawnTrial], styles: dict[str, Style], axis: LossAxis | None) -> Plot:
    first = name == "learning_rate"
    having = [trial for trial in trials if name in trial.run.pipeline.hyperparameters]
    values = {id(trial): trial.run.pipeline.hyperparameters[name] for trial in having}
    steps = _steps(list(values.values()))
    figure = new_figure(name, "lowest validation loss" if first else "loss")
    for method, own in grouped(having, styles):
        x = [_position(values[id(trial)], steps, index) for index, trial in enumerate(own)]
        text = [f"{name} {value_text(name, values[id(trial)])}<br>{trial.short_hover}" for trial in own]
        # The area grows with the share done: a small dot had little training, not necessarily a bad pipeline.
        sizes = [6 + 9 * min(1.0, trial.share) ** 0.5 for trial in own]
        figure.add_trace(scatter(own, x, text, sizes, styles[method], axis, len(trials)))
    figure.update_xaxes(**_axis(name, list(values.values()), steps))
    figure.update_yaxes(**axis.layout if axis else {})
    return Plot(f"hyper-{name}", figure, height_px=400 if first else 260)


def _steps(values: Sequence[Scalar]) -> list[Scalar] | None:
    """Sort the distinct values if they are few or not numbers; return None for a continuous axis."""
    distinct = list(dict.fromkeys(values))
    if all(isinstance(value, int | float) for value in distinct):
        whole = all(float(value).is_integer() for value in distinct)
        few = len(distinct) <= (ORDINAL_VALUES if whole else min(ORDINAL_VALUES, max(2, len(values) // 3)))
        return sorted(distinct, key=float) if few else None
    return sorted(distinct, key=str)


def _position(value: Scalar, steps: list[Scalar] | None, index: int) -> float:
    """Place a value; equal values are spread a little in a fixed pattern, so that no dot hides another."""
    if steps is None:
        return float(value)
    return steps.index(value) + ((index * 0.618 + 0.5) % 1 - 0.5) * 0.4


def _axis(name: str, values: Sequence[Scalar], steps: list[Scalar] | None) -> dict[str, Any]:
    if steps is not None:
        labels = [_short(value_text(name, value)) for value in steps]
        return {
            "tickvals": list(range(len(steps))),
            "ticktext": labels,
            "range": [-0.6, len(steps) - 0.4],
            "tickangle": 0 if sum(map(len, labels)) <= 34 else -35,
        }
    numbers = [float(value) for value in values]
    if min(numbers) > 0 and max(numbers) / min(numbers) >= 20:
        return log_axis(numbers, rate if name.endswith("learning_rate") else compact)
    return {"nticks": 6}


def _short(text: str) -> str:
    """Shorten a tick label so that it fits, as plain text."""
    return escape(text if len(text) <= 18 else text[:17] + "…")
