"""Measures the zero-shot loss within a time limit, in place of a prediction."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from tunecast.budget import duration
from tunecast.data import LOSS
from tunecast.errors import ConfigurationError
from tunecast.progress import Progress
from tunecast.recommender.question import Question, Situation
from tunecast.recommender.recommendation import ZeroShotLoss
from tunecast.records import DatasetFacts
from tunecast.session.settings import SessionSettings

FIRST = 8
"""Examples of the first batch; its seconds tell how many more fit the time."""
WEIGHTS = ("*.safetensors", "*.bin")
Item = TypeVar("Item")


def measure_zero_shot(
    question: Question, situation: Situation, limit: str, progress: Progress
) -> ZeroShotLoss:
    """Score the base model on as many validation examples as the time allows.

    Args:
        limit: Time limit without loading, such as ``30s``.

    Raises:
        ConfigurationError: The model's folder has no weights, the dataset is not at hand, or the limit is not
            a duration.
        ModelError: The weights cannot be loaded.
    """
    from tunecast.session.prepare import prepare_task
    from tunecast.training.runner import Runner

    seconds = duration("--measure", limit)
    if isinstance(question.data, DatasetFacts):
        raise ConfigurationError(
            f"The zero-shot loss on {question.data.name} cannot be measured from its facts.",
            "Give the dataset itself, or leave the measurement out.",
        )
    folder = Path(situation.resolved.location)
    if situation.resolved.is_local and not any(any(folder.glob(kind)) for kind in WEIGHTS):
        raise ConfigurationError(
            f"--measure: the folder of {situation.task.model.name} holds no weights.",
            "Leave out --measure: the zero-shot loss is then predicted.",
        )
    settings = SessionSettings(
        question.model,
        question.data,
        objective=LOSS,
        max_length=question.max_length,
        seed=question.seed,
        prompt_column=question.prompt_column,
        completion_column=question.completion_column,
        pattern=question.pattern,
        verbaliser=question.verbaliser,
        trust_remote_code=question.trust_remote_code,
    )
    training_task = prepare_task(settings, progress).training_task
    progress.start("Measuring the zero-shot loss")
    runner = Runner(replace(training_task, subset=_spread(training_task.validation, FIRST)))
    start = time.perf_counter()
    scored = runner.score(None, 0, "subset", interval_seed=question.seed)
    taken = time.perf_counter() - start
    count = min(len(training_task.validation), int(FIRST * (seconds - taken) / max(taken, 1e-9)))
    if count > FIRST:
        runner.training_task = replace(training_task, subset=_spread(training_task.validation, count))
        scored = runner.score(None, 0, "subset", interval_seed=question.seed)
    score = scored.score
    progress.finish(f"{score.loss:.3f} on {score.examples} examples")
    return ZeroShotLoss.measured(score)


def _spread(items: Sequence[Item], count: int) -> tuple[Item, ...]:
    """Return at most ``count`` items, evenly spaced over all."""
    chosen = min(count, len(items))
    return tuple(items[place * len(items) // chosen] for place in range(chosen))
