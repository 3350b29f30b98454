"""The final training: a search finds a pipeline in short trials, which is then trained for longer.

It goes on with the winner if that has a steady schedule: both have the same course until the winner's rate
falls, so that only the rest is trained. Otherwise it begins from the base model, with a learning rate for its
length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunecast.errors import OutputError, disk_error
from tunecast.methods.rates import with_rate_for_steps
from tunecast.records import FINAL_TRAINING, Outcome, Pipeline
from tunecast.session.folder import OutputFolder
from tunecast.session.prepare import PreparedTask
from tunecast.session.run_factory import affordable_halvings
from tunecast.session.runtime_model import RuntimeModel
from tunecast.session.settings import SessionSettings
from tunecast.session.state import FinalPlan
from tunecast.session.trial import Trial
from tunecast.session.trials import Trials
from tunecast.store import Store
from tunecast.training.plan import with_warmup_steps

HARDLY = 0.05
"""A training under way keeps its end if the budget's rest would move it by less than this share."""
MIN_RATIO = 1.5
"""A final training within the budget has at least this multiple of the winner's steps; else the search goes
on."""


@dataclass(frozen=True)
class FinalTrainer:
    """Decides how long a search's winner is trained, and lays the trial out.

    ``earlier`` are the plans of the session's smaller budgets, in their order.
    """

    session: str
    settings: SessionSettings
    prepared: PreparedTask
    folder: OutputFolder
    store: Store
    runtime_model: RuntimeModel
    earlier: Sequence[FinalPlan] = ()

    def plan(self, winner: Trial | None, left: float, unit: str) -> FinalPlan:
        """Plan the longer training of a winner; it goes on with one of a smaller budget that has ended.

        Args:
            winner: The trial to train for longer, None if the base model won.
            left: What is left of the budget, in its unit.
            unit: ``seconds``, ``tokens`` or ``trials``.
        """
        if winner is None:
            return FinalPlan(reason="no trial beats the base model")
        longest = self._longest(winner)
        step = longest.branching_step
        longer = self._longer(longest, self._full_length(longest, longest.plan.tokens_at(step), left, unit))
        if longer.pipeline is not None and step:
            longer = self._going_on(longest, longer.full_length_tokens)
        return replace(longer, winner=winner.spec.run)

    def of_smaller_budgets(self, like: Trial) -> list[tuple[FinalPlan, Trial]]:
        """Return earlier final trainings that have begun, in their order; ``like`` as in :meth:`laid_out`."""
        laid_out = [(plan, self.laid_out(plan, like)[0]) for plan in self.earlier]
        return [(plan, trial) for plan, trial in laid_out if trial.step > plan.from_step]

    def from_base_model(self, winner: Trial) -> FinalPlan:
        """Plan a training of a winner's pipeline from the base model, outside of any budget."""
        return self._longer(winner, self._full_length(winner, 0, 0.0, "trials"))

    def price(self, plan: FinalPlan, like: Trial, unit: str) -> float:
        """Return what a planned training is expected to take, in the budget's unit; see :meth:`laid_out`."""
        if plan.pipeline is None:
            return 0.0
        trial = self.laid_out(plan, like)[0]
        tokens = float(trial.tokens_to_end - trial.plan.tokens_at(plan.from_step))
        points = sum(step > plan.from_step for step in trial.plan.grid)
        method = trial.spec.pipeline.method
        seconds = self.runtime_model.expected(method, trial.effort * tokens, points, ends=True)
        return {"seconds": seconds, "tokens": tokens}.get(unit, 1.0)

    def begun(self, plan: FinalPlan, others: Sequence[Trial]) -> Trials:
        """Return the single trial of a plan, begun where it goes on with one of the others.

        Raises:
            OutputError: The disk is full or cannot be written, or there is no such point.
        """
        trials = self.laid_out(plan, others[0])
        if plan.goes_on_with and trials[0].run is None:
            earlier = next((trial for trial in others if trial.spec.run == plan.goes_on_with), None)
            if earlier is None or plan.from_step not in (point.step for point in earlier.curve):
                raise OutputError(
                    "session.json is damaged: the final training goes on with a point that was not measured.",
                    "Choose another --output-dir.",
                )
            try:
                trials.take_over(earlier, plan.from_step)
            except OSError as error:
                raise disk_error(self.folder.path, str(error)) from error
        return trials

    def laid_out(self, plan: FinalPlan, like: Trial) -> Trials:
        """Return the single trial of a plan, with the points that an earlier process committed.

        ``like`` is any trial of the search.
        """
        assert plan.pipeline is not None
        trials = Trials(
            self.session,
            self.prepared,
            [plan.pipeline],
            self.folder,
            self.store,
            seed=like.spec.seed,
            full_length_tokens=plan.full_length_tokens,
            unique_examples=like.spec.unique_examples,
            workers=1,
            divergence_nats=like.spec.divergence_nats,
            halvings=affordable_halvings(self.prepared.training_task, plan.full_length_tokens),
            extra=FINAL_TRAINING,
        )
        trials.restore()
        return trials

    def replanned(self, plan: FinalPlan, trial: Trial, left: float) -> FinalPlan:
        """Move the end of a steady training to where the rest of a budget in seconds affords it.

        The plan stays as it is if the rate has begun to fall, the end would hardly move, or it would have to
        lie so near that the rate should have fallen already.
        """
        step = trial.branching_step
        if not step or step != trial.step:
            return plan
        planned = trial.spec.full_length_tokens
        affordable = self._full_length(trial, trial.plan.tokens_at(step), left, "seconds")
        if abs(affordable - planned) <= HARDLY * planned:
            return plan
        moved = replace(self._going_on(trial, max(1, affordable)), winner=plan.winner)
        return moved if self.laid_out(moved, trial)[0].plan.steady_steps >= step else plan

    def seconds(self, trial: Trial, *, upper: bool = False) -> float:
        """Return the expected seconds to the end of a trial, or their 90% upper bound."""
        predict = self.runtime_model.upper if upper else self.runtime_model.expected
        return predict(trial.spec.pipeline.method, trial.work_to_end, trial.points_to_end, ends=True)

    def _longest(self, winner: Trial) -> Trial:
        """Return the winner's latest training that has ended: its trial, or a final training after it.

        In a budget in seconds, one may have paused just before its end, when its rate had begun to fall.
        """
        found, within = winner, self.settings.final_choice.kind == "budget"
        for plan, trial in self.of_smaller_budgets(winner):
            falls = within and trial.goes_on and 0 < trial.plan.steady_steps < trial.step
            if plan.winner == winner.spec.run and (falls or trial.outcome is Outcome.COMPLETED):
                found = trial
        return found

    def _longer(self, winner: Trial, full_length: int) -> FinalPlan:
        """Plan a schedule of another length with the rate for it, unless it is hardly longer."""
        found_in = winner.plan.tokens_at(winner.plan.total_steps)
        longer = self.laid_out(FinalPlan(winner.spec.pipeline, max(1, full_length)), winner)[0]
        least = MIN_RATIO if self.settings.final_choice.kind == "budget" else 1.0
        if longer.plan.total_steps <= least * winner.plan.total_steps:
            return FinalPlan(reason=f"it would hardly be longer than the winner's {found_in:,} tokens")
        return FinalPlan(self._derived(winner, longer.plan.total_steps), full_length)

    def _going_on(self, trial: Trial, full_length: int) -> FinalPlan:
        """Plan another end for a steady trial, from the last point at which both have the same course."""
        pipeline = trial.spec.pipeline
        steps = self.laid_out(FinalPlan(pipeline, full_length), trial)[0].plan.total_steps
        pipeline = with_warmup_steps(pipeline, trial.plan.warmup_steps, steps)
        return FinalPlan(pipeline, full_length, goes_on_with=trial.spec.run, from_step=trial.branching_step)

    def _full_length(self, winner: Trial, done: int, left: float, unit: str) -> int:
        """Return the tokens of the longer schedule: a number of passes, or what the budget affords of them.

        ``done`` are the tokens behind the winner where the training goes on.
        """
        choice = self.settings.final_choice
        examples = winner.training_task.training_examples(winner.spec)
        epoch = sum(example.tokens for example in examples)
        most = int((choice.epochs or self.settings.epochs) * epoch)
        if choice.kind == "epochs" or unit == "trials":
            return most
        if unit == "seconds":
            return min(most, done + math.floor(self._affordable_tokens(winner, left)))
        # The last batch may exceed the full length.
        batch = int(winner.spec.pipeline.number("per_device_train_batch_size"))
        return min(most, done + math.floor(left) - batch * max(example.tokens for example in examples))

    def _affordable_tokens(self, winner: Trial, seconds: float) -> float:
        """Return the tokens that seconds are expected to afford; a slower training stops before its end."""
        method, expected = winner.spec.pipeline.method, self.runtime_model.expected
        each = expected(method, winner.effort, 0)
        points = len(affordable_halvings(self.prepared.training_task, seconds / each)) + 1
        return (seconds - expected(method, 0.0, points, ends=True)) / each

    def _derived(self, winner: Trial, steps: int) -> Pipeline:
        """Return the winner's pipeline with the rate for this many steps, within the user's restrictions."""
        found = winner.spec.pipeline
        if "learning_rate" in self.settings.fixed:
            return found
        derived = with_rate_for_steps(found, winner.plan.total_steps, steps)
        ends = self.settings.ranges.get("learning_rate")
        rate = derived.learning_rate
        if ends is None or rate is None:
            return derived
        kept = min(max(rate, ends[0]), ends[1])
        return Pipeline(derived.method, {**derived.hyperparameters, "learning_rate": kept})
