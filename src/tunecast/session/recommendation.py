"""The recommendation for a session's task, from what the session has prepared already."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tunecast.budget import Budget
from tunecast.data.token_lengths import TokenLengths
from tunecast.errors import UserError
from tunecast.hardware.local_machine import Target, processor_target, target_of
from tunecast.methods.rates import with_rate_for_steps
from tunecast.predictor import TaskDescription, prior_at
from tunecast.predictor.quality import Trial
from tunecast.recommender.candidates import rates
from tunecast.recommender.question import Question, Situation
from tunecast.recommender.recommend import ANY_RATE, MEASURABLE, MeasuredSpeed, recommend_pipelines
from tunecast.recommender.recommendation import Recommendation, ZeroShotLoss
from tunecast.records import ModelFacts, Pipeline
from tunecast.search import get_strategy
from tunecast.session.calibrate_length import BaseMeasurement
from tunecast.session.prepare import PreparedTask
from tunecast.session.settings import SessionSettings
from tunecast.session.workloads import Efforts

SHOWN = 3
RATE = "learning_rate"


@dataclass(frozen=True)
class Length:
    """How long a pipeline is trained: tokens of its whole schedule, and the examples that it sees."""

    tokens: int
    examples: int


def predicted_change(
    settings: SessionSettings,
    prepared: PreparedTask,
    untouched: float,
    pipeline: Pipeline,
    steps: int,
    short: Length,
    long: Length,
) -> float:
    """Predict by how much ln(loss) differs between a short and a long training of a pipeline.

    The long one is taken to have a rate that suits it as well.

    Args:
        untouched: Validation loss of the base model in nats per label token.
        steps: Optimiser steps of the short training.
    """
    task = replace(_task(settings, prepared, _lengths(prepared)), zero_shot_loss=untouched)
    trials = []
    for length in (short, long):
        own = replace(task, full_length_tokens=length.tokens, unique_examples=length.examples)
        planned = max(1, round(steps * length.tokens / short.tokens))
        trials.append(Trial(own, with_rate_for_steps(pipeline, steps, planned), planned))
    before, after = prior_at(settings.prior).quality.predict(trials).mean
    return float(after - before)


def question_of(settings: SessionSettings) -> Question:
    """Translate a session's settings: one training may take as much as a trial of the session."""
    return Question(
        settings.model,
        settings.data,
        budget=_budget_of_one(settings),
        top=SHOWN,
        methods=tuple(settings.methods),
        fixed=settings.restrictions.fixed,
        ranges=settings.ranges,
        epochs=settings.epochs,
        max_length=settings.max_length,
        seed=settings.seed,
        trust_remote_code=settings.trust_remote_code,
        gpus_per_trial=settings.gpus_per_trial,
    )


def recommended(
    settings: SessionSettings,
    prepared: PreparedTask,
    worker_bytes: int,
    measured: BaseMeasurement | None = None,
) -> Recommendation | UserError:
    """Recommend pipelines for a session's task; the error is returned if that is impossible.

    ``measured`` gives the base model's loss, the length of every trial and the speed; None predicts them.
    """
    try:
        situation, question = situation_of(settings, prepared, worker_bytes), question_of(settings)
        prior = prior_at(settings.prior)
        if measured is None:
            return _without_measuring(recommend_pipelines(question, situation, prior))
        efforts = Efforts(prepared.training_task)
        pace = MeasuredSpeed(measured.pipeline, measured.seconds_per_token * efforts.of(measured.pipeline))
        question = replace(question, budget=f"{measured.full_length_tokens}-tokens")
        zero_shot = ZeroShotLoss.measured(measured.scored.score)
        return recommend_pipelines(question, situation, prior, zero_shot, pace)
    except UserError as error:
        return error


def recommended_candidates(
    settings: SessionSettings, model: ModelFacts, recommendation: Recommendation | UserError
) -> list[Pipeline]:
    """Return the pipelines that a recommendation chose from, for strategies that predict; else none.

    Each comes at its best predicted learning rate, lowest predicted loss first; then all come at other rates.
    """
    if isinstance(recommendation, UserError) or not get_strategy(settings.strategy).predicts:
        return []
    best = sorted(recommendation.considered, key=lambda prospect: prospect.predicted_loss)
    candidates = [prospect.pipeline for prospect in best]
    if RATE not in settings.fixed:
        law, bounds = prior_at(settings.prior).quality.law, settings.ranges.get(RATE, ANY_RATE)
        candidates += [
            Pipeline(one.pipeline.method, {**one.pipeline.hyperparameters, RATE: rate})
            for one in best
            for rate in rates(law, model, one.pipeline, one.total_steps, bounds)
        ]
    return list({pipeline.id: pipeline for pipeline in candidates}.values())


def situation_of(settings: SessionSettings, prepared: PreparedTask, worker_bytes: int) -> Situation:
    """Describe a session's knowledge of its task before anything is measured."""
    training_task = prepared.training_task
    lengths = _lengths(prepared)
    task = _task(settings, prepared, lengths)
    lengths = replace(lengths, examples=task.unique_examples)
    return Situation(
        resolved=training_task.model,
        lengths=lengths,
        target=_target(prepared, worker_bytes),
        task=task,
        warnings=(),
        trust_remote_code=settings.trust_remote_code,
        devices=settings.gpus_per_trial,
    )


def _without_measuring(recommendation: Recommendation) -> Recommendation:
    """Drop the hint that the zero-shot loss could be measured: a session always measures it."""
    warnings = tuple(text for text in recommendation.warnings if text != MEASURABLE)
    return replace(recommendation, warnings=warnings)


def _task(settings: SessionSettings, prepared: PreparedTask, lengths: TokenLengths) -> TaskDescription:
    unique_examples = prepared.unique_examples(settings.unique_examples)
    return TaskDescription(
        dataset=prepared.dataset,
        model=prepared.training_task.facts,
        full_length_tokens=round(settings.epochs * lengths.mean * unique_examples),
        unique_examples=unique_examples,
        bytes_per_label_token=lengths.bytes_per_label_token,
    )


def _budget_of_one(settings: SessionSettings) -> str:
    parsed = Budget.parse(settings.budget)
    if parsed.kind == "trials":
        return ""
    share = get_strategy(settings.strategy).share_of_budget(parsed.kind)
    amount = settings.final_choice.searched_share * share * parsed.amount
    return f"{amount:.3f}s" if parsed.kind == "seconds" else f"{max(1, int(amount))}-tokens"


def _lengths(prepared: PreparedTask) -> TokenLengths:
    train = prepared.training_task.train
    tokens = [example.tokens for example in train]
    labels = sorted(example.label_tokens for example in train)
    return TokenLengths(
        examples=len(train),
        mean=sum(tokens) / len(tokens),
        label_mean=sum(labels) / len(labels),
        label_longest=labels[int(0.99 * (len(labels) - 1))],
        longest=max(tokens),
        max_length=prepared.training_task.max_length,
        bytes_per_label_token=prepared.training_task.bytes_per_label_token,
        counted=True,
        cut=sum(example.truncated for example in train) / len(train),
        without_room=0.0,
    )


def _target(prepared: PreparedTask, worker_bytes: int) -> Target:
    if prepared.training_task.device.startswith("cuda"):
        return target_of(None, worker_bytes / 1e9)
    return processor_target(prepared.training_task.threads, worker_bytes)
