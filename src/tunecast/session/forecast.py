"""Forecasts the loss with more data: trains the leading pipeline on parts of its data and fits a scaling law.

A part is a share of the examples that the leading trial saw. It is trained for as many passes under a
complete schedule of its own, because laws are fitted to end points only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunecast.budget import Used
from tunecast.records import FORECAST_ONLY, Outcome
from tunecast.results import DataForecast, MoreData
from tunecast.scaling import forecast, table_of_points
from tunecast.scaling.forecasting import MIN_SIZES
from tunecast.session.budget_tracker import BudgetTracker
from tunecast.session.calibrate_length import MIN_STEPS
from tunecast.session.prepare import PreparedTask
from tunecast.session.run_factory import FORWARD_COST
from tunecast.session.runtime_model import SCORING_MARGIN, RuntimeModel
from tunecast.session.state import Part, SurveyPlan
from tunecast.session.trial import Trial
from tunecast.session.trials import Trials
from tunecast.store import Store

MULTIPLES = (2, 4, 10)
"""The forecast is for these multiples of the data that the leading trial saw."""
FORECAST_SHARE = 0.1
"""Largest share of a budget for a forecast."""
SHARES = ((1 / 8, 1 / 4, 1 / 2), (1 / 8, 1 / 4), (1 / 4, 1 / 2), (1 / 16, 1 / 8))
"""Choices of parts to measure, best first. Fewer than two besides the whole would not support a forecast."""
MORE_BUDGET = 2.0
"""A session that could not measure enough is advised this multiple of its budget, or more."""
FINER = 1.1
"""Steps in which a sufficient multiple of a budget is sought."""
HELD_MARGIN = 1.5
"""Extra reserve, because the leading trial may be slower than the baseline that the reserve is based on."""


@dataclass(frozen=True)
class Survey:
    """The measurements behind a forecast.

    Args:
        leading: The trial whose pipeline is measured, None if no trial was completed.
        parts: A trial for each part of its data, smallest first.
        reason: Reason for having no parts, else empty.
        budget, new_session: What would be enough, as in :class:`~tunecast.results.DataForecast`; with parts,
            in case that too few of them end.
    """

    leading: Trial | None
    parts: tuple[Trials, ...] = ()
    reason: str = ""
    budget: str = ""
    new_session: bool = False

    @property
    def data_size(self) -> int:
        """Unique examples that the leading trial saw."""
        return examples_seen(self.leading) if self.leading else 0

    @property
    def measured(self) -> tuple[tuple[int, float], ...]:
        """Pairs of unique examples and validation loss at the end of a complete schedule, smallest first."""
        ends = [(trial.spec.unique_examples, end_loss(trial)) for (trial,) in self.parts]
        if self.leading:
            ends.append((self.data_size, end_loss(self.leading)))
        return tuple((size, loss) for size, loss in ends if loss is not None)

    @property
    def plan(self) -> SurveyPlan:
        """The plan that :meth:`Surveyor.again` needs."""
        specs = [trial.spec for (trial,) in self.parts]
        parts = tuple(Part(spec.unique_examples, spec.full_length_tokens) for spec in specs)
        leading = self.leading.spec.run if self.leading else ""
        return SurveyPlan(leading, parts, self.reason, self.budget, self.new_session)

    def forecast(self, seed: int) -> DataForecast:
        """Fit a law to the measurements and extrapolate it."""
        measured, reason = self.measured, self.reason or self._missing()
        if reason:
            return DataForecast(
                self.data_size, measured, reason=reason, budget=self.budget, new_session=self.new_session
            )
        table = table_of_points([size for size, _ in measured], [loss for _, loss in measured])
        outlook = forecast(table, [multiple * self.data_size for multiple in MULTIPLES], seed=seed)
        forecasts = tuple(
            MoreData(round(one.data_size), one.loss, one.low, one.high, one.law, one.supported, one.reason)
            for one in outlook.forecasts
        )
        return DataForecast(self.data_size, measured, forecasts, next_size=round(outlook.advice[0].data_size))

    def at(self, data_size: int, seed: int) -> MoreData | None:
        """Forecast the loss at one data size; None without a forecast that is fit to act upon."""
        if self.reason or self._missing():
            return None
        table = table_of_points([size for size, _ in self.measured], [loss for _, loss in self.measured])
        one = forecast(table, [data_size], seed=seed, with_advice=False).forecasts[0]
        found = MoreData(
            round(one.data_size), one.loss, one.low, one.high, one.law, one.supported, one.reason
        )
        return found if one.supported else None

    def _missing(self) -> str:
        """Return which runs are missing if there are too few for a forecast."""
        if len(self.measured) >= MIN_SIZES:
            return ""
        sizes = f"too few sizes: {len(self.measured)} measured, {MIN_SIZES} are needed"
        outcomes = [_describe_outcome(trial) for (trial,) in self.parts if end_loss(trial) is None]
        return "; ".join([sizes, *outcomes])


@dataclass(frozen=True)
class Surveyor:
    """Decides which parts of the data to measure; no trial of the session has more than ``epochs`` passes."""

    session: str
    prepared: PreparedTask
    store: Store
    budget_tracker: BudgetTracker
    runtime_model: RuntimeModel
    epochs: float

    def to_hold_back(self, hopeful: Iterable[Trial], seconds_per_token: float) -> float:
        """Return the amount of the budget, in its unit, to reserve for the forecast; 0 if it is too small.

        The trials in ``hopeful`` stand for the leading one, which may be unknown yet.
        """
        training_task = self.prepared.training_task
        tokens = sum(example.tokens for example in (*training_task.validation, *training_task.subset))
        scoring = FORWARD_COST * seconds_per_token * tokens
        return max(self._reserve(trial, scoring) for trial in hopeful)

    def _reserve(self, trial: Trial, scoring: float) -> float:
        choices = self._choices(trial)
        most = self.budget_tracker.share(FORECAST_SHARE)
        # The expectation is enough here, because a reserve that proves too small returns to the search.
        expected = [self._price(parts, scoring, upper=False) for parts in choices]
        if not expected or min(expected) > most:
            return 0.0
        most_expensive = max(self._price(parts, scoring) for parts in choices)
        return min(
            most,
            most_expensive if self.budget_tracker.budget.kind == "trials" else HELD_MARGIN * most_expensive,
        )

    def survey(self, leading: Trial | None, used: Used, ahead: Trial) -> Survey:
        """Choose the parts that fit in a tenth of the budget and in the rest of it.

        Args:
            leading: The completed trial with the lowest loss, None without one.
            used: What the session has spent.
            ahead: The trial that is most likely to lead if none was completed.
        """
        budget = self.budget_tracker.budget
        if leading is None:
            enough, is_new = self._enough(ahead, used, 0.0)
            reason = "no trial reached the end of its schedule"
            return Survey(None, reason=reason, budget=enough, new_session=is_new)
        choices, scoring = self._choices(leading), leading.curve[-1].evaluation.wall
        enough, is_new = self._enough(leading, used, scoring)
        if not choices:
            return Survey(leading, reason=self._too_few_steps(leading), budget=enough, new_session=is_new)
        prices = [self._price(parts, scoring) for parts in choices]
        most, left = self.budget_tracker.share(FORECAST_SHARE), self.budget_tracker.left(used, "forecast")
        for parts, price in zip(choices, prices, strict=True):
            if price <= min(most, left):
                return Survey(leading, parts, budget=budget.times(MORE_BUDGET))
        return Survey(leading, reason=self._too_expensive(min(prices), left), budget=enough)

    def _enough(self, trial: Trial, used: Used, scoring: float) -> tuple[str, bool]:
        """Return a budget that is enough for a forecast by a trial's pipeline, empty if there is none.

        The second value tells whether it is for a new session: going on with this one keeps its full length,
        and too few steps stay too few.
        """
        budget = self.budget_tracker.budget
        choices = self._choices(trial)
        if not choices:
            factor = self._factor_of_longer_trials(trial, scoring)
            return budget.times(HELD_MARGIN * factor) if factor else "", bool(factor)
        parts = min(self._price(parts, scoring) for parts in choices) / FORECAST_SHARE
        end = self.budget_tracker.price([trial], self.runtime_model, scoring) if trial.goes_on else 0.0
        search = (budget.spent(used) + end) / (1 - FORECAST_SHARE)
        if budget.kind == "trials":
            search = 0.0  # they end in any budget
        return budget.times(max(MORE_BUDGET, HELD_MARGIN * max(parts, search) / budget.amount)), False

    def _factor_of_longer_trials(self, trial: Trial, scoring: float) -> float | None:
        """Return the multiple of the budget whose trials have enough steps; None if none has.

        Trials are as much longer as the budget is larger, up to the session's epochs; parts of longer trials
        cost more.
        """
        budget, task = self.budget_tracker.budget, self.prepared.training_task
        if budget.kind == "trials":
            return None
        steps, examples = trial.plan.total_steps, task.training_examples(trial.spec)
        most = self.epochs * sum(example.tokens for example in examples) / trial.plan.tokens_at(steps)
        most_scored = self.prepared.dataset.examples["validation"] / len(task.validation)
        whole = self._laid_out(trial, Part(trial.spec.unique_examples, trial.spec.full_length_tokens))
        start = self.runtime_model.upper(trial.spec.pipeline.method, 0.0) if budget.kind == "seconds" else 0.0
        training = self._price([whole], 0.0) - start
        scored = SCORING_MARGIN * scoring if budget.kind == "seconds" else 0.0

        def is_affordable(shares: tuple[float, ...], factor: float) -> bool:
            each = start + min(factor, most_scored) * scored
            price = len(shares) * each + sum(shares) * min(factor, most) * training
            return price <= FORECAST_SHARE * factor * budget.amount

        factors = []
        for shares in SHARES:
            factor = max(1.0, MIN_STEPS / min(shares) / steps)
            if factor <= most:
                while not is_affordable(shares, factor):
                    factor *= FINER
                factors.append(factor)
        return min(factors, default=None)

    def _too_few_steps(self, leading: Trial) -> str:
        """Say that parts of the data would be over too soon."""
        pipeline = leading.spec.pipeline
        return (
            f"a forecast repeats the completed trial with the lowest loss ({pipeline.method}, learning rate "
            f"{pipeline.number('learning_rate'):.3g}) on parts of its data; that trial has "
            f"{leading.plan.total_steps} optimiser steps, and {MIN_STEPS * 4} are needed"
        )

    def again(self, trials: Iterable[Trial], plan: SurveyPlan) -> Survey:
        """Rebuild a survey from its plan, with the points that an earlier process committed."""
        leading = next((trial for trial in trials if trial.spec.run == plan.leading), None)
        laid_out = tuple(self._laid_out(leading, part) for part in plan.parts) if leading else ()
        for part in laid_out:
            part.restore()
        return Survey(leading, laid_out, plan.reason, plan.budget, plan.new_session)

    def _choices(self, trial: Trial) -> list[tuple[Trials, ...]]:
        """Return the sets of parts that leave each enough optimiser steps, best first."""
        laid_out = {
            share: self._laid_out(trial, part)
            for share in sorted({share for shares in SHARES for share in shares})
            if (part := part_of(trial, share)) is not None
        }
        enough = {share for share, (part,) in laid_out.items() if part.plan.total_steps >= MIN_STEPS}
        return [tuple(laid_out[share] for share in shares) for shares in SHARES if enough.issuperset(shares)]

    def _laid_out(self, trial: Trial, part: Part) -> Trials:
        """Return the single trial of a part. Its weights are discarded, because only the loss is needed."""
        return Trials(
            self.session,
            self.prepared,
            [trial.spec.pipeline],
            None,
            self.store,
            seed=trial.spec.seed,
            full_length_tokens=part.full_length_tokens,
            unique_examples=part.unique_examples,
            workers=trial.spec.workers,
            divergence_nats=trial.spec.divergence_nats,
            halvings=(),  # it is trained in one go
            extra=FORECAST_ONLY,
        )

    def _price(self, parts: Sequence[Trials], scoring_seconds: float, *, upper: bool = True) -> float:
        trials = [trial for (trial,) in parts]
        return self.budget_tracker.price(trials, self.runtime_model, scoring_seconds, upper=upper)

    def _too_expensive(self, price: float, left: float) -> str:
        amount = self.budget_tracker.budget.amount
        needed = f"the runs on parts of the data would take {price / amount:.1%} of the budget"
        if price <= FORECAST_SHARE * amount:
            return f"{needed}, and {left / amount:.1%} are left"
        return f"{needed}, and a forecast may take at most {FORECAST_SHARE:.0%}"


def leading_trial(trials: Iterable[Trial]) -> Trial | None:
    """Return the completed trial with the lowest loss on all validation examples, None without one."""
    ended = [(loss, index, trial) for index, trial in enumerate(trials) if (loss := end_loss(trial))]
    return min(ended)[2] if ended else None


def examples_seen(trial: Trial) -> int:
    """Count the unique training examples of a whole trial; fewer than available if it ends within a pass."""
    return len(_seen(trial))


def part_of(trial: Trial, share: float) -> Part | None:
    """Return a share (0 to 1) of the data that a whole trial sees, with as many passes; None if empty."""
    seen = _seen(trial)
    count = round(share * len(seen))
    if not 0 < count < len(seen):
        return None
    every = trial.training_task.training_examples(trial.spec)
    tokens = sum(every[int(index)].tokens for index in seen)
    subset = trial.training_task.training_examples(replace(trial.spec, unique_examples=count))
    # Integers throughout: a whole number of passes ends with the last batch of the last pass.
    whole = trial.plan.tokens_at(trial.plan.total_steps)
    return Part(count, max(1, whole * sum(example.tokens for example in subset) // tokens))


def _seen(trial: Trial) -> np.ndarray:
    return np.unique(np.concatenate(trial.plan.batches))


def end_loss(trial: Trial) -> float | None:
    """Return the loss on all validation examples after a complete schedule, if it is positive and finite."""
    if trial.run is None or trial.outcome is not Outcome.COMPLETED or trial.run.validation is None:
        return None
    loss = trial.run.validation.loss
    return loss if math.isfinite(loss) and loss > 0 else None


def _describe_outcome(trial: Trial) -> str:
    outcome = trial.outcome.value.replace("_", " ") if trial.run else "not started"
    return f"the run on {trial.spec.unique_examples:,} examples: {outcome}"
