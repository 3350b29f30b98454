"""Seconds before running: what kernels compute and move, over what a machine can do.

Every kernel of a dry run (:mod:`tunecast.estimate`) takes

    max(FLOPs / machine rate, bytes / machine bandwidth, KERNEL_SECONDS)

the roofline (Williams et al., 2009) with a floor for starting it; a step is the sum over its kernels, over
the *efficiency*: one number per machine, the share of this ideal that real steps reach. Frozen weights cost
no weight gradients, so that an adapter's step is about 4N FLOPs per token where full finetuning's is 6N; this
and the extra kernels of each adapter come out of the dry run, nothing is fitted to a method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunecast.estimate.constants import KERNEL_SECONDS
from tunecast.estimate.optimizers import moved_bytes
from tunecast.estimate.peak_bytes import cached_dry_run
from tunecast.estimate.request import MemoryRequest
from tunecast.records import Machine

if TYPE_CHECKING:
    from tunecast.estimate.dryrun import DryRun
    from tunecast.estimate.ledger import Work

EFFICIENCY = 0.8
"""Share of the ideal that is assumed where nothing was calibrated; one published LoRA run on an L40S reached
it."""
STEPS = 5
"""Real steps of a calibration."""
_calibrated: dict[tuple[str, int, str], float] = {}


@dataclass(frozen=True)
class SecondsEstimate:
    """Predicted durations in seconds.

    Args:
        step: One forward and backward pass of ``batch_size`` examples and one optimiser step.
        optimizer_step: The optimiser's part of it.
        scoring_batch: Scoring one evaluation batch.
        generated_token: One more token for every example of an evaluation batch, at the longest cache; None
            where nothing is generated.
        step_flops: FLOPs of the forward and backward pass.
    """

    step: float
    optimizer_step: float
    scoring_batch: float
    generated_token: float | None
    step_flops: int


def estimate_seconds(
    config: Any, request: MemoryRequest, machine: Machine, *, efficiency: float = EFFICIENCY
) -> SecondsEstimate:
    """Predict how long steps and evaluation take. No weights are loaded.

    Args:
        config: A transformers ``PretrainedConfig``.
        request: The finetuning; ``max_length`` is the padded length of a typical batch here, not the longest.
        machine: Measured, or :func:`tunecast.hardware.accelerators.as_machine`.
        efficiency: Share of the ideal that the machine reaches, from :func:`step_efficiency`.

    Raises:
        ModelError: The configuration's class has no text-generating model.
        ConfigurationError: The adapter does not suit the model, or cannot be built without weights.
    """
    run = cached_dry_run(config, request)
    optimizer_step = _optimizer_seconds(run, request, machine)
    work = run.observed.work
    passes = work_seconds(work["forward"], machine) + work_seconds(work["backward"], machine)
    generated = work_seconds(work["token"], machine) / efficiency if "token" in work else None
    return SecondsEstimate(
        step=(passes + optimizer_step) / efficiency,
        optimizer_step=optimizer_step / efficiency,
        scoring_batch=work_seconds(work["scoring"], machine) / efficiency,
        generated_token=generated,
        step_flops=work["forward"].flops + work["backward"].flops,
    )


def work_seconds(work: Work, machine: Machine) -> float:
    """Ideal seconds of ``work`` on ``machine``: each kernel bound by arithmetic, traffic or its start."""
    slowest_rate = machine.flops_per_second["float32"]
    return sum(
        times
        * max(
            flops / machine.flops_per_second.get(dtype, slowest_rate),
            moved / machine.bandwidth_bytes_per_second,
            KERNEL_SECONDS,
        )
        for (flops, moved, dtype), times in work.kernels.items()
    )


def step_efficiency(machine: Machine, dtype: str = "float32") -> float:
    """The efficiency of this machine, from a few real steps of a small random model; later calls repeat it.

    Args:
        machine: As :func:`tunecast.hardware.machine.measure_machine` found it, in this process.
        dtype: Type of weights and compute.

    Returns:
        Ideal seconds / measured seconds of the fastest step.
    """
    key = (machine.device, machine.threads, dtype)
    if key not in _calibrated:
        _calibrated[key] = _measured_efficiency(machine, dtype)
    return _calibrated[key]


def _optimizer_seconds(run: DryRun, request: MemoryRequest, machine: Machine) -> float:
    moved = moved_bytes(request.optimizer, run.trained_shapes, request.optimizer_kernel)
    if request.sharding != "none":
        moved //= request.devices
    return moved / machine.bandwidth_bytes_per_second


def _measured_efficiency(machine: Machine, dtype: str) -> float:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tunecast.hardware.machine import seconds_of

    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
    )
    request = MemoryRequest(
        precision="bfloat16" if dtype == "bfloat16" else "float32",
        optimizer="none",
        batch_size=4,
        max_length=128,
        convention="hf-trainer",
        device="cuda" if machine.device == "cuda" else "cpu",
        attention="flash",
    )
    ideal = estimate_seconds(config, request, machine, efficiency=1.0).step
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay; weights are drawn on the CPU
        model = LlamaForCausalLM(config)
    model = model.to(device=machine.device, dtype=getattr(torch, dtype))
    tokens = torch.zeros(4, 128, dtype=torch.long, device=machine.device)

    def step() -> None:
        model(input_ids=tokens, labels=tokens).loss.backward()
        model.zero_grad(set_to_none=True)

    threads = torch.get_num_threads()
    torch.set_num_threads(machine.threads)
    try:
        return ideal / seconds_of(step, machine.device, least_repeats=STEPS, least_seconds=0.0)
    finally:
        torch.set_num_threads(threads)
