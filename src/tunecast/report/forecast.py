"""What more data would bring, in words and as a table: the same for the terminal and the report."""

from __future__ import annotations

from tunecast.records import DataForecast, MoreData
from tunecast.report.numbers import MISSING, compact, decimal, interval, with_interval
from tunecast.report.tables import Table


def outlook_sentences(outlook: DataForecast) -> tuple[str, ...]:
    """The forecast in a sentence or two; where it should not be acted upon, the refusal comes first."""
    if outlook.reason:
        return (f"No forecast: {outlook.reason}.",)
    supported = [one for one in outlook.forecasts if one.supported]
    refused = [one for one in outlook.forecasts if not one.supported]
    if not supported:
        return (f"No forecast: {refused[0].reason}. {_advice(outlook)}",)
    size, loss = outlook.measured[-1]
    found = [
        f"{with_interval(one.loss, one.low, one.high)} with {_multiple(one, outlook)}" for one in supported
    ]
    sentence = (
        f"More data: from a validation loss of {decimal(loss)} on {size:,} examples to {', '.join(found)}; "
        "brackets hold 90% intervals."
    )
    if not refused:
        return (sentence,)
    names = " and ".join(_multiple(one, outlook) for one in refused)
    return sentence, f"No forecast for {names}: {refused[0].reason}. {_advice(outlook)}"


def outlook_table(outlook: DataForecast) -> Table | None:
    """What was measured and what is forecast, by rising data size; None where there are no forecasts."""
    if not outlook.forecasts:
        return None
    last = outlook.measured[-1][1]
    rows: list[tuple[str, ...]] = [
        (f"{size:,}", decimal(loss), MISSING, "measured") for size, loss in outlook.measured
    ]
    rows += [_forecast_row(one, last, outlook) for one in outlook.forecasts]
    laws = " and ".join(sorted({one.law for one in outlook.forecasts}))
    note = (
        f"Law: {laws}. All runs pass over their examples equally often, so that training takes longer in "
        "proportion. An interval is that of one measurement on the same validation examples."
    )
    header = ("unique examples", "validation loss (90%)", "change", "")
    return Table(header, tuple(rows), frozenset({1, 2}), note=note)


def _forecast_row(one: MoreData, last: float, outlook: DataForecast) -> tuple[str, ...]:
    name = f"{_multiple(one, outlook)}: {one.data_size:,}"
    if not one.supported:
        return name, MISSING, MISSING, "no forecast"
    loss = f"{decimal(one.loss)}\n{interval(one.low, one.high)}"
    return name, loss, f"{one.loss / last - 1:+.1%}", "forecast"


def _multiple(one: MoreData, outlook: DataForecast) -> str:
    """How many times the data of the leading trial."""
    return f"{one.data_size / outlook.data_size:.3g}x"


def _advice(outlook: DataForecast) -> str:
    return f"A run on {compact(outlook.next_size)} examples would narrow it most for its cost."
