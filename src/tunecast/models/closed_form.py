"""Bytes and seconds of a finetuning by formula, for models of equal gated layers: in microseconds, without
torch.

The dry runs of :mod:`tunecast.models.memory` know any model and adapter, but need torch, transformers and
peft imported, which takes longer than advice may. What they find for Llama-like decoders is linear in tokens
x width, tokens x feed-forward width, tokens x rank, label tokens x vocabulary and so on. The coefficients
here were fitted to 280 dry runs (widths 128 to 4,096, four adapters, three device types): within 5% of the
total. ``tests/models/test_closed_form.py`` holds them to that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tunecast.records import Machine, ModelFacts

__all__ = [
    "FAMILIES",
    "Form",
    "bytes_held",
    "ia3_parameters",
    "is_known",
    "lora_parameters",
    "step_seconds",
]

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Families whose layers are all alike and gated, which the coefficients hold for."""
Kind = Literal["full", "lora", "ia3"]
Placed = Literal["all-linear", "attention"]

FRAMEWORK_BYTES: Mapping[str, int] = {"cuda": 600_000_000, "cpu": 400_000_000}
"""As :data:`tunecast.models.memory.FRAMEWORK_BYTES`, which this module, made to be light, does not import."""
STATE_BYTES: Mapping[str, float] = {
    "adamw": 8.0,
    "adamw_8bit": 2.0,
    "adafactor": 0.1,
    "lion": 4.0,
    "sgd": 4.0,
    "muon": 4.0,
}
"""Bytes of optimiser state per trained parameter."""
FOUR_BIT_BYTES = 0.5 + 4 / 64
"""Bytes of a weight in 4 bits, with one float32 scale for a block of 64."""
KERNEL_SECONDS = 1e-5
OPTIMIZER_BYTES = 40.0
"""Bytes that a step of AdamW reads and writes per trained parameter."""
KERNELS: Mapping[Kind, int] = {"full": 152, "lora": 236, "ia3": 137}
"""Kernels that a layer starts in one step, forward and backward."""
SCORING_KERNELS: Mapping[Kind, int] = {"full": 55, "lora": 105, "ia3": 55}
MOVED_BYTES: Mapping[Kind, float] = {"full": 240.0, "lora": 240.0, "ia3": 190.0}
"""Bytes that element-wise kernels move in one step, per token, layer and unit of width + feed-forward
width."""


@dataclass(frozen=True)
class _Activations:
    """Bytes kept for the backward pass, by what they grow with; see :func:`_activation_bytes`."""

    width: float
    feed_forward: float
    keys: float
    heads: float
    ends: float
    logits: float
    rank: float
    trained: float


_LOW: Mapping[str, _Activations] = {
    "full": _Activations(21.0, 9.6, 3.3, 56.0, 23.0, 11.7, 0.0, 0.0),
    "lora": _Activations(28.4, 7.9, 0.0, 29.4, 17.4, 11.7, 18.8, 1.8),
    "dropout": _Activations(52.8, 12.1, 0.0, 0.0, 0.7, 11.6, 38.3, 1.2),
    "dropout on cuda": _Activations(34.8, 9.1, 0.0, 0.0, 10.0, 11.6, 37.5, 1.3),
    "ia3": _Activations(17.0, 9.6, 3.3, 56.3, 23.0, 11.7, 0.0, 0.0),
}
_HIGH: Mapping[str, _Activations] = {
    "full": _Activations(30.0, 15.4, 8.9, 0.0, 4.1, 22.2, 0.0, 0.0),
    "lora": _Activations(34.2, 15.0, 0.0, 53.1, 0.0, 22.7, 29.8, 0.0),
    "dropout": _Activations(76.2, 19.0, 0.0, 0.0, 0.0, 12.6, 87.0, 0.0),
    "ia3": _Activations(25.7, 15.4, 8.9, 0.0, 4.1, 22.2, 0.0, 0.0),
}
"""Coefficients under bfloat16 autocast, and in float32."""


@dataclass(frozen=True)
class Form:
    """A finetuning as the formulas see it.

    Args:
        kind: What is trained: all weights, low-rank pairs, or scalings.
        rank: Rank of the pairs.
        dropout: Whether the adapter drops inputs.
        placed: Which layers have a pair.
        trainable_parameters: Number of trained parameters.
        optimizer: The pipeline's ``optim``.
        dtype: ``float32``, ``bfloat16`` or ``float16``: type of frozen weights and of compute.
        four_bit: Whether frozen linear layers are held in 4 bits.
        device: ``cpu`` or ``cuda``.
    """

    kind: Kind
    trainable_parameters: int
    rank: int = 0
    dropout: bool = False
    placed: Placed = "all-linear"
    optimizer: str = "adamw"
    dtype: str = "bfloat16"
    four_bit: bool = False
    device: str = "cuda"


def is_known(model: ModelFacts) -> bool:
    """Whether the formulas hold for a model."""
    return model.family in FAMILIES and model.architecture == "decoder-only"


def lora_parameters(model: ModelFacts, rank: int, placed: Placed = "all-linear") -> int:
    """Parameters of low-rank pairs (in + out) x rank at every linear layer, or at those of attention."""
    width, inner, queries, keys = _widths(model)
    attention = 2 * (width + queries) + 2 * (width + keys)
    feed_forward = 3 * (width + inner) if placed == "all-linear" else 0
    return model.layers * rank * (attention + feed_forward)


def ia3_parameters(model: ModelFacts) -> int:
    """Scalings of keys, values and inner activations."""
    return model.layers * (2 * _widths(model)[3] + model.feed_forward_width)


def bytes_held(
    model: ModelFacts, form: Form, *, batch: int, length: int, label_tokens: int, accumulates: bool = False
) -> int:
    """The peak of training in bytes on one device, what the framework holds included.

    The higher of the moment before the backward pass (weights, optimiser state, activations, logits) and of
    its end (weights, optimiser state, gradients).

    Args:
        model: A model that :func:`is_known`.
        form: What is trained and how.
        batch: Examples of one forward pass.
        length: Longest sequence in tokens.
        label_tokens: Tokens of an example that carry a label.
        accumulates: Whether a step has several forward passes.
    """
    element = 4 if form.dtype == "float32" else 2
    table = model.embedding_parameters
    weights = float(model.parameters * element)
    if form.four_bit:
        weights -= _linear_parameters(model) * (element - FOUR_BIT_BYTES)
    trained = form.trainable_parameters
    state = trained * (4 + STATE_BYTES.get(form.optimizer, 8.0))  # what is trained is float32
    gradients = 4.0 * trained
    activations = _activation_bytes(model, form, batch * length, batch * label_tokens)
    if form.four_bit:
        activations += 2.0 * model.width * model.feed_forward_width  # one layer unpacked
    ending = 4.0 * table
    if form.kind == "full":
        # Autocast keeps a copy of every weight until the step ends; a tied table gets two gradients to add.
        activations += 4.0 * _linear_parameters(model) * (element == 2)
        ending = 8.0 * table if model.tied_embeddings else 0.0
    before = activations + (gradients if accumulates else 0.0)
    peak = max(before, gradients + (ending if form.kind == "full" else 0.0))
    return round(weights + state + peak + FRAMEWORK_BYTES[form.device])


def step_seconds(
    model: ModelFacts,
    form: Form,
    machine: Machine,
    *,
    batch: int,
    length: int,
    label_tokens: int,
    micro_batch: int | None = None,
    efficiency: float = 0.8,
) -> tuple[float, float]:
    """Seconds of one optimiser step, and of scoring as many examples.

    FLOPs over the machine's rate and element-wise traffic over its bandwidth, or the starts of kernels, add
    up; ``efficiency`` is the share of this ideal that real steps reach (:mod:`tunecast.models.seconds`).

    Args:
        model: A model that :func:`is_known`.
        form: What is trained and how.
        machine: Rates of the machine.
        batch: Examples of one optimiser step.
        length: Tokens of a typical example.
        label_tokens: Label tokens of a typical example.
        micro_batch: Examples of one forward pass; None for the whole batch.
        efficiency: Share of the ideal.
    """
    tokens = batch * length
    passes = -(-batch // (micro_batch or batch))
    rate = machine.flops_per_second.get(form.dtype, machine.flops_per_second["float32"])
    forward = _forward_flops(model, form, tokens, length, batch * label_tokens)
    backward = forward * (2.0 if form.kind == "full" else 1.0) + 4.0 * form.trainable_parameters * tokens * (
        form.kind == "lora"
    )
    width = model.width + model.feed_forward_width
    traffic = MOVED_BYTES[form.kind] * model.layers * tokens * width / machine.bandwidth_bytes_per_second
    element = 4 if form.dtype == "float32" else 2
    # Each pass reads every weight once or twice, whatever the batch.
    reading = (
        2 * passes * model.parameters * (FOUR_BIT_BYTES if form.four_bit else element)
    ) / machine.bandwidth_bytes_per_second
    starts = KERNELS[form.kind] * model.layers * passes * KERNEL_SECONDS
    optimizer = OPTIMIZER_BYTES * form.trainable_parameters / machine.bandwidth_bytes_per_second
    compute = max((forward + backward) / rate, reading)
    # An element-wise kernel takes its traffic or its start, whichever is longer.
    step = compute + max(traffic, starts) + optimizer
    scored = forward / rate + max(traffic / 3, SCORING_KERNELS[form.kind] * model.layers * KERNEL_SECONDS)
    return step / efficiency, scored / efficiency


def _widths(model: ModelFacts) -> tuple[int, int, int, int]:
    """Hidden width, feed-forward width, width of all queries, width of all keys."""
    head = int(model.config.get("head_dim") or model.width // model.heads)
    return model.width, model.feed_forward_width, head * model.heads, head * model.key_value_heads


def _linear_parameters(model: ModelFacts) -> int:
    width, inner, queries, keys = _widths(model)
    return model.layers * (2 * width * queries + 2 * width * keys + 3 * width * inner)


def _activation_bytes(model: ModelFacts, form: Form, tokens: int, labels: int) -> float:
    table = _HIGH if form.dtype == "float32" else _LOW
    name: str = form.kind
    if form.kind == "lora" and form.dropout:  # CUDA's kernel keeps a mask where the CPU's keeps numbers
        name = "dropout on cuda" if form.device == "cuda" and table is _LOW else "dropout"
    known = table[name]
    width, inner, _, keys = _widths(model)
    share = 1.0 if form.placed == "all-linear" else 0.6
    of_layer = (
        known.width * width
        + known.feed_forward * inner
        + known.keys * keys
        + known.heads * model.heads
        + known.rank * form.rank * share
    )
    ends = tokens * known.ends * width + labels * known.logits * model.vocabulary
    return model.layers * tokens * of_layer + ends + known.trained * form.trainable_parameters


def _forward_flops(model: ModelFacts, form: Form, tokens: int, length: int, labels: int) -> float:
    queries = _widths(model)[2]
    layers = 2.0 * _linear_parameters(model) * tokens
    attention = 5.0 * model.layers * queries * tokens * length
    adapter = 2.0 * form.trainable_parameters * tokens if form.kind == "lora" else 0.0
    return layers + attention + adapter + 2.0 * model.vocabulary * model.width * labels
