"""From a forecast to a decision: the cheapest mix of data, model and method that reaches a loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunecast.arrays import Floats
from tunecast.errors import ConfigurationError
from tunecast.scaling.crossover import compared_groups
from tunecast.scaling.forecasting import FARTHEST, posteriors, support
from tunecast.scaling.models import CurvePosterior
from tunecast.scaling.new_curves import curve_at, is_measured
from tunecast.scaling.predicting import CurvePrediction
from tunecast.scaling.table import Curve, Group, LossTable

FARTHEST_MODEL = 4.0
"""Largest supported ratio of a model's size to the nearest one of the table."""
_GRID = 160


@dataclass(frozen=True)
class Prices:
    """What data and training cost, in one currency.

    Args:
        example: Price of one labelled example.
        hour: Price of an hour of training.
        owned: Labelled examples at hand, which cost nothing.
    """

    example: float = 0.0
    hour: float = 0.0
    owned: float = 0.0

    def of(self, data_size: float, hours: float | None) -> float:
        """Return the price of a finetuning on ``data_size`` examples; unknown hours are free."""
        return self.example * max(0.0, data_size - self.owned) + self.hour * (hours or 0.0)


@dataclass(frozen=True)
class Option:
    """The cheapest finetuning of one curve that is expected to reach the target.

    Args:
        model_parameters: Size of the model, None if the table does not tell.
        data_size: Unique examples to train on; None if no size within reach suffices.
        probability: Probability that one measurement is at or below the target there, or the highest that is
            within reach.
        loss: Predicted loss there, None without a size; so are the 90% interval of one measurement, ``hours``
            and ``price``. ``hours`` are None too if the table has no seconds.
        supported: Whether the forecast is fit to act upon; ``reason`` says why, or why not.
    """

    group: Group
    model_parameters: float | None
    data_size: float | None
    probability: float
    loss: float | None
    low: float | None
    high: float | None
    hours: float | None
    price: float | None
    supported: bool
    reason: str


def cheapest(
    table: LossTable,
    target: float,
    prices: Prices,
    confidence: float = 0.8,
    model_parameters: Sequence[float] = (),
    law: str = "auto",
    seed: int = 0,
) -> tuple[Option, ...]:
    """Find for every curve the least data that reaches a loss, and order them by price.

    Options that are fit to act upon come first, then those that are not supported, then curves that do not
    reach the target.

    Args:
        target: The loss to reach, in the unit of the table.
        confidence: Required probability, between 0 and 1, that one finetuning is at or below the target.
        model_parameters: Further model sizes to consider, for every method of the table.
        law: As in :func:`~tunecast.scaling.forecasting.forecast`.

    Raises:
        ConfigurationError: Hours have a price, but a curve has no seconds; or sizes of models were given for
            a table without them.
    """
    if prices.hour > 0 and (slow := next((c for c in table.curves if c.seconds_per_example is None), None)):
        raise ConfigurationError(
            f"An hour has a price, but {slow.name} has no seconds in {table.source}.",
            "Add a column seconds, those of each run's training, or drop --price-hour.",
        )
    options = _measured(table, target, prices, confidence, law, seed)
    for size in model_parameters:
        options += _of_new_model(table, size, target, prices, confidence, law, seed)
    return tuple(sorted(options, key=lambda option: (not option.supported, *_order(option))))


def _order(option: Option) -> tuple[bool, float, float]:
    return option.price is None, option.price or 0.0, -option.probability


def _measured(
    table: LossTable, target: float, prices: Prices, confidence: float, law: str, seed: int
) -> list[Option]:
    options = []
    for part in posteriors(table, law, seed):
        sizes = _sizes(part.table)
        draws = part.predict(sizes, seed).measured(seed)
        for row, curve in enumerate(part.table.curves):
            pace = curve.seconds_per_example
            option = _option(curve, curve.group, pace, draws[:, row], sizes, target, prices, confidence)
            options.append(option)
    return options


def _of_new_model(
    table: LossTable,
    model_parameters: float,
    target: float,
    prices: Prices,
    confidence: float,
    law: str,
    seed: int,
) -> list[Option]:
    """Consider a size of models for every group of curves that was not measured at it."""
    options: list[Option] = []
    groups = compared_groups(table, model_parameters)
    if all(is_measured(table, rows, model_parameters) for _, rows in groups):
        return options
    for part in posteriors(table, law, seed, other_factor=True):
        sizes = _sizes(part.table)
        for group, rows in compared_groups(part.table, model_parameters):
            if is_measured(part.table, rows, model_parameters):
                continue
            curve = curve_at(part, rows, model_parameters, sizes, seed)
            noise = part.draws[0].noise
            prediction = CurvePrediction(np.median(curve, axis=0)[None], curve[:, None], noise)
            draws = prediction.measured(seed)[:, 0]
            nearest = _nearest_model(part, rows, model_parameters)
            pace = _pace(part, rows, model_parameters)
            shown = {**group, "model_parameters": model_parameters}
            option = _option(nearest, shown, pace, draws, sizes, target, prices, confidence)
            options.append(_of_size(option, nearest, model_parameters))
    return options


def _option(
    curve: Curve,
    group: Group,
    pace: float | None,
    draws: Floats,
    sizes: Floats,
    target: float,
    prices: Prices,
    confidence: float,
) -> Option:
    """Find the least size at which the draws, shape (draws, sizes), reach the target."""
    size_of_model = curve.factors.get("model_parameters")
    reached = np.mean(draws <= np.log(target), axis=0)
    enough = np.flatnonzero(reached >= confidence)
    if not enough.size:
        best = float(reached.max())
        reason = f"at most {best:.0%} within {FARTHEST:.0f} times the largest measured size"
        return Option(group, size_of_model, None, best, None, None, None, None, None, False, reason)
    place = int(enough[0])
    size = float(sizes[place])
    low, middle, high = (float(np.exp(np.quantile(draws[:, place], level))) for level in (0.05, 0.5, 0.95))
    supported, reason = support(curve, size, low, high)
    hours = None if pace is None else pace * size / 3600
    chance, price = float(reached[place]), prices.of(size, hours)
    return Option(group, size_of_model, size, chance, middle, low, high, hours, price, supported, reason)


def _of_size(option: Option, nearest: Curve, model_parameters: float) -> Option:
    known = nearest.factors["model_parameters"]
    ratio = max(known / model_parameters, model_parameters / known)
    reason, supported = option.reason, option.supported
    if supported and ratio > FARTHEST_MODEL:
        supported, reason = False, f"too far: {ratio:.0f} times from the nearest measured model ({known:.3g})"
    return replace(option, model_parameters=model_parameters, supported=supported, reason=reason)


def _sizes(table: LossTable) -> Floats:
    smallest = min(float(curve.data_sizes[0]) for curve in table.curves)
    return np.geomspace(smallest, FARTHEST * table.largest_size, _GRID)


def _nearest_model(part: CurvePosterior, rows: Sequence[int], model_parameters: float) -> Curve:
    curves = [part.table.curves[row] for row in rows]
    return min(curves, key=lambda curve: abs(np.log(curve.factors["model_parameters"] / model_parameters)))


def _pace(part: CurvePosterior, rows: Sequence[int], model_parameters: float) -> float | None:
    """Extrapolate the seconds per example to another model size, as a power law of it."""
    curves = [part.table.curves[row] for row in rows]
    known = [(c.factors["model_parameters"], c.seconds_per_example) for c in curves if c.seconds_per_example]
    if not known:
        return None
    log_sizes, log_paces = np.log(np.array(known)).T
    slope = np.polyfit(log_sizes, log_paces, 1)[0] if len(set(log_sizes)) > 1 else 1.0
    return float(np.exp(np.mean(log_paces) + slope * (np.log(model_parameters) - np.mean(log_sizes))))
