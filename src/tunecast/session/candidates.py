"""The candidates of a session, in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunecast.methods import Restrictions, get_method, space
from tunecast.methods.space import baseline_pipeline, drawn_pipelines
from tunecast.records import ModelFacts, Pipeline
from tunecast.search import Context, Strategy, get_strategy
from tunecast.session.settings import SessionSettings
from tunecast.session.workloads import Efforts

if TYPE_CHECKING:
    from tunecast.training.training_task import TrainingTask

MIN_STEPS = 16
"""With fewer optimiser steps, the fidelity grid has hardly a point before the end of a trial."""
MIN_CANDIDATES = 16
MAX_EFFORT = 4.0
"""A step longer than this many of AdamW's would not reach a full length within a budget of four."""


def check_restrictions(settings: SessionSettings, model: ModelFacts) -> None:
    """Refuse the restrictions that :func:`candidate_pipelines` would refuse, without drawing candidates.

    Raises:
        ConfigurationError: The user's restrictions are impossible.
    """
    baseline_pipeline(model, settings.restrictions)
    space.check_restrictions(model, settings.restrictions)


def unshardable_text(settings: SessionSettings, model: ModelFacts) -> str:
    """Say which methods are left out because trials are spread over devices; empty if none is."""
    names = space.unshardable_methods(model, settings.restrictions)
    if not names:
        return ""
    reasons = {name: get_method(name).why_not_shardable() for name in names}
    listed = ", ".join(f"{name} ({reason})" for name, reason in reasons.items())
    return f"Left out with --gpus-per-trial {settings.gpus_per_trial}: {listed}."


def candidate_pipelines(
    settings: SessionSettings, model: ModelFacts, recommended: Sequence[Pipeline] = ()
) -> list[Pipeline]:
    """Return the baseline, the strategy's pinned pipelines, the recommended ones, and a seeded sample.

    Raises:
        ConfigurationError: The user's restrictions are impossible.
    """
    strategy = get_strategy(settings.strategy)
    baseline = baseline_pipeline(model, settings.restrictions)
    first = [baseline, *strategy.pinned(baseline, settings.restrictions)]
    first += [p for p in recommended if p not in first and _is_within(settings, p)]
    drawn = drawn_pipelines(model, settings.restrictions, strategy.draws, seed=settings.seed)
    return first + [pipeline for pipeline in drawn if pipeline not in first]


def suitable(
    pipelines: Sequence[Pipeline],
    strategy: Strategy,
    training_task: TrainingTask,
    context: Context,
    restrictions: Restrictions,
) -> list[Pipeline]:
    """Keep the candidates that suit the full length, base model and device, and that the strategy selects.

    The first candidate is the baseline; pipelines that the strategy pins are kept in any case.

    Raises:
        ConfigurationError: The strategy needs a prior, and the context has none.
    """
    pinned = strategy.pinned(pipelines[0], restrictions)
    others = [pipeline for pipeline in pipelines[1:] if pipeline not in pinned]
    examples = (*training_task.train, *training_task.validation, *training_task.test)
    longest = max(example.tokens for example in examples)
    others = unless_last_resort(others, strategy, restrictions)
    suiting = within_context(others, context=training_task.facts.context, longest=longest)
    suiting = long_enough(
        within_effort(suiting, training_task),
        full_length_tokens=context.full_length_tokens,
        mean_tokens=training_task.train_tokens / len(training_task.train),
    )
    kept = [pipeline for pipeline in pipelines[1:] if pipeline in pinned]
    return [pipelines[0], *kept, *strategy.select(context, suiting)]


def unless_last_resort(
    pipelines: Sequence[Pipeline], strategy: Strategy, restrictions: Restrictions
) -> list[Pipeline]:
    """Leave out methods of last resort, such as MeZO, if any other method fits in memory.

    They stay where the user names them, and where the strategy predicts, which then decides itself.
    """
    if strategy.predicts:
        return list(pipelines)
    usual = [
        pipeline
        for pipeline in pipelines
        if pipeline.method in restrictions.methods or not get_method(pipeline.method).is_last_resort
    ]
    return usual or list(pipelines)


def long_enough(
    pipelines: Sequence[Pipeline], *, full_length_tokens: int, mean_tokens: float
) -> list[Pipeline]:
    """Keep the pipelines whose batches are small enough for a curve of several points within a full length.

    All are kept if hardly any would be left. ``mean_tokens`` are those of a training example.
    """
    examples = full_length_tokens / mean_tokens
    kept = [p for p in pipelines if examples >= MIN_STEPS * p.number("per_device_train_batch_size")]
    return kept if len(kept) >= MIN_CANDIDATES else list(pipelines)


def within_effort(pipelines: Sequence[Pipeline], training_task: TrainingTask) -> list[Pipeline]:
    """Keep the pipelines whose optimiser does not take most of their time; all if hardly any is left."""
    efforts = Efforts(training_task)
    kept = [pipeline for pipeline in pipelines if efforts.of(pipeline) <= MAX_EFFORT]
    return kept if len(kept) >= MIN_CANDIDATES else list(pipelines)


def within_context(pipelines: Sequence[Pipeline], *, context: int | None, longest: int) -> list[Pipeline]:
    """Keep the pipelines whose virtual tokens and the longest example fit the base model's context together.

    A ``context`` of None has no fixed limit.
    """
    if context is None:
        return list(pipelines)
    return [p for p in pipelines if longest + p.number("num_virtual_tokens") <= context]


def _is_within(settings: SessionSettings, pipeline: Pipeline) -> bool:
    """Whether a pipeline lies within the ranges that the user narrowed."""
    values = pipeline.hyperparameters
    return all(
        low <= pipeline.number(name) <= high
        for name, (low, high) in settings.ranges.items()
        if name in values
    )
