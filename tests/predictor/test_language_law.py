"""The law of pretraining: published values, where it levels off, and what unknown pretraining counts as."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sample_runs import sample_model
from tunecast.predictor.language_law import excess_share, ln_language_loss
from tunecast.records import ModelFacts


def model(parameters: float, tokens: float | None) -> ModelFacts:
    return replace(
        sample_model(), parameters=int(parameters), pretraining_tokens=None if tokens is None else int(tokens)
    )


def test_chinchilla_itself() -> None:
    """70B parameters and 1.4T tokens: the replication's law gives 1.8172 + 0.0819 + 0.0749."""
    ratio = math.exp(ln_language_loss(model(7e10, 1.4e12)))
    assert ratio * 8.8172 == pytest.approx(1.974, abs=0.005)


def test_more_pretraining_matters_at_the_start_and_hardly_at_the_end() -> None:
    early = ln_language_loss(model(1e8, 1e7)) - ln_language_loss(model(1e8, 1e9))
    late = ln_language_loss(model(1e8, 1e12)) - ln_language_loss(model(1e8, 1e14))
    assert early > 0.5
    assert 0 < late < 0.05


def test_a_larger_model_has_less_left_to_learn() -> None:
    shares = [excess_share(model(parameters, 1e12)) for parameters in (1e8, 1e9, 1e10, 1e11)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] < 0.2
    assert excess_share(model(2e6, 1.6e7)) == 1.0


def test_unknown_pretraining_counts_as_that_of_current_models() -> None:
    assert ln_language_loss(model(1e8, None)) == ln_language_loss(model(1e8, 1e12))
