"""Predicts seconds by dry run: the work of every kernel over the rates of a machine.

Every kernel of a dry run (:mod:`tunecast.estimate`) on a processor takes

    max(FLOPs / machine rate, bytes / machine bandwidth, seconds of a start)

the roofline (Williams et al., 2009) with a floor for starting it. On CUDA the host starts kernels ahead of
the device, so that a pass takes the longest of the device's work, the host's starts and the links between
devices (:mod:`tunecast.estimate.speed`). The *efficiency*, one number per machine, is the share of this that
real steps reach. Frozen weights cost no weight gradients, so that an adapter's step is about 4N FLOPs per
token where full finetuning's is 6N; this and the extra kernels of each adapter come out of the dry run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tunecast.estimate.closed_form import matrix_seconds
from tunecast.estimate.peak_bytes import as_kept, cached_dry_run
from tunecast.estimate.skeleton import quantised_rate
from tunecast.estimate.speed import UNPACKED_BYTES, Speed, longest, speed_of, usual_efficiency
from tunecast.estimate.workload import SecondsEstimate, Workload
from tunecast.optimizers import OPTIMIZERS, moved_bytes
from tunecast.records import Machine, device_kind

if TYPE_CHECKING:
    from tunecast.estimate.dryrun import DryRun
    from tunecast.estimate.ledger import Work

STEPS = 5
"""Real steps of a calibration."""
_calibrated: dict[tuple[str, int, str], float] = {}


@dataclass(frozen=True)
class StepWork:
    """The work of an optimiser step, in seconds at the machine's stated rates where it has such.

    Args:
        kernels: Kernels of a pass: how many are equal, seconds of arithmetic, seconds of traffic.
        runs_ahead: Whether a host starts kernels ahead of the device.
        unpacking: Seconds of traffic in which a pass unpacks quantised weights.
        wrapped: Trained tensors that FSDP gathers on its own.
        reduced: Trained tensors outside of FSDP that several devices share.
        between_devices: Bytes that a pass exchanges with other devices.
        passes: Passes of a step.
        update: Seconds of traffic of the optimiser.
        products: Seconds of the optimiser's matrix products.
    """

    kernels: tuple[tuple[int, float, float], ...]
    runs_ahead: bool
    unpacking: float = 0.0
    wrapped: int = 0
    reduced: int = 0
    between_devices: float = 0.0
    passes: int = 1
    update: float = 0.0
    products: float = 0.0

    def pass_seconds(self, speed: Speed) -> float:
        """Return the seconds of one pass."""
        start = 0.0 if self.runs_ahead else speed.start
        computing = sum(
            times * max(arithmetic / speed.arithmetic, traffic / speed.traffic, start)
            for times, arithmetic, traffic in self.kernels
        )
        busy = computing + self.unpacking / speed.unpacking
        if not self.runs_ahead:
            return busy
        starting = sum(times for times, _, _ in self.kernels) * speed.start
        adapters = self.wrapped * speed.wrapped + self.reduced * speed.reduced
        return longest(busy, starting + adapters, self.between_devices / speed.link)

    def update_seconds(self, speed: Speed) -> float:
        """Return the seconds of the optimiser's own work."""
        return self.update / speed.traffic + self.products

    def seconds(self, speed: Speed) -> float:
        """Return the seconds of a step."""
        return self.passes * self.pass_seconds(speed) + self.update_seconds(speed)


def dry_run_seconds(
    config: Any, request: Workload, machine: Machine, *, efficiency: float | None = None
) -> SecondsEstimate:
    """Predict the seconds of steps and evaluation without loading weights.

    ``request.max_length`` is the padded length of a typical batch here, not the longest. ``efficiency`` is
    the share of the ideal that the machine reaches, from :func:`step_efficiency`; by default the usual one of
    its kind.

    Raises:
        ModelError: The configuration's class has no text-generating model.
        ConfigurationError: The adapter does not suit the model, or cannot be built without weights.
    """
    run = cached_dry_run(config, request)
    speed = speed_of(machine.device)
    efficiency = efficiency or usual_efficiency(machine.device).value
    step = step_work(config, request, machine)
    seconds = {
        name: _work([one], 1, run, request, machine).pass_seconds(speed) / efficiency
        for name, one in run.observed.work.items()
    }
    return SecondsEstimate(
        step=step.seconds(speed) / efficiency,
        optimizer_step=step.update_seconds(speed) / efficiency,
        scoring_batch=seconds.get("scoring"),
        generated_token=seconds.get("token"),
        step_flops=step.passes * sum(one.flops for one in _of_pass(run)),
    )


def step_work(config: Any, request: Workload, machine: Machine) -> StepWork:
    """Return the work of an optimiser step, by dry run; raises as :func:`dry_run_seconds`."""
    run = cached_dry_run(config, request)
    works = _of_pass(run)
    sweeps = len(works) + (request.gradient_checkpointing and len(works) > 1)
    adapters = len(run.trained) if _has_adapters_in_fsdp(request) else 0
    shares = request.devices if request.sharding != "none" else 1
    moved = moved_bytes(request.optimizer, as_kept(run, request), request.optimizer_kernel)
    moved *= request.directions
    products = sum(matrix_seconds(request.optimizer, tensor, machine) for tensor in run.trained)
    return replace(
        _work(works, sweeps, run, request, machine),
        wrapped=adapters if request.kernels == "torch" else 0,
        reduced=adapters if request.kernels != "torch" else 0,
        between_devices=_between_devices(run, request),
        passes=request.passes * OPTIMIZERS[request.optimizer].forward_passes * request.directions,
        update=moved / machine.bandwidth_bytes_per_second / shares,
        products=products / shares,
    )


def _work(works: Sequence[Work], sweeps: int, run: DryRun, request: Workload, machine: Machine) -> StepWork:
    bandwidth = machine.bandwidth_bytes_per_second
    kernels = tuple(
        (times, flops / machine.rate(dtype), moved / bandwidth)
        for work in works
        for (flops, moved, dtype), times in work.kernels.items()
    )
    rate = quantised_rate(request)
    unpacked = 0.0
    if rate is not None:
        weights = run.saved_by_quantisation / (UNPACKED_BYTES - rate)
        unpacked = sweeps * weights * (UNPACKED_BYTES + rate)
    return StepWork(kernels, device_kind(machine.device) == "cuda", unpacked / bandwidth)


def _of_pass(run: DryRun) -> list[Work]:
    work = run.observed.work
    return [work[name] for name in ("forward", "backward") if name in work]


def _has_adapters_in_fsdp(request: Workload) -> bool:
    return request.adapter is not None and request.sharding == "fsdp" and request.devices > 1


def _between_devices(run: DryRun, request: Workload) -> float:
    """Return the bytes that one device exchanges in a pass.

    Spread weights are gathered twice and the gradients of trained ones reduced. DeepSpeed's first two stages
    copy gradients to be reduced, and out again, on a single device too.
    """
    if request.sharding in ("fsdp", "zero3") and request.devices > 1:
        held = run.observed.training["forward"].parts["weights"] - run.saved_by_quantisation
        return (2 * held + 2 * run.trainable_parameters) * (request.devices - 1) / request.devices
    return 4.0 * run.trainable_parameters if request.sharding in ("zero1", "zero2") else 0.0


def step_efficiency(machine: Machine, dtype: str = "float32") -> float:
    """Measure the efficiency of this machine by a few real steps of a small random model, once per process.

    Returns ideal over measured seconds of the fastest step. The machine was measured in this process by
    :func:`tunecast.hardware.machine.measure_machine`.
    """
    key = (machine.device, machine.threads, dtype)
    if key not in _calibrated:
        _calibrated[key] = _measured_efficiency(machine, dtype)
    return _calibrated[key]


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
