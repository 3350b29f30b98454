"""The loss of a classification head on the last state: vanilla finetuning of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunecast.models.classifier import with_head
from tunecast.records import Pipeline
from tunecast.training.losses.completion import Batch, CompletionLoss, collate, forward_arguments
from tunecast.training.losses.labels import completion_ids, prompt_ids, with_label

if TYPE_CHECKING:
    from torch import Tensor

    from tunecast.data import EncodedExample, EncodedLabel
    from tunecast.training.compute import Compute

Ids = Sequence[int]


@dataclass(frozen=True)
class HeadBatch(Batch):
    """Several prompts without an answer.

    Args:
        targets: Place of each example's label, shape (examples,).
    """

    targets: Tensor


class HeadLoss(CompletionLoss):
    """Cross-entropy of a new head, which reads the last state of the prompt and scores every label.

    The head gives a distribution over completions in which only labels occur, so the nats of an example's
    label are its loss at points too, and are comparable to those of a completion.

    Args:
        labels: The labels; a held-out example must have one of them.
    """

    needs_head = True

    def __init__(self, labels: Sequence[EncodedLabel]) -> None:
        self._names = [label.text for label in labels]
        self._places = {label.ids: place for place, label in enumerate(labels)}

    def model(self, base: Any, compute: Compute, seed: int) -> Any:
        """Put a head on the base model."""
        return with_head(base, self._names, compute.pad_token_id, seed)

    def weight(self, examples: Sequence[EncodedExample]) -> int:
        """Count the examples."""
        return len(examples)

    def collate(self, examples: Sequence[EncodedExample], compute: Compute) -> HeadBatch:
        """Pad prompts into a batch."""
        import torch

        batch = collate([with_label(prompt_ids(example), (), compute) for example in examples], compute)
        places = [self._places[completion_ids(example)] for example in examples]
        targets = torch.tensor(places, device=compute.device)
        return HeadBatch(batch.inputs, batch.labels, batch.kept, batch.label_tokens, targets)

    def minimised(self, model: Any, batch: Any, pipeline: Pipeline) -> tuple[Tensor, Tensor]:
        """Compute the cross-entropy against smoothed labels, and against plain ones."""
        from torch.nn.functional import cross_entropy

        scores, smoothing = head_scores(model, batch), pipeline.number("label_smoothing")
        plain = cross_entropy(scores, batch.targets, reduction="none")
        if not smoothing:
            return plain, plain.detach()
        smoothed = cross_entropy(scores, batch.targets, reduction="none", label_smoothing=smoothing)
        return smoothed, plain.detach()

    def measure(self, model: Any, batch: Any) -> Tensor:
        """Compute the nats of each example's label."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(head_scores(model, batch), batch.targets, reduction="none")


class EveryLabel(CompletionLoss):
    """Measures the nats of every label after a prompt by a classification head."""

    def measure(self, model: Any, batch: Batch) -> Tensor:
        """Compute nats of shape (examples, labels)."""
        return -head_scores(model, batch).log_softmax(dim=1)


def head_scores(model: Any, batch: Batch) -> Tensor:
    """Score every label after each prompt, in float32; shape (examples, labels)."""
    accepted = forward_arguments(model)
    inputs = {name: value for name, value in batch.inputs.items() if name in accepted}
    scores: Tensor = model(**inputs, use_cache=False).logits.float()
    return scores
