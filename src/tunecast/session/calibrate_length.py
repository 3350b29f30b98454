"""The measurements before the first trial: the full length, and the base model's own loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from tunecast.budget import Budget
from tunecast.errors import BudgetError
from tunecast.executors.base import Ask
from tunecast.executors.requests import Calibrate
from tunecast.progress import Progress
from tunecast.records import Outcome, Pipeline
from tunecast.search import get_strategy
from tunecast.session.budget_tracker import BudgetTracker
from tunecast.session.run_factory import zero_point
from tunecast.session.settings import SessionSettings
from tunecast.session.trials import Trials
from tunecast.session.workloads import Efforts
from tunecast.training.losses import get_loss
from tunecast.training.measurement import Measurement, Scored
from tunecast.training.plan import plan_trial
from tunecast.training.training_task import TrainingTask, TrialSpec

MIN_STEPS = 4
SMALLEST_BATCH = 4
CALIBRATION_SECONDS = 3.0
CALIBRATION_SHARE = 0.05
"""Measuring the speed takes at most this part of a budget in seconds."""
MARGIN = 1.5
"""A budget that is named as sufficient is this much larger, in case the machine is busier next time."""


@dataclass(frozen=True)
class FullLength:
    """The horizon of every trial of a session, and seconds per training token where effort is 1."""

    tokens: int
    seconds_per_token: float


@dataclass(frozen=True)
class BaseMeasurement:
    """What a session knows of its task before the first trial.

    Args:
        scored: The base model's score on the validation examples that the session uses.
        scored_tokens: Tokens of those examples.
        full_length_tokens: Horizon of every trial.
        pipeline: The pipeline whose speed was measured, in the batches of that measurement.
        seconds_per_token: Its seconds per training token, without what its optimiser takes beyond AdamW.
    """

    scored: Scored
    scored_tokens: int
    full_length_tokens: int
    pipeline: Pipeline
    seconds_per_token: float


def measure_full_length(
    settings: SessionSettings,
    training_task: TrainingTask,
    spec: TrialSpec,
    budget_tracker: BudgetTracker,
    ask: Ask,
    progress: Progress,
) -> FullLength:
    """Measure the training speed, and derive the full length of every trial.

    Returns:
        The smaller of ``settings.epochs`` over the training tokens and the trial's share of the budget. If
        nothing is searched, the last batch too ends within a budget of tokens.

    Raises:
        BudgetError: The budget is too small for a few steps.
    """
    lengths = [example.tokens for example in training_task.training_examples(spec)]
    wanted = max(1, int(settings.epochs * sum(lengths)))
    strategy = get_strategy(settings.strategy)
    share = strategy.share_of_budget(budget_tracker.budget.kind) * budget_tracker.search_share
    mean = sum(lengths) / len(lengths)
    least = min(math.ceil(MIN_STEPS * SMALLEST_BATCH * mean), wanted)
    if not strategy.trials and share * budget_tracker.affordable_tokens(math.inf) < least:
        raise _too_few_tokens(budget_tracker.budget, least / share, mean)
    progress.start("Measuring the training speed")
    seconds = min(CALIBRATION_SECONDS, CALIBRATION_SHARE * (budget_tracker.budget.seconds or 0.0))
    pipeline = timed_pipeline(spec.pipeline, training_task.device)
    timed, efforts = replace(spec, pipeline=pipeline, full_length_tokens=wanted), Efforts(training_task)
    plain = float(ask(Calibrate(timed, seconds))) * efforts.of(pipeline)
    speed = plain / efforts.of(spec.pipeline)
    full_length = int(min(wanted, share * budget_tracker.affordable_tokens(speed)))
    if strategy.has_baseline:
        progress.finish(_speed_text(speed, full_length, sum(lengths), share, budget_tracker))
    else:
        progress.finish(f"{speed:,.0f} tokens/s; {full_length / sum(lengths):.2g} epochs")
    if strategy.trials and budget_tracker.budget.kind == "tokens":
        ends = plan_trial(lengths, spec.pipeline, seed=spec.seed, full_length_tokens=wanted).tokens
        return FullLength(
            _ending_within(budget_tracker.budget, strategy.trials, ends, full_length), 1 / plain
        )
    if full_length < least:
        raise _too_small(budget_tracker, least / share, speed, mean)
    return FullLength(full_length, 1 / plain)


def zero_shot_measurement(base: Trials, training_task: TrainingTask, scored: Scored) -> Measurement:
    """Return the base model's score on validation as the only point of the zero-shot trial in ``base``."""
    loss, share = get_loss(training_task.loss), training_task.subset_share
    subset = loss.score(training_task.subset, scored.measured[training_task.subset_places])
    whole = loss.score(training_task.validation, scored.measured)
    point = zero_point(subset, scored.evaluation.times(share), base[0].spec.workers)
    beyond = (1 - share) * scored.evaluation.wall
    return Measurement(
        base[0].spec.run, point, Outcome.COMPLETED, validation=whole, validation_seconds=beyond
    )


def _speed_text(
    speed: float, full_length: int, epoch: int, share: float, budget_tracker: BudgetTracker
) -> str:
    """Say how fast training is, how much each trial trains, and which budget is enough for an epoch."""
    text = f"{speed:,.0f} tokens/s; {full_length / epoch:.2g} epochs per trial"
    if full_length >= epoch or budget_tracker.budget.kind == "trials":
        return text
    if budget_tracker.budget.kind == "tokens":
        return f"{text} (1 with --budget {math.ceil(epoch / share)}-tokens)"
    minutes = math.ceil((budget_tracker.elapsed() + epoch / share / speed) / 60)
    return f"{text} (1 with --budget {minutes}m)"


def timed_pipeline(pipeline: Pipeline, device: str) -> Pipeline:
    """Return a pipeline in the batches that measure its speed.

    A CPU is timed in small batches: apart from the optimiser's effort the speed is the same, and a step takes
    a fraction of the seconds. Small batches would keep an accelerator waiting, and its steps are short.
    """
    if device != "cpu":
        return pipeline
    small = {"per_device_train_batch_size": SMALLEST_BATCH}
    return Pipeline(pipeline.method, {**pipeline.hyperparameters, **small})


def _ending_within(budget: Budget, trials: int, ends: np.ndarray, full_length: int) -> int:
    """Return the full length that lets trials end within a budget of tokens, their last batches included.

    ``ends`` holds the tokens that a trial has seen after each of its steps, shape (steps,); ``full_length``
    is returned unless its last batch exceeds the budget.
    """
    steps = min(MIN_STEPS, len(ends))
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
    """Name the budget in seconds that would leave each trial this many tokens."""
    seconds = math.ceil(MARGIN * (budget_tracker.elapsed() + tokens / speed))
    measured = f"measured: {speed:,.0f} tokens/s, {mean_tokens:.0f} tokens per example"
    return BudgetError(
        f"{_few_steps_text(budget_tracker.budget)} ({measured}).",
        f"Give at least --budget {seconds}s, or a smaller model.",
    )


def _too_few_tokens(budget: Budget, tokens: float, mean_tokens: float) -> BudgetError:
    return BudgetError(
        f"{_few_steps_text(budget)} ({mean_tokens:.0f} tokens per example).",
        f"Give at least --budget {math.ceil(tokens)}-tokens.",
    )


def _few_steps_text(budget: Budget) -> str:
    return (
        f"--budget {budget.text} leaves each trial fewer than {MIN_STEPS} optimiser steps of "
        f"{SMALLEST_BATCH} examples"
    )
