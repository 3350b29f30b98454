"""Advice on the task of a session, from what the session has prepared already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tunecast.advice.advise import MEASURABLE, advise, default_prior
from tunecast.advice.answer import Recommendation
from tunecast.advice.order import foretold_ends, ordered
from tunecast.advice.situation import Question, Situation
from tunecast.advice.view import QualityModel, TaskView
from tunecast.data.token_lengths import TokenLengths
from tunecast.errors import UserError
from tunecast.models.here import Target, processor_target, target_of
from tunecast.records import Pipeline
from tunecast.search import ADVISED, Foretold
from tunecast.session.budget import Budget
from tunecast.session.candidates import candidate_pipelines
from tunecast.session.opening import share_of_budget
from tunecast.session.prepare import PreparedTask
from tunecast.session.settings import SessionSettings

__all__ = ["Advised", "advice_for", "advised_candidates", "question_of", "situation_of"]

SHOWN = 3
MOST_ADVISED = 64
"""Candidates that a session keeps in the order of advice; behind them the others come as drawn."""


@dataclass(frozen=True)
class Advised:
    """What a session that follows advice begins with.

    Args:
        pipelines: The candidates that advice puts first, best first.
        foretold: How these, the expert pipeline and all others that are drawn are expected to end, by the ids
            of the pipelines.
    """

    pipelines: tuple[Pipeline, ...] = ()
    foretold: Mapping[str, Foretold] = field(default_factory=dict)


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


def advice_for(
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
        advice = _without_measuring(advise(question_of(settings), situation, prior))
    except UserError as error:
        return error, Advised()
    follows = settings.strategy == ADVISED
    return advice, advised_candidates(settings, prepared, advice, prior) if follows else Advised()


def _without_measuring(advice: Recommendation) -> Recommendation:
    """Without the hint that the zero-shot loss could be measured: a session does so unasked."""
    return replace(advice, warnings=tuple(text for text in advice.warnings if text != MEASURABLE))


def advised_candidates(
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
    bench = prepared.bench
    recommended = [prospect.pipeline for prospect in advice.recommendations]
    expert, *drawn = candidate_pipelines(settings, bench.facts)
    pipelines = [*recommended, expert, *drawn]
    # A time would be worth more tokens to a fast pipeline; the trials of a session all have the same.
    ends = foretold_ends(
        prior,
        _view(settings, prepared, _lengths(prepared)),
        pipelines,
        full_length_tokens=advice.recommendations[0].full_length_tokens,
        mean_tokens=bench.train_tokens / len(bench.train),
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
    bench = prepared.bench
    lengths = _lengths(prepared)
    view = _view(settings, prepared, lengths)
    lengths = replace(lengths, examples=view.unique_examples)
    return Situation(
        resolved=bench.model,
        facts=bench.facts,
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
        model=prepared.bench.facts,
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
    train = prepared.bench.train
    tokens = [example.tokens for example in train]
    labels = sorted(example.label_tokens for example in train)
    return TokenLengths(
        examples=len(train),
        mean=sum(tokens) / len(tokens),
        label_mean=sum(labels) / len(labels),
        label_longest=labels[int(0.99 * (len(labels) - 1))],
        longest=max(tokens),
        max_length=prepared.bench.max_length,
        bytes_per_label_token=sum(example.completion_bytes for example in train) / sum(labels),
        counted=True,
        cut=sum(example.truncated for example in train) / len(train),
        without_room=0.0,
    )


def _target(prepared: PreparedTask, worker_bytes: int) -> Target:
    if prepared.bench.device.startswith("cuda"):
        return target_of(None, worker_bytes / 1e9)
    return processor_target(prepared.bench.threads, worker_bytes)
