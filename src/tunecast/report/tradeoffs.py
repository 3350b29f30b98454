"""Plots that compare: contenders with each other, cost with quality."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go

from tunecast.report.figures import (
    ACCENT,
    INK,
    MUTED,
    Plot,
    log_axis,
    loss_axis,
    method_styles,
    new_figure,
    scatter,
)
from tunecast.report.numbers import compact, decimal, finite, with_interval
from tunecast.report.trials import DOTS_DRAWN, DrawnTrial, chosen_to_draw, grouped
from tunecast.report.wording import RIVAL_NAMES, contender_name
from tunecast.results import SessionRecord


@dataclass(frozen=True)
class _Row:
    """The test score of a contender or a constant answer by one measure, with its 95% interval."""

    name: str
    value: float
    low: float | None
    high: float | None
    winner: bool
    needs_no_model: bool


def scores_plots(record: SessionRecord) -> list[Plot]:
    """Plot the test scores of contenders and constant answers, by the measure that decided first.

    A measure without scores has no plot.
    """
    rivals = [(contender_name(one), one.test, one.name == record.winner, False) for one in record.models]
    rivals += [
        (RIVAL_NAMES.get(one.name, one.name), one.test, False, True) for one in record.constant_answers
    ]
    losses = [_Row(name, test.loss, test.loss_low, test.loss_high, *kind) for name, test, *kind in rivals]
    metrics = [
        _Row(name, test.metric, test.metric_low, test.metric_high, *kind)
        for name, test, *kind in rivals
        if test.metric is not None
    ]
    metric = next((one.test.metric_name for one in record.contenders if one.test.metric is not None), "")
    plots = [
        _scores_plot("scores-loss", "test loss (nats per token)", losses),
        _scores_plot("scores-metric", f"test {escape(metric)}", metrics),
    ]
    ordered = plots if record.objective == "loss" else reversed(plots)
    return [plot for plot in ordered if plot is not None]


def _scores_plot(name: str, title: str, rows: Sequence[_Row]) -> Plot | None:
    scored = [row for row in rows if finite(row.value) is not None]
    if not scored:
        return None
    figure = new_figure(title, "")
    ends = [
        end for row in scored for end in (row.value, finite(row.low), finite(row.high)) if end is not None
    ]
    if name == "scores-loss":
        worst = max((row.value for row in scored if not row.needs_no_model), default=None)
        axis = loss_axis(ends, worst)  # an empty answer may be far worse than any model
        figure.update_xaxes(**axis.widened(0.06).layout if axis else {})
        top = axis.high if axis else math.inf
    else:
        pad = 0.08 * (max(ends) - min(ends)) or 0.05
        figure.update_xaxes(range=[min(ends) - pad, max(ends) + pad], nticks=6)
        top = math.inf
    for row in scored:
        figure.add_trace(_score(row, top))
    places = [len(scored) - 0.5, -0.5]  # the first contender on top, with half a row of space around
    figure.update_yaxes(range=places, type="category", tickfont={"color": INK, "size": 13}, ticks="")
    figure.update_layout(margin={"r": 26})
    return Plot(name, figure, height_px=100 + 46 * len(scored))


def _score(row: _Row, top: float) -> go.Scatter:
    """Draw a score, its interval and its value; a score beyond the axis goes to its upper edge."""
    colour = ACCENT if row.winner else MUTED
    name = escape(row.name)
    return go.Scatter(
        x=[min(row.value, top)],
        y=[f"<b>{name}</b>" if row.winner else name],
        mode="markers+text",
        text=[decimal(row.value)],
        textposition="top center",
        textfont={"color": INK, "size": 12},
        cliponaxis=False,
        marker={
            "color": colour,
            "size": 10,
            "symbol": "diamond-open" if row.needs_no_model else "diamond",
            "line": {"color": colour if row.needs_no_model else INK, "width": 1},
        },
        error_x={
            "type": "data",
            "symmetric": False,
            "color": colour,
            "thickness": 3,
            "width": 8,
            "array": [_distance(row.value, row.high)],
            "arrayminus": [_distance(row.value, row.low)],
        },
        hovertemplate=f"{with_interval(row.value, row.low, row.high)}<extra></extra>",
    )


def _distance(value: float, end: float | None) -> float:
    known = finite(end)
    return 0.0 if known is None else abs(known - value)


def cost_plots(trials: Sequence[DrawnTrial], zero_shot: float | None) -> list[Plot]:
    """Plot lowest validation loss against seconds, and against bytes if memory was measured."""
    plots = [
        _cost_plot("seconds", "training and evaluation (seconds)", trials, _seconds, zero_shot),
        _cost_plot("bytes", "peak memory on the device (GB)", trials, _gigabytes, zero_shot),
    ]
    return [plot for plot in plots if plot is not None]


def _seconds(trial: DrawnTrial) -> float:
    return trial.seconds


def _gigabytes(trial: DrawnTrial) -> float:
    return (trial.peak_bytes or 0) / 1e9


def _cost_plot(
    name: str,
    title: str,
    trials: Sequence[DrawnTrial],
    cost: Callable[[DrawnTrial], float],
    zero_shot: float | None,
) -> Plot | None:
    usable = [trial for trial in trials if trial.best_loss is not None and cost(trial) > 0]
    if not usable:
        return None
    front = pareto_front([(cost(trial), trial.best_loss or 0.0) for trial in usable])
    figure = new_figure(title, "lowest validation loss")
    figure.add_trace(
        go.Scatter(
            x=[x for x, _ in front], y=[y for _, y in front], mode="lines", name="Pareto front",
            line={"color": MUTED, "width": 2, "dash": "dot", "shape": "hv"}, hoverinfo="skip",
        )
    )  # fmt: skip
    axis = loss_axis([trial.best_loss or 0.0 for trial in usable], zero_shot)
    # The front is that of all trials; the trials on it are always drawn.
    sample = chosen_to_draw(usable, DOTS_DRAWN)
    kept = {trial.run.id for trial in sample}
    drawn = sample + [
        trial for trial in usable if trial.run.id not in kept and (cost(trial), trial.best_loss) in front
    ]
    styles = method_styles(trials)
    for method, own in grouped(drawn, styles):
        sizes = [12.0 if trial.incumbent else 8.0 for trial in own]
        x = [cost(trial) for trial in own]
        figure.add_trace(
            scatter(own, x, [trial.hover for trial in own], sizes, styles[method], axis, len(drawn))
        )
    costs = [cost(trial) for trial in usable]
    if max(costs) / min(costs) > 8:
        figure.update_xaxes(**log_axis(costs, compact))
    figure.update_yaxes(**axis.layout if axis else {})
    return Plot(f"cost-{name}", figure, height_px=360)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the (cost, loss) pairs that no other beats in both, by rising cost."""
    front: list[tuple[float, float]] = []
    for cost, loss in sorted(points):
        if not front or loss < front[-1][1]:
            front.append((cost, loss))
    return front
