"""Histories from short tables of losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sample_runs import sample_pipeline, sample_point
from tunecast.records import Outcome
from tunecast.search import History, Policy, Remaining, TrialView

RUNGS = range(-6, 1)


@dataclass(frozen=True)
class Trial:
    """A trial by its losses at the rungs of the fidelity grid, from the lowest."""

    losses: tuple[float, ...] = ()
    outcome: Outcome = Outcome.PAUSED
    running: bool = False


def history(trials: Sequence[Trial]) -> History:
    return History(tuple(map(_view, trials)))


def _view(trial: Trial) -> TrialView:
    curve = tuple(
        replace(sample_point(loss=loss), share=2.0**nominal)
        for nominal, loss in zip(RUNGS, trial.losses, strict=False)
    )
    reached = len(trial.losses)
    closed = reached == len(RUNGS) and trial.outcome is Outcome.PAUSED
    return TrialView(
        sample_pipeline(),
        curve,
        2.0 ** RUNGS[reached] if reached < len(RUNGS) else None,
        Outcome.COMPLETED if closed else trial.outcome,
        trial.running,
    )


def simulate(
    strategy: Policy,
    loss: Callable[[int, int], float | None],
    *,
    trials: int,
    steps: int,
    new_trials: int | None = None,
) -> tuple[list[Trial], list[int]]:
    """Advance trials as a strategy says.

    Args:
        strategy: It decides.
        loss: Loss of a trial at a rung (both by number from 0), None where it runs out of memory.
        trials: Number of candidates.
        steps: Most fidelity steps.
        new_trials: Trials that may be started, None for any number.

    Returns:
        The trials as they ended, and the choices in order.
    """
    table = [Trial() for _ in range(trials)]
    choices: list[int] = []
    for step in range(steps):
        started = sum(bool(trial.losses) or trial.outcome is not Outcome.PAUSED for trial in table)
        left = None if new_trials is None else new_trials - started
        chosen = strategy(history(table), Remaining(1 - step / steps, None, left))
        if chosen is None:
            break
        choices.append(chosen)
        measured = loss(chosen, len(table[chosen].losses))
        if measured is None:
            table[chosen] = replace(table[chosen], outcome=Outcome.OUT_OF_MEMORY)
        else:
            table[chosen] = replace(table[chosen], losses=(*table[chosen].losses, measured))
    return table, choices
