"""Carries out instructions to a session between two steps, and records the effects."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from tunecast.budget import Budget
from tunecast.errors import BudgetError, ConfigurationError, UserError
from tunecast.methods import Restrictions
from tunecast.methods.restrictions import unflagged
from tunecast.methods.space import baseline_pipeline
from tunecast.progress import Progress
from tunecast.records import Pipeline
from tunecast.search import get_strategy
from tunecast.session.budget_tracker import BudgetTracker
from tunecast.session.feasible import Room
from tunecast.session.instructions import HandledInstruction, Instruction, waiting, withdraw
from tunecast.session.prepare import PreparedTask
from tunecast.session.settings import SessionSettings
from tunecast.session.state import SessionState
from tunecast.session.trials import Trials

TOO_LATE = "came too late: the search has ended"


class Steerable(Protocol):
    """A search as far as a person can steer it."""

    @property
    def trials(self) -> Trials:
        """Its trials."""

    def stop(self, index: int, instruction: Instruction) -> None:
        """Have a trial go no further."""

    def give_up(self) -> None:
        """Abort the steps under way."""


class _Refused(Exception):
    """An instruction that cannot be carried out, and why."""


class InstructionHandler:
    """Reads a session's instructions and carries them out; each is kept in the session's state.

    What is kept and what it changed are written together, so that after a kill an instruction either counts
    as handled, or is found again.

    Args:
        save: Writes ``session.json``.
    """

    def __init__(
        self,
        folder: Path,
        state: SessionState,
        settings: SessionSettings,
        prepared: PreparedTask,
        progress: Progress,
        budget_tracker: BudgetTracker,
        save: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._state = state
        self._settings = settings
        self._prepared = prepared
        self._progress = progress
        self._budget_tracker = budget_tracker
        self._save = save
        self._unreadable: set[str] = set()
        self.is_search_over = state.final is not None
        self.wants_search = False
        """Whether something was asked for that only the search can do, and it has not gone on since."""

    @property
    def is_ended(self) -> bool:
        """Whether a person ended the search."""
        return self._state.is_ended

    def handle(self, search: Steerable) -> None:
        """Carry out what waits, in the order in which it was given."""
        known = {one.instruction.id for one in self._state.instructions}
        for instruction_id, read in waiting(self._folder):
            if isinstance(read, str):
                self._report_unreadable(instruction_id, read)
            elif instruction_id not in known:
                self._carry_out(read, search)
            withdraw(self._folder, instruction_id)

    def _report_unreadable(self, instruction_id: str, reason: str) -> None:
        """Tell the user once; the file stays where it cannot be removed."""
        if instruction_id not in self._unreadable:
            self._unreadable.add(instruction_id)
            self._progress.log(f"Note: An instruction to this session cannot be read: {reason.rstrip('.')}.")

    def added(self, trials: Trials) -> Iterator[int]:
        """Yield the places of the trials that a person added, in that order."""
        if not self._state.added:
            return
        places = {trial.spec.pipeline.id: place for place, trial in enumerate(trials)}
        yield from (places[added] for added in self._state.added if added in places)

    def _carry_out(self, instruction: Instruction, search: Steerable) -> None:
        do = {
            "stop-trial": self._stop,
            "add-pipeline": self._add,
            "extend-budget": self._extend,
            "end-now": self._end,
        }[instruction.kind]
        try:
            effect, refused = do(instruction, search), False
        except _Refused as reason:
            effect, refused = f"{instruction.kind} {reason}.", True
        self._state.instructions.append(
            HandledInstruction(instruction, time.time(), self._budget_tracker.elapsed(), effect, refused)
        )
        self._save()
        self._progress.log(f"{'Not done' if refused else 'By hand'}: {effect}")
        if instruction.kind == "end-now" and not refused:
            search.give_up()

    def _stop(self, instruction: Instruction, search: Steerable) -> str:
        place = next((i for i, trial in enumerate(search.trials) if trial.spec.run == instruction.run), None)
        if place is None:
            raise _Refused(f"names no trial of this search: {instruction.run[:40]}")
        trial = search.trials[place]
        name = f"trial {trial.spec.run[:8]} ({trial.spec.pipeline.method})"
        if trial.run is None and not trial.running:
            raise _Refused(f"is for {name}, which has not begun")
        if self.is_search_over:
            raise _Refused(TOO_LATE)
        if not trial.goes_on and not trial.is_stopped:
            raise _Refused(f"is for {name}, which has ended")
        search.stop(place, instruction)
        share = trial.share
        return f"{name} was stopped at {share:.0%} of its full length."

    def _add(self, instruction: Instruction, search: Steerable) -> str:
        self._check_searching()
        assert instruction.pipeline is not None
        pipeline = self._complete(instruction.pipeline)
        name = f"a pipeline of {pipeline.method}"
        known = next((one for one in search.trials if one.spec.pipeline == pipeline), None)
        if known is not None and not known.goes_on:
            raise _Refused(f"is for {name} that is a trial already, and has ended")
        if known is None:
            self._check_fits(pipeline)
            self._state.candidates.append(pipeline)
            search.trials.add(pipeline)
        if pipeline.id not in self._state.added:
            self._state.added.append(pipeline.id)
        self.wants_search = True
        return f"{name} was added; it is trained next, as far as the budget allows."

    def _extend(self, instruction: Instruction, search: Steerable) -> str:
        self._check_searching()
        before = self._budget_tracker.budget
        try:
            budget = Budget.parse(instruction.budget)
        except BudgetError as error:
            raise _Refused(f"names no budget: {error.what.removeprefix('--budget ').rstrip('.')}") from None
        if budget.kind != before.kind:
            raise _Refused(f"is in {budget.kind}, but the session has a budget in {before.kind}")
        if budget.amount <= before.amount:
            raise _Refused(f"asks for {budget.text}, which is not more than {before.text}")
        self._budget_tracker.extend(budget)
        self._state.configuration = {**self._state.configuration, "budget": budget.text}
        self.wants_search = True
        return f"the budget was extended from {before.text} to {budget.text}."

    def _end(self, instruction: Instruction, search: Steerable) -> str:
        if not any(trial.curve for trial in search.trials):
            raise _Refused("is refused, because no trial has a point yet, so there is nothing to deliver")
        self._state.is_ended = True
        return "the search was ended before the budget was spent."

    def _check_searching(self) -> None:
        if not get_strategy(self._settings.strategy).has_baseline:
            raise _Refused("is refused, because this is a training of one pipeline without a search")
        if self.is_search_over or self.is_ended:
            raise _Refused(TOO_LATE)

    def _complete(self, pipeline: Pipeline) -> Pipeline:
        """Fill in the hyperparameters that were left out, as ``tunecast train --pipeline`` does."""
        try:
            return baseline_pipeline(
                self._prepared.training_task.facts,
                Restrictions((pipeline.method,), pipeline.hyperparameters),
            )
        except ConfigurationError as error:
            what = unflagged(error).what.rstrip(".")
            raise _Refused(f"names a pipeline that cannot be trained: {what}") from None

    def _check_fits(self, pipeline: Pipeline) -> None:
        """Refuse a pipeline that memory cannot hold, as a session leaves out such candidates."""
        assert self._state.worker_bytes is not None
        limit = self._state.worker_bytes
        try:
            (fits,), _ = Room(self._prepared.training_task).holding([pipeline], limit)
        except UserError as error:
            raise _Refused(f"is refused: {error.what.rstrip('.')}") from None
        if not fits:
            raise _Refused(f"is refused, because a worker has only {limit / 1e9:.2f} GB for its pipeline")
