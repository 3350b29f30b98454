"""Losses of classification in which only the labels compete, not the whole vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from tunecast.data.encode import IGNORED, EncodedExample
from tunecast.records import Pipeline
from tunecast.training.losses.completion import Batch, CompletionLoss, collate, example_nats, summed_nats

if TYPE_CHECKING:
    from torch import Tensor

    from tunecast.training.compute import Compute

Ids = Sequence[int]


def prompt_ids(example: EncodedExample) -> tuple[int, ...]:
    """Return the tokens before an example's completion."""
    if example.architecture == "encoder-decoder":
        return example.input_ids
    return example.input_ids[: len(example.input_ids) - len(completion_ids(example))]


def completion_ids(example: EncodedExample) -> tuple[int, ...]:
    """Return the tokens of an example's completion."""
    return tuple(label for label in example.labels if label != IGNORED)


def last_answer(example: EncodedExample) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tokens before an example's last trained turn, and those of the turn.

    Unlike :func:`completion_ids`, it leaves earlier trained turns in the prompt.
    """
    trained = [label != IGNORED for label in example.labels]
    end = len(trained) - trained[::-1].index(True)
    start = end - [*trained[:end][::-1], False].index(False)
    answer = example.labels[start:end]
    if example.architecture == "encoder-decoder":
        return example.input_ids, answer
    return example.input_ids[:start], answer


def with_label(prompt: Ids, label: Ids, compute: Compute, ignored: int = 0) -> EncodedExample:
    """Return a prompt that a label follows; the first ``ignored`` tokens of the label do not count."""
    counted = (*[IGNORED] * ignored, *label[ignored:])
    if compute.architecture == "encoder-decoder":
        return EncodedExample(0, tuple(prompt), counted, 0, False, "encoder-decoder")
    return EncodedExample(0, (*prompt, *label), (*[IGNORED] * len(prompt), *counted), 0, False)


def common_beginning(labels: Sequence[Ids]) -> tuple[int, ...]:
    """Return the tokens that all labels begin with; each label has at least one more."""
    alike = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*labels, strict=False))
    return tuple(tokens[0] for tokens in alike)[: min(map(len, labels)) - 1]


@dataclass(frozen=True)
class LabelBatch(Batch):
    """Several examples, each with every label: one row for each example and label, example by example.

    Args:
        targets: Share of each label in the answer, shape (examples, labels).
    """

    targets: Tensor


class LabelLoss(CompletionLoss):
    """Cross-entropy over the labels alone: pattern-based finetuning.

    The score of a label is minus its nats per token, times the mean number of tokens of a label, so that the
    best score is that of the answer by label likelihood, and labels of one token compete by their logits as
    in PBFT (Mosbach et al., arXiv 2305.16938, section 3). Points measure the nats of completions, as under
    every loss. A step takes as many forward passes per example as there are labels.

    Args:
        labels: Token ids of each label, with its end-of-turn token.
    """

    def __init__(self, labels: Sequence[Ids]) -> None:
        self.labels = [tuple(label) for label in labels]
        self._places = {label: place for place, label in enumerate(self.labels)}
        self.common = len(common_beginning(self.labels))
        self.lengths = np.array([len(label) - self.common for label in self.labels])

    def weight(self, examples: Sequence[EncodedExample]) -> int:
        """Count the examples."""
        return len(examples)

    def collate(self, examples: Sequence[EncodedExample], compute: Compute) -> LabelBatch:
        """Put every label after each prompt, with the example's own label as the target."""
        import torch

        # An encoder-decoder's decoder reads its labels, so there the loss alone leaves the beginning out.
        ignored = 0 if compute.architecture == "encoder-decoder" else self.common
        rows = [
            with_label(prompt_ids(example), label, compute, ignored)
            for example in examples
            for label in self.labels
        ]
        targets = torch.tensor(np.array([self.target(example) for example in examples]), dtype=torch.float32)
        batch = collate(rows, compute)
        return LabelBatch(
            batch.inputs, batch.labels, batch.kept, batch.label_tokens, targets.to(compute.device)
        )

    def minimised(self, model: Any, batch: Any, pipeline: Pipeline) -> tuple[Tensor, Tensor]:
        """Compute the cross-entropy against the targets, and the part of it that is not their entropy."""
        import torch

        log_shares = self.scores(model, batch).log_softmax(dim=1)
        smoothing, count = pipeline.number("label_smoothing"), len(self.labels)
        targets = batch.targets * (1 - smoothing) + smoothing / count
        entropy = -torch.xlogy(batch.targets, batch.targets).sum(dim=1)
        plain = -(batch.targets * log_shares).sum(dim=1) - entropy
        return -(targets * log_shares).sum(dim=1), plain.detach()

    def scores(self, model: Any, batch: LabelBatch) -> Tensor:
        """Score each label of each example, shape (examples, labels); the answer has the highest score."""
        import torch

        nats = self._nats(model, batch).view(batch.targets.shape)
        lengths = torch.tensor(self.lengths, dtype=nats.dtype, device=nats.device)
        return -nats / lengths * lengths.mean()

    def _nats(self, model: Any, batch: LabelBatch) -> Tensor:
        """Sum the nats of each row's label without the beginning that all labels share, shape (rows,)."""
        if batch.kept:
            return example_nats(model, batch)
        counted = batch.labels.clone()
        counted[:, : self.common] = IGNORED
        return summed_nats(model(**batch.inputs, labels=batch.labels).logits.float(), counted)

    def target(self, example: EncodedExample) -> np.ndarray:
        """Return the share of each label in the answer, shape (labels,)."""
        return np.eye(len(self.labels))[self._places[completion_ids(example)]]
