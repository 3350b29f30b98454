"""Runs prepared for plots: best finite loss, cost, and share of the full length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

from tunecast.records import ZERO_SHOT, Point, Run
from tunecast.report.numbers import decimal, finite, rate
from tunecast.report.wording import value_text
from tunecast.results import SessionRecord

HOVER_CHARACTERS = 600
DOTS_DRAWN = 400
"""Maximum number of trials in a plot of dots; beyond that, browsers slow down."""


class Searched(Protocol):
    """A search as plots over time need it: that of a session's record, or of one that still runs."""

    @property
    def objective(self) -> str:
        """What the winner is chosen by."""

    @property
    def used_seconds(self) -> float:
        """Seconds of the budget that are used."""

    @property
    def full_length_tokens(self) -> int:
        """Horizon of every trial's schedule."""


@dataclass(frozen=True)
class DrawnTrial:
    """One trial, ready to draw.

    Args:
        points: Its points with a finite validation loss and at least one token seen.
        best_loss: Lowest validation loss of those, None if there are none.
        seconds: Wall seconds of training and evaluation together.
        peak_bytes: Highest memory on the device, None if unknown.
        share: Share of the full length that it reached, 0 to 1.
        incumbent: Whether its checkpoint is the session's incumbent.
        hover: The pipeline as escaped text, one hyperparameter per line.
    """

    run: Run
    points: tuple[Point, ...]
    best_loss: float | None
    seconds: float
    peak_bytes: int | None
    share: float
    incumbent: bool
    hover: str

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.run.pipeline.method

    @property
    def short_hover(self) -> str:
        """Method, learning rate and share done, for plots that show a trial several times."""
        return (
            f"<b>{escape(self.method)}</b>, learning rate {rate(self.learning_rate)}<br>{self.share:.0%} done"
        )

    @property
    def failed(self) -> bool:
        """Whether the trial failed."""
        return self.run.outcome.is_failure

    @property
    def learning_rate(self) -> float | None:
        """The pipeline's learning rate, None if it has none."""
        return self.run.pipeline.learning_rate


def view_trials(record: SessionRecord, runs: Sequence[Run]) -> list[DrawnTrial]:
    """Prepare all runs except zero-shot and those of a forecast, in the order given."""
    incumbent = record.find_contender("incumbent")
    return drawn_trials(runs, incumbent.run if incumbent else "")


def drawn_trials(runs: Sequence[Run], incumbent: str) -> list[DrawnTrial]:
    """Prepare all candidates among the runs, in the order given; ``incumbent`` is the id of its run."""
    return [_view(run, run.id == incumbent) for run in runs if run.is_candidate]


def zero_shot_loss(runs: Sequence[Run]) -> float | None:
    """Return the validation loss before any training, None if it was not measured."""
    found = next((run for run in runs if run.pipeline.method == ZERO_SHOT.method), None)
    return finite(found.final_loss) if found else None


def chosen_to_draw(trials: Sequence[DrawnTrial], limit: int) -> list[DrawnTrial]:
    """Choose at most ``limit`` trials: the incumbent, the best half, and an even sample of the rest."""
    if len(trials) <= limit:
        return list(trials)
    ranked = sorted(trials, key=lambda trial: (not trial.incumbent, _rank(trial)))
    best, rest = ranked[: limit // 2], ranked[limit // 2 :]
    wanted = limit - len(best)
    sample = [rest[index * len(rest) // wanted] for index in range(wanted)]
    kept = {id(trial) for trial in (*best, *sample)}
    return [trial for trial in trials if id(trial) in kept]


def grouped(trials: Sequence[DrawnTrial], methods: Iterable[str]) -> Iterator[tuple[str, list[DrawnTrial]]]:
    """Group trials by method in drawing order, with the incumbent last, on top of all."""
    for method in methods:
        if own := [trial for trial in trials if trial.method == method and not trial.incumbent]:
            yield method, own
    for trial in trials:
        if trial.incumbent:
            yield trial.method, [trial]


def _rank(trial: DrawnTrial) -> float:
    return float("inf") if trial.best_loss is None else trial.best_loss


def _view(run: Run, incumbent: bool) -> DrawnTrial:
    points = tuple(
        point for point in run.curve if finite(point.validation.loss) is not None and point.tokens_seen > 0
    )
    peaks = [point.peak_bytes for point in run.curve if point.peak_bytes is not None]
    return DrawnTrial(
        run,
        points,
        min((point.validation.loss for point in points), default=None),
        sum(point.training.wall + point.evaluation.wall for point in run.curve),
        max(peaks, default=None),
        max((point.share for point in run.curve), default=0.0),
        incumbent,
        _hover(run),
    )


def _hover(run: Run) -> str:
    """Write a point's hover text; every part is escaped, because plotly reads it as markup."""
    lines = [f"<b>{escape(run.pipeline.method)}</b> · {run.outcome.value.replace('_', ' ')}"]
    for name, value in run.pipeline.hyperparameters.items():
        line = f"{escape(name)} {escape(value_text(name, value)[:60])}"
        if sum(map(len, lines)) + len(line) > HOVER_CHARACTERS:
            lines.append("…")
            break
        lines.append(line)
    if run.outcome.is_failure and run.curve:
        lines.append(f"last loss {decimal(run.final_loss)}")
    return "<br>".join(lines)
