"""Trainings beside the search: the parts of a forecast, and the final training."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tunecast.budget import Used
from tunecast.executors.base import Crash
from tunecast.executors.requests import Advance
from tunecast.progress import Progress
from tunecast.records import FORECAST_ONLY, Run
from tunecast.session.budget_tracker import BudgetTracker
from tunecast.session.forecast import Survey, end_loss
from tunecast.session.prepare import PreparedTask
from tunecast.session.requester import Requester
from tunecast.session.run_factory import affordable_halvings
from tunecast.session.search_loop import BUDGET_OVER, ENDED, Search
from tunecast.session.status import session_status, wait_text
from tunecast.session.trial import Trial
from tunecast.session.trials import Trials
from tunecast.store import Store


@dataclass(frozen=True)
class BesideSearch:
    """Trains single trials of a session, which no strategy chose, within the same budget.

    Args:
        save: Writes ``session.json``; called after every commit.
    """

    session: str
    prepared: PreparedTask
    store: Store
    requester: Requester
    budget_tracker: BudgetTracker
    search: Search
    save: Callable[[], None]
    progress: Progress

    def measure_parts(self, survey: Survey) -> None:
        """Train the leading pipeline on each part of its data, as far as the budget allows."""
        activity = "Measuring what more data brings"
        budget_tracker, runtime_model = self.budget_tracker, self.search.runtime_model
        trials = [trial for (trial,) in survey.parts]
        total = sum(trial.plan.tokens_at(trial.plan.total_steps) for trial in trials)
        self.progress.start(activity, total, "tokens")
        for part, trial in zip(survey.parts, trials, strict=True):
            used = self.search.used()
            self.progress.show(
                session_status(self.search.trials.started, budget_tracker.budget, used, activity)
            )
            if trial.run is None:
                if self.search.is_ended:
                    break
                if budget_tracker.price(
                    [trial], runtime_model, runtime_model.validation_seconds
                ) > budget_tracker.left(used, "forecast"):
                    break
                self._advance(part, trial.plan.total_steps)
                self.count()
            if trial.run is None:
                self.progress.log(f"{self._over} the run on {trial.spec.unique_examples:,} examples.")
                break
            loss = end_loss(trial)
            ending = "failed" if loss is None else f"{loss:.3f}"
            note = f"{trial.spec.unique_examples:,} examples: {ending}"
            self.progress.advance(trial.plan.tokens_at(trial.plan.total_steps), note)
        self.progress.finish()

    def _advance(self, trials: Trials, step: int) -> bool:
        """Train a single trial to a step and commit it; retry after a crash.

        Returns False if the budget was over before the step was reached.
        """
        trial = trials[0]
        began = time.monotonic()
        request = Advance(trial.spec, trial.step, step, trial.weights_hash)
        answer = self.requester.answer(request, self._is_over)
        slot = self.requester.executor.slots[self.requester.slot_for(request)]
        if isinstance(answer, Crash):
            trials.fail(0, *answer.failure, slot, self.budget_tracker.elapsed())
        elif answer is not None:
            self.search.record(trials, 0, answer, slot, began)
        self.save()
        return answer is not None

    def _is_over(self) -> bool:
        """Whether the step under way has to be aborted."""
        self.search.handle_instructions()
        return self.search.is_ended or self.budget_tracker.is_overrun

    @property
    def _over(self) -> str:
        return ENDED if self.search.is_ended else BUDGET_OVER

    def count(self) -> None:
        """Count what forecasts and final trainings have spent, each run once."""
        runs = [run for run in self.store.runs(session=self.session) if run.is_beside_search]
        self.search.beside = sum((self._trial_of(run).used(0.0) for run in runs), Used())

    def _trial_of(self, run: Run) -> Trials:
        """Lay the trial of a run beside the search out again, to count what it has spent."""
        task, in_one_go = self.prepared.training_task, run.extra["purpose"] == FORECAST_ONLY["purpose"]
        trials = Trials(
            self.session,
            self.prepared,
            [run.pipeline],
            None,
            self.store,
            seed=run.seed,
            full_length_tokens=run.full_length_tokens,
            unique_examples=run.unique_examples,
            workers=1,
            divergence_nats=self.search.trials[0].spec.divergence_nats,
            halvings=() if in_one_go else affordable_halvings(task, run.full_length_tokens),
        )
        trials.restore()
        return trials

    def train_to_end(
        self,
        trials: Trials,
        seconds: float,
        *,
        outside_budget: bool,
        replan: Callable[[Trials], Trials] = lambda trials: trials,
    ) -> Trial:
        """Train a single trial from point to point, as far as the budget lasts.

        Args:
            seconds: How long it is expected to take.
            replan: Called after each point; may give the training another end, which is another trial.

        Returns:
            The trial that was trained last.
        """
        trial = trials[0]
        outside = ", outside the budget" if outside_budget else ""
        total = trial.plan.total_steps
        steps = f"from step {trial.step:,} to {total:,}" if trial.step else f"for {total:,} steps"
        activity = f"Training the winner {steps}{outside}"
        self.progress.start(f"{activity}, about {wait_text(seconds)}", trial.tokens_to_end, "tokens")
        while trial.goes_on and (following := self._following(trial, outside_budget)) is not None:
            self.search.handle_instructions()
            if self.search.is_ended:
                self.progress.log(f"{self._over} the final training.")
                break
            tokens = trial.plan.tokens_at(following) - trial.plan.tokens_at(trial.step)
            started = [*self.search.trials.started, *trials]
            self.progress.show(
                session_status(started, self.budget_tracker.budget, self.search.used(), activity)
            )
            if not self._advance(trials, following):
                self.progress.log(f"{self._over} the final training.")
                break
            self.count()
            self.progress.advance(tokens, _loss_text(trial))
            trials = replan(trials)
            trial = trials[0]
        self.progress.finish()
        return trial

    def _following(self, trial: Trial, outside_budget: bool) -> int | None:
        """Return the step to train to: the next point, or as far as seconds are expected to last."""
        if outside_budget or self.budget_tracker.budget.kind != "seconds":
            return trial.next_step
        return self.budget_tracker.last_step(trial, self.search.used(), self.search.runtime_model)


def _loss_text(trial: Trial) -> str:
    """Write the loss at a trial's last point; empty before the first."""
    return f"loss {trial.curve[-1].validation.loss:.3f}" if trial.curve else ""
