"""Rivals that ignore what is asked: a model that does not beat them has learned nothing from the prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunecast.data import answer_of, reference
from tunecast.data.examples import Example
from tunecast.errors import ConfigurationError
from tunecast.records import Score
from tunecast.results import ConstantAnswer, SampleOutput
from tunecast.session.prepare import PreparedTask
from tunecast.training.losses import get_loss
from tunecast.training.metrics import with_metric

MAJORITY = "majority_answer"
EMPTY = "empty_answer"
COPY = "copied_prompt"


@dataclass(frozen=True)
class ConstantRival:
    """A constant answer with what its margins need.

    Args:
        answer: Its name and score.
        nats: Summed nats of each test example, shape (examples,); None if it has no loss.
        texts: Its answers to the test prompts that models generate for; empty without a metric.
    """

    answer: ConstantAnswer
    nats: np.ndarray | None
    texts: tuple[str, ...]

    def outputs(self, others: Sequence[SampleOutput]) -> list[SampleOutput]:
        """Return its label for the prompts of a classifier's outputs."""
        return [replace(output, after=self.answer.answer, confidence=None) for output in others]


def constant_rivals(prepared: PreparedTask, metric: str, *, seed: int) -> list[ConstantRival]:
    """Score the constant answers of a task on its test split.

    A closed set of answers has the most frequent one as rival. Open text has an empty answer and a copy of
    the prompt, which only a metric can score.

    Args:
        metric: Name of the metric; empty for none.
        seed: Seed of bootstrap intervals.
    """
    training_task, answers = prepared.training_task, prepared.kind.answers
    examples = training_task.test_examples if metric else ()
    if answers is not None:
        nats = _prior_nats(prepared)
        score = get_loss(training_task.loss).score(training_task.test, nats, interval_seed=seed)
        texts = (answers.majority,) * len(examples)
        rivals = [ConstantRival(ConstantAnswer(MAJORITY, answers.majority, score), nats, texts)]
    else:
        unscored = Score(math.nan, math.nan, math.nan, 0, 0)
        copies = tuple(map(_question, examples))
        rivals = [
            ConstantRival(ConstantAnswer(EMPTY, "", unscored), None, ("",) * len(examples)),
            ConstantRival(ConstantAnswer(COPY, "", unscored), None, copies),
        ]
    if not metric:
        return [rival for rival in rivals if rival.nats is not None]
    measured = (_with_metric(rival, metric, examples, seed) for rival in rivals)
    return [rival for rival in measured if rival is not None]


def majority_loss(prepared: PreparedTask) -> float | None:
    """Return the validation loss of guessing by how frequent each answer is; None if the answers are open.

    In nats per label token, before a session chooses the validation examples that it can afford.
    """
    training_task, answers = prepared.training_task, prepared.kind.answers
    if answers is None:
        return None
    nats = sum(answers.nats(answer_of(one)) for one in training_task.validation_examples)
    return nats / get_loss(training_task.loss).weight(training_task.validation)


def _with_metric(
    rival: ConstantRival, metric: str, examples: Sequence[Example], seed: int
) -> ConstantRival | None:
    """Add a metric to a rival's score.

    None if the user's metric has no value for a constant answer, as a correlation has none.
    """
    references = [reference(example) for example in examples]
    try:
        score = with_metric(rival.answer.test, metric, rival.texts, references, interval_seed=seed)
    except ConfigurationError:
        return None
    return replace(rival, answer=replace(rival.answer, test=score))


def _prior_nats(prepared: PreparedTask) -> np.ndarray:
    """Return the nats of each test example under the shares of training answers."""
    assert prepared.kind.answers is not None
    training_task = prepared.training_task
    return np.array([prepared.kind.answers.nats(answer_of(one)) for one in training_task.test_examples])


def _question(example: Example) -> str:
    """Return the last message before the answer; a running text has none."""
    return example.turns[-2].content if len(example.turns) > 1 else ""
