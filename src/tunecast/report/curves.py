"""Plots of a session over time: every trial's curve, and the incumbent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import plotly.graph_objects as go

from tunecast.records import Outcome, Point
from tunecast.report.figures import (
    ACCENT,
    FAILED,
    INK,
    Plot,
    Style,
    loss_axis,
    method_styles,
    new_figure,
    reference_line,
    token_axis,
)
from tunecast.report.numbers import compact, duration, finite
from tunecast.report.trials import DrawnTrial, Searched, chosen_to_draw, grouped

CURVES_DRAWN = 150
CROWD = 60
"""With more curves than this, each is drawn fainter."""
LOSS_TITLE = "validation loss (nats per token)"


def curves_plot(record: Searched, trials: Sequence[DrawnTrial], zero_shot: float | None) -> Plot | None:
    """Plot validation loss against tokens seen, one line per trial; None if no trial was measured."""
    measured = [trial for trial in trials if trial.points]
    if not measured:
        return None
    drawn = chosen_to_draw(measured, CURVES_DRAWN)
    losses = [point.validation.loss for trial in drawn for point in trial.points]
    axis = loss_axis(losses, zero_shot, shows_zero_shot=True)
    figure = new_figure("tokens seen", LOSS_TITLE)
    styles = method_styles(trials)
    for method, members in grouped(drawn, styles):
        if members[0].incumbent:
            figure.add_trace(_incumbent_curve(members[0], styles[method]))
        else:
            figure.add_trace(_joined_curves(method, members, styles[method], crowded=len(drawn) > CROWD))
    failed = [trial for trial in drawn if trial.failed]
    if failed:
        figure.add_trace(_failures(failed, axis.high if axis else math.inf))
    smallest = min(point.tokens_seen for trial in drawn for point in trial.points)
    figure.update_xaxes(**token_axis(record.full_length_tokens, smallest))
    figure.update_yaxes(**axis.layout if axis else {})
    if zero_shot is not None:
        reference_line(figure, zero_shot, "zero-shot")
    caption = _curves_caption(trials, measured, drawn, record.full_length_tokens)
    return Plot("curves", figure, "Curves of all trials", caption, 460)


def _curves_caption(
    trials: Sequence[DrawnTrial],
    measured: Sequence[DrawnTrial],
    drawn: Sequence[DrawnTrial],
    full_length: int,
) -> str:
    parts = [f"Each line is one trial; all have the same full length of {compact(full_length)} tokens."]
    parts += [*_paused_text(measured), "The incumbent is drawn thick."]
    if any(trial.failed for trial in drawn):
        parts.append("A cross marks a failure; crosses at the upper edge lie beyond it.")
    unseen = len(trials) - len(measured)
    if unseen:
        count = "1 trial" if unseen == 1 else f"{unseen} trials"
        parts.append(f"{count} without a finite measurement cannot be drawn.")
    if len(drawn) < len(measured):
        parts.append(
            f"{len(drawn)} of {len(measured):,} curves are drawn: the best, and an even sample of the rest."
        )
    return " ".join(parts)


def _paused_text(measured: Sequence[DrawnTrial]) -> list[str]:
    """Say why lines end early: others went on instead, or the search ended while a trial was advanced."""
    latest = max(trial.points[-1].elapsed_seconds for trial in measured)
    ends = [trial.points[-1].elapsed_seconds for trial in measured if trial.run.outcome is Outcome.PAUSED]
    if not latest:  # runs that were imported, without their times
        return []
    passed_over = sum(end < latest for end in ends)
    texts = []
    if passed_over:
        count = (
            "1 trial that ends early was" if passed_over == 1 else f"{passed_over} trials that end early were"
        )
        texts.append(f"{count} paused because others promised more.")
    if passed_over < len(ends):
        texts.append("1 was still being advanced when the search ended.")
    return texts


def _joined_curves(method: str, trials: Sequence[DrawnTrial], style: Style, *, crowded: bool) -> go.Scatter:
    """Draw all curves of a method as one trace with gaps, far faster in browsers than a trace each."""
    x: list[float | None] = []
    y: list[float | None] = []
    hover: list[str] = []
    for trial in trials:
        for point in trial.points:
            x.append(point.tokens_seen)
            y.append(point.validation.loss)
            hover.append(trial.hover)
        x.append(None)
        y.append(None)
        hover.append("")
    return go.Scatter(
        x=x,
        y=y,
        text=hover,
        name=method,
        mode="lines+markers",
        opacity=0.4 if crowded else 0.75,
        line={"color": style.colour, "width": 1.0 if crowded else 1.4},
        marker={"color": style.colour, "symbol": style.symbol, "size": 3 if crowded else 5},
        hovertemplate="%{y:.3f} at %{x:.3s} tokens<br>%{text}<extra></extra>",
    )


def _incumbent_curve(trial: DrawnTrial, style: Style) -> go.Scatter:
    return go.Scatter(
        x=[point.tokens_seen for point in trial.points],
        y=[point.validation.loss for point in trial.points],
        text=[trial.hover] * len(trial.points),
        name=trial.method,
        mode="lines+markers",
        line={"color": style.colour, "width": 4},
        marker={
            "color": style.colour,
            "symbol": style.symbol,
            "size": 10,
            "line": {"color": INK, "width": 2},
        },
        hovertemplate="<b>incumbent</b> %{y:.3f} at %{x:.3s} tokens<br>%{text}<extra></extra>",
    )


def _failures(trials: Sequence[DrawnTrial], top: float) -> go.Scatter:
    last = [trial.points[-1] for trial in trials]
    return go.Scatter(
        x=[point.tokens_seen for point in last],
        y=[min(point.validation.loss, top) for point in last],
        text=[trial.hover for trial in trials],
        name="failed",
        mode="markers",
        cliponaxis=False,
        marker={"color": FAILED.colour, "symbol": FAILED.symbol, "size": 9},
        hovertemplate="<b>failed</b> after %{x:.3s} tokens<br>%{text}<extra></extra>",
    )


def incumbent_plot(record: Searched, trials: Sequence[DrawnTrial], zero_shot: float | None) -> Plot | None:
    """Plot the best validation loss so far against the budget used; None if no time was recorded."""
    steps = list(_improvements(trials))
    if not steps or all(point.elapsed_seconds <= 0 for point, _ in steps):
        return None
    last = max(record.used_seconds, steps[-1][0].elapsed_seconds)
    unit, scale = (
        ("seconds", 1.0) if last < 180 else ("minutes", 60.0) if last < 10_800 else ("hours", 3600.0)
    )
    figure = new_figure(f"budget used ({unit})", "best validation loss so far")
    x = [0.0] if zero_shot is not None else []
    y = [zero_shot] if zero_shot is not None else []
    x += [point.elapsed_seconds / scale for point, _ in steps]
    y += [point.validation.loss for point, _ in steps]
    figure.add_trace(
        go.Scatter(
            x=[*x, last / scale], y=[*y, y[-1]], mode="lines", hoverinfo="skip",
            line={"color": ACCENT, "width": 2.5, "shape": "hv"},
        )
    )  # fmt: skip
    for method, style in method_styles(trials).items():
        own = [(point, trial) for point, trial in steps if trial.method == method]
        if own:
            figure.add_trace(_improvement_markers(method, own, style, scale))
    axis = loss_axis([point.validation.loss for point, _ in steps], zero_shot, shows_zero_shot=True)
    figure.update_yaxes(**axis.layout if axis else {})
    if zero_shot is not None:
        reference_line(figure, zero_shot, "zero-shot")
    figure.update_xaxes(range=[-0.02 * last / scale, 1.03 * last / scale])
    caption = "Each marker is a new incumbent, coloured by its method."
    if record.objective != "loss":
        caption += (
            f" The winner was chosen by {record.objective}; all trials were measured by validation loss."
        )
    return Plot("incumbent", figure, "Incumbent over time", caption, 380)


def _improvement_markers(
    method: str, steps: Sequence[tuple[Point, DrawnTrial]], style: Style, scale: float
) -> go.Scatter:
    return go.Scatter(
        x=[point.elapsed_seconds / scale for point, _ in steps],
        y=[point.validation.loss for point, _ in steps],
        text=[f"{duration(point.elapsed_seconds)} used<br>{trial.hover}" for point, trial in steps],
        name=method,
        mode="markers",
        marker={"color": style.colour, "symbol": style.symbol, "size": 9, "line": {"color": INK, "width": 1}},
        hovertemplate="%{y:.3f} after %{text}<extra></extra>",
    )


def _improvements(trials: Sequence[DrawnTrial]) -> Iterator[tuple[Point, DrawnTrial]]:
    """Yield, in order of time, the points that beat all before them."""
    best = math.inf
    every = [(point, trial) for trial in trials for point in trial.points]
    for point, trial in sorted(every, key=lambda pair: pair[0].elapsed_seconds):
        loss = finite(point.validation.loss)
        if loss is not None and loss < best:
            best = loss
            yield point, trial
