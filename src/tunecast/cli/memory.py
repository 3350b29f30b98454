"""``tunecast memory``: the bytes of a finetuning, before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from tunecast.cli import memory_options, options

if TYPE_CHECKING:
    from tunecast.estimate import Workload
    from tunecast.recommender.memory import MemoryAnswer, MemoryQuestion

OF_WORKLOAD = (
    *("eval_batch_size", "max_new_tokens", "attention", "convention", "mixed_precision", "kernels"),
    *("sharding", "devices"),
)
"""Parameters of the command that are fields of a workload."""


def command(
    model: options.DescribedModel,
    method: memory_options.Method = None,
    peft_config: memory_options.PeftConfig = None,
    fix: options.Fix = None,
    batch_size: memory_options.BatchSize = None,
    max_length: memory_options.MaxLength = None,
    eval_batch_size: memory_options.EvalBatchSize = None,
    max_new_tokens: memory_options.MaxNewTokens = 0,
    gpu: options.Gpu = None,
    precision: memory_options.Precision = None,
    optimizer: memory_options.Optimizer = None,
    gradient_checkpointing: memory_options.GradientCheckpointing = False,
    attention: memory_options.Attention = "sdpa",
    convention: memory_options.Convention = "tunecast",
    mixed_precision: memory_options.MixedPrecision = False,
    kernels: memory_options.Kernels = "torch",
    sharding: memory_options.Sharding = "none",
    devices: memory_options.Devices = 1,
    as_json: options.AsJson = False,
) -> None:
    """Predict the memory of a finetuning by part, and the seconds of a step, without loading weights."""
    flags = dict(locals())
    from tunecast.recommender.memory import predict_memory

    answer = predict_memory(_question(flags))
    if as_json:
        typer.echo(json.dumps(_as_json(answer)))
    else:
        _print(answer)


def _question(flags: Mapping[str, Any]) -> MemoryQuestion:
    """Convert the command's flags to the question."""
    from tunecast.recommender.memory import MemoryQuestion

    settings = {name: flags[name] for name in OF_WORKLOAD}
    if flags["gradient_checkpointing"]:  # else the method decides
        settings["gradient_checkpointing"] = True
    return MemoryQuestion(
        flags["model"],
        method=flags["method"] or "",
        peft_config=flags["peft_config"],
        fixed=options.fixed_values(flags["fix"] or []),
        gpu=flags["gpu"],
        batch_size=flags["batch_size"],
        max_length=flags["max_length"],
        optimizer=flags["optimizer"] or "",
        precision=flags["precision"] or "",
        settings=settings,
    )


def _as_json(answer: MemoryAnswer) -> dict[str, Any]:
    estimate, seconds = answer.estimate, answer.step_seconds
    asked = {"model": answer.model.name, "method": answer.trained, "device": answer.device}
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
        "remedies": answer.remedies,
        "of": asked | _asked(answer.workload),
    }


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


def _headline(answer: MemoryAnswer) -> str:
    """Say in a line what the bytes were computed for."""
    from tunecast.report.numbers import compact

    request = answer.workload
    checkpointing = "with" if request.gradient_checkpointing else "without"
    parts = [
        f"{answer.model.name} ({compact(answer.model.parameters)} parameters)",
        answer.trained,
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
    return f"{', '.join(parts)}, for {answer.device}:"


def _print(answer: MemoryAnswer) -> None:
    from tunecast.estimate.constants import HEADROOM
    from tunecast.estimate.remedies import MIN_HALVED

    estimate, request = answer.estimate, answer.workload
    typer.echo(_headline(answer))
    for part, count in sorted(estimate.parts.items(), key=lambda item: -item[1]):
        typer.echo(f"{part:<16} {count / 1e9:8.2f} GB")
    typer.echo(f"{'total':<16} {estimate.total_bytes / 1e9:8.2f} GB, peak of training and evaluation")
    typer.echo(f"{'90% interval':<16} {estimate.low_bytes / 1e9:8.2f} to {estimate.high_bytes / 1e9:.2f} GB")
    if answer.step_seconds is not None:
        value, low, high = (f"{one:.3g}" for one in answer.step_seconds)
        typer.echo(f"{'step':<16} {value:>8} s if all have {request.max_length} tokens ({low} to {high} s)")
    typer.echo(f"{'trained':<16} {estimate.trainable_parameters:,} parameters")
    memory = request.device_memory_bytes or 0
    device = f"{answer.device} ({memory / 1e9:.1f} GB, which is {memory / 2**30:.1f} GiB)"
    if estimate.fits and not estimate.tight:
        typer.echo(f"Fits {device}.")
        return
    if estimate.tight:
        typer.echo(f"Tight on {device}: less than {HEADROOM:.0%} stays free, so it may run out of memory.")
    else:
        typer.echo(f"Does not fit {device}.")
    for change in answer.remedies:
        typer.echo(f"Would {'leave room' if estimate.tight else 'fit'}: {change}.")
    if not answer.remedies:
        outcome = "leave room" if estimate.tight else "make it fit"
        shorter = ["sequences of half the length"] if request.max_length >= MIN_HALVED else []
        cuda = request.device == "cuda"
        more = ["4-bit weights", "up to 64 devices"] if cuda else ["weights in bfloat16"]
        *tried, last = ["a smaller batch", *shorter, *more]
        typer.echo(f"Neither {', '.join(tried)} nor {last} would {outcome}.")
