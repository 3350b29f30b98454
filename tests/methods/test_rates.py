"""Where learning rates are looked for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sample_runs import sample_model
from tunecast.methods import central_rate, get_method, method_names
from tunecast.methods.rates import WIDE_RATE, adapter_rate, around, with_rate_for_steps
from tunecast.records import ZERO_SHOT, Pipeline


@pytest.mark.parametrize(("width", "best"), [(128, 1e-2), (576, 2e-3), (4096, 2.6e-4)])
def test_meets_the_best_rates_that_were_measured(width: int, best: float) -> None:
    low, high = around(adapter_rate(replace(sample_model(), width=width)))
    assert low < best / 3
    assert best * 3 < high


def test_interval_reads_well_and_is_symmetric() -> None:
    assert around(3e-4, 10) == (3e-5, 3e-3)
    assert around(1.23456) == (0.154, 9.88)


@pytest.mark.parametrize("width", [128, 576, 4096])
@pytest.mark.parametrize("method", method_names())
def test_methods_are_searched_around_their_usual_rate(method: str, width: int) -> None:
    config = {"bos_token_id": 1, "eos_token_id": 2}
    model = replace(sample_model(), width=width, feed_forward_width=4 * width, heads=4, key_value_heads=4)
    model = replace(model, config={**model.config, **config})
    (searched,) = (p for p in get_method(method).hyperparameters(model) if p.name == "learning_rate")
    assert searched.default_value == pytest.approx(central_rate(method, model), rel=5e-3)
    assert searched.lower < central_rate(method, model) < searched.upper


def test_a_constant_holds_for_wide_models_and_a_power_of_the_width_below() -> None:
    narrow, wide, wider = (adapter_rate(replace(sample_model(), width=w)) for w in (576, 2048, 8192))
    assert narrow > wide == wider == WIDE_RATE


def test_recorded_runs_of_an_unknown_method_are_seen_around_the_rate_of_lora() -> None:
    assert central_rate("brought-by-nobody", sample_model()) == adapter_rate(sample_model())


def test_a_longer_run_takes_a_lower_rate() -> None:
    found = Pipeline("lora", {"learning_rate": 1e-3, "lora_r": 16})
    longer = with_rate_for_steps(found, 50, 400)
    assert 5e-4 < longer.number("learning_rate") < 1e-3
    assert longer["lora_r"] == 16
    back = with_rate_for_steps(longer, 400, 50)
    assert back.number("learning_rate") == pytest.approx(1e-3, rel=5e-3)
    assert with_rate_for_steps(found, 50, 50) is found
    assert with_rate_for_steps(ZERO_SHOT, 50, 400) is ZERO_SHOT
    with pytest.raises(ValueError, match="at least one step"):
        with_rate_for_steps(found, 0, 50)
