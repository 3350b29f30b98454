"""``tunecast train``: train one pipeline to its end, without a search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command"]


def command(
    pipeline: Annotated[
        Path, typer.Option("--pipeline", help="JSON file of a pipeline, such as OUT/best/pipeline.json.")
    ],
    model: str = typer.Option(..., "--model", help="Hub id, folder, GGUF file, or smollm2."),
    data: str = typer.Option(..., "--data", help="File, folder, hub id, or stdlib."),
    output_dir: str = typer.Option("tunecast-out", "--output-dir", help="Where everything is written."),
    objective: str = typer.Option("loss", "--objective", help="loss, or a metric to measure too."),
    epochs: float = typer.Option(3.0, "--epochs", help="Passes over the training examples."),
    unique_examples: int = typer.Option(
        None, "--unique-examples", help="Training examples to use. (default: all)"
    ),
    max_length: int = typer.Option(
        None, "--max-length", help="Longest sequence in tokens. (default: from the data)"
    ),
    prompt_column: str = typer.Option(None, "--prompt-column", help="Column of the prompts."),
    completion_column: str = typer.Option(None, "--completion-column", help="Column of the completions."),
    seed: int = typer.Option(0, "--seed", help="Seed of everything random."),
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or cuda:N."),
    dtype: str = typer.Option("auto", "--dtype", help="auto, bfloat16 or float32."),
    threads: int = typer.Option(None, "--threads", help="Threads of the worker. (default: all cores)"),
    store: str = typer.Option("", "--store", help="URL of the store. (default: OUT/runs.sqlite)"),
    deterministic: bool = typer.Option(False, "--deterministic", help="Bit-equal results on a GPU too."),
    trust_remote_code: bool = typer.Option(
        False, "--trust-remote-code", help="Run code that comes with models."
    ),
    resume: bool = typer.Option(False, "--resume", help="Go on with the training in the output folder."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON on stdout."),
) -> None:
    """Train one pipeline, keep its best checkpoint, and compare it with the untouched model."""
    from tunecast.api import train
    from tunecast.cli.progress import RichProgress
    from tunecast.cli.tune import as_result, print_record
    from tunecast.methods.pipeline_file import read_pipeline
    from tunecast.session.settings import SessionSettings

    settings = SessionSettings(
        model,
        data,
        output_dir=output_dir,
        objective=objective,
        epochs=epochs,
        unique_examples=unique_examples,
        max_length=max_length,
        prompt_column=prompt_column,
        completion_column=completion_column,
        seed=seed,
        device=device,
        dtype=dtype,
        threads=threads,
        store=store,
        deterministic=deterministic,
        trust_remote_code=trust_remote_code,
    )
    with RichProgress() as progress:
        record = train(settings, read_pipeline(pipeline), resume=resume, progress=progress)
    typer.echo(json.dumps(as_result(record), indent=2)) if as_json else print_record(record)
