from __future__ import annotations

from dataclasses import replace

import pytest

from tunecast.errors import ConfigurationError
from tunecast.methods import Restrictions
from tunecast.methods.space import BASELINE, baseline_pipeline
from tunecast.records import Pipeline
from tunecast.search import Context, get_strategy
from tunecast.session.candidates import (
    candidate_pipelines,
    long_enough,
    suitable,
    unless_last_resort,
    within_context,
    within_effort,
)
from tunecast.session.prepare import PreparedTask
from tunecast.session.settings import SessionSettings


def test_the_baseline_comes_first_and_nothing_twice(
    settings: SessionSettings, prepared: PreparedTask
) -> None:
    pipelines = candidate_pipelines(settings, prepared.training_task.facts)
    assert pipelines[0] == baseline_pipeline(prepared.training_task.facts, settings.restrictions)
    assert len({pipeline.id for pipeline in pipelines}) == len(pipelines) > 60
    assert {pipeline.method for pipeline in pipelines} >= {"lora", "full", "ia3"}


def test_the_seed_decides_the_sample(settings: SessionSettings, prepared: PreparedTask) -> None:
    facts = prepared.training_task.facts
    assert candidate_pipelines(settings, facts) == candidate_pipelines(settings, facts)
    assert candidate_pipelines(replace(settings, seed=1), facts) != candidate_pipelines(settings, facts)


def test_every_candidate_keeps_to_what_the_user_said(
    settings: SessionSettings, prepared: PreparedTask
) -> None:
    restricted = replace(
        settings, methods=("lora",), fixed={"lora_r": 6}, ranges={"learning_rate": (1e-3, 2e-3)}
    )
    for pipeline in candidate_pipelines(restricted, prepared.training_task.facts):
        assert pipeline.method == "lora"
        assert pipeline["lora_r"] == 6
        assert 1e-3 <= pipeline.number("learning_rate") <= 2e-3


def test_the_second_of_fixed_3e4_is_the_baseline_at_3e4(
    settings: SessionSettings, prepared: PreparedTask
) -> None:
    baseline, second = candidate_pipelines(
        replace(settings, strategy="fixed-3e-4"), prepared.training_task.facts
    )[:2]
    assert baseline == BASELINE
    assert second.hyperparameters == {**baseline.hyperparameters, "learning_rate": 3e-4}


def test_what_is_recommended_follows_the_baseline(settings: SessionSettings, prepared: PreparedTask) -> None:
    facts = prepared.training_task.facts
    rates = [Pipeline("full", {"learning_rate": rate}) for rate in (1e-3, 1e-4)]
    plain = candidate_pipelines(settings, facts)
    assert candidate_pipelines(settings, facts, rates) == [plain[0], *rates, *plain[1:]]
    again = candidate_pipelines(settings, facts, [plain[0], plain[7]])
    assert again[:2] == [plain[0], plain[7]]
    assert len(again) == len(plain)
    narrow = replace(settings, ranges={"learning_rate": (5e-4, 1e-2)})
    found = candidate_pipelines(narrow, facts, rates)
    assert rates[0] in found
    assert rates[1] not in found


@pytest.mark.parametrize(
    "said", [{"fixed": {"learning_rate": 2e-4}}, {"ranges": {"learning_rate": (1e-3, 1e-2)}}]
)
def test_fixed_3e4_does_not_override_the_user(
    settings: SessionSettings, prepared: PreparedTask, said: dict[str, dict[str, object]]
) -> None:
    with pytest.raises(ConfigurationError, match="contradicts"):
        candidate_pipelines(replace(settings, strategy="fixed-3e-4", **said), prepared.training_task.facts)


def test_large_batches_are_left_out_where_the_full_length_is_short() -> None:
    pipelines = [
        Pipeline("full", {"per_device_train_batch_size": size, "n": n}) for size in (4, 32) for n in range(20)
    ]

    kept = long_enough(pipelines, full_length_tokens=16 * 4 * 50, mean_tokens=50.0)

    assert {pipeline["per_device_train_batch_size"] for pipeline in kept} == {4}


def test_all_candidates_stay_where_hardly_any_suits() -> None:
    pipelines = [Pipeline("full", {"per_device_train_batch_size": 32, "n": n}) for n in range(20)]

    assert long_enough(pipelines, full_length_tokens=100, mean_tokens=50.0) == pipelines


def test_virtual_tokens_need_room_beside_the_longest_example() -> None:
    prompts = [Pipeline("prompt_tuning", {"num_virtual_tokens": n}) for n in (8, 16, 32)]
    pipelines = [BASELINE, *prompts]

    assert within_context(pipelines, context=128, longest=112) == [BASELINE, *prompts[:2]]
    assert within_context(pipelines, context=128, longest=128) == [BASELINE]
    assert within_context(pipelines, context=None, longest=4096) == pipelines


def test_an_optimiser_that_takes_most_of_the_time_is_left_out_unless_it_is_all_there_is(
    prepared: PreparedTask,
) -> None:
    plain = [Pipeline("full", {"per_device_train_batch_size": 4, "n": n}) for n in range(20)]
    muon = [Pipeline("full", {"per_device_train_batch_size": 1, "optim": "muon", "n": n}) for n in range(20)]
    wide = replace(
        prepared.training_task,
        facts=replace(prepared.training_task.facts, width=2048, feed_forward_width=8192),
    )
    assert within_effort([*plain, *muon], wide) == plain
    assert within_effort([*plain[:8], *muon], wide) == [*plain[:8], *muon]


def test_methods_of_last_resort_wait_until_nothing_else_fits_or_a_predictor_chooses() -> None:
    lora, zeroth = BASELINE, [Pipeline("mezo", {}), Pipeline("mezo_lora", {}), Pipeline("mezo_prefix", {})]
    every = [lora, *zeroth]
    for name in ("random", "asha"):
        assert unless_last_resort(every, get_strategy(name), Restrictions()) == [lora]
        assert unless_last_resort(zeroth, get_strategy(name), Restrictions()) == zeroth
        named = Restrictions(("lora", "mezo"))
        assert unless_last_resort(every, get_strategy(name), named) == [lora, zeroth[0]]
    assert unless_last_resort(every, get_strategy("transfer"), Restrictions()) == every


def test_a_search_that_does_not_predict_draws_no_mezo_unasked(
    settings: SessionSettings, prepared: PreparedTask
) -> None:
    strategy, task = get_strategy("random"), prepared.training_task
    drawn = candidate_pipelines(replace(settings, strategy="random"), task.facts)
    zeroth = Pipeline("mezo", {**BASELINE.hyperparameters, "perturbation": 1e-3})
    context = Context(prepared.dataset, task.facts, 10 * task.train_tokens, 40, 5.0)
    kept = suitable([*drawn, zeroth], strategy, task, context, Restrictions())
    assert not {pipeline.method for pipeline in kept} & {"mezo", "mezo_lora", "mezo_prefix"}
    assert len(kept) > 16


@pytest.mark.parametrize(("name", "pins"), [("asha", 0), ("fixed-3e-4", 1)])
def test_the_baseline_and_pinned_pipelines_stay_even_if_they_do_not_suit(
    name: str, pins: int, prepared: PreparedTask
) -> None:
    strategy = get_strategy(name)
    large = [Pipeline("full", {"per_device_train_batch_size": 64, "n": n}) for n in range(2)]
    small = [Pipeline("full", {"per_device_train_batch_size": 4, "n": n}) for n in range(20)]
    wordy = Pipeline("prompt_tuning", {"per_device_train_batch_size": 4, "num_virtual_tokens": 10**6})
    training_task = prepared.training_task
    sixteen_steps = 16 * 4 * training_task.train_tokens // len(training_task.train) + 16
    context = Context(prepared.dataset, training_task.facts, sixteen_steps, 40, 5.0)
    pinned = strategy.pinned(large[0], Restrictions())
    assert len(pinned) == pins
    pipelines = [large[0], *pinned, large[1], *small, wordy]
    kept = suitable(pipelines, strategy, training_task, context, Restrictions())
    assert kept == [large[0], *pinned, *small]
