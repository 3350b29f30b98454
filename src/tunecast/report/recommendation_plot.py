"""The chart of predicted loss and time of pipelines, as one HTML file."""

from __future__ import annotations

import itertools
from pathlib import Path

import plotly.graph_objects as go

from tunecast.atomic import write_page
from tunecast.recommender.recommendation import Prospect, Recommendation
from tunecast.report.figures import SYMBOLS
from tunecast.report.numbers import duration, with_interval
from tunecast.report.tradeoffs import pareto_front
from tunecast.report.wording import pipeline_line


def write_prospects(recommendation: Recommendation, path: Path) -> None:
    """Write the chart as a file that needs no network.

    Raises:
        OutputError: The file cannot be written.
    """
    figure = prospects_figure(recommendation)
    write_page(path, figure.to_html(full_html=True, include_plotlyjs=True), "--plot")


def prospects_figure(recommendation: Recommendation) -> go.Figure:
    """Plot predicted loss against seconds of every pipeline that fits, with the Pareto front."""
    considered = recommendation.considered
    figure = go.Figure()
    front = pareto_front([(one.seconds, one.predicted_loss) for one in considered])
    figure.add_trace(
        go.Scatter(
            x=[x for x, _ in front],
            y=[y for _, y in front],
            mode="lines",
            name="Pareto front",
            line={"dash": "dot", "shape": "hv", "color": "#888888"},
            hoverinfo="skip",
        )
    )
    methods = sorted({one.pipeline.method for one in considered})
    for symbol, method in zip(itertools.cycle(SYMBOLS), methods, strict=False):
        figure.add_trace(_of_method(method, [p for p in considered if p.pipeline.method == method], symbol))
    zero_shot = recommendation.zero_shot_loss
    figure.add_hline(
        y=zero_shot.value, line_dash="dash", annotation_text=f"untouched model ({zero_shot.source})"
    )
    figure.update_layout(
        title=f"{recommendation.dataset} on {recommendation.model}, {recommendation.target}: predicted",
        xaxis={"title": "training and evaluation (seconds)", "type": "log"},
        yaxis={"title": "test loss (nats per token)"},
    )
    return figure


def _of_method(method: str, prospects: list[Prospect], symbol: str) -> go.Scatter:
    return go.Scatter(
        x=[one.seconds for one in prospects],
        y=[one.predicted_loss for one in prospects],
        mode="markers",
        name=method,
        marker={"symbol": symbol, "size": 9},
        text=[_text(one) for one in prospects],
        hovertemplate="%{text}<extra></extra>",
    )


def _text(prospect: Prospect) -> str:
    loss = with_interval(prospect.predicted_loss, prospect.low, prospect.high)
    taken = f"{duration(prospect.seconds)}, {prospect.memory_gb:.1f} GB"
    return f"{pipeline_line(prospect.pipeline)}<br>loss {loss}<br>{taken}"
