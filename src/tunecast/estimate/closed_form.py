"""The fast form of the dry run: bytes and seconds by formula, for dense decoders of equal layers.

The dry run (:mod:`tunecast.estimate.dryrun`) knows any model and adapter, but needs torch, transformers and
peft imported and takes tenths of a second. Its result is close to a sum over the parts of a layer
(:mod:`tunecast.models.layer_specs`), with coefficients that were fitted to dry runs
(:mod:`tunecast.estimate.coefficients`). ``tests/estimate/test_closed_form.py`` holds both to each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from tunecast.estimate.coefficients import Coefficients, Table, fitted
from tunecast.estimate.constants import FOUR_BIT_BYTES, FRAMEWORK_BYTES, KERNEL_SECONDS
from tunecast.estimate.forms import Form
from tunecast.estimate.speed import UNPACKED_BYTES, Speed, longest, speed_of
from tunecast.estimate.workload import SecondsEstimate
from tunecast.models.layer_specs import LAYER_SPECS, matrices, widths
from tunecast.optimizers import OPTIMIZERS, Trained
from tunecast.records import Machine, ModelFacts, device_kind

OPTIMIZER_BYTES = 40.0
"""Bytes that a step of AdamW reads and writes per trained parameter."""
FLOWING_BYTES = 10.0
"""Bytes per token and inner width that gradients of a recomputed layer's activations take; in dry runs of
three families, 4 to 13 with frozen weights. Full finetuning peaks where its own gradients are complete.
"""
NEWTON_SCHULZ_KERNELS = 20
"""Operations of all of Muon's steps on one matrix, its norm and its transposition among them."""
EMULATION = 40.0
"""Slowdown of products in bfloat16 where the processor lacks it: 33 to 53 times for the matrices of SmolLM2,
10 times for 64 x 64, on two cores of an AMD EPYC.
"""


def bytes_held(
    model: ModelFacts,
    form: Form,
    *,
    batch: int,
    length: int,
    label_tokens: int,
    accumulates: bool = False,
    tables: Coefficients | None = None,
) -> float:
    """Return the peak of training in bytes on one device, the framework's own included.

    The highest of three moments: before the backward pass (weights, optimiser state, activations, logits), at
    its end (weights, optimiser state, gradients), and where a method changes the gradients. Gradient
    checkpointing keeps the inputs of all layers and the activations of one. ``batch`` counts
    the examples of one forward pass, ``length`` the tokens of the longest, and ``label_tokens`` the labels of
    an example. With ``accumulates``, a step has several forward passes. The model must be
    :func:`~tunecast.estimate.forms.is_known`.
    """
    element = 4 if form.dtype == "float32" else 2
    weights = float(model.parameters * element)
    if form.four_bit:
        weights -= _linear_parameters(model) * (element - FOUR_BIT_BYTES)
    trained = form.trainable_parameters
    state = 4.0 * trained + _state_bytes(model, form)  # what is trained is float32
    gradients = 4.0 * trained
    given = amounts(model, form, batch * length, length, batch * label_tokens)
    held = (tables or fitted()).held
    activations = _sum(held, form, given)
    recomputed = 0.0
    if form.recomputes:
        once = _sum(held, form, {name: given[name] for name in ONCE})
        recomputed = (activations - once) / model.layers
        if form.kind != "full":
            recomputed += FLOWING_BYTES * batch * length * model.feed_forward_width
        inputs = float(model.layers * batch * length * model.width * element)
        activations = inputs + max(once, recomputed)
    if form.four_bit:
        activations += 2.0 * model.width * model.feed_forward_width  # one layer unpacked
    # A tied table gets two gradients to add.
    ending = 8.0 * model.embedding_parameters if form.kind == "full" and model.tied_embeddings else 0.0
    if form.top_layers is not None:
        ending = 0.0
    largest = max(tensor.elements for tensor, _ in _trained(model, form))
    changing = form.gradient_workspace * largest
    before = activations + (gradients if accumulates else 0.0)
    peak = max(before, gradients + ending + recomputed, gradients + changing)
    return weights + state + peak + FRAMEWORK_BYTES[form.device]


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
    tables: Coefficients | None = None,
) -> SecondsEstimate:
    """Return the seconds of one optimiser step, and of scoring as many examples.

    FLOPs over the machine's rate and element-wise traffic over its bandwidth, or the starts of kernels, add
    up; ``efficiency`` is the share of this ideal that real steps reach (:mod:`tunecast.estimate.seconds`).
    ``batch`` are the examples of one optimiser step, ``micro_batch`` those of one forward pass (by default
    all); ``length`` and ``label_tokens`` are those of a typical example. The model must be
    :func:`~tunecast.estimate.forms.is_known`.
    """
    tables = tables or fitted()
    tokens = batch * length
    passes = -(-batch // (micro_batch or batch))
    speed = speed_of(machine.device)
    rate = speed.arithmetic * machine.rate(form.dtype)
    bandwidth = speed.traffic * machine.bandwidth_bytes_per_second
    forward = _forward_flops(model, form, tokens, length, batch * label_tokens)
    backward = _backward_flops(model, form, tokens, length, batch * label_tokens)
    sizes, counts = amounts(model, form, tokens, length, batch * label_tokens), parts(model, form)
    traffic, starts = _sum(tables.moved, form, sizes), _sum(tables.kernels, form, counts)
    scored_traffic = _sum(tables.scoring_moved, form, sizes)
    scored_starts = _sum(tables.scoring_kernels, form, counts)
    if form.top_layers is not None:  # of the frozen layers there is a forward pass only
        frozen = replace(form, top_layers=model.layers - form.top_layers)
        sizes = amounts(model, frozen, tokens, length, 0) | dict.fromkeys(ONCE, 0.0)
        below_traffic = _sum(tables.scoring_moved, form, sizes)
        below_starts = _sum(tables.scoring_kernels, form, parts(model, frozen))
        traffic, starts = traffic + below_traffic, starts + below_starts
        scored_traffic, scored_starts = scored_traffic + below_traffic, scored_starts + below_starts
    if form.recomputes:  # the backward pass repeats the forward pass of all layers
        backward += forward - _head_flops(model, batch * label_tokens)
        again = sizes | dict.fromkeys(ONCE, 0.0)
        traffic, starts = traffic + _sum(tables.scoring_moved, form, again), starts + scored_starts
    element = 4 if form.dtype == "float32" else 2
    # Each pass reads every weight once or twice, whatever the batch.
    reads = passes * (2 + form.recomputes)
    reading = reads * model.parameters * (FOUR_BIT_BYTES if form.four_bit else element) / bandwidth
    optimizer = OPTIMIZER_BYTES * form.trainable_parameters / bandwidth + optimizer_seconds(
        model, form, machine
    )
    compute = max((forward + backward) / rate, reading)
    if device_kind(machine.device) == "cuda":
        unpacking = _unpacking_seconds(model, form, machine, speed)
        busy = compute + traffic / bandwidth + reads * unpacking
        step = longest(busy, starts * passes * speed.start) + optimizer
        scored = longest(forward / rate + scored_traffic / bandwidth + unpacking, scored_starts * speed.start)
    else:
        step = compute + _longer(traffic / bandwidth, starts * passes * speed.start, tables.power) + optimizer
        scored = forward / rate + _longer(
            scored_traffic / bandwidth, scored_starts * speed.start, tables.power
        )
    return SecondsEstimate(
        step / efficiency, optimizer / efficiency, scored / efficiency, None, forward + backward
    )


def _unpacking_seconds(model: ModelFacts, form: Form, machine: Machine, speed: Speed) -> float:
    """Return the seconds in which all quantised weights are unpacked once."""
    if not form.four_bit:
        return 0.0
    moved = _linear_parameters(model) * (UNPACKED_BYTES + FOUR_BIT_BYTES)
    return moved / (speed.unpacking * machine.bandwidth_bytes_per_second)


def optimizer_seconds(model: ModelFacts, form: Form, machine: Machine) -> float:
    """Return the ideal seconds of the products that an optimiser makes on every trained matrix: 0 but for
    Muon.

    The tokens of a batch make no difference: small batches make Muon expensive.
    """
    return sum(
        count * matrix_seconds(form.optimizer, tensor, machine) for tensor, count in _trained(model, form)
    )


def matrix_seconds(optimizer: str, tensor: Trained, machine: Machine) -> float:
    """Return the ideal seconds of an optimiser's products on one tensor; in software without bfloat16."""
    flops = OPTIMIZERS[optimizer].flops(tensor)
    if not flops:
        return 0.0
    rates = machine.flops_per_second
    rate = rates.get("bfloat16", rates["float32"] / EMULATION)
    return max(flops / rate, NEWTON_SCHULZ_KERNELS * KERNEL_SECONDS)


def _state_bytes(model: ModelFacts, form: Form) -> float:
    state = OPTIMIZERS[form.optimizer].state
    return float(sum(count * state(tensor) for tensor, count in _trained(model, form)))


def _trained(model: ModelFacts, form: Form) -> Iterator[tuple[Trained, int]]:
    """Yield the trained tensors and how often each occurs; vectors, which are small, as one."""
    layers = model.layers if form.top_layers is None else form.top_layers
    rest = form.trainable_parameters
    shapes = [(form.rank, width) for pair in _pairs(model, form) for width in pair]
    if form.kind == "full":
        shapes = list(matrices(model).of("all-linear"))
    for shape in shapes:
        yield Trained(shape), layers
        rest -= layers * shape[0] * shape[1]
    if form.kind == "full" and form.top_layers is None:
        tables = 1 if model.tied_embeddings else 2
        yield Trained((model.vocabulary, model.width), is_table=True), tables
        rest -= tables * model.vocabulary * model.width
    yield Trained((max(rest, 0),)), 1


def _longer(traffic: float, starts: float, power: float) -> float:
    """Return the seconds of kernels that each take their traffic or their start: more than either sum."""
    return float((traffic**power + starts**power) ** (1 / power))


def _linear_parameters(model: ModelFacts) -> int:
    return model.layers * matrices(model).parameters


def _pairs(model: ModelFacts, form: Form) -> tuple[tuple[int, int], ...]:
    """Return the widths in and out of one layer's matrices that have low-rank pairs."""
    return matrices(model).of(form.placed) if form.kind == "lora" else ()


ONCE = ("ends", "logits", "copies", "table")
"""Amounts that do not grow with the layers."""


def amounts(model: ModelFacts, form: Form, tokens: int, length: int, labels: int) -> dict[str, float]:
    """Return the amounts that bytes are proportional to, by the names of the coefficients."""
    specs, pairs = LAYER_SPECS[model.family], _pairs(model, form)
    hidden, inner, queries, keys = widths(model)
    of_layer = {
        "width": hidden,
        "rms_norms": specs.rms_norms * hidden,
        "layer_norms": specs.layer_norms * hidden,
        "dropped": specs.drops * hidden,
        "gated": specs.gated * inner,
        "plain": (not specs.gated) * inner,
        "written": specs.written_activation * inner,
        "heads": queries + 2 * keys,
        "head_norms": specs.head_norms * (queries + keys),
        "capped": specs.capped * model.heads * length,
        "scores": (specs.drops_scores and form.device == "cpu") * model.heads * length,
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
    layers = model.layers if form.top_layers is None else form.top_layers
    once["copies"] *= layers / model.layers
    once["table"] *= form.top_layers is None
    return once | {name: layers * tokens * amount for name, amount in of_layer.items()}


def parts(model: ModelFacts, form: Form) -> dict[str, float]:
    """Return the counts of parts that start kernels, by the names of the coefficients."""
    specs, layer = LAYER_SPECS[model.family], matrices(model)
    of_layer = {
        "layer": 1,
        "matrices": len(layer.of("all-linear")),
        "rms_norms": specs.rms_norms,
        "layer_norms": specs.layer_norms,
        "head_norms": specs.head_norms,
        "rotary": specs.rotary,
        "gated": specs.gated,
        "written": specs.written_activation,
        "capped": specs.capped,
        "dropped": specs.drops,
        "pairs": len(_pairs(model, form)),
    }
    layers = model.layers if form.top_layers is None else form.top_layers
    return {name: float(layers * count) for name, count in of_layer.items()}


def table_key(form: Form) -> tuple[str, str]:
    """Return the key of a finetuning's coefficients: its type of compute and its way of training."""
    # In 16 bits CUDA's kernels keep a mask where the CPU's keep numbers, and none of attention's scores.
    low = "low on cpu" if form.device == "cpu" else "low"
    dropout = form.kind == "lora" and form.dropout
    return "high" if form.dtype == "float32" else low, "dropout" if dropout else form.kind


def _sum(table: Table, form: Form, given: Mapping[str, float]) -> float:
    return sum(factor * given.get(part, 0.0) for part, factor in table[table_key(form)].items())


def _forward_flops(model: ModelFacts, form: Form, tokens: int, length: int, labels: int) -> float:
    adapter = 2.0 * form.trainable_parameters * tokens if form.kind == "lora" else 0.0
    return _layer_flops(model, tokens, length) + adapter + _head_flops(model, labels)


def _backward_flops(model: ModelFacts, form: Form, tokens: int, length: int, labels: int) -> float:
    """Return as much as the forward pass for activations, and as much again for trained weights."""
    forward = _forward_flops(model, form, tokens, length, labels)
    if form.top_layers is not None:
        share = form.top_layers / model.layers
        return 2.0 * share * _layer_flops(model, tokens, length) + _head_flops(model, labels)
    if form.kind == "full":
        return 2.0 * forward
    return forward + 4.0 * form.trainable_parameters * tokens * (form.kind == "lora")


def _layer_flops(model: ModelFacts, tokens: int, length: int) -> float:
    return (
        2.0 * _linear_parameters(model) * tokens
        + 5.0 * model.layers * widths(model).queries * tokens * length
    )


def _head_flops(model: ModelFacts, labels: int) -> float:
    return 2.0 * model.vocabulary * model.width * labels
