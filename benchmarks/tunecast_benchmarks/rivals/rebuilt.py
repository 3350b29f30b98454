"""A library's search as a pure function of the history: the library replays the history each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunecast.records import Outcome, Pipeline, stable_hash
from tunecast.search.history import History, Policy, Remaining, TrialView
from tunecast_benchmarks.rivals.base import Rival, Search


def rebuilt(build: Search) -> Policy:
    """A library's search as a strategy, for sessions that may be killed and resumed.

    A library has a memory, but a resumed session has only a history. So the library starts again, with a seed
    that follows from the candidates. For each trial that it asks for, it receives the points of the history.
    Its choice is the first step that the history lacks. With one worker, it chooses the same steps as without
    a break. A trial that is running or does not fit the budget is passed over, so with several workers the
    library receives results in the order of its requests. The first place of the history is not among its
    candidates, because every session trains it anyway.

    Args:
        build: Builds the library's search.
    """
    kept: list[_Walk] = []

    def choose(history: History, remaining: Remaining) -> int | None:
        # Going on from here is only a shortcut for starting again.
        walk = kept.pop() if kept and kept[0].leads_to(history) else _Walk.begun(build, history)
        kept.clear()
        place = walk.to_choice(history)
        if not walk.passed_over:
            kept.append(walk)
        if place is None or remaining.may_start or history.trials[place].is_started:
            return place
        return None

    return choose


@dataclass
class _Walk:
    """A library that replays a history.

    Args:
        rival: The library's search.
        shown: The trials as the library has seen them.
        asked_for: The trial of the library's last request.
        passed_over: Whether it asked for a trial that could not be advanced then but might be later.
    """

    rival: Rival
    shown: list[TrialView]
    asked_for: int | None = None
    passed_over: bool = False

    @classmethod
    def begun(cls, build: Search, history: History) -> _Walk:
        pipelines = [trial.pipeline for trial in history.trials[1:]]
        first = TrialView(history.trials[0].pipeline)  # without a next point it cannot be chosen
        shown = [first, *(_shown(trial, 0) for trial in history.trials[1:])]
        return cls(build(pipelines, _seed(pipelines)), shown)

    def leads_to(self, history: History) -> bool:
        """Whether a history contains everything that the library has seen."""
        return len(self.shown) == len(history.trials) and all(
            seen.pipeline == trial.pipeline
            and seen.curve == trial.curve[: len(seen.curve)]
            and seen.outcome in (Outcome.PAUSED, trial.outcome)
            for seen, trial in zip(self.shown, history.trials, strict=True)
        )

    def to_choice(self, history: History) -> int | None:
        """Replay the history to the first step that it lacks."""
        while True:
            if self.asked_for is None:
                self.asked_for = self.rival(History(tuple(self.shown)), Remaining(1.0))
            place = self.asked_for
            if place is None:
                return None
            trial, done = history.trials[place], len(self.shown[place].curve)
            if done < len(trial.curve):
                self.shown[place] = _shown(trial, done + 1)
            elif trial.outcome is not Outcome.PAUSED:
                self.shown[place] = replace(self.shown[place], outcome=trial.outcome, next_share=None)
            elif trial.is_open:
                return place
            else:
                self.shown[place] = replace(self.shown[place], next_share=None, running=trial.running)
                self.passed_over = True
            self.asked_for = None


def _shown(trial: TrialView, points: int) -> TrialView:
    """A trial at its first points. A failure is shown a step later, when it may have been noticed."""
    curve = trial.curve[:points]
    if points < len(trial.curve):
        return TrialView(trial.pipeline, curve, trial.curve[points].share)
    if trial.outcome is Outcome.COMPLETED and curve:
        return TrialView(trial.pipeline, curve, None, trial.outcome)
    # If a step failed before its point, or was never made, assume that it leads to the trial's end.
    return TrialView(trial.pipeline, curve, trial.next_share or 1.0)


def _seed(pipelines: Sequence[Pipeline]) -> int:
    return int(stable_hash([pipeline.id for pipeline in pipelines], 8), 16)
