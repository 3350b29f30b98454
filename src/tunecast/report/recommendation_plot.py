"""The page of predicted loss, time and money of pipelines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

import plotly.graph_objects as go

from tunecast.errors import ConfigurationError
from tunecast.recommender.explanations import worth_text
from tunecast.recommender.recommendation import Prospect, Recommendation
from tunecast.report.figures import INK, MUTED, Plot, Style, loss_axis, new_figure, reference_line, styles
from tunecast.report.numbers import decimal, duration, interval, with_interval
from tunecast.report.shell import ChartPage, Section, write_chart_page
from tunecast.report.tables import Table
from tunecast.report.tradeoffs import pareto_front
from tunecast.report.wording import memory_text, pipeline_line

DURATIONS = (1.0, 3, 10, 30, 60, 180, 600, 1800, 3600, 10_800, 36_000, 86_400, 259_200, 864_000, 2_592_000)
"""Seconds that the axis of time is marked at."""


def write_prospects(recommendation: Recommendation, path: Path) -> None:
    """Write the page as a file that needs no network.

    Raises:
        ConfigurationError: There is no time to plot, since costs could not be estimated.
        OutputError: The file cannot be written.
    """
    if reason := recommendation.recommendations[0].unpriced:
        raise ConfigurationError(f"--plot: there is no time to plot. {reason}", "Leave --plot out.")
    write_chart_page(prospects_page(recommendation), path, "--plot")


def prospects_page(recommendation: Recommendation) -> ChartPage:
    """Build the page: what to run first, quality against time, the recommended pipelines, the reasons."""
    zero_shot = recommendation.zero_shot_loss
    ends = with_interval(zero_shot.value, zero_shot.low, zero_shot.high)
    best = recommendation.recommendations[0]
    looks = styles(sorted({one.pipeline.method for one in recommendation.considered}))
    caption = (
        "Each dot is a pipeline that fits. No pipeline is below and left of the dotted Pareto front. The "
        "recommended ones have a rim, and a bar for the 90% interval of their loss."
    )
    quality = Section(
        "Quality against time" + ("" if best.money is None else " and money"),
        sentences=(caption,),
        legend=looks,
        plots=(prospects_plot(recommendation, looks),),
        tables=(_table(recommendation.recommendations),),
    )
    task = f"{recommendation.model} on {recommendation.dataset}, {recommendation.target}"
    return ChartPage(
        f"Run first: {pipeline_line(best.pipeline)}",
        f"Tunecast recommendation · {task}",
        (quality, Section("Why the first", items=best.reasons)),
        (
            worth_text(recommendation),
            *([recommendation.basis] if recommendation.basis else []),
            f"Base model: test loss {ends}, {zero_shot.source}.",
            "All other figures are predicted; nothing was run.",
        ),
        recommendation.warnings,
    )


def prospects_plot(recommendation: Recommendation, looks: dict[str, Style]) -> Plot:
    """Plot predicted loss against seconds of every pipeline that fits, with the Pareto front."""
    considered, recommended = recommendation.considered, recommendation.recommendations
    price = next((one.money / one.hours for one in recommended if one.money and one.hours), None)
    figure = new_figure(
        "training and evaluation (time" + (")" if price is None else ", money)"), "test loss (nats per token)"
    )
    front = pareto_front([(one.seconds, one.predicted_loss) for one in considered])
    figure.add_trace(
        go.Scatter(
            x=[x for x, _ in front], y=[y for _, y in front], mode="lines", name="Pareto front",
            line={"color": MUTED, "width": 2, "dash": "dot", "shape": "hv"}, hoverinfo="skip",
        )
    )  # fmt: skip
    chosen = [one.pipeline for one in recommended]
    for method, style in looks.items():
        others = [one for one in considered if one.pipeline.method == method and one.pipeline not in chosen]
        own = [one for one in recommended if one.pipeline.method == method]
        if others:
            figure.add_trace(_dots(others, style, recommended=False))
        if own:
            figure.add_trace(_dots(own, style, recommended=True))
    zero_shot = recommendation.zero_shot_loss
    losses = [one.predicted_loss for one in considered]
    losses += [end for one in recommended for end in (one.low, one.high)]
    axis = loss_axis(losses, zero_shot.value, shows_zero_shot=True)
    figure.update_yaxes(**axis.layout if axis else {})
    figure.update_xaxes(**_time_axis([one.seconds for one in (*considered, *recommended)], price))
    reference_line(figure, zero_shot.value, f"base model ({zero_shot.source})")
    return Plot("prospects", figure, "Predicted loss against time", height_px=460)


def _dots(prospects: Sequence[Prospect], style: Style, *, recommended: bool) -> go.Scatter:
    bars = {
        "type": "data",
        "symmetric": False,
        "color": style.colour,
        "thickness": 1.5,
        "width": 5,
        "array": [one.high - one.predicted_loss for one in prospects],
        "arrayminus": [one.predicted_loss - one.low for one in prospects],
    }
    return go.Scatter(
        x=[one.seconds for one in prospects],
        y=[one.predicted_loss for one in prospects],
        mode="markers",
        name=prospects[0].pipeline.method,
        opacity=1.0 if recommended else 0.55,
        marker={
            "color": style.colour,
            "symbol": style.symbol,
            "size": 12 if recommended else 7,
            "line": {"color": INK, "width": 1.5 if recommended else 0},
        },
        error_y=bars if recommended else None,
        text=[_text(one) for one in prospects],
        hovertemplate="%{text}<extra></extra>",
    )


def _text(prospect: Prospect) -> str:
    loss = with_interval(prospect.predicted_loss, prospect.low, prospect.high)
    taken = f"{duration(prospect.seconds)}, {memory_text(prospect)} GB"
    if prospect.money is not None:
        taken += f", money {_money(prospect.money)}"
    return f"{escape(pipeline_line(prospect.pipeline))}<br>loss {loss}<br>{taken}"


def _money(amount: float) -> str:
    return f"{amount:.2f}" if amount >= 0.1 else f"{amount:.2g}"


def _time_axis(seconds: Sequence[float], price: float | None) -> dict[str, object]:
    """Make a logarithmic axis of time; with the price of an hour each mark has the money below it."""
    low, high = min(seconds) / 1.3, max(seconds) * 1.3
    ticks = [tick for tick in DURATIONS if low <= tick <= high] or [min(seconds), max(seconds)]
    labels = [duration(tick).replace(".0 s", " s") for tick in ticks]
    if price is not None:
        labels = [
            f"{label}<br>{_money(tick / 3600 * price)}" for label, tick in zip(labels, ticks, strict=True)
        ]
    return {
        "type": "log",
        "range": [math.log10(low), math.log10(high)],
        "tickvals": ticks,
        "ticktext": labels,
        "tickangle": 0,
    }


def _time_ends(prospect: Prospect) -> str:
    low, high = (duration(3600 * (one or 0)) for one in (prospect.hours_low, prospect.hours_high))
    return f"{low} to {high}"


def _table(recommended: Sequence[Prospect]) -> Table:
    priced = recommended[0].money is not None
    header = ("pipeline", "gain", "test loss (90%)", "time", "memory", *(["money"] if priced else []))
    rows = [
        (
            pipeline_line(one.pipeline),
            f"{one.relative_gain:+.0%}",
            f"{decimal(one.predicted_loss)}\n{interval(one.low, one.high)}",
            f"{duration(one.seconds)}\n{_time_ends(one)}",
            f"{memory_text(one)} GB",
            *([_money(one.money)] if one.money is not None else []),
        )
        for one in recommended
    ]
    return Table(header, tuple(rows), frozenset(range(1, len(header))), winner=None)
