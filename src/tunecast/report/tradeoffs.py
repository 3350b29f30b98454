"""Plots that compare: contenders with each other, cost with quality."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from tunecast.report.figures import (
    ACCENT,
    INK,
    MUTED,
    Plot,
    log_axis,
    loss_range,
    method_styles,
    new_figure,
    scatter,
)
from tunecast.report.numbers import compact, finite, with_interval
from tunecast.report.trials import DOTS_DRAWN, DrawnTrial, chosen_to_draw, grouped
from tunecast.report.wording import CONTENDER_NAMES
from tunecast.results import Contender, SessionRecord


def scores_plot(record: SessionRecord) -> Plot | None:
    """Plot the test loss of every contender with its 95% interval; None if nothing was scored."""
    scored = [one for one in record.contenders if finite(one.test.loss) is not None]
    if not scored:
        return None
    figure = new_figure("test loss (nats per token)", "")
    for one in scored:
        figure.add_trace(_score(one, record))
    rows = [len(scored) - 0.5, -0.5]  # the first contender on top, with half a row of space around
    figure.update_yaxes(range=rows, type="category", tickfont={"color": INK, "size": 13}, ticks="")
    return Plot("scores", figure, height_px=100 + 46 * len(scored))


def _score(contender: Contender, record: SessionRecord) -> go.Scatter:
    test = contender.test
    colour = ACCENT if contender.name == record.winner else MUTED
    return go.Scatter(
        x=[test.loss],
        y=[_label(contender, record)],
        mode="markers",
        marker={"color": colour, "size": 10, "symbol": "diamond", "line": {"color": INK, "width": 1}},
        error_x={
            "type": "data",
            "symmetric": False,
            "color": colour,
            "thickness": 3,
            "width": 8,
            "array": [_distance(test.loss, test.loss_high)],
            "arrayminus": [_distance(test.loss, test.loss_low)],
        },
        hovertemplate=f"{with_interval(test.loss, test.loss_low, test.loss_high)}<extra></extra>",
    )


def _label(contender: Contender, record: SessionRecord) -> str:
    name = CONTENDER_NAMES.get(contender.name, contender.name)
    return f"<b>{name}</b>" if contender.name == record.winner else name


def _distance(value: float, end: float | None) -> float:
    known = finite(end)
    return 0.0 if known is None else abs(known - value)


def cost_plots(trials: Sequence[DrawnTrial]) -> list[Plot]:
    """Plot lowest validation loss against seconds, and against bytes if memory was measured."""
    plots = [
        _cost_plot("seconds", "training and evaluation (seconds)", trials, lambda trial: trial.seconds),
        _cost_plot("bytes", "peak memory on the device (GB)", trials, _gigabytes),
    ]
    return [plot for plot in plots if plot is not None]


def _gigabytes(trial: DrawnTrial) -> float:
    return (trial.peak_bytes or 0) / 1e9


def _cost_plot(
    name: str, title: str, trials: Sequence[DrawnTrial], cost: Callable[[DrawnTrial], float]
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
    limits = loss_range([trial.best_loss or 0.0 for trial in usable])
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
            scatter(own, x, [trial.hover for trial in own], sizes, styles[method], limits, len(drawn))
        )
    costs = [cost(trial) for trial in usable]
    if max(costs) / min(costs) > 8:
        figure.update_xaxes(**log_axis(costs, compact))
    figure.update_yaxes(range=limits)
    return Plot(f"cost-{name}", figure, height_px=360)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the (cost, loss) pairs that no other beats in both, by rising cost."""
    front: list[tuple[float, float]] = []
    for cost, loss in sorted(points):
        if not front or loss < front[-1][1]:
            front.append((cost, loss))
    return front
