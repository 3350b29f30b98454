"""Plots of a comparison: regret over time, and critical-difference diagrams."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tunecast_benchmarks.statistics import cliques
from tunecast_benchmarks.verdict import Verdict

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2", "#7f7f7f")
DASHES = ("solid", "dash", "dot", "dashdot")
LABEL_PX = 190


def anytime_plot(verdict: Verdict) -> go.Figure:
    """Mean normalised regret over time under the largest budget, with 95% bands."""
    import plotly.graph_objects as go

    figure = go.Figure()
    grid = verdict.comparison.grid
    for place, name in enumerate(verdict.comparison.strategies):
        colour = COLOURS[place % len(COLOURS)]
        mean, low, high = verdict.anytime(name)
        shared = {"legendgroup": name, "name": name, "line_shape": "hv"}
        figure.add_scatter(
            x=np.concatenate([grid, grid[::-1]]), y=np.concatenate([high, low[::-1]]), fill="toself",
            fillcolor=colour, opacity=0.1, line_width=0, showlegend=False, hoverinfo="skip",
            legendgroup=name, name=name,
        )  # fmt: skip
        dash = DASHES[place // len(COLOURS) % len(DASHES)]
        figure.add_scatter(x=grid, y=mean, **shared, mode="lines", line={"color": colour, "dash": dash})
    figure.update_layout(
        xaxis={"title": "time (baseline trials at full length)", "type": "log"},
        yaxis={"title": "normalised regret on the test split", "type": "log"},
        height=480,
        margin={"t": 20},
    )
    return figure


def critical_difference_plot(verdict: Verdict, budget: float) -> go.Figure:
    """Mean ranks at a budget on one line; a bar joins strategies that do not differ significantly.

    Ranks are means over tasks. Pairwise Wilcoxon tests with Holm's correction (Benavoli, Corani and Mangili
    2016) compare means over families of tasks.
    """
    import plotly.graph_objects as go

    names = verdict.comparison.strategies
    ranks = verdict.ranks(budget)
    bars = cliques(ranks, verdict.p_values(budget))
    order = np.argsort(ranks, kind="stable")
    figure = go.Figure()
    figure.add_scatter(x=[1, len(names)], y=[0, 0], mode="lines", line={"color": "black", "width": 1})
    half = (len(order) + 1) // 2
    for position, index in enumerate(order):
        left = position < half
        depth = 1 + len(bars) * 0.5 + (position if left else len(order) - 1 - position)
        rank = float(ranks[index])
        edge = 1 - 0.2 if left else len(names) + 0.2
        figure.add_scatter(
            x=[rank, rank, edge], y=[0, -depth, -depth], mode="lines", hoverinfo="skip",
            line={"color": COLOURS[index % len(COLOURS)], "width": 1.5},
        )  # fmt: skip
        figure.add_annotation(
            x=edge, y=-depth, text=f"{names[index]} {rank:.2f}", showarrow=False,
            xanchor="right" if left else "left",
        )  # fmt: skip
    for level, (first, last) in enumerate(bars):
        ends = [float(ranks[order[first]]) - 0.05, float(ranks[order[last]]) + 0.05]
        height = -0.4 - 0.5 * level
        figure.add_scatter(x=ends, y=[height, height], mode="lines", line={"color": "black", "width": 5})
    figure.update_layout(
        showlegend=False,
        xaxis={"side": "top", "title": f"mean rank at {budget:g} baseline trials", "dtick": 1},
        yaxis={"visible": False},
        height=120 + 34 * (half + len(bars)),
        margin={"l": LABEL_PX, "r": LABEL_PX, "t": 60, "b": 10},
        plot_bgcolor="white",
    )
    return figure
