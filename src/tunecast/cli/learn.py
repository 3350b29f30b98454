"""``tunecast learn``: train the predictor on recorded runs, and report its accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunecast.cli import options
from tunecast.ranges import MAX_SEED


def command(
    output: Annotated[
        Path, typer.Option("--output", parser=options.path, help="File to write the prior to.")
    ],
    store: Annotated[
        str | None,
        typer.Option("--store", help="URL, file or Parquet export of runs. (default: the shipped runs)"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Seed of folds and training.")] = 0,
    scores: Annotated[
        bool, typer.Option("--scores/--no-scores", help="Score predictions on held-out tasks.")
    ] = True,
) -> None:
    """Train the predictor on recorded runs, and write the prior that transfer and quick-tune use."""
    from tunecast.predictor.train import learn

    learn(store, output, seed=seed, scores=scores, show=typer.echo)
