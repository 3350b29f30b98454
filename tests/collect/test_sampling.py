from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from sample_runs import sample_model
from tunecast.collect.planfile import Plan, read_plan
from tunecast.collect.sampling import Drawing, Drawn, sobol_points
from tunecast.methods.rates import adapter_rate, optimizer_rate

DRAWS = 64


@pytest.fixture
def plan(write_plan: Callable[..., Path], roots: dict[str, str]) -> Plan:
    pipelines = {"methods": {"lora": 2, "full": 1, "ia3": 1}, "learning_rates": {"lora": [0.1, 10]}}
    return read_plan(write_plan(pipelines=pipelines), roots)


def test_draws_do_not_depend_on_their_order(plan: Plan) -> None:
    forward = [Drawing(plan, sample_model()).draw("shared", number) for number in (3, 1, 2)]
    drawing = Drawing(plan, sample_model())
    assert [drawing.draw("shared", number) for number in (1, 2, 3)] == [forward[1], forward[2], forward[0]]


def test_streams_differ(plan: Plan) -> None:
    drawing = Drawing(plan, sample_model())
    assert drawing.draw("shared", 0) != drawing.draw("own", 0)
    assert sobol_points(0, "shared")[0].tolist() != sobol_points(1, "shared")[0].tolist()


def test_every_prefix_is_balanced_over_methods_lengths_and_sizes(plan: Plan) -> None:
    draws = [Drawing(plan, sample_model()).draw("own", number) for number in range(DRAWS)]
    for count in (16, 32, DRAWS):
        methods = Counter(draw.pipeline.method for draw in draws[:count])
        assert abs(methods["lora"] - count / 2) <= 2
        assert abs(methods["full"] - count / 4) <= 2
        lengths = Counter(draw.full_length_tokens for draw in draws[:count])
        assert abs(lengths[400] - lengths[1600]) <= 2
        levels = Counter(int(3 * draw.unique_level) for draw in draws[:count])
        assert max(levels.values()) - min(levels.values()) <= 3
        seeds = Counter(draw.seed for draw in draws[:count])
        assert abs(seeds[0] - seeds[1]) <= 2


def test_learning_rates_cover_what_the_plan_says(plan: Plan) -> None:
    model = sample_model()
    draws = [Drawing(plan, model).draw("own", number) for number in range(DRAWS)]
    rates = _adamw_rates(draws, "lora")
    low, high = 0.1 * adapter_rate(model), 10 * adapter_rate(model)
    assert all(0.99 * low <= rate <= 1.01 * high for rate in rates)
    quarters = Counter(int(4 * math.log(rate / low) / math.log(high / low)) for rate in rates)
    assert set(quarters) >= {0, 1, 2, 3}
    assert all(0.99e-3 <= rate <= 1.01e-1 for rate in _adamw_rates(draws, "ia3"))


def _adamw_rates(draws: list[Drawn], method: str) -> list[float]:
    """Learning rates as they would be with AdamW."""
    pipelines = [draw.pipeline for draw in draws if draw.pipeline.method == method]
    return [one.number("learning_rate") / optimizer_rate(str(one["optim"]), 1.0) for one in pipelines]


def test_models_of_other_widths_get_the_same_quantiles(plan: Plan) -> None:
    narrow = Drawing(plan, sample_model(width=128))
    wide = Drawing(plan, sample_model(width=512))
    for number in range(8):
        first, second = narrow.draw("shared", number), wide.draw("shared", number)
        assert first.full_length_tokens == second.full_length_tokens
        same = {**second.pipeline.hyperparameters}
        if first.pipeline.method == "lora":
            ratio = first.pipeline.number("learning_rate") / second.pipeline.number("learning_rate")
            assert ratio == pytest.approx(4**0.9, rel=0.01)
        same["learning_rate"] = first.pipeline["learning_rate"]
        assert dict(first.pipeline.hyperparameters) == same
