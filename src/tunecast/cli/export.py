"""``tunecast export``: write a pipeline and its data for another trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunecast.cli import options
from tunecast.errors import ConfigurationError

TRAINERS = ("trl", "unsloth", "axolotl", "llamafactory")


def command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="OUT|PIPELINE.json|MODEL", help="A session's folder, a pipeline's file, or an adapter."
        ),
    ],
    to: Annotated[str | None, typer.Option("--to", help=f"A trainer: {', '.join(TRAINERS)}.")] = None,
    merged: Annotated[
        bool, typer.Option("--merge", help="Write the model with its adapter merged into the weights.")
    ] = False,
    model: Annotated[str | None, typer.Option("--model", help="Base model. (default: the session's)")] = None,
    data: Annotated[str | None, typer.Option("--data", help="Data. (default: the session's)")] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", help="Folder. (default: export-TRAINER or merged, here or in OUT)"),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", help="Passes over the data. (default: what was tested)")
    ] = None,
    max_length: options.MaxLength = None,
) -> None:
    """Write a ready configuration or script for another trainer with its data, or a merged model."""
    from tunecast.api import export, merge

    if merged == (to is not None):
        raise ConfigurationError(
            "--to and --merge exclude each other." if merged else "Nothing says what to export.",
            f"Give --to {', --to '.join(TRAINERS)}, or --merge.",
        )
    if to is None:
        typer.echo(str(merge(source, model=model, output_dir=output_dir)))
        return
    written = export(
        source, to, model=model, data=data, output_dir=output_dir, epochs=epochs, max_length=max_length
    )
    for file in written:
        typer.echo(str(file))
