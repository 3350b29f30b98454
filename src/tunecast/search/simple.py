"""Strategies that need no surrogate: one fixed pipeline, random search, asynchronous successive halving, and
the same after what advice puts first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from tunecast.search.history import History, Remaining, Strategy, TrialView, rung


def fixed(index: int) -> Strategy:
    """Train one candidate to its end and nothing else.

    Args:
        index: Its place in the history.
    """

    def choose(history: History, remaining: Remaining) -> int | None:
        return index if history.trials[index].is_open else None

    return choose


def random_search() -> Strategy:
    """Train candidates to their end, one after the other: candidates come in random order."""

    def choose(history: History, remaining: Remaining) -> int | None:
        started = [i for i, trial in enumerate(history.trials) if trial.is_open and trial.is_started]
        return started[0] if started else _next_new(history, remaining)

    return choose


def asha(reduction_factor: int = 2) -> Strategy:
    """Asynchronous successive halving with resumed trials (Li et al., arXiv 1810.05934, algorithm 2).

    From the highest rung of the fidelity grid down, the best ``1 / reduction_factor`` of the trials that were
    measured at a rung are worth a next step; where there is none, a new trial is started. When there is no
    candidate left but still budget, the best waiting trial goes on; a budget counted in trials ends with the
    last promotion.

    Args:
        reduction_factor: One in how many is promoted.
    """

    def choose(history: History, remaining: Remaining) -> int | None:
        promoted = next(iter(_promotable(history, reduction_factor)), None)
        if promoted is not None:
            return promoted
        new = _next_new(history, remaining)
        if new is None and remaining.new_trials is None:
            return best_waiting(history)
        return new

    return choose


def advised() -> Strategy:
    """Bring the candidate that advice puts first, which stands second, to its end; then halve.

    Early losses flatter small steps: a pipeline of a higher rate is behind others until its rate falls, and
    halving would give it up (SmolLM2-135M on ``stdlib``: full finetuning had 3.04 at an eighth of its length,
    where IA3 had 2.95, and ended lower). So it goes on for as long as it is ahead of the baseline at
    equal shares, or of all others where that was not trained.
    """
    halve = asha()

    def choose(history: History, remaining: Remaining) -> int | None:
        first = history.trials[1] if len(history.trials) > 1 else None
        if first and first.is_open and (first.is_started or remaining.may_start):
            rivals = [history.baseline] if history.baseline.curve else history.trials[2:]
            if not _is_behind(first, rivals):
                return 1
        return halve(history, remaining)

    return choose


def _is_behind(trial: TrialView, rivals: Sequence[TrialView]) -> bool:
    """Whether a trial's last loss is above that of a rival that has been there."""
    if not trial.curve:
        return False
    nominal = rung(trial.curve[-1].share)
    own = trial.loss_at(nominal)
    theirs = [loss for rival in rivals if (loss := rival.loss_at(nominal)) is not None]
    return own is not None and bool(theirs) and own > min(theirs)


def _promotable(history: History, reduction_factor: int) -> Iterator[int]:
    """Trials worth a next step, highest rung first, best first.

    The baseline, which a session always trains to its end, is no competitor here: it stands on every
    rung, and the first trial to beat it would be promoted to the end before any other was tried.
    """
    rivals = list(enumerate(history.trials))[1:]
    rungs = sorted({rung(point.share) for _, trial in rivals for point in trial.curve}, reverse=True)
    for nominal in rungs:
        measured = [
            (loss, index) for index, trial in rivals if (loss := _loss_at(trial, nominal, rungs)) is not None
        ]
        for _, index in sorted(measured)[: len(measured) // reduction_factor]:
            trial = history.trials[index]
            if trial.is_open and rung(trial.curve[-1].share) == nominal:
                yield index


def _loss_at(trial: TrialView, nominal: int, rungs: Sequence[int]) -> float | None:
    """Loss at a rung, infinite where the trial failed on its way there, None where it never was.

    A failure counts on one rung only: counted on all, failures would let everybody else pass.
    """
    loss = trial.loss_at(nominal)
    if loss is not None or not trial.outcome.is_failure:
        return loss
    last = rung(trial.curve[-1].share) if trial.curve else -math.inf
    return math.inf if nominal == min((r for r in rungs if r > last), default=None) else None


def _next_new(history: History, remaining: Remaining) -> int | None:
    return next(iter(history.startable), None) if remaining.may_start else None


def best_waiting(history: History) -> int | None:
    """The trial that is furthest of those that wait, the best of these; None where none does."""
    waiting = [
        (-trial.share, trial.curve[-1].validation.loss, index)
        for index, trial in enumerate(history.trials)
        if trial.is_open and trial.curve
    ]
    return min(waiting)[2] if waiting else None
