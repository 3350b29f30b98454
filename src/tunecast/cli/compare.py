"""``tunecast compare``: strategies on recorded runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunecast.cli import options

if TYPE_CHECKING:
    from tunecast.replay.verdicts import Verdict

LEAST_WIDTH = 100
WIDTH_FOR_INTERVALS = 170
"""Columns of a terminal on which five budgets have room for their 95% intervals."""

Store = Annotated[
    str | None, typer.Option("--store", help="URL or file of a store. (default: the shipped meta-dataset)")
]
Strategies = Annotated[
    str | None,
    typer.Option(
        "--strategies", help="Names separated by commas. (default: Tunecast's own, as far as runs allow)"
    ),
]
Rivals = Annotated[
    bool, typer.Option("--rivals", help="Add the algorithms of other libraries (extra: rivals).")
]
Seeds = Annotated[int, typer.Option("--seeds", help="Seeds: random 70% subsets of the candidates.")]
Budgets = Annotated[str, typer.Option("--budgets", help="Budgets in baseline trials at full length.")]
Folds = Annotated[str, typer.Option("--folds", help="What strategies must not know: task, family or model.")]
Model = Annotated[str | None, typer.Option("--model", help="Replay on this base model only.")]
Clock = Annotated[str, typer.Option("--clock", help="Recorded seconds to go by: wall or cpu.")]
Workers = Annotated[int, typer.Option("--workers", help="Trials that are advanced side by side.")]
Thinking = Annotated[
    float | None,
    typer.Option("--thinking-seconds", help="Charged for each answer of a strategy. (default: as measured)"),
]
Output = Annotated[Path | None, typer.Option("--output", help="Also write a page to this HTML file.")]


def command(
    store: Store = None,
    strategies: Strategies = None,
    rivals: Rivals = False,
    seeds: Seeds = 10,
    budgets: Budgets = "1,2,4,8,16",
    folds: Folds = "task",
    model: Model = None,
    clock: Clock = "wall",
    workers: Workers = 1,
    thinking_seconds: Thinking = None,
    output: Output = None,
    as_json: options.AsJson = False,
) -> None:
    """Replay strategies on recorded runs under a simulated clock, and say who is first where."""
    from tunecast.atomic import check_writable
    from tunecast.cli.progress import RichProgress
    from tunecast.replay.stored import CompareSettings, compare
    from tunecast.report.comparison_page import write_comparison
    from tunecast.report.comparison_wording import header, sentences

    names = options.names("--strategies", strategies, "random,advised")
    settings = CompareSettings.parse(
        store=store, strategies=names, rivals=rivals, seeds=seeds, budgets=budgets, folds=folds,
        model=model, clock=clock, workers=workers, thinking_seconds=thinking_seconds,
    )  # fmt: skip
    if output is not None:
        check_writable(output, "--output")
    with RichProgress() as progress:
        verdict, reasons = compare(settings, progress)
    if as_json:
        said = {"header": header(verdict), "sentences": sentences(verdict), "left_out": reasons}
        typer.echo(json.dumps(verdict.as_json() | said, indent=2))
    else:
        _print(verdict, reasons)
    # The page comes last: where it cannot be written after all, the comparison is on the screen.
    if output is not None:
        write_comparison(verdict, output)


def _print(verdict: Verdict, reasons: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from tunecast.report.comparison_wording import header, regret_rows, rival_rows, sentences

    console = Console()
    console.width = max(console.width, LEAST_WIDTH)
    typer.echo(header(verdict))
    table = Table(
        title="Normalised regret on the test split in percent, and mean rank, by budget in baseline trials"
    )
    table.add_column("strategy", no_wrap=True)
    for budget in verdict.comparison.budgets:
        table.add_column(f"{budget:g}", justify="right", no_wrap=True)
    for row in regret_rows(verdict, with_interval=console.width >= WIDTH_FOR_INTERVALS):
        table.add_row(*row)
    console.print(table)
    for name, library, asked, distance in rival_rows(verdict):
        typer.echo(f"{name}: {library}, asked {asked} times, mean distance of candidates {distance}")
    for sentence in sentences(verdict):
        typer.echo(sentence)
    if reasons:
        typer.echo(
            f"Left out: {len(reasons)} combinations of task, base model and full length, such as {reasons[0]}"
        )
