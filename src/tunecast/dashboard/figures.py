"""Plots that only the dashboard has: what was predicted beside what was measured, sessions, and many runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go

from tunecast.predictor import Prediction
from tunecast.records import Outcome
from tunecast.report.figures import INK, MUTED, Plot, loss_axis, method_styles, new_figure, styles
from tunecast.report.numbers import compact, decimal, duration, rate
from tunecast.report.trials import DrawnTrial, grouped
from tunecast.store.browsing import RunRow

LINES_DRAWN = 800
NONE_AT = -0.08
"""Height of runs that do not have a hyperparameter, on an axis from 0 to 1."""


def predicted_plot(trials: Sequence[DrawnTrial], predicted: Mapping[str, Prediction]) -> Plot | None:
    """Plot predicted ends against the losses measured so far; None if nothing was both."""
    known = [one for one in trials if one.points and one.run.pipeline.id in predicted]
    if not known:
        return None
    figure = new_figure("predicted loss at the end (nats per token)", "measured so far")
    for method, members in grouped(known, looks := method_styles(trials)):
        ends = [predicted[one.run.pipeline.id] for one in members]
        done = [one.run.outcome is Outcome.COMPLETED for one in members]
        style = looks[method]
        figure.add_trace(
            go.Scatter(
                x=[end.loss for end in ends],
                y=[one.points[-1].validation.loss for one in members],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [end.high - end.loss for end in ends],
                    "arrayminus": [end.loss - end.low for end in ends],
                    "color": style.colour,
                    "thickness": 1,
                },
                name=method,
                mode="markers",
                text=[one.short_hover for one in members],
                marker={
                    "color": style.colour,
                    "size": 10,
                    "symbol": [style.symbol if full else f"{style.symbol}-open" for full in done],
                    "line": {"color": style.colour, "width": 1.5},
                },
                hovertemplate="predicted %{x:.3f}, measured %{y:.3f}<br>%{text}<extra></extra>",
            )
        )
    losses = [one.points[-1].validation.loss for one in known]
    axis = loss_axis([*losses, *(predicted[one.run.pipeline.id].loss for one in known)])
    if axis is not None:
        figure.update_yaxes(range=[axis.low, axis.high], nticks=6)
        figure.add_shape(
            type="line",
            x0=axis.low,
            x1=axis.high,
            y0=axis.low,
            y1=axis.high,
            line={"color": MUTED, "width": 1.5, "dash": "dash"},
        )
    caption = (
        "Bars are 90% intervals of the predictions before anything ran. Filled markers reached their end, "
        "open ones did not yet; on the dashed line they are as predicted."
    )
    return Plot("predicted", figure, "Predicted against measured", caption, 380)


@dataclass(frozen=True)
class BestSoFar:
    """A session's best validation loss over its budget: pairs of seconds used and loss, in order."""

    name: str
    steps: tuple[tuple[float, float], ...]


def comparison_plot(sessions: Sequence[BestSoFar]) -> Plot | None:
    """Plot several sessions' best losses so far; None if none has a point."""
    drawn = [one for one in sessions if one.steps]
    if not drawn:
        return None
    last = max(one.steps[-1][0] for one in drawn)
    unit, scale = (
        ("seconds", 1.0) if last < 180 else ("minutes", 60.0) if last < 10_800 else ("hours", 3600.0)
    )
    figure = new_figure(f"budget used ({unit})", "best validation loss so far (nats per token)")
    looks = styles(one.name for one in drawn)
    for one in drawn:
        style = looks[one.name]
        figure.add_trace(
            go.Scatter(
                x=[seconds / scale for seconds, _ in one.steps],
                y=[loss for _, loss in one.steps],
                name=one.name,
                mode="lines+markers",
                line={"color": style.colour, "width": 2, "shape": "hv"},
                marker={"symbol": style.symbol, "size": 7},
                hovertemplate=f"%{{y:.3f}} after %{{x:.3g}} {unit}<br>{escape(one.name)}<extra></extra>",
            )
        )
    axis = loss_axis([loss for one in drawn for _, loss in one.steps])
    figure.update_yaxes(**axis.layout if axis else {})
    return Plot("comparison", figure, "Best loss over the budget", "", 420)


def parallel_plot(rows: Sequence[RunRow]) -> Plot | None:
    """Plot runs as lines across the axes of their hyperparameters, cost and loss; None without points.

    It is drawn with plain lines: plotly's own parallel coordinates need WebGL and ignore the page's theme.
    """
    known = [row for row in rows if row.final_loss is not None and math.isfinite(row.final_loss)][
        :LINES_DRAWN
    ]
    if not known:
        return None
    axes = [axis for axis in _axes(known) if axis is not None]
    figure = new_figure("", "")
    by_method: dict[str, list[int]] = {}
    for place, row in enumerate(known):
        by_method.setdefault(row.method, []).append(place)
    looks = styles(sorted(by_method))
    for method, places in sorted(by_method.items()):
        figure.add_trace(_lines(method, places, axes, known, looks[method].colour))
    for place, axis in enumerate(axes):
        figure.add_shape(
            type="line", x0=place, x1=place, y0=0, y1=1, line={"color": MUTED, "width": 1}, layer="above"
        )
        for height, text in ((0.0, axis.low), (1.0, axis.high)):
            figure.add_annotation(
                x=place,
                y=height,
                text=text,
                showarrow=False,
                font={"color": INK, "size": 11},
                bgcolor="var(--card)",
                yanchor="top" if height == 0.0 else "bottom",
                yshift=-3 if height == 0.0 else 3,
            )
    figure.update_yaxes(range=[-0.2, 1.14], visible=False)
    figure.update_xaxes(
        range=[-0.3, len(axes) - 0.7],
        tickvals=list(range(len(axes))),
        ticktext=[axis.name for axis in axes],
        showgrid=False,
        showline=False,
        tickangle=0,
    )
    caption = (
        "Each line is one run, coloured by its method. A line that dips below an axis does not have that "
        "hyperparameter. Losses compare only within one dataset and base model: filter first."
    )
    return Plot("parallel", figure, "Parallel coordinates", caption, 440)


@dataclass(frozen=True)
class _Axis:
    """One axis: every run's height from 0 to 1, None if it has no value, and the texts at both ends."""

    name: str
    heights: list[float | None]
    low: str
    high: str
    texts: list[str]


def _axes(rows: Sequence[RunRow]) -> list[_Axis | None]:
    def numbers(name: str) -> list[float | None]:
        found = (row.hyperparameters.get(name) for row in rows)
        return [
            float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
            for value in found
        ]

    return [
        _axis("learning<br>rate", numbers("learning_rate"), rate),
        _axis("batch<br>size", numbers("per_device_train_batch_size"), compact),
        _axis("LoRA<br>rank", numbers("lora_r"), compact),
        _axis("tokens", [float(row.full_length_tokens) for row in rows], compact),
        _axis("seconds", [row.seconds for row in rows], duration),
        _axis("loss", [row.final_loss for row in rows], decimal),
    ]


def _axis(name: str, values: Sequence[float | None], write: Callable[[float], str]) -> _Axis | None:
    """Make a logarithmic axis; None if no run has a value."""
    usable = [value if value is not None and value > 0 and math.isfinite(value) else None for value in values]
    known = [math.log(value) for value in usable if value is not None]
    if not known:
        return None
    low, span = min(known), max(known) - min(known)

    def height(value: float) -> float:
        return (math.log(value) - low) / span if span else 0.5

    heights = [None if value is None else height(value) for value in usable]
    texts = ["none" if value is None else write(value) for value in usable]
    return _Axis(name, heights, write(math.exp(low)), write(math.exp(max(known))), texts)


def _lines(
    method: str, places: Sequence[int], axes: Sequence[_Axis], rows: Sequence[RunRow], colour: str
) -> go.Scatter:
    """Draw all runs of a method as one trace with gaps, far faster in browsers than a trace each."""
    x: list[float | None] = []
    y: list[float | None] = []
    hover: list[str] = []
    for place in places:
        told = ", ".join(f"{axis.name.replace('<br>', ' ')} {axis.texts[place]}" for axis in axes)
        row = rows[place]
        text = f"<b>{escape(method)}</b> · {escape(row.task)} on {escape(row.model)}<br>{told}"
        for across, axis in enumerate(axes):
            x.append(across)
            height = axis.heights[place]
            y.append(NONE_AT if height is None else height)
            hover.append(text)
        x.append(None)
        y.append(None)
        hover.append("")
    return go.Scatter(
        x=x,
        y=y,
        text=hover,
        name=method,
        mode="lines",
        opacity=0.55 if len(rows) < 100 else 0.3,
        line={"color": colour, "width": 1.2},
        hovertemplate="%{text}<extra></extra>",
    )
