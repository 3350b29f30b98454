"""Plots of curves with their bands, lines of equal loss and crossovers, as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunecast.atomic import write_page
from tunecast.scaling.arrays import Floats
from tunecast.scaling.forecasting import posteriors
from tunecast.scaling.models import CurvePosterior
from tunecast.scaling.predicting import CurvePrediction
from tunecast.scaling.table import LossTable

_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2", "#7f7f7f")


def write_plot(
    path: Path,
    table: LossTable,
    law: str,
    largest: float | None = None,
    crossings: Sequence[float] = (),
    seed: int = 0,
) -> None:
    """Write the figures of a table as HTML, marking data sizes of ``crossings``.

    Curves extend to ``largest``, and at least to four times the largest measured size.

    Raises:
        OutputError: The file cannot be written.
    """
    parts = [
        figure.to_html(full_html=False, include_plotlyjs=index == 0)
        for index, figure in enumerate(figures(table, law, largest, crossings, seed))
    ]
    page = "<!doctype html><html><head><meta charset='utf-8'><title>Scaling laws</title></head><body>"
    write_page(path, page + "".join(parts) + "</body></html>", "--plot")


def figures(
    table: LossTable, law: str, largest: float | None = None, crossings: Sequence[float] = (), seed: int = 0
) -> list[Any]:
    """Build the plotly figures: for each task the curves and, if model sizes vary, lines of equal loss."""
    results = []
    for part in posteriors(table, law, seed):
        top = max(largest or 0.0, 4 * part.table.largest_size)
        smallest = min(float(curve.data_sizes[0]) for curve in part.table.curves)
        sizes = np.geomspace(smallest / 2, top, 60)
        prediction = part.predict(sizes, seed)
        results.append(_curves(part, prediction, sizes, crossings, seed))
        if len({curve.factors.get("model_parameters") for curve in part.table.curves} - {None}) >= 3:
            results.append(_iso_loss(part, prediction, sizes))
    return results


def _curves(
    part: CurvePosterior, prediction: CurvePrediction, sizes: Floats, crossings: Sequence[float], seed: int
) -> Any:
    import plotly.graph_objects as go  # slow to import, and only plots need it

    figure = go.Figure()
    loss, (low, high) = prediction.loss(), prediction.interval(seed)
    for row, curve in enumerate(part.table.curves):
        colour = _COLOURS[row % len(_COLOURS)]
        band = {"x": np.concatenate([sizes, sizes[::-1]]), "y": np.concatenate([high[row], low[row, ::-1]])}
        shared = {"legendgroup": curve.name, "name": curve.name}
        figure.add_scatter(
            **band, **shared, fill="toself", fillcolor=colour, opacity=0.15, line_width=0, showlegend=False
        )
        figure.add_scatter(x=sizes, y=loss[row], **shared, mode="lines", line_color=colour)
        figure.add_scatter(
            x=curve.data_sizes,
            y=curve.losses,
            **shared,
            mode="markers",
            marker_color=colour,
            showlegend=False,
        )
    for size in crossings:
        figure.add_vline(x=size, line_dash="dot", annotation_text=f"crossover {size:.3g}")
    figure.update_layout(
        title=f"Loss by data size: {part.model.name} law, 90% bands",
        xaxis={"title": "unique examples", "type": "log"},
        yaxis={"title": "loss", "type": "log"},
    )
    return figure


def _iso_loss(part: CurvePosterior, prediction: CurvePrediction, sizes: Floats) -> Any:
    import plotly.graph_objects as go  # slow to import, and only plots need it

    rows = [row for row, curve in enumerate(part.table.curves) if "model_parameters" in curve.factors]
    rows.sort(key=lambda row: part.table.curves[row].factors["model_parameters"])
    parameters = [part.table.curves[row].factors["model_parameters"] for row in rows]
    figure = go.Figure(
        go.Contour(x=sizes, y=parameters, z=prediction.loss()[rows], contours_coloring="lines", line_width=2)
    )
    figure.update_layout(
        title="Lines of equal loss: model size against data size",
        xaxis={"title": "unique examples", "type": "log"},
        yaxis={"title": "model parameters", "type": "log"},
    )
    return figure
