"""Metrics as objectives of steps that need no gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunecast.data.encode import IGNORED
from tunecast.training.evaluate import Evaluator
from tunecast.training.generate import generate
from tunecast.training.label_points import measure_labels
from tunecast.training.losses.completion import CompletionLoss
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

    An answer is written greedily to the last trained turn, and compared with that turn. Points, and the
    training loss that they report, measure the nats of completions.

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

    def compared(
        self, model: Any, examples: Sequence[EncodedExample], compute: Compute
    ) -> tuple[float, float]:
        """Write an answer to each example's prompt."""
        asked = [last_answer(example) for example in examples]
        room = self._longest
        if self._context and compute.architecture == "decoder-only":
            room = min(room, self._context - max(len(prompt) for prompt, _ in asked))
        prompts = [prompt for prompt, _ in asked]
        texts = generate(model, self._tokenizer, prompts, compute, max_new_tokens=max(room, 1))
        answers = [answer for _, answer in asked]
        expected = self._tokenizer.batch_decode(answers, skip_special_tokens=True)
        nats = Evaluator(compute, self).measure(model, examples).sum()
        return -self._metric.score(texts, [text.strip() for text in expected]), float(nats)


def last_answer(example: EncodedExample) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tokens before an example's last trained turn, and those of the turn."""
    trained = [label != IGNORED for label in example.labels]
    end = len(trained) - trained[::-1].index(True)
    start = end - [*trained[:end][::-1], False].index(False)
    answer = example.labels[start:end]
    if example.architecture == "encoder-decoder":
        return example.input_ids, answer
    return example.input_ids[:start], answer
