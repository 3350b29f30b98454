"""Batches, and the loss on them: nats of completion tokens, with logits only where there are labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunecast.data.encode import IGNORED
from tunecast.records import Architecture

if TYPE_CHECKING:
    from torch import Tensor

    from tunecast.data import EncodedExample


@dataclass(frozen=True)
class Batch:
    """Tensors of several examples.

    Args:
        inputs: Keyword arguments of the model's forward call, each of shape (examples, positions).
        labels: Token ids, -100 where nothing is trained; shape (examples, positions of the predicting side).
        kept: Number of last positions whose logits are needed (decoder-only), 0 for an encoder-decoder.
        label_tokens: Number of labels.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    kept: int
    label_tokens: int


def collate(
    examples: Sequence[EncodedExample], *, architecture: Architecture, pad_token_id: int, device: str
) -> Batch:
    """Pad examples into a batch.

    Decoder-only inputs are padded on the left: completions then end at the same position, and the few last
    positions are all that needs logits.

    Args:
        examples: At least one.
        architecture: Which side carries the labels.
        pad_token_id: Fills up the shorter ones.
        device: Where the tensors go.
    """
    if architecture == "encoder-decoder":
        return _collate_encoder_decoder(examples, pad_token_id, device)
    return _collate_decoder_only(examples, pad_token_id, device)


def _collate_decoder_only(examples: Sequence[EncodedExample], pad: int, device: str) -> Batch:
    import torch

    longest = max(len(example.input_ids) for example in examples)
    ids = torch.full((len(examples), longest), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORED)
    kept = 0
    for row, example in enumerate(examples):
        start = longest - len(example.input_ids)
        ids[row, start:] = torch.tensor(example.input_ids)
        mask[row, start:] = 1
        labels[row, start + 1 :] = torch.tensor(example.labels[1:])
        first = next((i for i, label in enumerate(example.labels) if i and label != IGNORED), None)
        if first is not None:
            kept = max(kept, len(example.input_ids) - first + 1)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    return _on(device, inputs, labels, kept)


def _collate_encoder_decoder(examples: Sequence[EncodedExample], pad: int, device: str) -> Batch:
    import torch

    def padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
        longest = max(map(len, rows))
        return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])

    ids = padded([example.input_ids for example in examples], pad)
    mask = padded([[1] * len(example.input_ids) for example in examples], 0)
    labels = padded([example.labels for example in examples], IGNORED)
    return _on(device, {"input_ids": ids, "attention_mask": mask}, labels, kept=0)


def _on(device: str, inputs: dict[str, Tensor], labels: Tensor, kept: int) -> Batch:
    count = int((labels != IGNORED).sum())
    moved = {name: tensor.to(device) for name, tensor in inputs.items()}
    return Batch(moved, labels.to(device), kept, count)


def example_nats(model: Any, batch: Batch) -> Tensor:
    """Summed cross-entropy of each example's labels, in float32.

    Args:
        model: A transformers or peft model.
        batch: What :func:`collate` returned.

    Returns:
        Nats, shape (examples,); differentiable.
    """
    return smoothed_nats(model, batch, 0.0)[1]


def smoothed_nats(model: Any, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """The cross-entropy of each example against smoothed labels, and the plain one.

    Smoothed labels give ``label_smoothing`` of their mass to all tokens alike (Szegedy et al., arXiv
    1512.00567, section 7).

    Args:
        model: A transformers or peft model.
        batch: What :func:`collate` returned.
        label_smoothing: At least 0, below 1.

    Returns:
        What training minimises and :func:`example_nats`, in nats, each of shape (examples,); the first is
        differentiable, and is the second where nothing is smoothed.
    """
    import torch
    from torch.nn.functional import cross_entropy

    if batch.kept:
        logits, labels = _last_logits(model, batch)
    else:
        logits, labels = model(**batch.inputs, labels=batch.labels).logits, batch.labels
    chosen = labels != IGNORED
    rows = chosen.nonzero()[:, 0]
    kept, targets = logits[chosen].float(), labels[chosen]

    def summed(smoothing: float) -> Tensor:
        nats = cross_entropy(kept, targets, reduction="none", label_smoothing=smoothing)
        return torch.zeros(len(labels), device=nats.device).index_add(0, rows, nats)

    if not label_smoothing:
        plain = summed(0.0)
        return plain, plain
    with torch.no_grad():
        plain = summed(0.0)
    return summed(label_smoothing), plain


def _last_logits(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits and the labels they predict: position t predicts the token at t + 1."""
    import torch

    options: dict[str, Any] = {"use_cache": False}
    accepted = _forward_arguments(model)
    if "logits_to_keep" in accepted:
        # As indices, not as a number: a slice is not contiguous, and the head would copy its weight for it.
        options["logits_to_keep"] = torch.arange(-batch.kept, 0, device=batch.labels.device)
    inputs = {name: value for name, value in batch.inputs.items() if name in accepted}
    logits = model(**inputs, **options).logits[:, -batch.kept : -1]
    return logits, batch.labels[:, 1 - batch.kept :]


def _forward_arguments(model: Any) -> frozenset[str]:
    """Names that the underlying model's forward takes; adapters pass them through."""
    import inspect

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return frozenset(inspect.signature(inner.forward).parameters)
