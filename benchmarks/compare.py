"""Compare strategies, including other libraries' searches: regret, tests, and the claims they allow.

    python benchmarks/compare.py --rivals --seeds 3 --output comparison.html --json

It makes the replays of ``tunecast compare`` and has its options and two more. ``--rivals`` adds the searches
of optuna, DEHB and, if its environment is named, Quick-Tune-Tool. ``--output`` writes a page.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tunecast.atomic import check_writable
from tunecast.cli import compare as shared
from tunecast.cli import options
from tunecast.errors import report_user_errors
from tunecast.replay.stored import CompareSettings, compare
from tunecast.report.live import RichProgress
from tunecast_benchmarks.html_page import write_comparison
from tunecast_benchmarks.rivals import RIVALS, Watch, contestants, usual_rivals
from tunecast_benchmarks.verdict import Verdict
from tunecast_benchmarks.wording import rival_rows, sentences

Rivals = Annotated[bool, typer.Option("--rivals", help="Add the searches of other libraries.")]
Output = Annotated[Path | None, typer.Option("--output", help="Also write a page to this HTML file.")]


def command(
    store: shared.Store = None,
    strategies: shared.Strategies = None,
    rivals: Rivals = False,
    seeds: shared.Seeds = 10,
    budgets: shared.Budgets = shared.BUDGETS,
    folds: shared.Folds = "task",
    model: shared.Model = None,
    clock: shared.Clock = "wall",
    workers: shared.Workers = 1,
    thinking_seconds: shared.Thinking = None,
    output: Output = None,
    as_json: options.AsJson = False,
) -> None:
    """Replay strategies on recorded runs, and say which differences are more than chance."""
    names = options.names("--strategies", strategies, "random,transfer")
    settings = CompareSettings.parse(
        store=store, strategies=names, seeds=seeds, budgets=budgets, folds=folds, model=model, clock=clock,
        workers=workers, thinking_seconds=thinking_seconds,
    )  # fmt: skip
    if output is not None:
        check_writable(output, "--output")
    own = contestants([*(name for name in names if name in RIVALS), *(usual_rivals() if rivals else ())])
    watch = Watch()
    with RichProgress() as progress:
        comparison, left_out = compare(settings, progress, own=own, watch=watch)
    verdict = Verdict(comparison, watch.asked, shipped=store is None)
    if as_json:
        told = verdict.as_json() | {"sentences": sentences(verdict), "left_out": left_out}
        typer.echo(json.dumps(told, indent=2))
    else:
        shared.print_standings(verdict, left_out)
        for name, library, asked, distance in rival_rows(verdict):
            typer.echo(f"{name}: {library}, asked {asked} times, mean distance of candidates {distance}")
        for sentence in sentences(verdict):
            typer.echo(sentence)
    # The page comes last: if it cannot be written after all, the comparison is on the screen.
    if output is not None:
        write_comparison(verdict, output)


if __name__ == "__main__":
    with report_user_errors():
        typer.run(command)
