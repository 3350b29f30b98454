"""What a session fixes before its first trial: the full length, and how good the base model is unasked."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from tunecast.errors import BudgetError
from tunecast.executors.base import Ask
from tunecast.executors.requests import Calibrate, ScoreModel
from tunecast.progress import Progress
from tunecast.records import Outcome, Pipeline
from tunecast.search import ADVISED, ONLY_TRIALS, SURROGATE_BASED
from tunecast.session.budget import Budget
from tunecast.session.budget_tracker import BudgetTracker
from tunecast.session.effort import Efforts
from tunecast.session.run_factory import zero_point
from tunecast.session.settings import SessionSettings
from tunecast.session.trials import Trials
from tunecast.training.plan import plan_trial
from tunecast.training.runner import Measurement, Scored
from tunecast.training.training_task import TrainingTask, TrialSpec

SHARE_OF_BUDGET = 0.25
"""A full length is at most this part of what the budget affords."""
SHARE_WITH_PRIOR = 1 / 3
"""Who knows beforehand what will be good tries fewer pipelines, each for longer."""
SHARE_WITHOUT_SEARCH = {"seconds": 0.6, "tokens": 0.9}
"""The part that training has of a budget, in all trials together, where nothing is searched.

Scoring the base model, the points and the end takes up to 0.47 of the seconds of training
(:mod:`tunecast.session.run_factory`), and the last step begins only where more than it is expected to take is
left. Tokens are counted in training alone; what is not planned is for the ends of last batches and for a
forecast."""
LEAST_STEPS = 4
SMALLEST_BATCH = 4
CALIBRATION_SECONDS = 3.0
CALIBRATION_SHARE = 0.05
"""Measuring the speed takes at most this part of a budget in seconds."""
MARGIN = 1.5
"""A budget that is named as sufficient leaves this much for a machine that is busier next time."""


@dataclass(frozen=True)
class FullLength:
    """The horizon of every trial of a session, and seconds per training token where effort is 1."""

    tokens: int
    seconds_per_token: float


def measure_full_length(
    settings: SessionSettings,
    training_task: TrainingTask,
    spec: TrialSpec,
    budget_tracker: BudgetTracker,
    ask: Ask,
    progress: Progress,
) -> FullLength:
    """Measure the training speed, and derive what every trial's schedule spans.

    Args:
        settings: The session's settings.
        training_task: The task.
        spec: The baseline's trial; its full length is not looked at.
        budget_tracker: The budget and what is left of it.
        ask: Lets a worker answer.
        progress: Told the speed.

    Returns:
        The smaller of ``settings.epochs`` over the training tokens and the trial's share of the budget; where
        nothing is searched, a schedule that also ends within a budget of tokens with its last batch.

    Raises:
        BudgetError: The budget does not suffice for a few steps.
    """
    lengths = [example.tokens for example in training_task.training_examples(spec)]
    wanted = max(1, int(settings.epochs * sum(lengths)))
    progress.start("Measuring the training speed")
    seconds = min(CALIBRATION_SECONDS, CALIBRATION_SHARE * (budget_tracker.budget.seconds or 0.0))
    timed, efforts = _for_speed(spec, wanted, training_task.device), Efforts(training_task)
    plain = float(ask(Calibrate(timed, seconds))) * efforts.of(timed.pipeline)
    speed = plain / efforts.of(spec.pipeline)
    progress.finish(f"{speed:,.0f} tokens/s")
    share = share_of_budget(settings.strategy, budget_tracker.budget)
    full_length = int(min(wanted, share * budget_tracker.affordable_tokens(speed)))
    trials = ONLY_TRIALS.get(settings.strategy)
    if trials and budget_tracker.budget.kind == "tokens":
        ends = plan_trial(lengths, spec.pipeline, seed=spec.seed, full_length_tokens=wanted).tokens
        return FullLength(_ending_within(budget_tracker.budget, trials, ends, full_length), 1 / plain)
    mean = sum(lengths) / len(lengths)
    least = min(math.ceil(LEAST_STEPS * SMALLEST_BATCH * mean), wanted)
    if full_length < least:
        raise _too_small(budget_tracker, least / share, speed, mean)
    return FullLength(full_length, 1 / plain)


def score_base_model(base: Trials, training_task: TrainingTask, ask: Ask, progress: Progress) -> Measurement:
    """Score the untouched base model on the validation examples.

    Args:
        base: Trials whose only one is the zero-shot pipeline.
        training_task: The task.
        ask: Lets a worker answer.
        progress: Told the loss.
    """
    progress.start("Scoring the base model")
    subset: Scored = ask(ScoreModel(None, 0, "subset"))
    whole: Scored = ask(ScoreModel(None, 0, "validation"))
    point = zero_point(subset.score, subset.evaluation, base[0].spec.workers)
    progress.finish(f"validation loss {subset.score.loss:.3f} on {len(training_task.subset)} examples")
    return Measurement(base[0].spec.run, point, Outcome.COMPLETED, None, whole.score, whole.evaluation.wall)


def share_of_budget(strategy: str, budget: Budget) -> float:
    """The part of the budget that one trial's full length may take.

    In seconds that is measured with the baseline. What is good elsewhere may be slower (full
    finetuning of SmolLM2-135M on two cores takes 1.5 times as long), and has to reach its end too.
    """
    alone = ONLY_TRIALS.get(strategy)
    if alone:
        return SHARE_WITHOUT_SEARCH.get(budget.kind, 1.0) / alone
    knows = strategy in (ADVISED, *SURROGATE_BASED)
    return SHARE_WITH_PRIOR if knows and budget.kind != "seconds" else SHARE_OF_BUDGET


def _for_speed(spec: TrialSpec, full_length_tokens: int, device: str) -> TrialSpec:
    """The baseline as its speed is measured.

    On a CPU in small batches: but for its effort the same speed at a fraction of a step's seconds. An
    accelerator would be kept waiting by these, and its steps are short.
    """
    if device != "cpu":
        return replace(spec, full_length_tokens=full_length_tokens)
    values = {**spec.pipeline.hyperparameters, "per_device_train_batch_size": SMALLEST_BATCH}
    pipeline = Pipeline(spec.pipeline.method, values)
    return replace(spec, pipeline=pipeline, full_length_tokens=full_length_tokens)


def _ending_within(budget: Budget, trials: int, ends: np.ndarray, full_length: int) -> int:
    """The schedule that lets trials end within a budget of tokens, their last batches included.

    Args:
        budget: In tokens.
        trials: So many of this length are trained.
        ends: Tokens that a trial has seen after each of its steps, (steps,).
        full_length: What is wanted, if its last batch lets it.

    Raises:
        BudgetError: It does not suffice for a few steps.
    """
    steps = min(LEAST_STEPS, len(ends))
    least = int(ends[steps - 1])
    if trials * least > budget.amount:
        raise BudgetError(
            f"--budget {budget.text} does not suffice for {steps} optimiser steps, which take {least:,} "
            f"tokens together{f' in each of {trials} trials' if trials > 1 else ''}.",
            f"Give at least --budget {trials * least}-tokens.",
        )
    wanted = max(full_length, least)
    within = ends[ends <= budget.amount / trials]
    return wanted if ends[np.searchsorted(ends, wanted)] <= within[-1] else int(within[-1])


def _too_small(budget_tracker: BudgetTracker, tokens: float, speed: float, mean_tokens: float) -> BudgetError:
    """What is said of a budget that does not suffice for so many tokens."""
    what = (
        f"--budget {budget_tracker.budget.text} leaves each trial less than {LEAST_STEPS} optimiser steps of "
        f"{SMALLEST_BATCH} examples"
    )
    if budget_tracker.budget.kind == "tokens":
        return BudgetError(
            f"{what} ({mean_tokens:.0f} tokens per example).",
            f"Give at least --budget {math.ceil(tokens)}-tokens.",
        )
    seconds = math.ceil(MARGIN * (budget_tracker.elapsed() + tokens / speed))
    return BudgetError(
        f"{what} (measured: {speed:,.0f} tokens/s, {mean_tokens:.0f} tokens per example).",
        f"Give at least --budget {seconds}s, or a smaller model.",
    )
