"""``tunecast dashboard``: sessions in a browser while they run, and steering them from there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunecast.cli import options
from tunecast.errors import ConfigurationError


def command(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="OUT...",
            parser=options.path,
            help="Output folders of sessions, or folders that hold some.",
        ),
    ] = None,
    store: Annotated[
        str | None, typer.Option("--store", help="A store (file or URL): its sessions and runs.")
    ] = None,
    allow_steering: Annotated[
        bool, typer.Option("--allow-steering", help="Let pages stop trials, add pipelines, extend, end.")
    ] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 for a free one.")] = 8765,
    host: Annotated[
        str,
        typer.Option("--host", help="Address to listen on; any but 127.0.0.1 is reachable from elsewhere."),
    ] = "127.0.0.1",
) -> None:
    """Show sessions in a browser while they run, and the runs of a store, until Ctrl-C."""
    from tunecast.dashboard.server import serve
    from tunecast.paths import expanded

    if not folders and not store:
        raise ConfigurationError(
            "There is nothing to show: neither a folder nor --store was given.",
            "For example: tunecast dashboard tunecast-out",
        )

    def tell(address: str) -> None:
        typer.echo(f"Dashboard: {address}")
        steering = "sessions may be steered" if allow_steering else "read-only; --allow-steering to steer"
        typer.echo(f"Anyone with this address can see the dashboard ({steering}). Ctrl-C ends it.", err=True)

    shown = [expanded(str(folder)) for folder in folders or ()]
    serve(shown, store or "", host=host, port=port, steers=allow_steering, tell=tell)
