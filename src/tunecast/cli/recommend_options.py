"""The options that ``tunecast recommend`` alone has, with their help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunecast.cli import options

Data = Annotated[str, typer.Option("--data", help="File, folder, hub id, or stdlib.")]
MemoryGb = Annotated[
    float | None, typer.Option("--memory-gb", help="Memory of the device. (default: what it has)")
]
Budget = Annotated[
    str, typer.Option("--budget", help="Longest that one training may take: 30m, 2h, 2M-tokens.")
]
Price = Annotated[float | None, typer.Option("--price", help="Price of the machine per hour.")]
Top = Annotated[int | None, typer.Option("--top", help="Pipelines to recommend. (default: 5)")]
Methods = Annotated[
    str | None,
    typer.Option("--methods", help="Allowed methods, such as lora,ia3. (default: those known best)"),
]
Epochs = Annotated[
    float | None, typer.Option("--epochs", help="Passes over the training examples. (default: 3)")
]
Measure = Annotated[
    str, typer.Option("--measure", help="Measure the zero-shot loss for this long, such as 30s.")
]
Calibrate = Annotated[
    bool, typer.Option("--calibrate", help="Measure this machine first; later calls know it.")
]
Plot = Annotated[
    Path | None,
    typer.Option("--plot", parser=options.path, help="Write the chart of quality against seconds as HTML."),
]
Federated = Annotated[
    int | None,
    typer.Option(
        "--federated",
        metavar="CLIENTS",
        help="Compare the methods of tunecast federate for this many clients, who share --data.",
    ),
]
Rounds = Annotated[
    int | None, typer.Option("--rounds", help="With --federated: rounds of training. (default: 10)")
]
Share = Annotated[
    float | None,
    typer.Option("--share", help="With --federated: share of clients that train in a round. (default: 1)"),
]
Skew = Annotated[
    str | None,
    typer.Option(
        "--skew",
        help="With --federated: how much labels differ between clients: low, medium or high. "
        "(default: medium)",
    ),
]
Prior = Annotated[str, typer.Option("--prior", help="File of tunecast learn. (default: the shipped one)")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the split.")]
