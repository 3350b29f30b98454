"""``tunecast worker``: serve the sessions that find their workers in a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunecast.cli import options


def command(
    store: str = typer.Option(..., "--store", help="URL or file of the store that the sessions use."),
    shared_dir: Annotated[
        Path | None,
        typer.Option(
            parser=options.path,
            help="Folder that all machines see, as sessions name it. (default: a SQLite store's)",
        ),
    ] = None,
    once: bool = typer.Option(False, "--once", help="Leave after the first session."),
    idle_exit: str | None = typer.Option(
        None, "--idle-exit", help="Exit after this long without work, such as 10m. (default: never)"
    ),
) -> None:
    """Work for sessions that were started with --executor queue, until Ctrl-C; start any number of these."""
    from tunecast.budget import duration
    from tunecast.executors.queue_worker import Stay, work

    idle_seconds = None if idle_exit is None else duration("--idle-exit", idle_exit)
    work(store, shared_dir, Stay(once, idle_seconds), lambda text: typer.echo(text, err=True))
