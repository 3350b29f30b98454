"""``tunecast scale``: scaling laws for a table or a store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunecast.atomic import check_writable
from tunecast.cli import options
from tunecast.errors import ConfigurationError
from tunecast.ranges import MAX_SEED, check_range

if TYPE_CHECKING:
    from tunecast.scaling import Fit, LossTable, MetricForecast, MetricReport, Option, Prices

app = typer.Typer(
    help="Predict the effect of more data, a larger model or another method.", no_args_is_help=True
)


class LawName(StrEnum):
    """Values of ``--law``."""

    AUTO = "auto"
    POWER = "power"
    RECTIFIED = "rectified"
    JOINT = "joint"
    ADDITIVE = "additive"
    JOINT_RECTIFIED = "joint-rectified"


TablePath = Annotated[
    Path | None,
    typer.Option(
        "--table", parser=options.path, help="CSV or Parquet file with loss, data_size and descriptors."
    ),
]
StoreUrl = Annotated[
    str | None, typer.Option("--store", help="Store of runs or Parquet export; completed runs are used.")
]
By = Annotated[str | None, typer.Option("--by", help="Columns that name the curves, separated by commas.")]
Law = Annotated[LawName, typer.Option("--law", help="Law to fit; auto selects by held-out extrapolation.")]
MaxObserved = Annotated[
    float | None, typer.Option("--max-observed", help="Ignore points above this data size.")
]
Factor = Annotated[
    str | None,
    typer.Option(
        "--factor",
        help="X of a joint law, several separated by commas; by default all that the table can tell apart.",
    ),
]
Signed = Annotated[
    bool, typer.Option("--signed", help="Let the exponents of factors in joint laws be negative.")
]
Plot = Annotated[
    Path | None,
    typer.Option("--plot", parser=options.path, help="Also write the curves to this HTML file."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Seed of the posterior.")]


@app.command("fit")
def fit_command(
    table: TablePath = None,
    store: StoreUrl = None,
    by: By = None,
    law: Law = LawName.AUTO,
    factor: Factor = None,
    signed: Signed = False,
    max_observed: MaxObserved = None,
    plot: Plot = None,
    seed: Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Fit a law to every curve and print its constants and errors."""
    from tunecast.scaling import fit

    _check(plot)
    data = _read(table, store, by, max_observed, factor, signed)
    fits = fit(data, law.value, seed=seed)
    if as_json:
        _print_json({"fits": [asdict(entry) for entry in fits]})
    else:
        for entry in fits:
            typer.echo(_fit_line(entry))
        for note in dict.fromkeys(entry.note for entry in fits if entry.note):
            typer.echo(note)
    _plot(plot, data, law, seed)


@app.command("forecast")
def forecast_command(
    data_size: Annotated[
        str, typer.Option("--data-size", help="Unique examples, several separated by commas.")
    ],
    table: TablePath = None,
    store: StoreUrl = None,
    by: By = None,
    law: Law = LawName.AUTO,
    factor: Factor = None,
    signed: Signed = False,
    max_observed: MaxObserved = None,
    metric: Annotated[
        str,
        typer.Option("--metric", help="Forecast this column of the table, or metric of the store, instead."),
    ] = "",
    plot: Plot = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 2 when a forecast is not supported.")
    ] = False,
    seed: Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Forecast the loss, or a metric, of every curve at other data sizes, with 90% intervals."""
    from tunecast.scaling import forecast, forecast_metric, group_name

    sizes = _sizes(data_size)
    _check(plot)
    data = _read(table, store, by, max_observed, factor, signed, metric)
    if metric:
        _show_metric(forecast_metric(data, sizes, law=law.value, seed=seed), strict, as_json)
        _plot(plot, data, law, seed, max(sizes))
        return
    outlook = forecast(data, sizes, law=law.value, seed=seed)
    if as_json:
        _print_json(asdict(outlook))
    else:
        for entry in outlook.forecasts:
            text = f"{group_name(entry.group)} at {entry.data_size:,.0f} examples: {entry.loss:.4f} "
            text += f"({entry.low:.4f} to {entry.high:.4f}, {entry.law})"
            typer.echo(text if entry.supported else f"NOT SUPPORTED, {entry.reason}. {text}")
        for run in outlook.advice:
            typer.echo(
                f"Measure next: {group_name(run.group)} at {run.data_size:,.0f} examples; expected to narrow "
                f"the interval at {run.target_size:,.0f} by {run.narrows_by:.0%}."
            )
    _plot(plot, data, law, seed, max(sizes))
    if strict and not all(entry.supported for entry in outlook.forecasts):
        raise typer.Exit(2)


def _show_metric(report: MetricReport, strict: bool, as_json: bool) -> None:
    """Print forecasts of a metric and, before them, whether it follows from the loss."""
    if as_json:
        _print_json(asdict(report))
    else:
        for relation in report.relations:
            verdict = "follows" if relation.holds else "DOES NOT FOLLOW"
            where = f" in {relation.task}" if relation.task else ""
            typer.echo(f"{relation.metric}{where} {verdict} from the loss: {relation.reason}.")
        for entry in report.forecasts:
            typer.echo(_metric_line(entry))
    if strict and not all(entry.supported for entry in report.forecasts):
        raise typer.Exit(2)


def _metric_line(entry: MetricForecast) -> str:
    from tunecast.scaling import group_name

    name = f"{group_name(entry.group)} at {entry.data_size:,.0f} examples"
    if not entry.supported:
        return f"NOT SUPPORTED, {entry.reason}: no {entry.metric} for {name}."
    return f"{name}: {entry.metric} {entry.value:.4g} ({entry.low:.4g} to {entry.high:.4g})"


@app.command("select")
def select_command(
    data_size: Annotated[str, typer.Option("--data-size", help="Unique examples of the planned finetuning.")],
    table: TablePath = None,
    store: StoreUrl = None,
    by: By = "model",
    law: Law = LawName.AUTO,
    factor: Factor = None,
    signed: Signed = False,
    max_observed: MaxObserved = None,
    plot: Plot = None,
    seed: Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Rank the models (or methods) of a table by their predicted loss, with the chance of each to be best.

    The order is cautious: it is that of the loss that a curve stays below with a probability of 70%.
    """
    from tunecast.scaling import group_name, select

    sizes = _sizes(data_size)
    if len(sizes) != 1:
        raise ConfigurationError("--data-size takes one number here.")
    _check(plot)
    data = _read(table, store, by, max_observed, factor, signed)
    ranking = select(data, sizes[0], law=law.value, seed=seed)
    if as_json:
        entries = [{**e.group, **{k: v for k, v in asdict(e).items() if k != "group"}} for e in ranking]
        _print_json({"ranking": entries})
    else:
        for place, entry in enumerate(ranking, start=1):
            interval = f"({entry.low:.4f} to {entry.high:.4f})"
            chance = f"best with {entry.best:.0%}"
            typer.echo(f"{place:3d}. {group_name(entry.group)}: {entry.loss:.4f} {interval}, {chance}")
    _plot(plot, data, law, seed, sizes[0])


@app.command("crossover")
def crossover_command(
    table: TablePath = None,
    store: StoreUrl = None,
    by: By = "method",
    model_parameters: Annotated[
        float | None, typer.Option("--model-parameters", help="Size of the model to compare at.")
    ] = None,
    law: Law = LawName.AUTO,
    factor: Factor = None,
    signed: Signed = False,
    max_observed: MaxObserved = None,
    plot: Plot = None,
    seed: Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Find the data sizes at which one method overtakes another."""
    from tunecast.scaling import crossover, group_name

    check_range("model_parameters", model_parameters)
    _check(plot)
    data = _read(table, store, by, max_observed, factor, signed)
    crossings = crossover(data, model_parameters, law=law.value, seed=seed)
    if as_json:
        _print_json({"crossovers": [asdict(entry) for entry in crossings]})
    else:
        for entry in crossings:
            typer.echo(f"{group_name(entry.first)} against {group_name(entry.second)}: {entry.reason}")
            for root in entry.roots:
                interval = f"(90% interval {root.low:,.0f} to {root.high:,.0f})"
                typer.echo(f"  {root.data_size:,.0f} examples {interval}")
    _plot(plot, data, law, seed, crossings=[root.data_size for entry in crossings for root in entry.roots])


@app.command("advise")
def advise_command(
    target: Annotated[float, typer.Option("--target", help="The loss to reach.")],
    table: TablePath = None,
    store: StoreUrl = None,
    by: By = None,
    price_example: Annotated[
        float, typer.Option("--price-example", min=0.0, help="Price of one labelled example.")
    ] = 0.0,
    price_hour: Annotated[
        float, typer.Option("--price-hour", min=0.0, help="Price of an hour of training.")
    ] = 0.0,
    have: Annotated[
        float, typer.Option("--have", min=0.0, help="Labelled examples at hand, which cost nothing.")
    ] = 0.0,
    confidence: Annotated[
        float, typer.Option("--confidence", help="Required probability of reaching the loss.")
    ] = 0.8,
    model_parameters: Annotated[
        str | None,
        typer.Option("--model-parameters", help="Further sizes of models, several separated by commas."),
    ] = None,
    law: Law = LawName.AUTO,
    max_observed: MaxObserved = None,
    plot: Plot = None,
    seed: Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Find the cheapest mix of data, model and method that reaches a loss."""
    from tunecast.scaling import Prices, cheapest

    if not 0 < target < float("inf"):
        raise ConfigurationError(f"--target must be a number above 0, not {target}.")
    if not 0 < confidence < 1:
        raise ConfigurationError(f"--confidence must be between 0 and 1, not {confidence:g}.", "Write 0.8.")
    sizes = _sizes(model_parameters, "--model-parameters") if model_parameters else []
    _check(plot)
    data = _read(table, store, by, max_observed, None, signed=False)
    prices = Prices(price_example, price_hour, have)
    found = cheapest(data, target, prices, confidence, sizes, law=law.value, seed=seed)
    if as_json:
        _print_json({"options": [asdict(option) for option in found]})
    else:
        for option in found:
            typer.echo(_option_line(option, target))
    reached = [option.data_size for option in found if option.data_size and option.supported]
    _plot(plot, data, law, seed, max(reached, default=None), target=target, prices=prices)


def _option_line(option: Option, target: float) -> str:
    from tunecast.report.numbers import duration
    from tunecast.scaling import group_name

    name = group_name(option.group)
    if option.data_size is None:
        return f"NOT REACHED by {name}: {option.reason}."
    hours = "" if option.hours is None else f", {duration(3600 * option.hours)} of training"
    text = f"{name}: {option.data_size:,.0f} examples{hours}, price {option.price:,.2f}; "
    text += f"at most {target:g} with {option.probability:.0%} ({option.low:.4f} to {option.high:.4f})"
    return text if option.supported else f"NOT SUPPORTED, {option.reason}. {text}"


def _read(
    table: Path | None,
    store: str | None,
    by: str | None,
    max_observed: float | None,
    factor: str | None,
    signed: bool,
    metric: str = "",
) -> LossTable:
    from tunecast.scaling import factor_names, read_store, read_table

    columns = options.names("--by", by or None, "model,method")
    factors = factor_names(options.names("--factor", factor, "model_parameters,pretraining_tokens"))
    check_range("max_observed", max_observed)
    if (table is None) == (store is None):
        raise ConfigurationError("Give either --table or --store.")
    if table is not None:
        found = read_table(table, columns, max_observed, metric)
    else:
        found = read_store(str(store), columns, max_observed, metric)
    return replace(found, factors=factors, signed=signed)


def _sizes(text: str, flag: str = "--data-size") -> list[float]:
    try:
        sizes = [float(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or not all(0 < size < float("inf") for size in sizes):
        raise ConfigurationError(f"{flag} {text!r} is not a list of numbers above 0.", "Write 1000,10000.")
    for size in sizes:
        check_range("data_size", size, called=flag)
    return sizes


def _check(plot: Path | None) -> None:
    if plot is not None:
        check_writable(plot, "--plot")


def _plot(
    path: Path | None,
    data: LossTable,
    law: LawName,
    seed: int,
    largest: float | None = None,
    crossings: Sequence[float] = (),
    target: float | None = None,
    prices: Prices | None = None,
) -> None:
    """Write the figures; call this after printing the answer, because it may still fail."""
    if path is None:
        return
    from tunecast.report.scaling_plot import write_plot

    write_plot(path, data, law.value, largest, crossings, seed, target, prices)


def _fit_line(entry: Fit) -> str:
    from tunecast.scaling import group_name

    constants = "  ".join(
        f"{name} {value:.4g}{_range(entry, name)}" for name, value in entry.parameters.items()
    )
    left_out = entry.rmsd_log_leave_one_out
    errors = f"rmsd {entry.rmsd_log:.4f}, left out {'n/a' if left_out is None else f'{left_out:.4f}'}"
    return f"{group_name(entry.group)}: {entry.law}  {constants}  ({errors}, {entry.points} points)"


def _range(entry: Fit, constant: str) -> str:
    if constant not in entry.exponents:
        return ""
    low, high = entry.exponents[constant]
    return f" ({low:.3g} to {high:.3g})"


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=dict))
