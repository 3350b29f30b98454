"""``tunecast recommend``: what to do with a model, a dataset and a machine, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunecast.cli import options
from tunecast.errors import ConfigurationError
from tunecast.models.load import MODEL_FORMATS

if TYPE_CHECKING:
    from tunecast.recommender.federated import FederatedRecommendation
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
    top: Annotated[int | None, typer.Option("--top", help="Pipelines to recommend. (default: 5)")] = None,
    methods: Annotated[
        str | None,
        typer.Option("--methods", help="Allowed methods, such as lora,ia3. (default: those known best)"),
    ] = None,
    fix: Annotated[
        list[str] | None, typer.Option("--fix", help="Fix a hyperparameter: lora_r=16. Repeatable.")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", help="Passes over the training examples. (default: 3)")
    ] = None,
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
            "--plot", parser=options.path, help="Write the chart of quality against seconds as HTML."
        ),
    ] = None,
    federated: Annotated[
        int | None,
        typer.Option(
            "--federated",
            metavar="CLIENTS",
            help="Compare the methods of tunecast federate for this many clients, who share --data.",
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option("--rounds", help="With --federated: rounds of training. (default: 10)")
    ] = None,
    share: Annotated[
        float | None,
        typer.Option(
            "--share", help="With --federated: share of clients that train in a round. (default: 1)"
        ),
    ] = None,
    skew: Annotated[
        str | None,
        typer.Option(
            "--skew",
            help="With --federated: how much labels differ between clients: low, medium or high. "
            "(default: medium)",
        ),
    ] = None,
    prior: Annotated[
        str, typer.Option("--prior", help="File of tunecast learn. (default: the shipped one)")
    ] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the split.")] = 0,
    prompt_column: options.PromptColumn = None,
    completion_column: options.CompletionColumn = None,
    pattern: options.Pattern = None,
    verbaliser: options.Verbaliser = None,
    trust_remote_code: options.TrustRemoteCode = None,
    as_json: options.AsJson = False,
) -> None:
    """Predict quality, hours, memory and money of finetunings, and say which to run."""
    options.keep_numpy_single_threaded()
    from tunecast.api.asking import recommend, recommend_federated
    from tunecast.atomic import check_writable
    from tunecast.recommender.federated_study import Federation
    from tunecast.recommender.question import Question
    from tunecast.report.live import RichProgress

    if federated is None:
        _refuse({"--rounds": rounds, "--share": share, "--skew": skew}, "needs --federated")
    else:
        single: dict[str, object] = {
            "--budget": budget,
            "--price": price,
            "--top": top,
            "--methods": methods,
            "--fix": fix,
            "--epochs": epochs,
            "--plot": plot,
            "--gpus-per-trial": gpus_per_trial,
            "--prompt-column": prompt_column,
            "--completion-column": completion_column,
            "--pattern": pattern,
            "--verbaliser": verbaliser,
            "--trust-remote-code": trust_remote_code,
        }
        _refuse(single, "does not go with --federated")
    question = Question(
        model=model,
        data=data,
        gpu=gpu,
        memory_gb=memory_gb,
        budget=budget,
        price=price,
        methods=options.names("--methods", methods, "lora,ia3"),
        fixed=options.fixed_values(fix or []),
        max_length=max_length,
        seed=seed,
        prompt_column=prompt_column,
        completion_column=completion_column,
        pattern=pattern or "",
        verbaliser=options.verbaliser(verbaliser or []),
        trust_remote_code=bool(trust_remote_code),
        prior=prior,
        **_stated(top=top, epochs=epochs, gpus_per_trial=gpus_per_trial),
    )
    if plot is not None:
        check_writable(plot, "--plot")
    with RichProgress() if measure or calibrate else nullcontext() as progress:
        if federated is not None:
            federation = Federation(federated, **_stated(rounds=rounds, share=share, skew=skew))
            compared = recommend_federated(
                question, federation, measure=measure, calibrate=calibrate, progress=progress
            )
        else:
            found = recommend(question, measure=measure, calibrate=calibrate, progress=progress)
    if as_json:
        answer = found if federated is None else compared
        typer.echo(json.dumps(answer.as_json(), indent=2))
    elif federated is not None:
        _print_federated(compared, model)
    else:
        _print(found)
    # The chart comes last: if it cannot be written after all, the answer is on the screen.
    if plot is not None:
        from tunecast.report.recommendation_plot import write_prospects

        write_prospects(found, plot)
        typer.echo(f"Chart: {plot}", err=True)


def _stated(**values: Any) -> dict[str, Any]:
    """Leave out what was not given, so that the defaults hold."""
    return {name: value for name, value in values.items() if value is not None}


def _refuse(given: Mapping[str, object], reason: str) -> None:
    """Refuse options that would be ignored.

    Raises:
        ConfigurationError: One was given.
    """
    for name, value in given.items():
        if value is not None and value is not False and value not in ("", []):
            raise ConfigurationError(f"{name} {reason}.", "Leave one of them out.")


def _cost_line(best: Prospect) -> str:
    """Write the time and the bytes of a prediction with their intervals."""
    from tunecast.report.numbers import duration

    hours, low, high = (duration(3600 * (one or 0)) for one in (best.hours, best.hours_low, best.hours_high))
    return (
        f"The first takes {hours} ({low} to {high}) and {best.memory_gb:.1f} GB "
        f"({best.memory_gb_low:.1f} to {best.memory_gb_high:.1f}); 90% intervals."
    )


def _epochs_line(found: Recommendation) -> str:
    """Write how loss and time of the first recommendation go with the number of epochs."""
    from tunecast.report.wording import time_text

    cells = [
        f"{epochs:g}: {one.predicted_loss:.2f}" + (f" in {time_text(one)}" if not one.unpriced else "")
        for epochs, one in found.by_epochs.items()
    ]
    best = found.best_epochs
    advice = (
        "More still gain."
        if best == max(found.by_epochs)
        else f"{best:g} would do: the next number is expected to gain less than 1%."
    )
    return f"By epochs, each at its best rate: {'; '.join(cells)}. {advice}"


def _print(found: Recommendation) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from tunecast.recommender.explanations import worth_text
    from tunecast.report.wording import prospect_cells

    console = Console()
    zero_shot = found.zero_shot_loss
    console.print(
        f"Base model: test loss {zero_shot.value:.2f} ({zero_shot.low:.2f} to {zero_shot.high:.2f}), "
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
        *([] if best.unpriced else [_cost_line(best)]),
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


def _print_federated(found: FederatedRecommendation, model: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from tunecast.report.numbers import duration

    console, asked = Console(), found.federation
    title = (
        f"{found.dataset} on {found.model}, {asked.clients:,} clients with {found.target}: "
        "predicted, nothing was run"
    )
    table = Table(title=Text(title, style="table.title"))
    for column in ("kept", "90%", "loss", "MB", "time", "GB"):
        table.add_column(column, justify="right")
    table.add_column("method", no_wrap=True)
    for one in found.prospects:
        table.add_row(
            f"{one.kept:.0%}",
            f"{100 * one.kept_low:.0f}-{one.kept_high:.0%}",
            f"{one.predicted_loss:.2f}",
            f"{one.total_bytes / 1e6:,.3g}",
            duration(one.seconds),
            f"{one.memory_gb:.1f}" if one.fits else f"{one.memory_gb:.1f} (!)",
            one.variant,
        )
    best = found.prospects[0]
    start = found.zero_shot_loss
    lines = [
        f"Base model: test loss {start.value:.2f}, {start.source}. LoRA on all data in one place, with "
        f"a pass for each round: {found.centralised_loss:.2f}, predicted.",
        f"Kept is the share of that gain after {asked.rounds:,} rounds. MB are those of all clients and "
        "rounds, both ways; time and GB are one client's.",
        found.studied,
        *(["(!) More than a client's device holds."] if not all(one.fits for one in found.prospects) else []),
        "Run the first by:",
        f"  tunecast federate --model {model} --validation FILE --clients DIR... {best.flags}",
        *(f"Note: {warning}" for warning in found.warnings),
    ]
    console.print(table)
    for line in lines:
        console.print(line, markup=False, soft_wrap=True, highlight=False)
