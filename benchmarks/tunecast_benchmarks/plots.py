"""Plots of a comparison: regret over time and at the end, and critical-difference diagrams."""

from __future__ import annotations

from html import escape

import numpy as np
import plotly.graph_objects as go

from tunecast.report.figures import INK, Plot, Style, log_axis, new_figure, styles
from tunecast.report.numbers import compact
from tunecast_benchmarks.statistics import cliques
from tunecast_benchmarks.verdict import Verdict

DASHES = ("solid", "dash", "dot", "dashdot")
SOLID = 8
"""So many lines differ by colour alone."""
FLOOR = 1e-3
"""A logarithmic axis of regret ends here: below a tenth of a percent there is nothing to tell apart."""
ROW_PX = 30


def strategy_styles(verdict: Verdict) -> dict[str, Style]:
    """Choose a colour and a marker for every strategy."""
    return styles(verdict.comparison.strategies)


def anytime_plot(verdict: Verdict) -> Plot:
    """Mean normalised regret over time under the largest budget, with 95% bands."""
    figure = new_figure("time (baseline trials at full length)", "normalised regret on the test split")
    grid = verdict.comparison.grid
    shown: list[float] = []
    for place, (name, style) in enumerate(strategy_styles(verdict).items()):
        mean, low, high = verdict.anytime(name)
        band = np.concatenate([high, low[::-1]])
        dash = DASHES[place // SOLID % len(DASHES)]
        figure.add_scatter(
            x=np.concatenate([grid, grid[::-1]]), y=band, fill="toself", name=name, mode="lines",
            fillcolor=style.colour, opacity=0.1, line={"width": 0}, hoverinfo="skip",
        )  # fmt: skip
        figure.add_scatter(
            x=grid, y=mean, name=name, mode="lines",
            line={"color": style.colour, "width": 2, "shape": "hv", "dash": dash},
            hovertemplate=f"{escape(name)} %{{y:.4f}} at %{{x:.3g}}<extra></extra>",
        )  # fmt: skip
        shown += [max(FLOOR, float(value)) for value in mean]
    figure.update_xaxes(**log_axis(list(grid), compact))
    figure.update_yaxes(**log_axis(shown, compact))
    return Plot("anytime", figure, "Regret over time", height_px=480)


def final_plot(verdict: Verdict) -> Plot:
    """Mean normalised regret at the largest budget with 95% intervals, lowest first."""
    budget = verdict.comparison.budgets[-1]
    looks = strategy_styles(verdict)
    found = sorted((*verdict.regret(name, budget), name) for name in looks)
    figure = _rows(f"normalised regret at {budget:g} baseline trials", len(looks))
    for mean, low, high, name in found:
        bars = {"type": "data", "symmetric": False, "array": [high - mean], "arrayminus": [mean - low]}
        figure.add_trace(_dot(mean, name, looks[name], f"{mean:.4f} ({low:.4f} to {high:.4f})", bars))
    return Plot("final", figure, "Regret at the end", height_px=90 + ROW_PX * len(looks))


def critical_difference_plot(verdict: Verdict, budget: float) -> Plot:
    """Mean ranks at a budget, lowest first; a bar joins strategies that do not differ significantly.

    Ranks are means over tasks. Pairwise Wilcoxon tests with Holm's correction (Benavoli, Corani and Mangili
    2016) compare means over families of tasks.
    """
    looks = list(strategy_styles(verdict).items())
    ranks = verdict.ranks(budget)
    bars = cliques(ranks, verdict.p_values(budget))
    order = np.argsort(ranks, kind="stable")
    figure = _rows(f"mean rank at {budget:g} baseline trials", len(looks))
    for place in order:
        name, style = looks[place]
        figure.add_trace(_dot(float(ranks[place]), name, style, f"mean rank {ranks[place]:.2f}"))
    for level, (first, last) in enumerate(bars):
        x = len(looks) + 0.5 + 0.25 * level
        ends = [first - 0.2, last + 0.2]
        figure.add_shape(type="line", x0=x, x1=x, y0=ends[0], y1=ends[1], line={"color": INK, "width": 4})
    figure.update_xaxes(range=[0.7, len(looks) + 0.7 + 0.25 * len(bars)])
    return Plot(f"ranks-{budget:g}".replace(".", "-"), figure, height_px=90 + ROW_PX * len(looks))


def _rows(title: str, rows: int) -> go.Figure:
    """Make a figure with a row for each strategy, the first on top."""
    figure = new_figure(title, "")
    figure.update_yaxes(type="category", range=[rows - 0.5, -0.5], ticks="", tickfont={"color": INK})
    return figure


def _dot(x: float, name: str, style: Style, text: str, bars: dict[str, object] | None = None) -> go.Scatter:
    colour = style.colour
    return go.Scatter(
        x=[x], y=[escape(name)], name=name, mode="markers", cliponaxis=False,
        marker={"color": colour, "symbol": style.symbol, "size": 10, "line": {"color": INK, "width": 1}},
        error_x={**bars, "color": colour, "thickness": 2, "width": 5} if bars else None,
        hovertemplate=f"{text}<extra></extra>",
    )  # fmt: skip
