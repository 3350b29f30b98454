"""The cheapest finetuning that reaches a loss, on joint laws whose constants are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scaling.planted import methods_table
from tunecast.errors import ConfigurationError
from tunecast.scaling import LossTable, Option, Prices, cheapest

_LAWS = {"full": (30.0, 0.1, 0.25, 0.5), "lora": (6.0, 0.08, 0.1, 0.45)}
_TARGET = 0.95


@pytest.fixture(scope="module")
def table() -> LossTable:
    return methods_table(_LAWS)


def timed(table: LossTable) -> LossTable:
    """A second per thousand parameters and thousand examples; full finetuning takes twice as long."""
    paces = (c.factors["model_parameters"] * 1e-9 * (1 + (c.group["method"] == "full")) for c in table.curves)
    curves = zip(table.curves, paces, strict=True)
    return replace(table, curves=tuple(replace(curve, seconds_per_example=pace) for curve, pace in curves))


def truth(option: Option) -> float:
    """The data size at which the planted law is at the target."""
    a, alpha, beta, e = _LAWS[str(option.group["method"])]
    assert option.model_parameters is not None
    return float((a * option.model_parameters**-alpha / (_TARGET - e)) ** (1 / beta))


def test_the_least_data_is_that_of_the_planted_laws(table: LossTable) -> None:
    options = cheapest(table, _TARGET, Prices(example=1.0))
    assert len(options) == 8
    for option in options:
        assert option.data_size is not None
        if truth(option) > 1000:  # else the smallest measured size is enough
            assert option.data_size == pytest.approx(truth(option), rel=0.25)
            assert option.data_size > 0.97 * truth(option)  # the probability asked for needs a margin
        assert option.probability >= 0.8
        assert option.supported


def test_more_certainty_needs_more_data(table: LossTable) -> None:
    half, sure = (cheapest(table, _TARGET, Prices(), confidence=level) for level in (0.5, 0.99))
    sizes = [{str(o.group): o.data_size or np.inf for o in options} for options in (half, sure)]
    assert all(sizes[0][name] <= sizes[1][name] for name in sizes[0])
    assert any(sizes[0][name] < sizes[1][name] for name in sizes[0])


def test_options_are_ordered_by_price_and_prices_decide(table: LossTable) -> None:
    dear_data = cheapest(timed(table), _TARGET, Prices(example=10.0, hour=0.01))
    dear_hours = cheapest(timed(table), _TARGET, Prices(example=0.0001, hour=1000.0))
    for options in (dear_data, dear_hours):
        prices = [option.price for option in options]
        assert prices == sorted(prices)
    assert dear_data[0].model_parameters == 3e9
    assert dear_hours[0].model_parameters == 1e8
    first = dear_hours[0]
    assert first.hours == pytest.approx(
        (first.data_size or 0) * 1e-9 * 1e8 / 3600 * (1 + (first.group["method"] == "full"))
    )
    assert first.price == pytest.approx(0.0001 * (first.data_size or 0) + 1000 * (first.hours or 0))


def test_examples_at_hand_cost_nothing() -> None:
    prices = Prices(example=2.0, hour=3.0, owned=1000.0)
    assert prices.of(1500, 2.0) == 1000 + 6
    assert prices.of(500, None) == 0


def test_a_larger_model_is_an_option_with_its_own_hours(table: LossTable) -> None:
    options = cheapest(timed(table), 0.9, Prices(hour=1.0), model_parameters=[6e9, 1e11, 1e9])
    new = {
        (str(o.group["method"]), o.model_parameters): o for o in options if (o.model_parameters or 0) > 3e9
    }
    assert len(options) == len(table.curves) + 4  # 1e9 was measured
    lora, full = new["lora", 6e9], new["full", 6e9]
    assert lora.supported
    assert full.hours is not None
    assert full.data_size is not None
    assert full.hours * 3600 / full.data_size == pytest.approx(12.0, rel=0.01)
    assert not new["lora", 1e11].supported
    assert "times from the nearest measured model" in new["lora", 1e11].reason


def test_a_loss_below_the_floor_is_not_reached(table: LossTable) -> None:
    options = cheapest(table, 0.2, Prices(example=1.0))
    assert all(option.data_size is None and option.price is None for option in options)
    assert all(option.reason.startswith("at most ") and not option.supported for option in options)


def test_hours_that_were_not_measured_have_no_price(table: LossTable) -> None:
    with pytest.raises(ConfigurationError, match="has no seconds in planted"):
        cheapest(table, 1.0, Prices(hour=1.0))


def test_a_method_without_curves_of_a_size_is_considered_there(table: LossTable) -> None:
    gone = ("full", 3e9)
    kept = tuple(c for c in table.curves if (c.group["method"], c.factors["model_parameters"]) != gone)
    options = cheapest(replace(table, curves=kept), _TARGET, Prices(), model_parameters=(3e9,))
    at = sorted(str(option.group["method"]) for option in options if option.model_parameters == 3e9)
    assert at == ["full", "lora"]
