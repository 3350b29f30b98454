"""Predicts seconds by dry run: the work of every kernel over the rates of a machine.

Every kernel of a dry run (:mod:`tunecast.estimate`) takes

    max(FLOPs / machine rate, bytes / machine bandwidth, KERNEL_SECONDS)

the roofline (Williams et al., 2009) with a floor for starting it; a step is the sum over its kernels, over
the *efficiency*, one number per machine: the share of this ideal that real steps reach. Frozen weights cost
no weight gradients, so that an adapter's step is about 4N FLOPs per token where full finetuning's is 6N; this
and the extra kernels of each adapter come out of the dry run, nothing is fitted to a method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunecast.estimate.closed_form import matrix_seconds
from tunecast.estimate.constants import EFFICIENCY, KERNEL_SECONDS
from tunecast.estimate.peak_bytes import cached_dry_run
from tunecast.estimate.workload import SecondsEstimate, Workload
from tunecast.optimizers import OPTIMIZERS, moved_bytes
from tunecast.records import Machine

if TYPE_CHECKING:
    from tunecast.estimate.dryrun import DryRun
    from tunecast.estimate.ledger import Work

STEPS = 5
"""Real steps of a calibration."""
_calibrated: dict[tuple[str, int, str], float] = {}


def dry_run_seconds(
    config: Any, request: Workload, machine: Machine, *, efficiency: float = EFFICIENCY
) -> SecondsEstimate:
    """Predict the seconds of steps and evaluation without loading weights.

    ``request.max_length`` is the padded length of a typical batch here, not the longest. ``efficiency`` is
    the share of the ideal that the machine reaches, from :func:`step_efficiency`.

    Raises:
        ModelError: The configuration's class has no text-generating model.
        ConfigurationError: The adapter does not suit the model, or cannot be built without weights.
    """
    run = cached_dry_run(config, request)
    update = _update_seconds(run, request, machine)
    work = run.observed.work
    of_pass = [work[name] for name in ("forward", "backward") if name in work]
    passes = request.passes * OPTIMIZERS[request.optimizer].forward_passes
    computed = passes * sum(work_seconds(one, machine) for one in of_pass)
    seconds = {name: work_seconds(one, machine) / efficiency for name, one in work.items()}
    return SecondsEstimate(
        step=(computed + update) / efficiency,
        optimizer_step=update / efficiency,
        scoring_batch=seconds.get("scoring"),
        generated_token=seconds.get("token"),
        step_flops=passes * sum(one.flops for one in of_pass),
    )


def work_seconds(work: Work, machine: Machine) -> float:
    """Return the ideal seconds of ``work``: each kernel bound by arithmetic, traffic or its start."""
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
    """Measure the efficiency of this machine by a few real steps of a small random model, once per process.

    Returns ideal over measured seconds of the fastest step. The machine was measured in this process by
    :func:`tunecast.hardware.machine.measure_machine`.
    """
    key = (machine.device, machine.threads, dtype)
    if key not in _calibrated:
        _calibrated[key] = _measured_efficiency(machine, dtype)
    return _calibrated[key]


def _update_seconds(run: DryRun, request: Workload, machine: Machine) -> float:
    """Return the ideal seconds of the optimiser's own work."""
    moved = moved_bytes(request.optimizer, run.trained, request.optimizer_kernel)
    seconds = moved / machine.bandwidth_bytes_per_second + sum(
        matrix_seconds(request.optimizer, tensor, machine) for tensor in run.trained
    )
    return seconds / (request.devices if request.sharding != "none" else 1)


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
    request = Workload(
        precision="bfloat16" if dtype == "bfloat16" else "float32",
        optimizer="none",
        batch_size=4,
        max_length=128,
        convention="hf-trainer",
        device="cuda" if machine.device == "cuda" else "cpu",
        attention="flash",
    )
    ideal = dry_run_seconds(config, request, machine, efficiency=1.0).step
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
