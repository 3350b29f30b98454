"""Running a session from ``tune`` and ``train``, and printing its result."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tunecast.paths import expanded

if TYPE_CHECKING:
    from rich.table import Table

    from tunecast.progress import Progress
    from tunecast.results import Contender, SessionRecord


def run_session(
    session: Callable[[Progress], SessionRecord], output_dir: str, *, go_on: str, as_json: bool
) -> None:
    """Run a session, show its progress and print its result; on Ctrl-C, name the ``go_on`` command."""
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
    """Describe what an interrupted session left behind."""
    from tunecast.session.folder import SESSION_FILE

    if not (folder / SESSION_FILE).is_file():
        return "Interrupted before the session began; nothing was written."
    return f"Interrupted. All measured points are saved; continue with: {go_on}"


def as_result(record: SessionRecord) -> dict[str, Any]:
    """Build what ``--json`` prints; a contender that was not scored is None."""
    from tunecast.report.wording import test_disagreement
    from tunecast.store.codec import for_others

    names = ("zero_shot", "baseline", "incumbent")
    contenders = {name: record.find_contender(name) for name in names}
    incumbent = record.contender("incumbent")
    result: dict[str, Any] = {
        "incumbent": {
            "pipeline": {"method": incumbent.pipeline.method, **incumbent.pipeline.hyperparameters},
            "trial": incumbent.run,
            "validation_loss": record.incumbent_loss,
        },
        "validation": {name: _validation(one) for name, one in contenders.items()},
        "test": {name: _test(one) for name, one in contenders.items()},
        "winner": record.winner,
        "budget": {"granted_seconds": record.granted_seconds, "used_seconds": record.used_seconds},
        "output_dir": record.output_dir,
        "warnings": [*test_disagreement(record), *record.warnings],
        "forecast": asdict(record.forecast) if record.forecast else None,
    }
    plain: dict[str, Any] = for_others(result)
    return plain


def _validation(contender: Contender | None) -> dict[str, Any] | None:
    score = contender.validation if contender else None
    return {"loss": score.loss, "metric": score.metric} if score else None


def _test(contender: Contender | None) -> dict[str, Any] | None:
    if contender is None:
        return None
    score = contender.test
    by_loss = score.metric is None
    return {
        "loss": score.loss,
        "metric": score.metric,
        "low": score.loss_low if by_loss else score.metric_low,
        "high": score.loss_high if by_loss else score.metric_high,
    }


def print_record(record: SessionRecord) -> None:
    """Print the contenders as a table, then where everything is."""
    from rich.console import Console

    from tunecast.report.forecast import forecast_sentences
    from tunecast.report.wording import test_disagreement

    console = Console()
    console.print(_table(record))
    # Each path stays on one line, so that it can be copied.
    for line in (
        f"Winner: {record.winner.replace('_', '-')}. Model and card: {record.output_dir}/best",
        f"Report: {record.output_dir}/report.html",
        *test_disagreement(record),
        *(forecast_sentences(record.forecast) if record.forecast else ()),
    ):
        console.print(line, markup=False, soft_wrap=True)


def _table(record: SessionRecord) -> Table:
    """Build the table: what validation chose by, then the scores on the test split."""
    from rich.table import Table
    from rich.text import Text

    from tunecast.report.numbers import decimal, interval
    from tunecast.report.wording import pipeline_line

    title = f"{record.task.dataset} on {record.task.model}"
    table = Table(title=Text(title, style="table.title"))
    metric = record.objective if record.objective != "loss" else ""
    table.add_column("", no_wrap=True)
    for name in (f"validation\n{record.objective}", "test loss", *([f"test {metric}"] if metric else [])):
        heading = f"{name}\n(95% interval)" if name.startswith("test") else name
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("pipeline")
    for contender in record.contenders:
        score, chosen_by = contender.test, contender.validation
        cells = [
            contender.name.replace("_", "-"),
            decimal((chosen_by.metric if metric else chosen_by.loss) if chosen_by else None, 4),
            f"{decimal(score.loss, 4)}\n{interval(score.loss_low, score.loss_high)}",
        ]
        if metric:
            cells.append(f"{decimal(score.metric, 4)}\n{interval(score.metric_low, score.metric_high)}")
        cells.append(pipeline_line(contender.pipeline))
        table.add_row(*cells, style="bold green" if contender.name == record.winner else None)
    return table
