"""The options that ``tunecast tune`` alone has, with their help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunecast.cli import completion, options
from tunecast.models.load import MODEL_FORMATS

Model = Annotated[
    str | None,
    typer.Option("--model", help=f"Base model: {MODEL_FORMATS}.", autocompletion=completion.models),
]
Data = Annotated[
    str | None,
    typer.Option("--data", help="File, folder, hub id, or stdlib.", autocompletion=completion.datasets),
]
Documents = Annotated[
    str | None,
    typer.Option(
        "--documents",
        help="Instead of --data: a document or folder, for the pairs it states, kept in OUT-pairs.jsonl.",
    ),
]
Budget = Annotated[
    str | None, typer.Option("--budget", help="90s, 30m, 2h, 2M-tokens or 20-trials. (default: 30m)")
]
OutputDir = Annotated[
    str | None, typer.Option("--output-dir", help="Where everything is written. (default: tunecast-out)")
]
Strategy = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        help="transfer, quick-tune, asha, random, portfolio, nearest-task, fixed-baseline, fixed-3e-4, "
        "fixed-best, or one of an installed package. (default: transfer)",
        autocompletion=completion.strategies,
    ),
]
Objective = Annotated[
    str | None,
    typer.Option(
        "--objective",
        help="loss, or the metric that chooses the winner. (default: a metric of labels for classification, "
        "else loss)",
        autocompletion=completion.objectives,
    ),
]
Methods = Annotated[
    str | None,
    typer.Option(
        "--methods",
        help="Allowed methods, such as lora,ia3. (default: all)",
        autocompletion=completion.method_lists,
    ),
]
Ranges = Annotated[
    list[str] | None,
    typer.Option(
        "--range", help="Narrow the range of a hyperparameter: learning_rate=1e-5:1e-3. Repeatable."
    ),
]
Epochs = Annotated[
    float | None,
    typer.Option("--epochs", help="Maximum number of passes over the training examples. (default: 3)"),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random. (default: 0)")]
Workers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        help="Trials trained at the same time: a number, or auto for as many as accelerators, or cores and "
        "memory, allow. (default: one per accelerator; on a CPU 1)",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", help="Threads of a worker, or of each of its processes. (default: cores / workers)"
    ),
]
KeepGb = Annotated[
    float | None, typer.Option("--keep-gb", help="Maximum GB of checkpoints to keep. (default: 10)")
]
MaxMemoryGb = Annotated[
    float | None,
    typer.Option("--max-memory-gb", help="Exclude pipelines that need more memory. (default: the device's)"),
]
Forecast = Annotated[
    bool | None,
    typer.Option(
        "--forecast/--no-forecast",
        help="Forecast the loss with more data, for up to 10% of the budget. (default: yes)",
    ),
]
FinalTraining = Annotated[
    str | None,
    typer.Option(
        "--final-training",
        help="Train the winner for longer and let the better one of the two win: budget (within the second "
        "half of the budget), epochs=N (N passes, outside the budget) or none. (default: budget if one "
        "worker searches with seconds or tokens)",
    ),
]
Value = Annotated[
    float | None,
    typer.Option(
        "--value",
        help="Minutes that 1% of loss is worth; transfer and quick-tune end when they expect less. "
        "(default: the whole budget)",
    ),
]
Patience = Annotated[
    int | None,
    typer.Option(
        "--patience",
        help="End the search after this many measured points without a lower loss, over all trials. "
        "(default: never)",
    ),
]
Prior = Annotated[
    str | None,
    typer.Option(
        "--prior", help="File of tunecast learn, for transfer and quick-tune. (default: the shipped one)"
    ),
]
ProxyFor = Annotated[
    str | None,
    typer.Option(
        "--proxy-for", help="Larger model to steer with the winner (proxy-tuning); it is not trained."
    ),
]
Guard = Annotated[
    list[str] | None,
    typer.Option(
        "--guard",
        help="What the model must keep: a dataset as for --data (FILE,prompt-column=A,completion-column=B "
        "names its columns), the suite python, or lm-eval:TASK. The leading checkpoints are scored on it "
        "beside the base model. Repeatable.",
    ),
]
GuardLimit = Annotated[
    str | None,
    typer.Option(
        "--guard-limit", help="Exclude checkpoints that lose more than this on a guard, such as 2%."
    ),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", parser=options.path, help="YAML file of these options; flags override it."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Resume the session in the output folder.")]
WriteConfig = Annotated[
    Path | None,
    typer.Option(
        "--write-config",
        parser=options.path,
        help="With --dry-run: write a YAML file of all options, explained, with the values of this session.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop; --json has all of it.")]
