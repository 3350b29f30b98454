"""``tunecast train``: train one pipeline to its end, without a search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunecast.cli import options
from tunecast.cli.session_result import run_session
from tunecast.models.load import MODEL_FORMATS


def command(
    pipeline: Annotated[
        Path, typer.Option("--pipeline", help="JSON file of a pipeline, such as OUT/best/pipeline.json.")
    ],
    model: str = typer.Option(..., "--model", help=f"Base model: {MODEL_FORMATS}."),
    data: str = typer.Option(..., "--data", help="File, folder, hub id, or stdlib."),
    output_dir: str = typer.Option(
        None, "--output-dir", help="Folder for all output. (default: tunecast-out)"
    ),
    objective: str = typer.Option(None, "--objective", help="loss, or a metric to choose the winner by."),
    epochs: float = typer.Option(None, "--epochs", help="Passes over the training examples. (default: 3)"),
    unique_examples: options.UniqueExamples = None,
    max_length: options.MaxLength = None,
    prompt_column: options.PromptColumn = None,
    completion_column: options.CompletionColumn = None,
    seed: int = typer.Option(None, "--seed", help="Seed of everything random. (default: 0)"),
    device: options.Device = None,
    dtype: options.Dtype = None,
    threads: int = typer.Option(None, "--threads", help="Threads of the worker. (default: all cores)"),
    executor: options.Executor = None,
    store: options.Store = None,
    deterministic: options.Deterministic = None,
    trust_remote_code: options.TrustRemoteCode = None,
    resume: bool = typer.Option(False, "--resume", help="Continue the training in the output folder."),
    as_json: options.AsJson = False,
) -> None:
    """Train one pipeline and deliver its best checkpoint, or the base model if that is better."""
    values = dict(locals())
    for name in ("pipeline", "resume", "as_json"):
        del values[name]
    from tunecast.api import train
    from tunecast.methods.pipeline_file import read_pipeline

    settings, chosen = options.settings_from(values), read_pipeline(pipeline)
    run_session(
        lambda progress: train(settings, chosen, resume=resume, progress=progress),
        settings.output_dir,
        go_on="the same command and --resume.",
        as_json=as_json,
    )
