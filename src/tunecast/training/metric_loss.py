"""Metrics as objectives of steps that need no gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunecast.training.evaluate import Evaluator
from tunecast.training.generate import generate
from tunecast.training.label_points import measure_labels
from tunecast.training.losses.completion import CompletionLoss
from tunecast.training.losses.labels import last_answer
from tunecast.training.metrics import get_metric

if TYPE_CHECKING:
    from tunecast.data import EncodedExample, EncodedLabel
    from tunecast.training.compute import Compute


class LabelMetricLoss(CompletionLoss):
    """Minus a metric of the likeliest labels of a batch (Malladi et al., arXiv 2305.17333, section 3.3).

    Points, and the training loss that they report, measure the nats of completions, as under every loss. On
    a small batch most directions leave the metric as it is, and such a step moves nothing.

    Args:
        labels: The labels; a training example must have one of them.
        metric: Name of the metric.
    """

    def __init__(self, labels: Sequence[EncodedLabel], metric: str) -> None:
        self._labels = labels
        self._metric = get_metric(metric)

    def compared(
        self, model: Any, examples: Sequence[EncodedExample], compute: Compute
    ) -> tuple[float, float]:
        """Choose the label of each example by likelihood."""
        found = measure_labels(model, examples, self._labels, compute)
        return -self._metric.score(found.chosen, found.true), float(found.nats.sum())


class AnswerMetricLoss(CompletionLoss):
    """Minus a metric of the answers that the model writes to a batch's prompts (section 3.3 as well).

    An answer is written greedily to the last trained turn, and compared with that turn. A prompt that leaves
    no room for the longest answer loses its beginning. The metric is taken as a share of its maximum, so that
    the same rates suit all metrics. Points, and the training loss that they report, measure the nats of
    completions.

    Args:
        metric: Name of the metric; a higher one is better.
        tokenizer: The model's transformers tokenizer.
        longest: Tokens of the longest answer.
        context: Positions of the model; None if it has no fixed limit.
    """

    def __init__(self, metric: str, tokenizer: Any, *, longest: int, context: int | None) -> None:
        self._metric = get_metric(metric)
        self._tokenizer = tokenizer
        self._longest, self._context = longest, context
        self._evaluator: Evaluator | None = None

    def compared(
        self, model: Any, examples: Sequence[EncodedExample], compute: Compute
    ) -> tuple[float, float]:
        """Write an answer to each example's prompt."""
        asked = [last_answer(example) for example in examples]
        context = self._context if compute.architecture == "decoder-only" else None
        room = context - self._longest if context else None
        # A prompt may be empty where the tokenizer has no token for the beginning of a text.
        prompts = [end_of(prompt, room) or (compute.pad_token_id,) for prompt, _ in asked]
        texts = generate(model, self._tokenizer, prompts, compute, max_new_tokens=self._longest)
        answers = [answer for _, answer in asked]
        expected = self._tokenizer.batch_decode(answers, skip_special_tokens=True)
        score = self._metric.score(texts, [text.strip() for text in expected]) / self._metric.maximum
        self._evaluator = self._evaluator or Evaluator(compute, self)
        return -score, float(self._evaluator.measure(model, examples).sum())


def end_of(prompt: tuple[int, ...], room: int | None) -> tuple[int, ...]:
    """Return the last tokens of a prompt, at least one of them."""
    return prompt if room is None else prompt[-max(1, room) :]
