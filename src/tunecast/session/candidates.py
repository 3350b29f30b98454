"""The pipelines that a session may try, in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunecast.errors import ConfigurationError
from tunecast.methods import pipeline_space, sample_pipelines
from tunecast.methods.space import RATE_3E4, at_3e4, baseline_pipeline
from tunecast.records import ModelFacts, Pipeline
from tunecast.search import ONLY_TRIALS, SURROGATE_BASED, Context
from tunecast.session.effort import Efforts
from tunecast.session.settings import SessionSettings

if TYPE_CHECKING:
    from tunecast.training.training_task import TrainingTask

CANDIDATES = 256
DRAWN_FOR_RANKING = 1000
"""Candidates that are drawn where a strategy knows which of them to keep."""
LEAST_STEPS = 16
"""Optimiser steps of a full length below which the fidelity grid has hardly a point before the end."""
LEAST_CANDIDATES = 16
MOST_EFFORT = 4.0
"""Steps that take longer than this many of AdamW's would reach no full length within a budget of four."""


def check_restrictions(settings: SessionSettings, model: ModelFacts) -> None:
    """Refuse what :func:`candidate_pipelines` would refuse, without drawing any.

    Args:
        settings: Restrictions and seed.
        model: Facts of the base model.

    Raises:
        ConfigurationError: What the user fixed or narrowed is not possible.
    """
    baseline_pipeline(model, settings.restrictions)
    pipeline_space(model, settings.restrictions, seed=settings.seed)


def candidate_pipelines(
    settings: SessionSettings, model: ModelFacts, advised: Sequence[Pipeline] = ()
) -> list[Pipeline]:
    """The baseline, the same at 3e-4 where the strategy is that, what is advised, and a seeded sample
    of the space, a larger one where the strategy knows which to keep.

    Args:
        settings: Restrictions, seed and strategy.
        model: Facts of the base model.
        advised: What advice puts first, best first.

    Raises:
        ConfigurationError: What the user fixed or narrowed is not possible.
    """
    baseline = baseline_pipeline(model, settings.restrictions)
    first = [baseline]
    if settings.strategy == "fixed-3e-4":
        first.append(_at_3e4(settings, baseline))
    first += [p for p in advised if p not in first and _is_within(settings, p)]
    space = pipeline_space(model, settings.restrictions, seed=settings.seed)
    count = DRAWN_FOR_RANKING if settings.strategy in SURROGATE_BASED else CANDIDATES
    return first + [pipeline for pipeline in sample_pipelines(space, count) if pipeline not in first]


def suitable(
    pipelines: Sequence[Pipeline], strategy: str, training_task: TrainingTask, context: Context
) -> list[Pipeline]:
    """What a strategy is pinned to, and the candidates that suit the full length, the base model and the
    device, and that it ranks highest where it knows other tasks.

    Args:
        pipelines: Candidates in order; the first is the baseline.
        strategy: Name of the strategy.
        training_task: The task.
        context: What the strategy is told of it.

    Raises:
        ConfigurationError: The strategy needs a prior, and the context has none.
    """
    pinned = ONLY_TRIALS.get(strategy, 1)
    examples = (*training_task.train, *training_task.validation, *training_task.test)
    longest = max(example.tokens for example in examples)
    suiting = within_context(pipelines[pinned:], context=training_task.facts.context, longest=longest)
    suiting = long_enough(
        within_effort(suiting, training_task),
        full_length_tokens=context.full_length_tokens,
        mean_tokens=training_task.train_tokens / len(training_task.train),
    )
    return [*pipelines[:pinned], *worthwhile(strategy, context, suiting)]


def worthwhile(strategy: str, context: Context, pipelines: Sequence[Pipeline]) -> list[Pipeline]:
    """The candidates that a session keeps: all, or those that the prior ranks highest and a few others.

    Args:
        strategy: Name of the strategy.
        context: The task.
        pipelines: What may be tried beside the baseline.

    Raises:
        ConfigurationError: The strategy needs a prior, and the context has none.
    """
    if strategy not in SURROGATE_BASED:
        return list(pipelines)
    from tunecast.search.ranking import ranked

    return ranked(context, pipelines, CANDIDATES)


def long_enough(
    pipelines: Sequence[Pipeline], *, full_length_tokens: int, mean_tokens: float
) -> list[Pipeline]:
    """The pipelines whose batches are small enough for a full length: with a few steps there is no curve to
    judge.

    Args:
        pipelines: Candidates; where hardly any would be left, all are.
        full_length_tokens: Horizon of every trial.
        mean_tokens: Mean tokens of a training example.
    """
    examples = full_length_tokens / mean_tokens
    kept = [p for p in pipelines if examples >= LEAST_STEPS * p.number("per_device_train_batch_size")]
    return kept if len(kept) >= LEAST_CANDIDATES else list(pipelines)


def within_effort(pipelines: Sequence[Pipeline], training_task: TrainingTask) -> list[Pipeline]:
    """The pipelines whose optimiser does not take most of their time.

    Args:
        pipelines: Candidates; where hardly any would be left, all are.
        training_task: The task.
    """
    efforts = Efforts(training_task)
    kept = [pipeline for pipeline in pipelines if efforts.of(pipeline) <= MOST_EFFORT]
    return kept if len(kept) >= LEAST_CANDIDATES else list(pipelines)


def within_context(pipelines: Sequence[Pipeline], *, context: int | None, longest: int) -> list[Pipeline]:
    """The pipelines whose virtual tokens find room in the base model's context beside the longest example.

    Args:
        pipelines: Candidates.
        context: Positions of the base model, None where it has no fixed limit.
        longest: Tokens of the longest example.
    """
    if context is None:
        return list(pipelines)
    return [p for p in pipelines if longest + p.number("num_virtual_tokens") <= context]


def _is_within(settings: SessionSettings, pipeline: Pipeline) -> bool:
    """Whether a pipeline keeps to the ranges that the user narrowed."""
    values = pipeline.hyperparameters
    return all(
        low <= pipeline.number(name) <= high
        for name, (low, high) in settings.ranges.items()
        if name in values
    )


def _at_3e4(settings: SessionSettings, baseline: Pipeline) -> Pipeline:
    fixed = settings.fixed.get("learning_rate", RATE_3E4)
    low, high = settings.ranges.get("learning_rate", (RATE_3E4, RATE_3E4))
    if fixed != RATE_3E4 or not low <= RATE_3E4 <= high:
        raise ConfigurationError(
            "--strategy fixed-3e-4 contradicts what --fix or --range say of learning_rate.",
            "Use --strategy fixed-baseline for the baseline within them.",
        )
    pipeline = at_3e4(baseline)
    if pipeline == baseline:
        raise ConfigurationError(
            "--strategy fixed-3e-4: the baseline has that learning rate here already.",
            "Use --strategy fixed-baseline.",
        )
    return pipeline
