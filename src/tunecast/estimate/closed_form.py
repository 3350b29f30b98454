"""Bytes and seconds of a finetuning by formula, for dense decoders of equal layers: in microseconds, without
torch.

The dry runs of :mod:`tunecast.estimate` know any model and adapter, but need torch, transformers and
peft imported, which takes longer than advice may. What they find is close to a sum over the parts of a layer
(:mod:`tunecast.models.layer_specs`), with coefficients that were fitted to dry runs
(:mod:`tunecast.estimate.fitted`). ``tests/models/test_closed_form.py`` holds both to each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tunecast.estimate.constants import FOUR_BIT_BYTES, FRAMEWORK_BYTES, KERNEL_SECONDS
from tunecast.estimate.fitted import HELD, KERNELS, MOVED, POWER, SCORING_KERNELS, SCORING_MOVED, Table
from tunecast.models.layer_specs import LAYER_SPECS, deviates, matrices, widths
from tunecast.records import Machine, ModelFacts

Kind = Literal["full", "lora", "ia3"]
Placed = Literal["all-linear", "attention"]

STATE_BYTES: Mapping[str, float] = {
    "adamw": 8.0,
    "adamw_8bit": 2.0,
    "adafactor": 0.1,
    "lion": 4.0,
    "sgd": 4.0,
    "muon": 4.0,
}
"""Bytes of optimiser state per trained parameter."""
OPTIMIZER_BYTES = 40.0
"""Bytes that a step of AdamW reads and writes per trained parameter."""
NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ_KERNELS = 20
"""Operations of all steps on one matrix, its norm and its transposition among them."""
EMULATION = 40.0
"""How much longer the products take in bfloat16 where the processor lacks it: 33 to 53 times for the matrices
of SmolLM2, 10 times for 64 x 64, on two cores of an AMD EPYC."""


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


class Tables(NamedTuple):
    """Coefficients, as :mod:`tunecast.estimate.fitted` has them under the same names in capitals."""

    held: Table
    kernels: Table
    moved: Table
    scoring_kernels: Table
    scoring_moved: Table
    power: float = POWER


FITTED = Tables(HELD, KERNELS, MOVED, SCORING_KERNELS, SCORING_MOVED)


def is_known(model: ModelFacts) -> bool:
    """Whether the formulas hold for a model."""
    return model.family in LAYER_SPECS and not deviates(model.family, model.config)


def lora_parameters(model: ModelFacts, rank: int, placed: Placed = "all-linear") -> int:
    """Parameters of low-rank pairs (in + out) x rank at every linear layer, or at those of attention."""
    pairs = matrices(model).of(placed)
    return model.layers * rank * sum(before + after for before, after in pairs)


def ia3_parameters(model: ModelFacts) -> int:
    """Scalings of keys, values and inner activations; of queries too where one matrix makes all three."""
    _, inner, queries, keys = widths(model)
    fused = LAYER_SPECS[model.family].fused_attention
    return model.layers * (2 * keys + queries * fused + inner)


def bytes_held(
    model: ModelFacts,
    form: Form,
    *,
    batch: int,
    length: int,
    label_tokens: int,
    accumulates: bool = False,
    tables: Tables = FITTED,
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
        tables: Coefficients.
    """
    element = 4 if form.dtype == "float32" else 2
    weights = float(model.parameters * element)
    if form.four_bit:
        weights -= _linear_parameters(model) * (element - FOUR_BIT_BYTES)
    trained = form.trainable_parameters
    state = trained * (4 + STATE_BYTES.get(form.optimizer, 8.0))  # what is trained is float32
    gradients = 4.0 * trained
    activations = _sum(tables.held, form, amounts(model, form, batch * length, length, batch * label_tokens))
    if form.four_bit:
        activations += 2.0 * model.width * model.feed_forward_width  # one layer unpacked
    # A tied table gets two gradients to add.
    ending = 8.0 * model.embedding_parameters if form.kind == "full" and model.tied_embeddings else 0.0
    before = activations + (gradients if accumulates else 0.0)
    peak = max(before, gradients + ending)
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
    tables: Tables = FITTED,
) -> tuple[float, float]:
    """Seconds of one optimiser step, and of scoring as many examples.

    FLOPs over the machine's rate and element-wise traffic over its bandwidth, or the starts of kernels, add
    up; ``efficiency`` is the share of this ideal that real steps reach (:mod:`tunecast.estimate.seconds`).

    Args:
        model: A model that :func:`is_known`.
        form: What is trained and how.
        machine: Rates of the machine.
        batch: Examples of one optimiser step.
        length: Tokens of a typical example.
        label_tokens: Label tokens of a typical example.
        micro_batch: Examples of one forward pass; None for the whole batch.
        efficiency: Share of the ideal.
        tables: Coefficients.
    """
    tokens = batch * length
    passes = -(-batch // (micro_batch or batch))
    rate = machine.flops_per_second.get(form.dtype, machine.flops_per_second["float32"])
    forward = _forward_flops(model, form, tokens, length, batch * label_tokens)
    backward = forward * (2.0 if form.kind == "full" else 1.0) + 4.0 * form.trainable_parameters * tokens * (
        form.kind == "lora"
    )
    sizes, counts = amounts(model, form, tokens, length, batch * label_tokens), parts(model, form)
    traffic = _sum(tables.moved, form, sizes) / machine.bandwidth_bytes_per_second
    element = 4 if form.dtype == "float32" else 2
    # Each pass reads every weight once or twice, whatever the batch.
    reading = (
        2 * passes * model.parameters * (FOUR_BIT_BYTES if form.four_bit else element)
    ) / machine.bandwidth_bytes_per_second
    starts = _sum(tables.kernels, form, counts) * passes * KERNEL_SECONDS
    optimizer = OPTIMIZER_BYTES * form.trainable_parameters / machine.bandwidth_bytes_per_second
    if form.optimizer == "muon":
        optimizer += orthogonalisation_seconds(model, form, machine)
    compute = max((forward + backward) / rate, reading)
    step = compute + _longer(traffic, starts, tables.power) + optimizer
    traffic = _sum(tables.scoring_moved, form, sizes) / machine.bandwidth_bytes_per_second
    starts = _sum(tables.scoring_kernels, form, counts) * KERNEL_SECONDS
    scored = forward / rate + _longer(traffic, starts, tables.power)
    return step / efficiency, scored / efficiency


def orthogonalisation_seconds(model: ModelFacts, form: Form, machine: Machine) -> float:
    """Ideal seconds that Muon takes to make the update of every trained matrix orthogonal.

    Each Newton-Schulz step on an m x n matrix, m the smaller, takes a product of m x n by n x m, one of m x m
    by m x m, and one of m x m by m x n (Jordan et al. 2024, whose code torch follows), in bfloat16 whatever
    the model computes in. The tokens of a batch make no difference: small batches make Muon dear.

    Args:
        model: A model that :func:`is_known`.
        form: What is trained; IA3 has no matrices.
        machine: Rates of the machine; where it has none for bfloat16, that is done in software.
    """
    rates = machine.flops_per_second
    rate = rates.get("bfloat16", rates["float32"] / EMULATION)
    starts = NEWTON_SCHULZ_KERNELS * KERNEL_SECONDS
    return model.layers * sum(
        max(NEWTON_SCHULZ_STEPS * (4.0 * short**2 * long + 2.0 * short**3) / rate, starts)
        for short, long in map(sorted, _trained_matrices(model, form))
    )


def _trained_matrices(model: ModelFacts, form: Form) -> list[tuple[int, int]]:
    """Shapes of the matrices of one layer that are trained."""
    if form.kind == "full":
        return list(matrices(model).of("all-linear"))
    return [(form.rank, width) for pair in _pairs(model, form) for width in pair]


def _longer(traffic: float, starts: float, power: float) -> float:
    """Seconds of kernels that each take their traffic or their start: more than either sum alone."""
    return float((traffic**power + starts**power) ** (1 / power))


def _linear_parameters(model: ModelFacts) -> int:
    return model.layers * matrices(model).parameters


def _pairs(model: ModelFacts, form: Form) -> tuple[tuple[int, int], ...]:
    """Widths in and out of the matrices of one layer that low-rank pairs are beside."""
    return matrices(model).of(form.placed) if form.kind == "lora" else ()


def amounts(model: ModelFacts, form: Form, tokens: int, length: int, labels: int) -> dict[str, float]:
    """What bytes are proportional to, by the names of :mod:`tunecast.estimate.fitted`."""
    anatomy, pairs = LAYER_SPECS[model.family], _pairs(model, form)
    hidden, inner, queries, keys = widths(model)
    of_layer = {
        "width": hidden,
        "rms_norms": anatomy.rms_norms * hidden,
        "layer_norms": anatomy.layer_norms * hidden,
        "dropped": anatomy.drops * hidden,
        "gated": anatomy.gated * inner,
        "plain": (not anatomy.gated) * inner,
        "written": anatomy.written_activation * inner,
        "heads": queries + 2 * keys,
        "head_norms": anatomy.head_norms * (queries + keys),
        "capped": anatomy.capped * model.heads * length,
        "scores": (anatomy.drops_scores and form.device == "cpu") * model.heads * length,
        "inputs": sum(before for before, _ in pairs),
        "outputs": sum(after for _, after in pairs),
        "rank": form.rank * len(pairs),
    }
    once: dict[str, float] = {
        "ends": tokens * hidden,
        "logits": labels * model.vocabulary,
        "copies": _linear_parameters(model),
        "table": model.embedding_parameters,
    }
    return once | {name: model.layers * tokens * amount for name, amount in of_layer.items()}


def parts(model: ModelFacts, form: Form) -> dict[str, float]:
    """What kernels are started for, by the names of :mod:`tunecast.estimate.fitted`."""
    anatomy, layer = LAYER_SPECS[model.family], matrices(model)
    of_layer = {
        "layer": 1,
        "matrices": len(layer.of("all-linear")),
        "rms_norms": anatomy.rms_norms,
        "layer_norms": anatomy.layer_norms,
        "head_norms": anatomy.head_norms,
        "rotary": anatomy.rotary,
        "gated": anatomy.gated,
        "written": anatomy.written_activation,
        "capped": anatomy.capped,
        "dropped": anatomy.drops,
        "pairs": len(_pairs(model, form)),
    }
    return {name: float(model.layers * count) for name, count in of_layer.items()}


def table_key(form: Form) -> tuple[str, str]:
    """Where the coefficients of a finetuning are: its type of compute and its way of training."""
    # In 16 bits CUDA's kernels keep a mask where the CPU's keep numbers, and none of attention's scores.
    low = "low on cpu" if form.device == "cpu" else "low"
    dropout = form.kind == "lora" and form.dropout
    return "high" if form.dtype == "float32" else low, "dropout" if dropout else form.kind


def _sum(table: Table, form: Form, given: Mapping[str, float]) -> float:
    return sum(factor * given[part] for part, factor in table[table_key(form)].items())


def _forward_flops(model: ModelFacts, form: Form, tokens: int, length: int, labels: int) -> float:
    queries = widths(model).queries
    layers = 2.0 * _linear_parameters(model) * tokens
    attention = 5.0 * model.layers * queries * tokens * length
    adapter = 2.0 * form.trainable_parameters * tokens if form.kind == "lora" else 0.0
    return layers + attention + adapter + 2.0 * model.vocabulary * model.width * labels
