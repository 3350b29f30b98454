"""The predictions on a session's screen: before anything runs, and again after the base model is measured."""

from __future__ import annotations

from tunecast.budget import Budget
from tunecast.errors import UserError
from tunecast.progress import Progress
from tunecast.recommender.explanations import worth_text
from tunecast.recommender.recommendation import Recommendation
from tunecast.report.numbers import duration
from tunecast.report.wording import final_training_text, majority_text, prospect_line, wall_time_text
from tunecast.session.calibrate_length import BaseMeasurement
from tunecast.session.constant_answers import majority_loss
from tunecast.session.prepare import PreparedTask
from tunecast.session.settings import SessionSettings
from tunecast.session.wall_time import (
    Speed,
    final_training_seconds,
    least_budget_seconds,
    measured_speed,
    predicted_speed,
    seconds_to_score_test,
)
from tunecast.training.label_metrics import is_label_metric


def kind_text(prepared: PreparedTask) -> str:
    """Say what kind of task was recognised, what decides, and what else would suit it."""
    kind, decides = prepared.kind, prepared.task.metric
    text = f"Kind of task: {kind.text}; the winner is chosen by {decides}"
    if decides == kind.metric or (kind.labels and is_label_metric(decides)):
        return f"{text}, measured {kind.measured}."
    if prepared.training_task.labels:
        return f"{text}. {kind.metric} is reported too, measured {kind.measured}."
    return f"{text}. --objective {kind.metric} would measure {kind.metric} {kind.measured}."


def show_predictions(
    prepared: PreparedTask, predicted: Recommendation | UserError, progress: Progress
) -> None:
    """Show the first screen: predictions before anything runs."""
    if isinstance(predicted, UserError):
        progress.log(f"Nothing is predicted: {predicted.what}")
        return
    zero_shot = predicted.zero_shot_loss
    ends = f"{zero_shot.low:.2f} to {zero_shot.high:.2f}"
    progress.log(f"Predicted before anything runs (base model: loss {zero_shot.value:.2f}, {ends}):")
    _show_prospects(predicted, prepared, progress)
    if predicted.basis:
        progress.log(predicted.basis)
    for warning in predicted.warnings:
        progress.log(f"Note: {warning}")


def show_expected_time(
    settings: SessionSettings,
    prepared: PreparedTask,
    predicted: Recommendation | UserError,
    progress: Progress,
) -> None:
    """Say before a session begins how long it will take, and whether its budget seems too small."""
    if isinstance(predicted, UserError):
        return
    speed = predicted_speed(prepared, predicted)
    _show_times("Expected time", settings, prepared, speed, progress)
    budget = Budget.parse(settings.budget).seconds
    least = least_budget_seconds(prepared.training_task, settings, speed)
    if budget is not None and budget < least:
        progress.log(f"Note: {small_budget_text(settings.budget, least)}")


def show_measured(
    settings: SessionSettings,
    prepared: PreparedTask,
    predicted: Recommendation | UserError,
    measured: BaseMeasurement,
    progress: Progress,
) -> None:
    """Show what follows from the measured base model and speed, and whether training is worth it."""
    if not isinstance(predicted, UserError):
        loss = predicted.zero_shot_loss.value
        tokens = f"{measured.full_length_tokens:,} tokens for each trial"
        progress.log(f"Predicted from the base model's measured loss, {loss:.2f}, and {tokens}:")
        _show_prospects(predicted, prepared, progress)
        progress.log(worth_text(predicted))
    speed = measured_speed(prepared, measured)
    _show_times("Expected time by the measured speed", settings, prepared, speed, progress)


def small_budget_text(budget: str, seconds: float) -> str:
    """Warn of a budget that is expected to be too small."""
    return f"--budget {budget} is probably too small: trials of a few steps should need {duration(seconds)}."


def _show_prospects(predicted: Recommendation, prepared: PreparedTask, progress: Progress) -> None:
    for prospect in predicted.recommendations:
        progress.log(f"  {prospect_line(prospect)}")
    majority = majority_loss(prepared)
    if majority is not None:
        losses = [prospect.predicted_loss for prospect in predicted.recommendations]
        progress.log(majority_text(majority, losses))


def _show_times(
    title: str, settings: SessionSettings, prepared: PreparedTask, speed: Speed, progress: Progress
) -> None:
    training_task = prepared.training_task
    seconds = seconds_to_score_test(prepared, settings, speed)
    progress.log(wall_time_text(title, settings.budget, seconds, len(training_task.test)))
    if (epochs := settings.final_choice.epochs) is not None:
        progress.log(final_training_text(epochs, final_training_seconds(training_task, epochs, speed)))
