"""The plot of the data forecast: measured end points, and predictions with their intervals."""

from __future__ import annotations

import plotly.graph_objects as go

from tunecast.report.curves import LOSS_TITLE
from tunecast.report.figures import ACCENT, INK, MUTED, Plot, log_axis, new_figure
from tunecast.report.numbers import compact, with_interval
from tunecast.results import DataForecast


def forecast_plot(forecast: DataForecast | None) -> Plot | None:
    """Plot validation loss by unique examples; None if no forecast is supported."""
    supported = [one for one in forecast.forecasts if one.supported] if forecast else []
    if forecast is None or not supported:
        return None
    figure = new_figure("unique training examples", LOSS_TITLE)
    sizes, losses = zip(*forecast.measured, strict=True)
    figure.add_trace(
        go.Scatter(
            x=[sizes[-1], *(one.data_size for one in supported)],
            y=[losses[-1], *(one.loss for one in supported)],
            mode="lines", line={"color": ACCENT, "width": 1.5, "dash": "dot"}, hoverinfo="skip",
        )
    )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=list(sizes),
            y=list(losses),
            mode="lines+markers",
            line={"color": MUTED, "width": 1.5},
            marker={"color": INK, "size": 9},
            hovertemplate="measured %{y:.3f} on %{x:,} examples<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=[one.data_size for one in supported],
            y=[one.loss for one in supported],
            text=[with_interval(one.loss, one.low, one.high) for one in supported],
            mode="markers",
            marker={"color": ACCENT, "size": 10, "symbol": "diamond", "line": {"color": INK, "width": 1}},
            error_y={
                "type": "data",
                "symmetric": False,
                "color": ACCENT,
                "thickness": 3,
                "width": 8,
                "array": [one.high - one.loss for one in supported],
                "arrayminus": [one.loss - one.low for one in supported],
            },
            hovertemplate="forecast %{text} on %{x:,} examples<extra></extra>",
        )
    )
    figure.update_xaxes(**log_axis([*sizes, *(one.data_size for one in supported)], compact))
    return Plot("forecast", figure, height_px=360)
