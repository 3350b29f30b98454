"""``tunecast memory``: the bytes of a finetuning, before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunecast.cli import options
from tunecast.models.load import MODEL_FORMATS

if TYPE_CHECKING:
    from tunecast.estimate import Workload
    from tunecast.recommender.memory import MemoryAnswer

MAX_EXAMPLES = 1_000_000
"""Largest batch: with far more, tensors have more elements than torch can count."""


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
            parser=options.path,
            help="An adapter_config.json of any peft method instead.",
        ),
    ] = None,
    fix: Annotated[
        list[str] | None, typer.Option("--fix", help="Fix a hyperparameter: lora_r=16. Repeatable.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, max=MAX_EXAMPLES, help="Examples per step.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option("--max-length", min=1, help="Longest sequence in tokens.")
    ] = None,
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
    devices: Annotated[int, typer.Option("--devices", min=1, help="Devices that share the model.")] = 1,
    as_json: options.AsJson = False,
) -> None:
    """Predict the memory of a finetuning by part, and the seconds of a step, without loading weights."""
    from tunecast.recommender.memory import MemoryQuestion, predict_memory

    answer = predict_memory(
        MemoryQuestion(
            model,
            method=method or "",
            peft_config=peft_config,
            fixed=options.fixed_values(fix or []),
            gpu=gpu,
            batch_size=batch_size,
            max_length=max_length,
            optimizer=optimizer or "",
            precision=precision or "",
            settings={
                "eval_batch_size": eval_batch_size,
                "max_new_tokens": max_new_tokens,
                **({"gradient_checkpointing": True} if gradient_checkpointing else {}),
                "attention": attention,
                "convention": convention,
                "mixed_precision": mixed_precision,
                "kernels": kernels,
                "sharding": sharding,
                "devices": devices,
            },
        )
    )
    if as_json:
        typer.echo(json.dumps(_as_json(answer)))
    else:
        _print(answer)


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
        more = "4-bit weights or up to 64 devices" if request.device == "cuda" else "weights in bfloat16"
        shorter = ", sequences of half the length," if request.max_length >= MIN_HALVED else ""
        typer.echo(f"No smaller batch{shorter} or {more} would {outcome}.")
