"""Layout, colours and scales shared by all plots of a report.

Colours are names of CSS variables (``var(--ink)``). The page's script inserts the values of the light or dark
theme, so plots follow the reader's preference even while the page is open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import plotly.graph_objects as go

from tunecast.report.numbers import compact, decimal
from tunecast.report.trials import DrawnTrial

INK, MUTED, ACCENT, BAD, GRID, CARD = (
    f"var(--{name})" for name in ("ink", "muted", "accent", "bad", "grid", "card")
)
METHOD_COLOURS = 8
LOG_FROM_RATIO = 4.0
"""Losses that differ by this factor are drawn on a logarithmic axis."""
MIN_SPAN = 0.05
"""Smallest part of its upper end that a linear axis of losses spans."""
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
# Each method has a marker besides its colour. The paths draw it in the legend, 16 by 16 pixels.
SYMBOLS = {
    "circle": "M8 2a6 6 0 1 0 0 12a6 6 0 1 0 0-12z",
    "square": "M3 3h10v10H3z",
    "diamond": "M8 1l7 7-7 7-7-7z",
    "triangle-up": "M8 2l7 12H1z",
    "triangle-down": "M8 14l7-12H1z",
    "pentagon": "M8 1l7 5-2.7 8H3.7L1 6z",
    "hourglass": "M2 2h12L2 14h12z",
    "hexagon": "M4 2h8l3 6-3 6H4L1 8z",
}
CROSS = "M3 1l5 5 5-5 2 2-5 5 5 5-2 2-5-5-5 5-2-2 5-5-5-5z"


@dataclass(frozen=True)
class Plot:
    """A figure with its heading and caption; the heading is empty for one panel among others."""

    name: str
    figure: go.Figure
    title: str = ""
    caption: str = ""
    height_px: int = 420


@dataclass(frozen=True)
class Style:
    """The look of one method in every plot."""

    colour: str
    symbol: str

    @property
    def path(self) -> str:
        """Outline of the symbol for an SVG legend."""
        return CROSS if self.symbol == "x" else SYMBOLS[self.symbol]


FAILED = Style(BAD, "x")


def styles(names: Iterable[str]) -> dict[str, Style]:
    """Choose a colour and a marker for every name; the first 64 pairs differ."""
    symbols = list(SYMBOLS)
    return {
        name: Style(
            f"var(--method-{index % METHOD_COLOURS})",
            symbols[(index + index // METHOD_COLOURS) % len(symbols)],
        )
        for index, name in enumerate(names)
    }


def method_styles(trials: Sequence[DrawnTrial]) -> dict[str, Style]:
    """Choose a colour and a marker for every method, in alphabetical order."""
    return styles(sorted({trial.method for trial in trials}))


def _axis() -> dict[str, Any]:
    """Return the defaults of both axes of every plot."""
    return {
        "title": {"font": {"color": INK, "size": 13}, "standoff": 10},
        "gridcolor": GRID,
        "linecolor": MUTED,
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": MUTED,
        "tickfont": {"color": MUTED, "size": 12},
        "zeroline": False,
        "automargin": True,
    }


def new_figure(x_title: str, y_title: str) -> go.Figure:
    """Make an empty figure in the report's style; axis titles include the unit."""
    figure = go.Figure(layout=_style())
    figure.update_layout(template=None, xaxis_title_text=x_title, yaxis_title_text=y_title)
    return figure


@lru_cache(maxsize=1)
def _style() -> go.Layout:
    """Return the layout that figures begin with; plotly takes ten times as long to check it as to copy it."""
    return go.Layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONTS, "size": 13, "color": INK},
        margin={"l": 12, "r": 14, "t": 10, "b": 12},
        hovermode="closest",
        hoverlabel={
            "bgcolor": CARD,
            "bordercolor": MUTED,
            "font": {"family": FONTS, "color": INK, "size": 12},
            "align": "left",
        },
        # Each section of the page has one legend, which wraps on a phone and filters all its panels.
        showlegend=False,
        xaxis=_axis(),
        yaxis=_axis(),
    )


@dataclass(frozen=True)
class LossAxis:
    """The losses that a plot shows, in nats per token.

    Args:
        low, high: Ends of the axis; losses above ``high`` are drawn at the upper edge.
        logarithmic: Whether the losses are so far apart that the good ones need a logarithmic axis.
    """

    low: float
    high: float
    logarithmic: bool

    def widened(self, share: float) -> LossAxis:
        """Return the axis extended by this share of its span at both ends."""
        if self.logarithmic:
            factor = (self.high / self.low) ** share
            return replace(self, low=self.low / factor, high=self.high * factor)
        pad = share * (self.high - self.low)
        return replace(self, low=self.low - pad, high=self.high + pad)

    @property
    def layout(self) -> dict[str, Any]:
        """Settings of a plotly axis."""
        if self.logarithmic:
            return log_axis([self.low, self.high], compact, pad=0.0)
        return {"range": [self.low, self.high], "nticks": 6}


def loss_axis(
    losses: Sequence[float], zero_shot: float | None = None, *, shows_zero_shot: bool = False
) -> LossAxis | None:
    """Choose an axis for the good losses, and for zero-shot if it is drawn, but for no explosion."""
    shown = [zero_shot] if shows_zero_shot and zero_shot is not None else []
    known = sorted(losses)
    if not known:
        known = shown
    if not known:
        return None
    low = min(*known, *shown) if shown else known[0]
    limit = 1.25 * zero_shot if zero_shot is not None else 4 * abs(known[(len(known) - 1) // 2])
    most = known[: math.ceil(0.9 * (len(known) - 1)) + 1]
    usual = max((loss for loss in most if loss <= limit), default=low)
    high = max([usual, *shown])
    # A few bad losses just above the usual ones stretch the axis little, so show them.
    high = max([high, *(loss for loss in known if loss <= low + 1.25 * (high - low))])
    if low > 0 and high / low >= LOG_FROM_RATIO:
        return LossAxis(low, high, logarithmic=True).widened(0.06)
    # Differences of a few thousandths are noise, so the axis does not magnify them.
    missing = max(0.0, MIN_SPAN * abs(high) - (high - low)) or (0.1 if high == low else 0.0)
    return LossAxis(low - missing / 2, high + missing / 2, logarithmic=False).widened(0.06)


def reference_line(figure: go.Figure, value: float, text: str, axis: Literal["x", "y"] = "y") -> None:
    """Draw a dashed line across the plot at a value of an axis, whose type is set; ``text`` is escaped."""
    across = "y" if axis == "x" else "x"
    figure.add_shape(
        type="line",
        line={"color": MUTED, "width": 1.5, "dash": "dash"},
        **{f"{across}ref": f"{across} domain", f"{across}0": 0, f"{across}1": 1},
        **{f"{axis}0": value, f"{axis}1": value},
    )
    # Unlike shapes, annotations on a logarithmic axis are placed by the logarithm.
    is_log = figure.layout[f"{axis}axis"].type == "log"
    figure.add_annotation(
        text=text,
        showarrow=False,
        font={"color": MUTED, "size": 12},
        xanchor="right",
        yanchor="bottom" if axis == "y" else "top",
        **{axis: math.log10(value) if is_log else value, across: 1, f"{across}ref": f"{across} domain"},
    )


def token_axis(full_length_tokens: int, smallest: int) -> dict[str, Any]:
    """Make a logarithmic axis of tokens with ticks at 1, 1/2, 1/4, ... of full length."""
    if full_length_tokens <= 0 or smallest <= 0:
        return {"type": "log"}
    halvings = min(12, max(1, math.ceil(math.log2(max(1.0, full_length_tokens / smallest)))))
    ticks = [full_length_tokens / 2**power for power in range(halvings + 1)]
    low = min(smallest, ticks[-1])
    return {
        "type": "log",
        "tickvals": ticks,
        "ticktext": [compact(tick) for tick in ticks],
        "tickangle": 0,
        "range": [math.log10(low * 0.85), math.log10(full_length_tokens * 1.18)],
    }


def log_axis(
    values: Sequence[float], label: Callable[[float], str], pad: float | None = None
) -> dict[str, Any]:
    """Make a logarithmic axis over positive values, with round ticks.

    ``pad`` is the space at both ends in powers of ten; None adds a little.
    """
    low, high = math.log10(min(values)), math.log10(max(values))
    pad = 0.05 * (high - low) + 0.02 if pad is None else pad
    span = high - low
    steps = (
        (1, 1.5, 2, 3, 5, 7) if span <= 0.9 else (1, 2, 5) if span <= 2.2 else (1, 3) if span < 3 else (1,)
    )
    powers = range(math.floor(low - pad), math.ceil(high + pad) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    ticks = [tick for tick in ticks if low - pad <= math.log10(tick) <= high + pad]
    return {
        "type": "log",
        "range": [low - pad, high + pad],
        "tickvals": ticks,
        "ticktext": [label(tick) for tick in ticks],
        "tickangle": 0,
    }


def scatter(
    trials: Sequence[DrawnTrial],
    x: Sequence[float],
    text: Sequence[str],
    sizes: Sequence[float],
    style: Style,
    axis: LossAxis | None,
    drawn: int,
) -> go.Scatter:
    """Draw trials of one method as dots at their best loss; losses beyond the axis go to its upper edge.

    ``text`` is escaped hover text; ``sizes`` are diameters in pixels. ``drawn`` counts the dots in the whole
    plot; many are made smaller.
    """
    top = axis.high if axis else math.inf
    scale = 1.0 if drawn <= 100 else 0.6
    rims = [2.5 if trial.incumbent else 0.5 * (drawn <= 100) for trial in trials]
    losses = [trial.best_loss if trial.best_loss is not None else math.nan for trial in trials]
    return go.Scatter(
        x=list(x),
        y=[min(loss, top) for loss in losses],
        text=[f"{decimal(loss)}<br>{words}" for loss, words in zip(losses, text, strict=True)],
        name=trials[0].method,
        mode="markers",
        cliponaxis=False,
        marker={
            "color": style.colour,
            "symbol": style.symbol,
            "opacity": 1.0 if trials[0].incumbent else 0.8,
            "size": [
                size * (1.0 if trial.incumbent else scale) for size, trial in zip(sizes, trials, strict=True)
            ],
            "line": {"color": INK, "width": rims},
        },
        hovertemplate="loss %{text}<extra></extra>",
    )
