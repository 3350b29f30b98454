"""Advice on the task of a session, from what the session has prepared already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tunecast.data.token_lengths import TokenLengths
from tunecast.errors import UserError
from tunecast.hardware.local_machine import Target, processor_target, target_of
from tunecast.recommender.quality_model import QualityModel, TaskView
from tunecast.recommender.question import Question, Situation
from tunecast.recommender.ranking import ordered, predict_ends
from tunecast.recommender.recommend import MEASURABLE, default_prior, recommend_pipelines
from tunecast.recommender.recommendation import Recommendation
from tunecast.records import Pipeline
from tunecast.search import ADVISED, PredictedEnd
from tunecast.session.budget import Budget
from tunecast.session.calibrate_length import share_of_budget
from tunecast.session.candidates import candidate_pipelines
from tunecast.session.prepare import PreparedTask
from tunecast.session.settings import SessionSettings

SHOWN = 3
MOST_ADVISED = 64
"""Candidates that a session keeps in the order of advice; behind them the others come as drawn."""


@dataclass(frozen=True)
class Advised:
    """What a session that follows advice begins with.

    Args:
        pipelines: The candidates that advice puts first, best first.
        predicted: How these, the baseline and all others that are drawn are expected to end, by the ids
            of the pipelines.
    """

    pipelines: tuple[Pipeline, ...] = ()
    predicted: Mapping[str, PredictedEnd] = field(default_factory=dict)


def question_of(settings: SessionSettings) -> Question:
    """What a session's settings ask: one training is at most what it gives a trial."""
    return Question(
        settings.model,
        settings.data,
        budget=_budget_of_one(settings.budget, settings.strategy),
        top=SHOWN,
        methods=tuple(settings.methods),
        fixed=settings.fixed,
        ranges=settings.ranges,
        epochs=settings.epochs,
        max_length=settings.max_length,
        seed=settings.seed,
        trust_remote_code=settings.trust_remote_code,
    )


def recommendation_for(
    settings: SessionSettings, prepared: PreparedTask, worker_bytes: int
) -> tuple[Recommendation | UserError, Advised]:
    """What is recommended for a session's task, or why nothing is: no reason not to begin; and the candidates
    that the session begins with, none where its strategy takes no advice.

    Args:
        settings: The session's settings.
        prepared: The task, encoded.
        worker_bytes: What one worker may hold.
    """
    try:
        prior = default_prior()
        situation = situation_of(settings, prepared, worker_bytes)
        advice = _without_measuring(recommend_pipelines(question_of(settings), situation, prior))
    except UserError as error:
        return error, Advised()
    follows = settings.strategy == ADVISED
    return advice, recommended_candidates(settings, prepared, advice, prior) if follows else Advised()


def _without_measuring(advice: Recommendation) -> Recommendation:
    """Without the hint that the zero-shot loss could be measured: a session does so unasked."""
    return replace(advice, warnings=tuple(text for text in advice.warnings if text != MEASURABLE))


def recommended_candidates(
    settings: SessionSettings, prepared: PreparedTask, advice: Recommendation, prior: QualityModel
) -> Advised:
    """The candidates that a session that follows advice begins with: what is recommended, then what is drawn
    for it, in the order of advice.

    Args:
        settings: The session's settings.
        prepared: The task, encoded.
        advice: What is recommended.
        prior: Predicts how candidates end.
    """
    training_task = prepared.training_task
    recommended = [prospect.pipeline for prospect in advice.recommendations]
    baseline, *drawn = candidate_pipelines(settings, training_task.facts)
    pipelines = [*recommended, baseline, *drawn]
    # A time would be worth more tokens to a fast pipeline; the trials of a session all have the same.
    ends = predict_ends(
        prior,
        _view(settings, prepared, _lengths(prepared)),
        pipelines,
        full_length_tokens=advice.recommendations[0].full_length_tokens,
        mean_tokens=training_task.train_tokens / len(training_task.train),
    )
    first = sorted(range(len(recommended)), key=lambda place: ends[place].log_loss)
    others = ordered(ends[len(pipelines) - len(drawn) :])
    best = [*(recommended[place] for place in first), *(drawn[place] for place in others)]
    told = {pipeline.id: end for pipeline, end in zip(pipelines, ends, strict=True)}
    return Advised(tuple(best[:MOST_ADVISED]), told)


def situation_of(settings: SessionSettings, prepared: PreparedTask, worker_bytes: int) -> Situation:
    """What a session knows of its task, before anything is measured.

    Args:
        settings: The session's settings.
        prepared: The task, encoded.
        worker_bytes: What one worker may hold.
    """
    training_task = prepared.training_task
    lengths = _lengths(prepared)
    view = _view(settings, prepared, lengths)
    lengths = replace(lengths, examples=view.unique_examples)
    return Situation(
        resolved=training_task.model,
        facts=training_task.facts,
        lengths=lengths,
        target=_target(prepared, worker_bytes),
        view=view,
        warnings=(),
        trust_remote_code=settings.trust_remote_code,
    )


def _view(settings: SessionSettings, prepared: PreparedTask, lengths: TokenLengths) -> TaskView:
    return TaskView(
        dataset=prepared.task.dataset,
        meta_features=prepared.dataset.meta_features,
        model=prepared.training_task.facts,
        unique_examples=prepared.unique_examples(settings.unique_examples),
        bytes_per_label_token=lengths.bytes_per_label_token,
    )


def _budget_of_one(budget: str, strategy: str) -> str:
    parsed = Budget.parse(budget)
    amount = share_of_budget(strategy, parsed) * parsed.amount
    if parsed.kind == "trials":
        return ""
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
        bytes_per_label_token=sum(example.completion_bytes for example in train) / sum(labels),
        counted=True,
        cut=sum(example.truncated for example in train) / len(train),
        without_room=0.0,
    )


def _target(prepared: PreparedTask, worker_bytes: int) -> Target:
    if prepared.training_task.device.startswith("cuda"):
        return target_of(None, worker_bytes / 1e9)
    return processor_target(prepared.training_task.threads, worker_bytes)
