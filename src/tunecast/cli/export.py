"""``tunecast export``: write a pipeline and its data for another trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunecast.cli import options


def command(
    source: Annotated[
        str, typer.Argument(metavar="OUT|PIPELINE.json", help="A session's folder, or a pipeline's file.")
    ],
    to: Annotated[str, typer.Option("--to", help="trl, axolotl or llamafactory.")],
    model: Annotated[str | None, typer.Option("--model", help="Base model. (default: the session's)")] = None,
    data: Annotated[str | None, typer.Option("--data", help="Data. (default: the session's)")] = None,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", help="Folder. (default: export-TRAINER here or in OUT)")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", help="Passes over the data. (default: the session's)")
    ] = None,
    max_length: options.MaxLength = None,
) -> None:
    """Write a ready configuration (for trl a script), and the data in the trainer's format."""
    from tunecast.api import export

    written = export(
        source, to, model=model, data=data, output_dir=output_dir, epochs=epochs, max_length=max_length
    )
    for file in written:
        typer.echo(str(file))
