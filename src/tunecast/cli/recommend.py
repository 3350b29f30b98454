"""``tunecast recommend``: what to do with a model, a dataset and a machine, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunecast.cli import options
from tunecast.models.load import MODEL_FORMATS

if TYPE_CHECKING:
    from tunecast.recommender.recommendation import Prospect, Recommendation


def command(
    model: Annotated[
        str, typer.Option("--model", help=f"Base model: {MODEL_FORMATS}; config.json is enough.")
    ],
    data: Annotated[str, typer.Option("--data", help="File, folder, hub id, or stdlib.")],
    gpu: Annotated[
        str | None, typer.Option("--gpu", help="An accelerator such as H100. (default: this machine)")
    ] = None,
    memory_gb: Annotated[
        float | None, typer.Option("--memory-gb", help="Memory of the device. (default: what it has)")
    ] = None,
    gpus_per_trial: options.GpusPerTrial = None,
    budget: Annotated[
        str, typer.Option("--budget", help="Longest that one training may take: 30m, 2h, 2M-tokens.")
    ] = "",
    price: Annotated[float | None, typer.Option("--price", help="Price of the machine per hour.")] = None,
    top: Annotated[int, typer.Option("--top", help="Pipelines to recommend.")] = 5,
    methods: Annotated[
        str | None,
        typer.Option("--methods", help="Allowed methods, such as lora,ia3. (default: those known best)"),
    ] = None,
    fix: Annotated[
        list[str] | None, typer.Option("--fix", help="Fix a hyperparameter: lora_r=16. Repeatable.")
    ] = None,
    epochs: Annotated[float, typer.Option("--epochs", help="Passes over the training examples.")] = 3.0,
    max_length: options.MaxLength = None,
    measure: Annotated[
        str, typer.Option("--measure", help="Measure the zero-shot loss for this long, such as 30s.")
    ] = "",
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine first; later calls know it.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", click_type=options.PATH, help="Write the chart of quality against seconds as HTML."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the split.")] = 0,
    prompt_column: options.PromptColumn = None,
    completion_column: options.CompletionColumn = None,
    trust_remote_code: options.TrustRemoteCode = None,
    as_json: options.AsJson = False,
) -> None:
    """Predict quality, hours, memory and money of finetunings, and say which to run."""
    options.keep_numpy_single_threaded()
    from tunecast.api import recommend
    from tunecast.atomic import check_writable
    from tunecast.recommender.question import Question

    question = Question(
        model=model,
        data=data,
        gpu=gpu,
        memory_gb=memory_gb,
        budget=budget,
        price=price,
        top=top,
        methods=options.names("--methods", methods, "lora,ia3"),
        fixed=options.fixed_values(fix or []),
        epochs=epochs,
        max_length=max_length,
        seed=seed,
        prompt_column=prompt_column,
        completion_column=completion_column,
        trust_remote_code=bool(trust_remote_code),
        gpus_per_trial=1 if gpus_per_trial is None else gpus_per_trial,
    )
    if plot is not None:
        check_writable(plot, "--plot")
    if measure or calibrate:
        from tunecast.report.live import RichProgress

        with RichProgress() as progress:
            found = recommend(question, measure=measure, calibrate=calibrate, progress=progress)
    else:
        found = recommend(question)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        _print(found)
    # The chart comes last: if it cannot be written after all, the answer is on the screen.
    if plot is not None:
        from tunecast.report.recommendation_plot import write_prospects

        write_prospects(found, plot)
        typer.echo(f"Chart: {plot}", err=True)


def _cost_line(best: Prospect) -> str:
    """Write the time and the bytes of a prediction with their intervals."""
    from tunecast.report.numbers import duration

    hours, low, high = (duration(3600 * one) for one in (best.hours, best.hours_low, best.hours_high))
    return (
        f"The first takes {hours} ({low} to {high}) and {best.memory_gb:.1f} GB "
        f"({best.memory_gb_low:.1f} to {best.memory_gb_high:.1f}); 90% intervals."
    )


def _epochs_line(found: Recommendation) -> str:
    """Write how loss and time of the first recommendation go with the number of epochs."""
    from tunecast.report.numbers import duration

    cells = [
        f"{epochs:g}: {one.predicted_loss:.2f} in {duration(one.seconds)}"
        for epochs, one in found.by_epochs.items()
    ]
    return f"By epochs, each at its best rate: {'; '.join(cells)}."


def _print(found: Recommendation) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from tunecast.recommender.explanations import worth_text
    from tunecast.report.wording import prospect_cells

    console = Console()
    zero_shot = found.zero_shot_loss
    console.print(
        f"Untouched model: test loss {zero_shot.value:.2f} ({zero_shot.low:.2f} to {zero_shot.high:.2f}), "
        f"{zero_shot.source}.",
        soft_wrap=True,
        highlight=False,
    )
    for text in (worth_text(found), found.basis):
        if text:
            console.print(text, soft_wrap=True, highlight=False)
    title = f"{found.dataset} on {found.model}, {found.target}: predicted, nothing was run"
    table = Table(title=Text(title, style="table.title"))
    priced = found.recommendations[0].money is not None
    for column in ("gain", "test loss", "90% interval", "time", "GB", *(["money"] if priced else [])):
        table.add_column(column, justify="right")
    table.add_column("pipeline")
    for prospect in found.recommendations:
        table.add_row(*prospect_cells(prospect))
    console.print(table)
    best = found.recommendations[0]
    lines = [
        _cost_line(best),
        _epochs_line(found),
        "Why the first:",
        *(f"  {reason}" for reason in best.reasons),
        "Change it in tunecast tune by:",
    ]
    lines += [f"  {' '.join(best.overrides.values())}", "Nearest known tasks:"]
    lines += [
        f"  {one.dataset}: {one.distance:.2f} deviations away, {one.runs} runs" for one in found.neighbours
    ]
    lines += [f"Note: {warning}" for warning in found.warnings]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True, highlight=False)
