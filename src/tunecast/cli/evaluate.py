"""``tunecast evaluate``: the loss and metric of a model, with or without an adapter, on a dataset."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from tunecast.records import Evaluation

__all__ = ["command"]


def command(
    model: str = typer.Option(
        ..., "--model", help="Hub id, folder, GGUF file, smollm2, or the folder of an adapter."
    ),
    data: str = typer.Option(..., "--data", help="File, folder, hub id, or stdlib."),
    adapter: str = typer.Option("", "--adapter", help="Folder of an adapter to put on the model."),
    split: str = typer.Option("test", "--split", help="test or validation."),
    objective: str = typer.Option("loss", "--objective", help="loss, or a metric to measure too."),
    max_length: int = typer.Option(None, "--max-length", help="Longest sequence in tokens."),
    prompt_column: str = typer.Option(None, "--prompt-column", help="Column of the prompts."),
    completion_column: str = typer.Option(None, "--completion-column", help="Column of the completions."),
    seed: int = typer.Option(0, "--seed", help="Seed of the split and of the intervals."),
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or cuda:N."),
    dtype: str = typer.Option("auto", "--dtype", help="auto, bfloat16 or float32."),
    trust_remote_code: bool = typer.Option(
        False, "--trust-remote-code", help="Run code that comes with models."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON on stdout."),
) -> None:
    """Score a model on a dataset; nothing is trained."""
    from tunecast.api import evaluate
    from tunecast.cli.progress import RichProgress
    from tunecast.session.settings import SessionSettings

    settings = SessionSettings(
        model,
        data,
        objective=objective,
        max_length=max_length,
        prompt_column=prompt_column,
        completion_column=completion_column,
        seed=seed,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
    )
    with RichProgress() as progress:
        evaluation = evaluate(settings, adapter=adapter, split=split, progress=progress)
    if as_json:
        from tunecast.store.codec import for_others

        typer.echo(json.dumps(for_others(asdict(evaluation)), indent=2))
    else:
        _print(evaluation)


def _print(evaluation: Evaluation) -> None:
    score = evaluation.score
    what = f"{evaluation.model} with {evaluation.adapter}" if evaluation.adapter else evaluation.model
    typer.echo(f"{what} on {evaluation.dataset}, {score.examples} {evaluation.split} examples")
    typer.echo(f"loss {score.loss:.4f} nats per label token{_interval(score.loss_low, score.loss_high)}")
    typer.echo(
        f"{score.nats_per_completion:.3f} nats per completion, {score.bits_per_byte:.3f} bits per byte"
    )
    if score.metric is not None:
        interval = _interval(score.metric_low, score.metric_high)
        typer.echo(f"{score.metric_name} {score.metric:.4f}{interval} on {score.metric_examples} examples")
    for warning in evaluation.warnings:
        typer.echo(f"Note: {warning}")


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" (95% interval {low:.4f} to {high:.4f})"
