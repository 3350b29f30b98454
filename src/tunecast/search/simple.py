"""Strategies that know no other task: fixed pipelines, random search, asynchronous successive halving."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tunecast.errors import ConfigurationError
from tunecast.methods.space import BASELINE, RATE_3E4, at_3e4
from tunecast.records import Pipeline
from tunecast.search.context import Context
from tunecast.search.history import History, Policy, Remaining, TrialView, rung
from tunecast.search.strategy import Strategy

if TYPE_CHECKING:
    from tunecast.methods import Restrictions

GIVEN = "given"
"""The strategy of ``tunecast train``, which trains the one pipeline it was given."""


class Random(Strategy):
    """Trains candidates to their end in random order."""

    name = "random"

    def policy(self, context: Context) -> Policy:
        """See :func:`random_search`."""
        return random_search()


class Asha(Strategy):
    """Asynchronous successive halving of random candidates."""

    name = "asha"

    def policy(self, context: Context) -> Policy:
        """See :func:`asha`."""
        return asha()


class FixedBaseline(Strategy):
    """Trains the baseline and nothing else."""

    name = "fixed-baseline"
    trials = 1
    fixed_pipeline = BASELINE

    def policy(self, context: Context) -> Policy:
        """See :func:`fixed`."""
        return fixed(0)


class FixedRate(Strategy):
    """Trains the baseline and then the same pipeline at a learning rate of 3e-4."""

    name = "fixed-3e-4"
    trials = 2
    fixed_pipeline = at_3e4()

    def policy(self, context: Context) -> Policy:
        """See :func:`fixed`."""
        return fixed(1)

    def pinned(self, baseline: Pipeline, restrictions: Restrictions) -> list[Pipeline]:
        """Return the baseline at 3e-4."""
        fixed_rate = restrictions.fixed.get("learning_rate", RATE_3E4)
        low, high = restrictions.ranges.get("learning_rate", (RATE_3E4, RATE_3E4))
        if fixed_rate != RATE_3E4 or not low <= RATE_3E4 <= high:
            raise ConfigurationError(
                "--strategy fixed-3e-4 contradicts what --fix or --range say of learning_rate.",
                "Use --strategy fixed-baseline for the baseline within them.",
            )
        pipeline = at_3e4(baseline)
        if pipeline == baseline:
            raise ConfigurationError(
                "--strategy fixed-3e-4: the baseline already has that learning rate here.",
                "Use --strategy fixed-baseline.",
            )
        return [pipeline]


class Given(Strategy):
    """Trains the one pipeline that the user chose: the strategy of ``tunecast train``."""

    name = GIVEN
    trials = 1
    has_baseline = False
    draws = 0

    def policy(self, context: Context) -> Policy:
        """See :func:`fixed`."""
        return fixed(0)


def fixed(index: int) -> Policy:
    """Train one candidate to its end and nothing else."""

    def choose(history: History, remaining: Remaining) -> int | None:
        trial = history.trials[index]
        return index if trial.is_open and (trial.is_started or remaining.may_start) else None

    return choose


def random_search() -> Policy:
    """Train candidates to their end, one after the other, in the order in which they were drawn."""

    def choose(history: History, remaining: Remaining) -> int | None:
        started = [i for i, trial in enumerate(history.trials) if trial.is_open and trial.is_started]
        return started[0] if started else _next_new(history, remaining)

    return choose


def asha(reduction_factor: int = 2) -> Policy:
    """Asynchronous successive halving with resumed trials (Li et al., arXiv 1810.05934, algorithm 2).

    From the highest rung of the fidelity grid down, promote one of the best ``1 / reduction_factor`` of the
    trials measured at that rung. If none can be promoted, start a new trial. If there are no more candidates,
    continue the best waiting trial, unless the budget counts trials: that ends with the last promotion.
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


def _promotable(history: History, reduction_factor: int) -> Iterator[int]:
    """Yield trials to promote, highest rung first, best first.

    The baseline does not compete. A session always trains it to its end, so it stands on every rung, and the
    first trial to beat it would be promoted to the end before any other was tried.
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
    """Return the loss at a rung: infinite if the trial failed on its way there, None without a point there.

    A failure counts on one rung only. If it counted on all, every other trial would be promoted.
    """
    loss = trial.loss_at(nominal)
    if loss is not None or not trial.outcome.is_failure:
        return loss
    last = rung(trial.curve[-1].share) if trial.curve else -math.inf
    return math.inf if nominal == min((r for r in rungs if r > last), default=None) else None


def _next_new(history: History, remaining: Remaining) -> int | None:
    return next(iter(history.startable), None) if remaining.may_start else None


def best_waiting(history: History) -> int | None:
    """Return the waiting trial that is furthest along, the best of several; None if no trial waits."""
    waiting = [
        (-trial.share, trial.curve[-1].validation.loss, index)
        for index, trial in enumerate(history.trials)
        if trial.is_open and trial.curve
    ]
    return min(waiting)[2] if waiting else None
