"""The learning rates that are tried for a pipeline."""

from __future__ import annotations

import math

import pytest

from sample_runs import sample_model
from tunecast.methods.rates import adapter_rate
from tunecast.predictor import load_prior
from tunecast.predictor.rate_law import RateLaw
from tunecast.recommender.candidates import PLAIN, rates, suitable_rate
from tunecast.records import ModelFacts, Pipeline

LARGE = sample_model("large", width=2048, parameters=1_200_000_000, weights_hash="", pretraining_tokens=None)
SMALL = sample_model("small", width=128, parameters=2_000_000, pretraining_tokens=10_000_000)
ANY = (0.0, math.inf)


@pytest.fixture(scope="module")
def law() -> RateLaw:
    return load_prior().quality.law


def beside_plain(law: RateLaw, model: ModelFacts, method: str = "lora", **values: object) -> float:
    """The rate that suits a pipeline, over that of plain LoRA."""
    pipeline = Pipeline(method, values)  # type: ignore[arg-type]
    return suitable_rate(law, model, pipeline, 200) / suitable_rate(law, model, PLAIN, 200)


@pytest.mark.parametrize("model", [LARGE, SMALL], ids=["large", "small"])
def test_rates_follow_variant_scale_targets_and_method(law: RateLaw, model: ModelFacts) -> None:
    assert 0.07 < beside_plain(law, model, init_lora_weights="pissa") < 0.2
    assert 0.35 < beside_plain(law, model, use_dora=True) < 0.7
    assert beside_plain(law, model, lora_r=64, lora_alpha=32, use_rslora=True) < 0.4
    assert beside_plain(law, model, lora_r=16, lora_alpha=128) < 0.6
    assert beside_plain(law, model, target_modules="attention") > 1.2
    assert 0.05 < beside_plain(law, model, "full") < 0.2


def test_a_model_of_a_billion_parameters_wants_more_than_the_constant_of_wide_ones(law: RateLaw) -> None:
    assert 4e-4 < suitable_rate(law, LARGE, PLAIN, 800) < 1.2e-3


def test_models_that_know_little_start_from_the_usual_rate_of_their_width(law: RateLaw) -> None:
    assert suitable_rate(law, SMALL, PLAIN, 100) == pytest.approx(adapter_rate(SMALL))
    assert suitable_rate(law, SMALL, PLAIN, 10_000) == pytest.approx(adapter_rate(SMALL))


def test_others_are_tried_around_it_within_the_users_bounds(law: RateLaw) -> None:
    centre, above, below = rates(law, LARGE, PLAIN, 200, ANY)
    assert centre == pytest.approx(suitable_rate(law, LARGE, PLAIN, 200), rel=0.05)
    assert (above / centre, centre / below) == (pytest.approx(3, rel=0.1), pytest.approx(3, rel=0.1))
    assert rates(law, LARGE, PLAIN, 200, (1e-6, 1e-5)) == [1e-5]
    assert rates(law, LARGE, PLAIN, 200, (centre, centre)) == [centre]
