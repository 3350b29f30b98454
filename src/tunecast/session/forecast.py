"""What more data would bring: the leading pipeline on parts of its data, and what a scaling law makes of it.

A part is as large as a share of the examples that the leading trial saw, drawn from those that it had, and
passed over as often, under a complete schedule of its own; laws are fitted to end points only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunecast.records import FORECAST_ONLY, DataForecast, MoreData, Outcome
from tunecast.scaling import forecast, table_of_points
from tunecast.scaling.forecasting import FEWEST_SIZES
from tunecast.session.budget import Used
from tunecast.session.budget_tracker import BudgetTracker
from tunecast.session.calibrate_length import LEAST_STEPS
from tunecast.session.prepare import PreparedTask
from tunecast.session.run_factory import FORWARD_COST
from tunecast.session.runtime_model import RuntimeModel
from tunecast.session.state import Part, SurveyPlan
from tunecast.session.trials import Trial, Trials
from tunecast.store import Store

MULTIPLES = (2, 4, 10)
"""Of the data that the leading trial saw: what the forecast is for."""
FORECAST_SHARE = 0.1
"""At most so much of a budget goes to a forecast."""
SHARES = ((1 / 8, 1 / 4, 1 / 2), (1 / 8, 1 / 4), (1 / 4, 1 / 2), (1 / 16, 1 / 8))
"""Parts to measure, the best choice first; fewer than two beside the whole would support no forecast."""
HELD_MARGIN = 1.5
"""The leading trial may be slower than the baseline, by which is reckoned what to hold back."""


@dataclass(frozen=True)
class Survey:
    """What a forecast rests on.

    Args:
        leading: The trial whose pipeline is measured, None where no trial reached its end.
        parts: A trial for each part of its data, smallest first.
        reason: Why there are no parts, empty where there are.
    """

    leading: Trial | None
    parts: tuple[Trials, ...] = ()
    reason: str = ""

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
        """What :meth:`Surveyor.again` needs."""
        specs = [trial.spec for (trial,) in self.parts]
        parts = tuple(Part(spec.unique_examples, spec.full_length_tokens) for spec in specs)
        return SurveyPlan(self.leading.spec.run if self.leading else "", parts, self.reason)

    def forecast(self, seed: int) -> DataForecast:
        """Fit a law to what was measured and carry it on.

        Args:
            seed: Seed of the posterior.
        """
        measured, reason = self.measured, self.reason or self._missing()
        if reason:
            return DataForecast(self.data_size, measured, reason=reason)
        table = table_of_points([size for size, _ in measured], [loss for _, loss in measured])
        outlook = forecast(table, [multiple * self.data_size for multiple in MULTIPLES], seed=seed)
        forecasts = tuple(
            MoreData(round(one.data_size), one.loss, one.low, one.high, one.law, one.supported, one.reason)
            for one in outlook.forecasts
        )
        return DataForecast(self.data_size, measured, forecasts, next_size=round(outlook.advice[0].data_size))

    def _missing(self) -> str:
        """Which runs are not there, where too few are for any forecast."""
        if len(self.measured) >= FEWEST_SIZES:
            return ""
        sizes = f"too few sizes: {len(self.measured)} measured, {FEWEST_SIZES} are needed"
        endings = [_ending(trial) for (trial,) in self.parts if end_loss(trial) is None]
        return "; ".join([sizes, *endings])


@dataclass(frozen=True)
class Surveyor:
    """Decides which parts of the data are measured.

    Args:
        session: Identifier of the session.
        prepared: The task, with its validation examples chosen.
        store: Where runs are committed.
        budget_tracker: The budget.
        runtime_model: Predicts seconds.
    """

    session: str
    prepared: PreparedTask
    store: Store
    budget_tracker: BudgetTracker
    runtime_model: RuntimeModel

    def to_hold_back(self, baseline: Trial, seconds_per_token: float) -> float:
        """What of the budget, in its unit, the search leaves to the forecast; 0 where that affords none.

        Args:
            baseline: The baseline's trial, in the place of a leading one that nobody knows yet.
            seconds_per_token: Of training it, as measured.
        """
        training_task = self.prepared.training_task
        tokens = sum(example.tokens for example in (*training_task.validation, *training_task.subset))
        scoring = FORWARD_COST * seconds_per_token * tokens
        choices = self._choices(baseline)
        most = self.budget_tracker.share(FORECAST_SHARE)
        # A budget that turns out too small goes back to the search, so that the expectation is enough here.
        expected = [self._price(parts, scoring, upper=False) for parts in choices]
        if not expected or min(expected) > most:
            return 0.0
        dearest = max(self._price(parts, scoring) for parts in choices)
        return min(most, dearest if self.budget_tracker.budget.kind == "trials" else HELD_MARGIN * dearest)

    def survey(self, leading: Trial | None, used: Used) -> Survey:
        """Choose the parts that a tenth of the budget, and what is left of it, affords.

        Args:
            leading: The completed trial that ended best.
            used: What is spent.
        """
        if leading is None:
            return Survey(None, reason="no trial reached the end of its schedule")
        choices = self._choices(leading)
        if not choices:
            steps = f"the leading trial has {leading.plan.total_steps} optimiser steps on its data"
            return Survey(leading, reason=f"{steps}; a quarter of it would leave fewer than {LEAST_STEPS}")
        scoring = leading.curve[-1].evaluation.wall
        prices = [self._price(parts, scoring) for parts in choices]
        most, left = self.budget_tracker.share(FORECAST_SHARE), self.budget_tracker.left(used)
        for parts, price in zip(choices, prices, strict=True):
            if price <= min(most, left):
                return Survey(leading, parts)
        return Survey(leading, reason=self._too_dear(min(prices), left))

    def again(self, trials: Iterable[Trial], plan: SurveyPlan) -> Survey:
        """The survey that was fixed, with what an earlier process of the session committed of it.

        Args:
            trials: All trials of the session.
            plan: What was fixed.
        """
        leading = next((trial for trial in trials if trial.spec.run == plan.leading), None)
        laid_out = tuple(self._laid_out(leading, part) for part in plan.parts) if leading else ()
        for part in laid_out:
            part.restore()
        return Survey(leading, laid_out, plan.reason)

    def _choices(self, trial: Trial) -> list[tuple[Trials, ...]]:
        """The sets of parts that leave enough optimiser steps to each, best first."""
        laid_out = {
            share: self._laid_out(trial, part)
            for share in sorted({share for shares in SHARES for share in shares})
            if (part := part_of(trial, share)) is not None
        }
        enough = {share for share, (part,) in laid_out.items() if part.plan.total_steps >= LEAST_STEPS}
        return [tuple(laid_out[share] for share in shares) for shares in SHARES if enough.issuperset(shares)]

    def _laid_out(self, trial: Trial, part: Part) -> Trials:
        """The only trial of a part; what it trained is thrown away, since only its loss is wanted."""
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
            explosion_nats=trial.spec.explosion_nats,
            extra=FORECAST_ONLY,
        )

    def _price(self, parts: Sequence[Trials], scoring_seconds: float, *, upper: bool = True) -> float:
        trials = [trial for (trial,) in parts]
        return self.budget_tracker.price(trials, self.runtime_model, scoring_seconds, upper=upper)

    def _too_dear(self, price: float, left: float) -> str:
        amount = self.budget_tracker.budget.amount
        needed = f"the runs on parts of the data would take {price / amount:.1%} of the budget"
        if price <= FORECAST_SHARE * amount:
            return f"{needed}, and {left / amount:.1%} are left"
        return f"{needed}, and at most {FORECAST_SHARE:.0%} go to a forecast"


def leading_trial(trials: Iterable[Trial]) -> Trial | None:
    """The completed trial with the lowest loss on all validation examples, None where none was completed."""
    ended = [(loss, index, trial) for index, trial in enumerate(trials) if (loss := end_loss(trial))]
    return min(ended)[2] if ended else None


def examples_seen(trial: Trial) -> int:
    """Unique training examples of a whole trial: fewer than it may draw from where it ends within a pass."""
    return len(_seen(trial))


def part_of(trial: Trial, share: float) -> Part | None:
    """A share of the data that a whole trial sees, with as many passes; None where no example is left.

    Args:
        trial: The trial.
        share: Of its unique examples, between 0 and 1.
    """
    seen = _seen(trial)
    count = round(share * len(seen))
    if not 0 < count < len(seen):
        return None
    every = trial.training_task.training_examples(trial.spec)
    tokens = sum(every[int(index)].tokens for index in seen)
    subset = trial.training_task.training_examples(replace(trial.spec, unique_examples=count))
    # Whole numbers throughout: an even number of passes ends with the last batch of the last one.
    whole = trial.plan.tokens_at(trial.plan.total_steps)
    return Part(count, max(1, whole * sum(example.tokens for example in subset) // tokens))


def _seen(trial: Trial) -> np.ndarray:
    return np.unique(np.concatenate(trial.plan.batches))


def end_loss(trial: Trial) -> float | None:
    """Loss on all validation examples at the end of a complete schedule; laws take positive ones."""
    if trial.run is None or trial.outcome is not Outcome.COMPLETED or trial.run.validation is None:
        return None
    loss = trial.run.validation.loss
    return loss if math.isfinite(loss) and loss > 0 else None


def _ending(trial: Trial) -> str:
    how = trial.outcome.value.replace("_", " ") if trial.run else "not made"
    return f"the run on {trial.spec.unique_examples:,} examples: {how}"
