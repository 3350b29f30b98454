"""The rules of the learning rate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tunecast.methods import BASELINE
from tunecast.methods.rates import WIDE_RATE
from tunecast.models.config_facts import facts_from_config
from tunecast.recommender.rate_rules import rate_surplus, rule_rate
from tunecast.records import ModelFacts, Pipeline


def model(width: int) -> ModelFacts:
    config = {"model_type": "llama", "hidden_size": width, "intermediate_size": 2 * width, "vocab_size": 1000}
    config |= {"num_hidden_layers": 2, "num_attention_heads": 8, "max_position_embeddings": 512}
    facts = facts_from_config(config, "x")
    assert facts is not None
    return facts


def lora(**changes: object) -> Pipeline:
    return Pipeline("lora", {**BASELINE.hyperparameters, **changes})  # type: ignore[dict-item]


def test_wide_models_take_the_constant_and_narrow_ones_more() -> None:
    assert rule_rate(model(8192), lora()) == WIDE_RATE
    assert rule_rate(model(128), lora()) > rule_rate(model(512), lora()) > WIDE_RATE


def test_rank_alone_changes_nothing_and_alpha_inversely() -> None:
    facts = model(512)
    assert rule_rate(facts, lora(lora_r=64)) == rule_rate(facts, lora(lora_r=4))
    assert rule_rate(facts, lora(lora_alpha=64)) == pytest.approx(rule_rate(facts, lora(lora_alpha=32)) / 2)
    assert rule_rate(facts, lora(use_rslora=True, lora_r=16)) == pytest.approx(rule_rate(facts, lora()) / 4)


def test_full_finetuning_takes_a_tenth_and_batches_change_nothing() -> None:
    facts = model(512)
    full = Pipeline("full", {"per_device_train_batch_size": 16})
    assert rule_rate(facts, full) == pytest.approx(rule_rate(facts, lora()) / 10)
    assert rule_rate(facts, lora(per_device_train_batch_size=32)) == rule_rate(facts, lora())


def test_other_methods_take_their_usual_rate() -> None:
    facts = model(512)
    assert rule_rate(facts, Pipeline("prompt_tuning", {})) == 1e-2
    assert rule_rate(facts, Pipeline("top_layers", {})) == pytest.approx(rule_rate(facts, lora()) / 5)


def test_surplus_is_zero_at_the_rule() -> None:
    facts = replace(model(512))
    assert rate_surplus(facts, lora(learning_rate=rule_rate(facts, lora()))) == pytest.approx(0.0)
    assert rate_surplus(facts, Pipeline("zero-shot")) == 0.0
