"""Turns a dry run into bytes on one device: optimiser, quantisation, sharding, framework."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tunecast.estimate.constants import FRAMEWORK_BYTES
from tunecast.estimate.workload import MemoryEstimate, Workload, roomy_bytes
from tunecast.optimizers import OPTIMIZERS, Trained, state_bytes, step_bytes
from tunecast.records import stable_hash

if TYPE_CHECKING:
    from tunecast.estimate.dryrun import DryRun

WITHOUT_BYTES = frozenset({"lora_alpha", "alpha", "use_rslora", "init_lora_weights"})
"""Fields of an adapter that change numbers, not shapes."""
ANY_DROPOUT = 0.1
"""Stands for any: dropping something takes memory, however much is dropped."""
_dry_runs: dict[str, DryRun] = {}


def estimate_memory(config: Any, request: Workload) -> MemoryEstimate:
    """Predict the peak bytes of a finetuning on one device, part by part, by dry run. No weights are loaded.

    total = max(training, evaluation) + framework, where training is the highest of

    * forward and backward: weights + adapters + gradients so far + optimiser state + activations + logits +
      temporaries, the moment of most bytes of a dry run (see :mod:`tunecast.estimate.ledger`);
    * step: weights + adapters + gradients + optimiser state + the optimiser's temporaries;

    and evaluation the higher of scoring a batch and of generation with its key-value cache, beside the
    optimiser state. Sharding over n devices divides optimiser state (zero1), gradients (zero2) and weights
    (zero3, fsdp) by n; the last two gather what is outside of the layers, and two layers at a time.

    Raises:
        ModelError: The configuration's class has no text-generating model.
        ConfigurationError: The adapter does not suit the model, or cannot be built without weights.
    """
    run = cached_dry_run(config, request)
    training = [_adjusted(parts, run, request) for parts in _passing_moments(run, request)]
    training.append(_spread(_adjusted(_stepping_moment(run, request), run, request), request))
    training[:-1] = [_gathered(parts, run, request) for parts in training[:-1]]
    evaluation = [
        _gathered(_adjusted(_with_state(moment.parts, run, request), run, request), run, request)
        for moment in run.observed.evaluation.values()
    ]
    highest_training = max(training, key=_total)
    highest_evaluation = max(evaluation, key=_total, default={})
    parts = dict(highest_training)
    if _total(highest_evaluation) > _total(highest_training):
        parts = dict(highest_evaluation)
    parts["framework"] = FRAMEWORK_BYTES[request.device]
    total = _total(parts)
    memory = request.device_memory_bytes
    return MemoryEstimate(
        total_bytes=total,
        parts=parts,
        training_parts=highest_training,
        evaluation_parts=highest_evaluation,
        trainable_parameters=run.trainable_parameters,
        fits=None if memory is None else total <= memory,
        tight=memory is not None and roomy_bytes(memory) < total <= memory,
    )


def cached_dry_run(config: Any, request: Workload) -> DryRun:
    """Return the dry run of a workload, shared by all that differ in optimiser, sharding or device memory."""
    from tunecast.estimate.dryrun import dry_run

    optimizer = request.optimizer if not OPTIMIZERS[request.optimizer].uses_gradients else "none"
    plain = replace(
        request,
        adapter=None if request.adapter is None else shape_of(request.adapter),
        optimizer=optimizer,
        sharding="none",
        devices=1,
        device_memory_bytes=None,
        step_examples=None,
        gradient_workspace=0.0,
        directions=1,
    )
    settings = {**vars(plain), "part": plain.part and plain.part.label}
    described = json.loads(json.dumps([config.to_dict(), settings], default=str, sort_keys=True))
    key = stable_hash(described)
    if key not in _dry_runs:
        _dry_runs[key] = dry_run(config, plain)
    return _dry_runs[key]


def shape_of(adapter: Mapping[str, Any]) -> dict[str, Any]:
    """Return an adapter without the fields that make no difference to bytes and seconds."""
    shape = {name: value for name, value in adapter.items() if name not in WITHOUT_BYTES}
    for name, value in shape.items():
        if name.endswith("dropout") and isinstance(value, int | float):
            shape[name] = ANY_DROPOUT if value else 0.0
    return shape


def _passing_moments(run: DryRun, request: Workload) -> list[dict[str, int]]:
    """Return the moments of the forward and the backward pass."""
    training = {name: dict(moment.parts) for name, moment in run.observed.training.items() if name != "step"}
    if _keeps_two_layers(request) and {"top", "bottom"} <= training.keys():
        training["top"]["workspace"] = 2 * training["bottom"].get("workspace", 0)
    moments = [_with_state(parts, run, request) for parts in training.values()]
    if not OPTIMIZERS[request.optimizer].uses_gradients:
        moved = _optimizer_workspace(run, request)  # each weight is copied while it is used
        moments = [{**parts, "workspace": parts.get("workspace", 0) + moved} for parts in moments]
    if request.passes > 1:
        step = _with_state(run.observed.training["step"].parts, run, request)
        moments = [{**parts, "gradients": step.get("gradients", 0)} for parts in moments]
    return moments


def _keeps_two_layers(request: Workload) -> bool:
    """Whether two layers' recomputed activations live at once in a backward pass.

    With FSDP and frozen weights they do: the published peaks of Mistral-7B grow with the batch by two layers'
    activations beside the kept inputs of all layers.
    """
    is_frozen = request.adapter is not None and request.gradient_checkpointing
    return is_frozen and request.sharding == "fsdp" and request.devices > 1


def _stepping_moment(run: DryRun, request: Workload) -> dict[str, int]:
    """Return the moment of the optimiser's step."""
    step = _with_state(run.observed.training["step"].parts, run, request)
    matrices = (tensor.elements for tensor in run.trained if len(tensor.shape) > 1)
    changing = round(request.gradient_workspace * max(matrices, default=0))
    temporary = max(changing, _optimizer_workspace(run, request))
    if request.sharding != "none":
        temporary //= request.devices
    step["workspace"] = step.get("workspace", 0) + temporary
    return step


def _optimizer_workspace(run: DryRun, request: Workload) -> int:
    if request.sharding.startswith("zero"):
        # DeepSpeed's fused step updates float32 copies from gradients that it makes float32; its first two
        # stages collect them in 16 bits before.
        return _narrow_elements(run) * (4 if request.sharding == "zero3" else 6)
    return step_bytes(request.optimizer, as_kept(run, request), request.optimizer_kernel)


def _with_state(parts: Mapping[str, int], run: DryRun, request: Workload) -> dict[str, int]:
    """Add optimiser state, and what is kept in float32 for trained weights of 16 bits."""
    out = dict(parts)
    state = state_bytes(request.optimizer, as_kept(run, request))
    if request.keeps_float32:
        narrow = _narrow_elements(run)
        if request.sharding == "fsdp":
            trained = "weights" if request.adapter is None else "adapters"
            out[trained] += 2 * narrow
            out["gradients"] = 2 * out.get("gradients", 0) if narrow else out.get("gradients", 0)
        else:
            state += 4 * narrow
    return {**out, "optimizer_state": state} if state else out


def as_kept(run: DryRun, request: Workload) -> tuple[Trained, ...]:
    """Return the trained tensors as the optimiser sees them."""
    if not request.keeps_float32:
        return run.trained
    return tuple(tensor._replace(element_bytes=4) for tensor in run.trained)


def _narrow_elements(run: DryRun) -> int:
    return sum(tensor.elements for tensor in run.trained if tensor.element_bytes < 4)


def _adjusted(parts: Mapping[str, int], run: DryRun, request: Workload) -> dict[str, int]:
    """Quantise the parts, and add the ``tunecast`` convention's extras beside a full copy."""
    out = dict(parts)
    if run.saved_by_quantisation:
        out["weights"] -= run.saved_by_quantisation
        out["workspace"] = out.get("workspace", 0) + run.unpacked_bytes
    if request.adapter is None and request.convention == "tunecast" and not request.trains_in_place:
        # The worker's own base model stays loaded, in the type of compute, beside the trained copy.
        element_bytes = {"float32": 4}.get(request.compute_dtype, 2)
        out["weights"] += run.trainable_parameters * element_bytes
    return out


def _gathered(parts: Mapping[str, int], run: DryRun, request: Workload) -> dict[str, int]:
    """Spread the parts over the devices while some layers are gathered for a pass."""
    out = _spread(parts, request)
    if request.devices > 1 and request.sharding in ("zero3", "fsdp"):
        out["workspace"] = out.get("workspace", 0) + run.gathered_bytes
    return out


def _spread(parts: Mapping[str, int], request: Workload) -> dict[str, int]:
    spread = {
        "none": (),
        "zero1": ("optimizer_state",),
        "zero2": ("optimizer_state", "gradients"),
        "zero3": ("optimizer_state", "gradients", "weights", "adapters"),
        "fsdp": ("optimizer_state", "gradients", "weights", "adapters"),
    }[request.sharding]
    return {name: -(-count // request.devices) if name in spread else count for name, count in parts.items()}


def _total(parts: Mapping[str, int]) -> int:
    return sum(parts.values())
