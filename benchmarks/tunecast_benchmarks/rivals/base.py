"""Adapts another library's optimiser to a Strategy: it maps each proposal to the nearest untried candidate
and reports the candidate's losses back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tunecast.records import Outcome, Pipeline, Point
from tunecast.search.distance import nearest
from tunecast.search.history import History, Remaining, TrialView
from tunecast.search.simple import best_waiting

ASKS_IN_VAIN = 10
"""After this many proposals in a row without a candidate, the next new candidate is taken."""
MIN_SHARE = 2.0**-6
"""Smallest fidelity, the first of the fidelity grid."""
ROUNDING = 0.03
"""Shares of the full length are rounded to whole steps; a share this far below a fidelity reaches it."""


@dataclass(frozen=True)
class Proposal:
    """A library's proposal.

    Args:
        token: The library's own handle of the proposal.
        pipeline: The pipeline; None if the library chose by index.
        index: The candidate; None if the library proposed a pipeline.
        share: The share of full length to train.
    """

    token: Any
    pipeline: Pipeline | None = None
    index: int | None = None
    share: float = 1.0


@dataclass
class _Job:
    proposal: Proposal
    place: int
    told: int = 0


class Rival(ABC):
    """A search by another library, for one replay or session.

    Unlike Tunecast's own strategies, it has a memory, because its library has one. It follows one history
    from the beginning and must not be used for another.

    If the library proposes pipelines, each proposal is replaced by the most similar candidate of the same
    method, unless that candidate already replaced another proposal up to that share. The library receives the
    candidate's losses. A proposal is dropped if no candidate is left, or if its candidate is still in use for
    another proposal. If the library cannot drop a proposal, it receives the loss of the most similar
    candidate. If the library chooses by index, it receives the known loss of a candidate that has already
    come that far, at no cost.

    Args:
        pipelines: The candidates; in the history they follow its first place.
        by_index: Whether the library chooses among indices.
    """

    version: str = ""
    """The library and its version."""

    def __init__(self, pipelines: Sequence[Pipeline], *, by_index: bool) -> None:
        self._pipelines = list(pipelines)
        self._by_index = by_index
        self._jobs: list[_Job] = []
        self._taken: dict[int, float] = {}
        self.asked = 0
        self.distances: list[float] = []

    def __call__(self, history: History, remaining: Remaining) -> int | None:
        """Choose the candidate to advance, like any strategy."""
        trials = history.trials
        self._jobs = [job for job in self._jobs if not self._is_over(job, trials[job.place])]
        waiting = next((job.place for job in self._jobs if trials[job.place].is_open), None)
        if waiting is not None:
            return waiting
        if not remaining.may_start:
            return None
        for _ in range(ASKS_IN_VAIN):
            proposal = self._ask()
            self.asked += 1
            if proposal is None:
                return None
            place, distance = self._placed(proposal, trials)
            if place is None or any(other.place == place for other in self._jobs):
                self._drop(proposal.token, self._of_the_most_alike(proposal, trials))
                continue
            if distance is not None:
                self._taken[place - 1] = proposal.share
                self.distances.append(distance)
            job = _Job(proposal, place)
            if self._is_over(job, trials[place]):
                continue
            self._jobs.append(job)
            if trials[place].is_open:
                return place
        # As in successive halving, a trial that the library gave up is better than an unspent budget.
        new = history.startable
        return new[0] if new else best_waiting(history)

    @abstractmethod
    def _ask(self) -> Proposal | None:
        """Return the library's next proposal; None if it has no more."""

    @abstractmethod
    def _tell(self, token: Any, loss: float | None, share: float) -> None:
        """Tell the library a proposal's loss (None for a failure) and the reached share."""

    @abstractmethod
    def _drop(self, token: Any, loss: float | None) -> None:
        """Tell the library that a proposal was not tried.

        Args:
            token: The proposal's.
            loss: The loss of the most similar candidate at that fidelity, infinite for a failure; None if no
                candidate of its method came that far.
        """

    def _go_on(self, token: Any, point: Point) -> bool:
        """Tell the library an intermediate point; return False if it gives the proposal up."""
        return True

    def _is_over(self, job: _Job, trial: TrialView) -> bool:
        """Tell the library a job's new points; return whether the job is over."""
        for point in trial.curve[job.told :]:
            job.told += 1
            if point.share >= job.proposal.share * (1 - ROUNDING):
                if not trial.outcome.is_failure:
                    self._tell(job.proposal.token, point.validation.loss, point.share)
                    return True
            elif not self._go_on(job.proposal.token, point):
                return True
        if trial.outcome.is_failure or trial.outcome is Outcome.COMPLETED:
            last = trial.curve[-1] if trial.curve else None
            loss = None if trial.outcome.is_failure or last is None else last.validation.loss
            self._tell(job.proposal.token, loss, trial.share)
            return True
        return False

    def _of_the_most_alike(self, proposal: Proposal, trials: Sequence[TrialView]) -> float | None:
        """Loss at a proposal's fidelity of the most similar candidate that reached it."""
        measured = {
            index: loss
            for index in range(len(self._pipelines))
            if (loss := _loss_at(trials[1 + index], proposal.share)) is not None
        }
        if proposal.index is not None:
            return measured.get(proposal.index)
        assert proposal.pipeline is not None
        places = list(measured)
        found = nearest([self._pipelines[index] for index in places], proposal.pipeline)
        return None if found is None else measured[places[found[0]]]

    def _placed(self, proposal: Proposal, trials: Sequence[TrialView]) -> tuple[int | None, float | None]:
        """The place in the history of the candidate for a proposal, and its distance; None for an index."""
        if proposal.index is not None:
            return 1 + proposal.index, None
        assert proposal.pipeline is not None
        free = [
            index
            for index in range(len(self._pipelines))
            if self._taken.get(index, 0.0) < proposal.share and trials[1 + index].outcome is Outcome.PAUSED
        ]
        found = nearest([self._pipelines[index] for index in free], proposal.pipeline)
        return (None, None) if found is None else (1 + free[found[0]], found[1])


Search = Callable[[Sequence[Pipeline], int], Rival]
"""Builds a new search without knowledge from the candidates and the library's own seed."""


def _loss_at(trial: TrialView, share: float) -> float | None:
    """Loss when a trial first reached a fidelity; infinite if it failed before, else None."""
    for point in trial.curve:
        if point.share >= share * (1 - ROUNDING):
            loss = point.validation.loss
            return loss if math.isfinite(loss) else math.inf
    return math.inf if trial.outcome.is_failure else None
