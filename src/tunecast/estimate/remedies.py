"""Changes that make a finetuning fit a device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tunecast.estimate.peak_bytes import estimate_memory
from tunecast.estimate.workload import Workload

MIN_HALVED = 256
"""Shortest sequences, in tokens, whose half is worth a thought."""
_SMALL = "micro-batches of one example"
_SAVING = f"gradient checkpointing and {_SMALL}"
_DEVICES = (2, 4, 8, 16, 32, 64)
_LORA = {"peft_type": "LORA", "r": 16, "target_modules": "all-linear"}


def what_would_fit(config: Any, request: Workload, *, recomputes: bool = True) -> list[str]:
    """List changes that bring a workload under its ``device_memory_bytes`` and leave headroom, the gentlest
    first; empty if none helps.

    Each is tried on top of those before: micro-batches of one example, gradient checkpointing, half the
    sequence length, LoRA in place of a method without an adapter, a base model in bfloat16, on CUDA in
    4 bits. If none helps, more devices are. Without ``recomputes``, the method has no use for gradient
    checkpointing.
    """
    fitting = []
    for words, changed in _changes(request, recomputes):
        estimate = estimate_memory(config, changed)
        if estimate.fits and not estimate.tight:
            fitting.append(f"{words} ({estimate.total_bytes / 1e9:.1f} GB)")
    return fitting or list(_with_devices(config, request, recomputes))


def _changes(request: Workload, recomputes: bool) -> Iterator[tuple[str, Workload]]:
    examples = max(request.batch_size, request.step_examples or 1)
    small = replace(request, batch_size=1, eval_batch_size=1, step_examples=examples)
    if request.batch_size > 1 or (request.eval_batch_size or 1) > 1:
        yield _SMALL, small
    saving, words = small, _SMALL
    if recomputes:
        saving, words = replace(small, gradient_checkpointing=True), _SAVING
        yield words, saving
    if request.max_length >= MIN_HALVED:
        half = replace(saving, max_length=request.max_length // 2, label_tokens=None)
        yield f"{words}, and sequences of at most {half.max_length} tokens", half
    if request.adapter is None:
        saving = replace(
            saving, adapter=_LORA, part=None, gradient_workspace=0.0, gradient_checkpointing=True
        )
        words = _SAVING
        yield f"LoRA in place of this method, with {words}", saving
    if request.device == "cpu" and request.precision == "float32":
        saving = replace(saving, precision="bfloat16")
        yield f"a base model in bfloat16, with {words}", saving
    if request.device == "cuda" and request.precision != "4-bit":
        yield f"a 4-bit base model (QLoRA), with {words}", replace(saving, precision="4-bit")


def _with_devices(config: Any, request: Workload, recomputes: bool) -> Iterator[str]:
    if request.device != "cuda":
        return
    examples = max(request.batch_size, request.step_examples or 1)
    recomputes = recomputes or request.gradient_checkpointing
    small = replace(
        request,
        batch_size=1,
        eval_batch_size=1,
        step_examples=examples,
        gradient_checkpointing=recomputes,
    )
    for devices in _DEVICES:
        sharded = replace(small, sharding="zero3", devices=devices)
        estimate = estimate_memory(config, sharded)
        if estimate.fits and not estimate.tight:
            yield f"{devices} such devices with ZeRO-3 ({estimate.total_bytes / 1e9:.1f} GB each)"
            return
