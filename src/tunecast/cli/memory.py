"""``tunecast memory``: the bytes of a finetuning, before anything is loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tunecast.cli import options
from tunecast.errors import ConfigurationError
from tunecast.models.load import MODEL_FORMATS
from tunecast.untrusted import read_object

if TYPE_CHECKING:
    from tunecast.estimate import MemoryEstimate, Workload
    from tunecast.methods.base import Method
    from tunecast.records import ModelFacts, Pipeline

DEFAULT_MAX_LENGTH = 512
MAX_EXAMPLES = 1_000_000
"""Largest batch: with far more, tensors have more elements than torch can count."""
OPTIMIZER_ALIASES = {"adamw-8bit": "adamw_8bit", "sgd-momentum": "sgd"}
"""Other spellings of optimisers."""


def command(
    model: Annotated[
        str, typer.Option("--model", help=f"Base model: {MODEL_FORMATS}; config.json is enough.")
    ],
    method: Annotated[
        str | None, typer.Option("--method", help="A finetuning method. (default: lora)")
    ] = None,
    peft_config: Annotated[
        Path | None,
        typer.Option(
            "--peft-config",
            click_type=options.PATH,
            help="An adapter_config.json of any peft method instead.",
        ),
    ] = None,
    fix: Annotated[list[str] | None, typer.Option("--fix", help="A hyperparameter: lora_r=16.")] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, max=MAX_EXAMPLES, help="Examples per step.")
    ] = None,
    max_length: Annotated[int | None, typer.Option("--max-length", min=1, help="Longest sequence.")] = None,
    eval_batch_size: Annotated[
        int | None,
        typer.Option("--eval-batch-size", min=1, max=MAX_EXAMPLES, help="Examples per evaluation batch."),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=0, help="Tokens generated per prompt in evaluation.")
    ] = 0,
    gpu: Annotated[
        str | None, typer.Option("--gpu", help="An accelerator such as H100. (default: this machine)")
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="float32, bfloat16, float16, 8-bit or 4-bit.")
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option("--optimizer", help="adamw, adamw-8bit, adafactor, lion, sgd or muon.")
    ] = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Recompute activations.")
    ] = False,
    attention: Annotated[str, typer.Option("--attention", help="sdpa, flash or eager.")] = "sdpa",
    convention: Annotated[
        str, typer.Option("--convention", help="tunecast, or hf-trainer: logits everywhere, no float32 copy.")
    ] = "tunecast",
    mixed_precision: Annotated[
        bool, typer.Option("--mixed-precision", help="The Trainer's bf16 or fp16 flag, with hf-trainer.")
    ] = False,
    kernels: Annotated[
        str, typer.Option("--kernels", help="torch; fused norms and loss; or liger, which makes no logits.")
    ] = "torch",
    sharding: Annotated[
        str, typer.Option("--sharding", help="none, zero1, zero2, zero3 or fsdp, over --devices.")
    ] = "none",
    devices: Annotated[int, typer.Option("--devices", min=1, help="Devices that share.")] = 1,
    as_json: options.AsJson = False,
) -> None:
    """Predict the memory of a finetuning by part, and the seconds of a step, without loading weights."""
    from tunecast.estimate import estimate_memory, what_would_fit
    from tunecast.methods import Restrictions, baseline_pipeline, check_names, get_method
    from tunecast.models import check_length, describe_config, load_config, resolve

    _check(method, peft_config, fix or [], sharding, devices)
    name = method or "lora"
    restrictions = Restrictions((name,), options.fixed_values(fix or []), elsewhere=gpu is not None)
    check_names(restrictions)
    resolved = resolve(model)
    config = load_config(resolved)
    facts = describe_config(config, resolved.name)
    check_length(max_length, facts)
    if gpu is None and get_method(name).applies_elsewhere(facts) is None:
        _check_here(get_method(name), facts)
    pipeline = baseline_pipeline(facts, restrictions)
    target = _target(gpu, facts)
    request = _workload(
        pipeline,
        facts,
        target,
        peft_config,
        **({"optimizer": OPTIMIZER_ALIASES.get(optimizer, optimizer)} if optimizer else {}),
        **({"precision": precision} if precision else {}),
        batch_size=batch_size or int(pipeline.number("per_device_train_batch_size", 8)),
        max_length=max_length or min(DEFAULT_MAX_LENGTH, facts.context or DEFAULT_MAX_LENGTH),
        eval_batch_size=eval_batch_size,
        max_new_tokens=max_new_tokens,
        gradient_checkpointing=gradient_checkpointing,
        attention=attention,
        convention=convention,
        mixed_precision=mixed_precision,
        kernels=kernels,
        sharding=sharding,
        devices=devices,
        device_memory_bytes=target.memory_bytes,
    )
    estimate = estimate_memory(config, request)
    seconds = None if gpu is None else _step_seconds(config, request, gpu)
    trained = f"adapter of {peft_config}" if peft_config is not None else _method_text(pipeline)
    if as_json:
        asked = {"model": facts.name, "method": trained, "device": target.name}
        typer.echo(json.dumps(_as_json(estimate, seconds) | {"of": asked | _asked(request)}))
        return
    advice = what_would_fit(config, request) if estimate.tight or not estimate.fits else []
    typer.echo(_headline(facts, trained, request, target.name))
    _print(estimate, request, target.name, advice, seconds)


@dataclass(frozen=True)
class _Target:
    name: str
    device: Literal["cpu", "cuda"]
    memory_bytes: int
    dtype: str


def _check(
    method: str | None, peft_config: Path | None, fixed: Sequence[str], sharding: str, devices: int
) -> None:
    """Refuse options that contradict each other, before anything is read."""
    if method is not None and peft_config is not None:
        raise ConfigurationError("--method and --peft-config exclude each other.", "Give one of them.")
    if fixed and peft_config is not None:
        raise ConfigurationError(
            f"--fix {fixed[0]} has no effect with --peft-config, which describes the whole adapter.",
            "Change the file, or give --method; the batch is set by --batch-size.",
        )
    if sharding == "none" and devices > 1:
        raise ConfigurationError(
            f"--devices {devices} has no effect without --sharding.", "Add --sharding fsdp, for example."
        )
    if sharding != "none" and devices == 1:
        raise ConfigurationError(
            f"--sharding {sharding} needs several devices.", "Add --devices 4, for example."
        )


def _check_here(method: Method, facts: ModelFacts) -> None:
    """Refuse a method that only another machine can run.

    Raises:
        ConfigurationError: This machine cannot run it.
    """
    reason = method.applies(facts)
    if reason:
        raise ConfigurationError(
            f"--method {method.name} cannot run on this machine: {reason}.",
            "Name the accelerator to train on: --gpu 'RTX 4090', for example.",
        )


def _workload(
    pipeline: Pipeline, facts: ModelFacts, target: _Target, peft_config: Path | None, **asked: Any
) -> Workload:
    """Return the workload of a method, or of an adapter in its place; the command line wins."""
    from dataclasses import replace

    from tunecast.estimate import Workload
    from tunecast.methods.workload import workload_of

    if peft_config is not None:
        found: Workload | None = Workload(
            adapter=_read_adapter(peft_config),
            device=target.device,
            precision="float32" if target.dtype == "float32" else "bfloat16",
        )
    else:
        found = workload_of(pipeline, facts, dtype=target.dtype, device=target.device)
    if found is None:
        raise ConfigurationError(
            f"--method: {pipeline.method} does not state what it holds.", "Train a few steps to measure it."
        )
    return replace(found, **asked)


def _target(gpu: str | None, facts: ModelFacts) -> _Target:
    """Return the named accelerator, or the device of this machine that training would take."""
    if gpu is not None:
        from tunecast.hardware.local_machine import target_of

        asked = target_of(gpu, None)
        memory_bytes = asked.machine.device_memory_bytes or 0
        return _Target(asked.name, "cuda", memory_bytes, asked.dtype(facts.width))
    import torch

    from tunecast.hardware.dtype import choose_dtype
    from tunecast.hardware.machine import device_bytes

    device: Literal["cpu", "cuda"] = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "this machine's main memory"
    return _Target(name, device, device_bytes(device), choose_dtype(device, facts.width))


def _read_adapter(file: Path) -> Mapping[str, Any]:
    adapter = read_object(file, f"--peft-config: {file}")
    if "peft_type" not in adapter:
        raise ConfigurationError(
            f"--peft-config: {file} names no peft_type.", "Give an adapter_config.json as peft saves it."
        )
    return adapter


def _step_seconds(config: Any, request: Workload, gpu: str) -> tuple[float, float, float]:
    """Return the seconds of a step at the longest sequence, and the ends of their 90% interval."""
    from dataclasses import replace

    from tunecast.estimate.seconds import dry_run_seconds
    from tunecast.hardware.accelerators import as_machine, find_accelerator
    from tunecast.predictor.efficiency import usual_share
    from tunecast.predictor.prediction import NORMAL_90

    share = usual_share("cuda")
    machine = as_machine(find_accelerator(gpu))
    once = replace(request, step_examples=request.step_examples or request.batch_size)
    step = dry_run_seconds(config, once, machine, efficiency=share.value).step
    factor = math.exp(NORMAL_90 * share.deviation)
    return step, step / factor, step * factor


def _as_json(estimate: MemoryEstimate, seconds: tuple[float, float, float] | None) -> dict[str, Any]:
    return {
        "total_bytes": estimate.total_bytes,
        "low_bytes": estimate.low_bytes,
        "high_bytes": estimate.high_bytes,
        "step_seconds": seconds and dict(zip(("value", "low", "high"), seconds, strict=True)),
        "parts": dict(estimate.parts),
        "fits": estimate.fits,
        "tight": estimate.tight,
        "training_peak_bytes": estimate.training_peak_bytes,
        "evaluation_peak_bytes": estimate.evaluation_peak_bytes,
        "trainable_parameters": estimate.trainable_parameters,
    }


def _method_text(pipeline: Pipeline) -> str:
    rank = pipeline.hyperparameters.get("lora_r")
    return pipeline.method if rank is None else f"{pipeline.method} (r={rank})"


def _asked(request: Workload) -> dict[str, Any]:
    """Return what the bytes were computed for, with every default decided."""
    names = ("batch_size", "max_length", "precision", "optimizer", "gradient_checkpointing", "attention")
    asked = {name: getattr(request, name) for name in names}
    return asked | {
        "convention": request.convention,
        "sharding": request.sharding,
        "devices": request.devices,
        "mixed_precision": request.mixed_precision,
        "kernels": request.kernels,
    }


def _headline(facts: ModelFacts, trained: str, request: Workload, device: str) -> str:
    """Say in a line what the bytes were computed for."""
    from tunecast.report.numbers import compact

    checkpointing = "with" if request.gradient_checkpointing else "without"
    parts = [
        f"{facts.name} ({compact(facts.parameters)} parameters)",
        trained,
        f"batch {request.batch_size} of {request.max_length:,} tokens",
        request.precision,
        request.optimizer,
        f"{checkpointing} gradient checkpointing",
        f"{request.attention} attention",
    ]
    if request.sharding != "none":
        parts.append(f"{request.sharding} over {request.devices} devices")
    if request.convention != "tunecast":
        parts.append(f"as {request.convention}")
    return f"{', '.join(parts)}, for {device}:"


def _print(
    estimate: MemoryEstimate,
    request: Workload,
    name: str,
    advice: list[str],
    seconds: tuple[float, float, float] | None,
) -> None:
    from tunecast.estimate.constants import HEADROOM
    from tunecast.estimate.remedies import MIN_HALVED

    for part, count in sorted(estimate.parts.items(), key=lambda item: -item[1]):
        typer.echo(f"{part:<16} {count / 1e9:8.2f} GB")
    typer.echo(f"{'total':<16} {estimate.total_bytes / 1e9:8.2f} GB, peak of training and evaluation")
    typer.echo(f"{'90% interval':<16} {estimate.low_bytes / 1e9:8.2f} to {estimate.high_bytes / 1e9:.2f} GB")
    if seconds is not None:
        value, low, high = (f"{one:.3g}" for one in seconds)
        typer.echo(f"{'step':<16} {value:>8} s if all have {request.max_length} tokens ({low} to {high} s)")
    typer.echo(f"{'trained':<16} {estimate.trainable_parameters:,} parameters")
    memory = request.device_memory_bytes or 0
    device = f"{name} ({memory / 1e9:.1f} GB, which is {memory / 2**30:.1f} GiB)"
    if estimate.fits and not estimate.tight:
        typer.echo(f"Fits {device}.")
        return
    if estimate.tight:
        typer.echo(f"Tight on {device}: less than {HEADROOM:.0%} stays free, so it may run out of memory.")
    else:
        typer.echo(f"Does not fit {device}.")
    for change in advice:
        typer.echo(f"Would {'leave room' if estimate.tight else 'fit'}: {change}.")
    if not advice:
        outcome = "leave room" if estimate.tight else "make it fit"
        more = "4-bit weights or up to 64 devices" if request.device == "cuda" else "weights in bfloat16"
        shorter = ", sequences of half the length," if request.max_length >= MIN_HALVED else ""
        typer.echo(f"No smaller batch{shorter} or {more} would {outcome}.")
