"""``tunecast learn``: train the surrogates on recorded runs, and say how good they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    output: Annotated[Path, typer.Option("--output", help="File that the prior is written to.")],
    store: Annotated[
        str | None,
        typer.Option("--store", help="URL, file or Parquet export of runs. (default: the shipped runs)"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of folds and training.")] = 0,
    scores: Annotated[
        bool, typer.Option("--scores/--no-scores", help="Judge every family of surrogates on tasks left out.")
    ] = True,
) -> None:
    """Learn from recorded runs how trials end, and write the prior that transfer and quick-tune use."""
    from tunecast.predictor.train import learn

    learn(store, output, seed=seed, scores=scores, show=typer.echo)
