"""Turns a dry run into bytes on one device: optimiser, quantisation, sharding, framework."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tunecast.estimate.constants import FRAMEWORK_BYTES
from tunecast.estimate.workload import MemoryEstimate, Workload, roomy_bytes
from tunecast.optimizers import OPTIMIZERS, state_bytes, step_bytes
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
    (zero3, fsdp) by n; the last gathers two layers at a time.

    Raises:
        ModelError: The configuration's class has no text-generating model.
        ConfigurationError: The adapter does not suit the model, or cannot be built without weights.
    """
    run = cached_dry_run(config, request)
    training = [_adjusted(parts, run, request) for parts in _training_moments(run, request)]
    evaluation = [
        _adjusted(_with_state(m.parts, run, request), run, request) for m in run.observed.evaluation.values()
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


def _training_moments(run: DryRun, request: Workload) -> list[dict[str, int]]:
    moments = [_with_state(moment.parts, run, request) for moment in run.observed.training.values()]
    step = _with_state(run.observed.training["step"].parts, run, request)
    if request.passes > 1:
        moments = [{**parts, "gradients": step.get("gradients", 0)} for parts in moments]
    matrices = (tensor.elements for tensor in run.trained if len(tensor.shape) > 1)
    changing = round(request.gradient_workspace * max(matrices, default=0))
    temporary = max(changing, step_bytes(request.optimizer, run.trained, request.optimizer_kernel))
    if request.sharding != "none":
        temporary //= request.devices
    step["workspace"] = step.get("workspace", 0) + temporary
    return [*moments, step]


def _with_state(parts: Mapping[str, int], run: DryRun, request: Workload) -> dict[str, int]:
    state = state_bytes(request.optimizer, run.trained)
    return {**parts, "optimizer_state": state} if state else dict(parts)


def _adjusted(parts: Mapping[str, int], run: DryRun, request: Workload) -> dict[str, int]:
    """Quantise and shard the parts, and add the ``tunecast`` convention's extras beside a full copy."""
    out = dict(parts)
    if run.saved_by_quantisation:
        out["weights"] -= run.saved_by_quantisation
        out["workspace"] = out.get("workspace", 0) + run.unpacked_bytes
    if request.adapter is None and request.convention == "tunecast":
        # The worker's own base model stays loaded, in the type of compute, beside the trained copy.
        element_bytes = {"float32": 4}.get(request.compute_dtype, 2)
        out["weights"] += run.trainable_parameters * element_bytes
    return _sharded(out, run, request)


def _sharded(parts: dict[str, int], run: DryRun, request: Workload) -> dict[str, int]:
    spread = {
        "none": (),
        "zero1": ("optimizer_state",),
        "zero2": ("optimizer_state", "gradients"),
        "zero3": ("optimizer_state", "gradients", "weights", "adapters"),
        "fsdp": ("optimizer_state", "gradients", "weights", "adapters"),
    }[request.sharding]
    if request.devices == 1:
        return parts
    out = {name: -(-count // request.devices) if name in spread else count for name, count in parts.items()}
    if "weights" in spread:
        out["workspace"] = out.get("workspace", 0) + 2 * run.largest_layer_bytes
    return out


def _total(parts: Mapping[str, int]) -> int:
    return sum(parts.values())
