"""How ``tune`` and ``train`` run a session, and what they print of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tunecast.paths import expanded

if TYPE_CHECKING:
    from tunecast.progress import Progress
    from tunecast.records import SessionRecord


def run_session(
    session: Callable[[Progress], SessionRecord], output_dir: str, *, go_on: str, as_json: bool
) -> None:
    """Run a session, show its progress and print its result; who interrupts it is told how to go on.

    Args:
        session: Runs it.
        output_dir: Where it writes.
        go_on: What goes on with it.
        as_json: Whether the result is printed as JSON.
    """
    from tunecast.cli.progress import RichProgress

    try:
        with RichProgress() as progress:
            record = session(progress)
    except KeyboardInterrupt:
        typer.echo(_interrupted(expanded(output_dir), go_on), err=True)
        raise
    if as_json:
        typer.echo(json.dumps(as_result(record), indent=2))
    else:
        print_record(record)


def _interrupted(folder: Path, go_on: str) -> str:
    """What Ctrl-C leaves behind."""
    from tunecast.session.folder import SESSION_FILE

    if not (folder / SESSION_FILE).is_file():
        return "Interrupted before the session began; nothing was written."
    return f"Interrupted. Nothing that was measured is lost; go on with {go_on}"


def as_result(record: SessionRecord) -> dict[str, Any]:
    """What ``--json`` prints; a contender of which no checkpoint was left to score is None."""
    from tunecast.store.codec import for_others

    scores: dict[str, Any] = {"zero_shot": None, "baseline": None, "incumbent": None}
    for contender in record.contenders:
        score = contender.test
        by_loss = score.metric is None
        scores[contender.name] = {
            "loss": score.loss,
            "metric": score.metric,
            "low": score.loss_low if by_loss else score.metric_low,
            "high": score.loss_high if by_loss else score.metric_high,
        }
    incumbent = record.contender("incumbent")
    result: dict[str, Any] = {
        "incumbent": {
            "pipeline": {"method": incumbent.pipeline.method, **incumbent.pipeline.hyperparameters},
            "trial": incumbent.run,
            "validation_loss": record.incumbent_loss,
        },
        "test": scores,
        "winner": record.winner,
        "budget": {"granted_seconds": record.granted_seconds, "used_seconds": record.used_seconds},
        "output_dir": record.output_dir,
        "warnings": list(record.warnings),
        "forecast": asdict(record.forecast) if record.forecast else None,
    }
    plain: dict[str, Any] = for_others(result)
    return plain


def print_record(record: SessionRecord) -> None:
    """The comparison as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from tunecast.report.forecast import outlook_sentences
    from tunecast.report.numbers import interval
    from tunecast.report.wording import pipeline_line

    title = f"{record.task.dataset} on {record.task.model}: test scores"
    table = Table(title=Text(title, style="table.title"))
    metric = record.objective if record.objective != "loss" else ""
    for column in (
        "",
        "test loss",
        "95% interval",
        *([metric, "95% interval"] if metric else []),
        "pipeline",
    ):
        table.add_column(column, justify="left" if column in ("", "pipeline") else "right")
    for contender in record.contenders:
        score = contender.test
        row = [
            contender.name.replace("_", "-"),
            f"{score.loss:.4f}",
            interval(score.loss_low, score.loss_high, 4),
        ]
        if metric:
            row += [f"{score.metric:.4f}", interval(score.metric_low, score.metric_high, 4)]
        row.append(pipeline_line(contender.pipeline))
        table.add_row(*row, style="bold green" if contender.name == record.winner else None)
    console = Console()
    console.print(table)
    # Paths are for copying: as they are, on one line each.
    for line in (
        f"Winner: {record.winner.replace('_', '-')}. Model and card: {record.output_dir}/best",
        f"Report: {record.output_dir}/report.html",
    ):
        console.print(line, markup=False, soft_wrap=True)
    if record.forecast:
        for line in outlook_sentences(record.forecast):
            console.print(line, markup=False, soft_wrap=True)
