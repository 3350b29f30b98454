"""The page of a table's scaling laws: curves with their bands, lines of equal loss, crossovers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from tunecast.arrays import Floats
from tunecast.report.figures import (
    ACCENT,
    INK,
    LOG_FROM_RATIO,
    MUTED,
    LossAxis,
    Plot,
    Style,
    log_axis,
    new_figure,
    reference_line,
    styles,
)
from tunecast.report.numbers import compact
from tunecast.report.shell import ChartPage, Section, write_chart_page
from tunecast.scaling.decision import Prices
from tunecast.scaling.forecasting import posteriors
from tunecast.scaling.models import CurvePosterior
from tunecast.scaling.predicting import CurvePrediction
from tunecast.scaling.table import LossTable, group_name

MIN_MODELS = 3
"""Lines of equal loss need at least this many model sizes."""
OF_SIZE = ("model", "model_parameters")
"""Descriptors that differ along the axis of model sizes."""


def write_plot(
    path: Path,
    table: LossTable,
    law: str,
    largest: float | None = None,
    crossings: Sequence[float] = (),
    seed: int = 0,
    target: float | None = None,
    prices: Prices | None = None,
) -> None:
    """Write the charts of a table as HTML, marking data sizes of ``crossings`` and a loss to reach.

    With ``prices``, lines of equal price lie over those of equal loss.

    Curves extend to ``largest``, and at least to four times the largest measured size.

    Raises:
        OutputError: The file cannot be written.
    """
    page = ChartPage(
        "Loss by data size",
        "Tunecast scaling laws",
        _sections(table, law, largest, crossings, seed, target, prices),
    )
    write_chart_page(page, path, "--plot")


def _sections(
    table: LossTable,
    law: str,
    largest: float | None,
    crossings: Sequence[float],
    seed: int,
    target: float | None,
    prices: Prices | None,
) -> list[Section]:
    """Build for each task a section of curves and, if model sizes vary, one of lines of equal loss."""
    sections = []
    for number, part in enumerate(posteriors(table, law, seed)):
        top = max(largest or 0.0, 4 * part.table.largest_size)
        smallest = min(float(curve.data_sizes[0]) for curve in part.table.curves)
        sizes = np.geomspace(smallest / 2, top, 60)
        prediction = part.predict(sizes, seed)
        looks = styles(dict.fromkeys(curve.name for curve in part.table.curves))
        plot = _curves(part, prediction, sizes, crossings, seed, looks)
        if target is not None:
            reference_line(plot, target, f"target {target:g}", "y")
        sections.append(
            Section(
                f"{part.model.name.capitalize()} law",
                ("Dots are measured, lines are the fitted law, and shades are 90% intervals.",),
                legend=looks,
                plots=(Plot(f"curves-{number}", plot, "Loss by data size", height_px=460),),
            )
        )
        for name, rows in _by_model_size(part.table).items():
            plot = _iso_loss(part, prediction, sizes, rows, target)
            text = "Each line joins data and model sizes of the same predicted loss."
            if prices is not None and _add_prices(plot, part.table, sizes, rows, prices):
                text += " Dashed lines join those of the same price."
            sections.append(
                Section(
                    f"Lines of equal loss{f': {name}' if name else ''}",
                    (text,),
                    plots=(Plot(f"equal-{number}-{len(sections)}", plot, "Lines of equal loss"),),
                )
            )
    return sections


def _curves(
    part: CurvePosterior,
    prediction: CurvePrediction,
    sizes: Floats,
    crossings: Sequence[float],
    seed: int,
    looks: dict[str, Style],
) -> go.Figure:
    figure = new_figure("unique examples", "loss")
    loss, (low, high) = prediction.loss(), prediction.interval(seed)
    for row, curve in enumerate(part.table.curves):
        style = looks[curve.name]
        ends = np.concatenate([high[row], low[row, ::-1]])
        figure.add_scatter(
            x=np.concatenate([sizes, sizes[::-1]]), y=ends, name=curve.name, mode="lines", fill="toself",
            fillcolor=style.colour, opacity=0.15, line={"width": 0}, hoverinfo="skip",
        )  # fmt: skip
        figure.add_scatter(
            x=sizes, y=loss[row], name=curve.name, mode="lines", line={"color": style.colour, "width": 2},
            hovertemplate="%{y:.3f} at %{x:.3s} examples<extra></extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=curve.data_sizes,
            y=curve.losses,
            name=curve.name,
            mode="markers",
            marker={
                "color": style.colour,
                "symbol": style.symbol,
                "size": 8,
                "line": {"color": INK, "width": 1},
            },
            hovertemplate="measured %{y:.3f} on %{x:.3s} examples<extra></extra>",
        )
    figure.update_xaxes(**log_axis([*sizes, *crossings], compact))
    figure.update_yaxes(**_axis(part, loss, low).layout)
    for size in crossings:
        reference_line(figure, size, f"crossover {compact(size)}", "x")
    return figure


def _axis(part: CurvePosterior, loss: Floats, low: Floats) -> LossAxis:
    """Show what is measured and predicted; of the intervals, which may be vast, down to half of that."""
    measured = [value for curve in part.table.curves for value in curve.losses]
    high = max(*measured, float(loss.max()))
    bottom = min(*measured, float(loss.min()))
    least = max(float(low.min()), 0.5 * bottom)
    bottom = min(bottom, least)
    return LossAxis(bottom, high, bottom > 0 and high / bottom >= LOG_FROM_RATIO).widened(0.06)


def _by_model_size(table: LossTable) -> dict[str, list[int]]:
    """Group the curves that differ by model size alone, smallest first; all else names the groups."""
    groups: dict[str, dict[float, int]] = {}
    for row, curve in enumerate(table.curves):
        if (size := curve.factors.get("model_parameters")) is not None:
            others = {name: value for name, value in curve.group.items() if name not in OF_SIZE}
            groups.setdefault(group_name(others) if others else "", {})[size] = row
    return {
        name: [rows[size] for size in sorted(rows)]
        for name, rows in groups.items()
        if len(rows) >= MIN_MODELS
    }


def _iso_loss(
    part: CurvePosterior,
    prediction: CurvePrediction,
    sizes: Floats,
    rows: Sequence[int],
    target: float | None,
) -> go.Figure:
    parameters = [part.table.curves[row].factors["model_parameters"] for row in rows]
    figure = new_figure("unique examples", "model parameters")
    figure.add_contour(
        x=sizes,
        y=parameters,
        z=prediction.loss()[list(rows)],
        contours={"coloring": "lines", "showlabels": True, "labelfont": {"color": INK, "size": 12}},
        colorscale=[[0, ACCENT], [1, MUTED]],
        showscale=False,
        line={"width": 2},
        hovertemplate="loss %{z:.3f}<br>%{x:.3s} examples, %{y:.3s} parameters<extra></extra>",
    )
    if target is not None:
        figure.add_contour(
            x=sizes,
            y=parameters,
            z=prediction.loss()[list(rows)],
            contours={"type": "constraint", "operation": "=", "value": target, "showlabels": True},
            line={"width": 4, "color": INK},
            showlegend=False,
            hoverinfo="skip",
        )
    figure.update_xaxes(**log_axis(list(sizes), compact))
    figure.update_yaxes(**log_axis(parameters, compact))
    return figure


def _add_prices(
    figure: go.Figure, table: LossTable, sizes: Floats, rows: Sequence[int], prices: Prices
) -> bool:
    """Add lines of equal price, a factor of about three apart, unless everything is free."""
    curves = [table.curves[row] for row in rows]
    paces = [(curve.seconds_per_example or 0.0) / 3600 for curve in curves]
    price = np.array([[prices.of(float(size), pace * size) for size in sizes] for pace in paces])
    if price.max() <= 0:
        return False
    paid = np.log10(np.where(price > 0, price, np.nan))
    figure.add_contour(
        x=sizes,
        y=[curve.factors["model_parameters"] for curve in curves],
        z=paid,
        contours={
            "coloring": "lines",
            "start": np.floor(np.nanmin(paid)),
            "end": np.nanmax(paid),
            "size": 0.5,
        },
        colorscale=[[0, INK], [1, INK]],
        showscale=False,
        line={"width": 1, "dash": "dash"},
        customdata=price,
        hovertemplate="price %{customdata:.3s}<br>%{x:.3s} examples, %{y:.3s} parameters<extra></extra>",
    )
    ends = [_price_end(sizes, row) for row in price]
    figure.add_scatter(
        x=[sizes[end] for end in ends],
        y=[curve.factors["model_parameters"] for curve in curves],
        text=[f"price {compact(float(row[end]))}" for row, end in zip(price, ends, strict=True)],
        mode="text",
        textposition="top left",
        showlegend=False,
        hoverinfo="skip",
    )
    return True


def _price_end(sizes: Floats, price: Floats) -> int:
    """Return the place of a label: three quarters along the sizes that cost something."""
    paid = np.flatnonzero(price > 0)
    return int(paid[3 * len(paid) // 4]) if len(paid) else len(sizes) - 1
