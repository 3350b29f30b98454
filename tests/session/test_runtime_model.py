from __future__ import annotations

import random

import pytest

from sample_runs import sample_point
from tunecast.records import Outcome
from tunecast.session.runtime_model import RuntimeModel
from tunecast.training.measurement import Measurement

METHODS = ("lora", "full", "a-plugin")


def experienced(steps: int, *, noise: float = 0.3, seed: int = 0) -> RuntimeModel:
    """A runtime model that has seen steps of about a millisecond per token."""
    draw = random.Random(seed)
    runtime_model = RuntimeModel(0.001)
    for _ in range(steps):
        tokens = draw.randint(100, 10_000)
        runtime_model.learn(
            "lora", tokens, tokens * 0.001 * draw.lognormvariate(0, noise), draw.uniform(0, 0.1)
        )
    return runtime_model


@pytest.mark.parametrize("steps", [0, 1, 2, 10])
@pytest.mark.parametrize("method", METHODS)
def test_upper_bound_is_above_what_is_expected(method: str, steps: int) -> None:
    runtime_model = experienced(steps)
    for tokens in (1, 100, 10**6):
        assert runtime_model.upper(method, tokens) > runtime_model.expected(method, tokens) > 0


@pytest.mark.parametrize("method", METHODS)
def test_more_tokens_take_longer(method: str) -> None:
    runtime_model = experienced(3)
    amounts = (0, 10, 1000, 10**6)
    assert sorted(amounts, key=lambda tokens: runtime_model.expected(method, tokens)) == list(amounts)
    assert sorted(amounts, key=lambda tokens: runtime_model.upper(method, tokens)) == list(amounts)


def test_more_steps_narrow_the_bound() -> None:
    runtime_models = [experienced(steps, noise=0.1) for steps in (0, 4, 64)]
    widths = [
        runtime_model.upper("lora", 10**6) / runtime_model.expected("lora", 10**6)
        for runtime_model in runtime_models
    ]
    assert widths[0] > widths[1] > widths[2] > 1


def test_steady_steps_are_predicted_exactly() -> None:
    runtime_model = RuntimeModel(1.0)
    for tokens in (100, 300, 500):
        runtime_model.learn("lora", tokens, tokens * 0.002, 0.5)
    assert runtime_model.expected("lora", 1000) == pytest.approx(2.5)


def test_nine_of_ten_steps_stay_below_the_bound() -> None:
    draw = random.Random(1)
    bounds = [experienced(5, seed=trial).upper("lora", 1000) for trial in range(400)]
    within = [1000 * 0.001 * draw.lognormvariate(0, 0.3) <= bound for bound in bounds]
    assert 0.87 < sum(within) / len(within) < 0.97


def test_a_step_without_tokens_teaches_only_the_overhead() -> None:
    runtime_model = RuntimeModel(0.001)
    runtime_model.learn("lora", 0, 0.0, 2.0)
    assert runtime_model.expected("lora", 0) == 2.0
    assert runtime_model.expected("lora", 1000) == pytest.approx(3.0)


def test_training_once_more_is_training() -> None:
    runtime_model = RuntimeModel(1.0)
    point = sample_point()
    seconds = point.training.wall
    again = Measurement(
        "run", point, Outcome.PAUSED, retrained_tokens=3 * point.tokens_seen, retraining_seconds=3 * seconds
    )
    runtime_model.learn_from("lora", 0, again, 4 * seconds + 0.5)
    assert runtime_model.expected("lora", 0) == pytest.approx(0.5)
    assert runtime_model.expected("lora", point.tokens_seen) == pytest.approx(seconds + 0.5)


def test_effort_weighs_tokens() -> None:
    runtime_model, point = RuntimeModel(1.0), sample_point()
    seconds = point.training.wall
    runtime_model.learn_from("lora", 0, Measurement("run", point, Outcome.PAUSED), seconds, effort=4.0)
    assert runtime_model.expected("lora", 4 * point.tokens_seen) == pytest.approx(seconds)


def test_a_step_without_a_point_teaches_nothing() -> None:
    runtime_model = RuntimeModel(0.001)
    runtime_model.learn_from("lora", 0, Measurement("run", None, Outcome.FAILED), 9.0)
    assert runtime_model.expected("lora", 1000) == pytest.approx(1.0)


def test_the_first_step_has_the_overhead_that_the_base_model_had() -> None:
    runtime_model = RuntimeModel(0.001, overhead_seconds=2.0)
    assert runtime_model.expected("lora", 1000) == pytest.approx(3.0)
    assert runtime_model.upper("lora", 0) == pytest.approx(3.0)
    runtime_model.learn("lora", 1000, 1.0, 4.0)
    assert runtime_model.expected("lora", 0) == 4.0


def test_each_method_has_its_own_overhead_once_it_was_measured() -> None:
    runtime_model = RuntimeModel(0.001)
    for _ in range(9):
        runtime_model.learn("lora", 100, 0.1, 2.0)
    runtime_model.learn("full", 100, 0.1, 6.0)
    assert runtime_model.expected("lora", 0) == 2.0
    assert runtime_model.expected("full", 0) == 6.0
    assert runtime_model.expected("ia3", 0) == pytest.approx((7 * 2.0 + 6.0) / 8), (
        "of the latest steps of all"
    )


def test_what_a_method_decides_once_is_no_overhead() -> None:
    runtime_model = RuntimeModel(1.0)
    point = sample_point()
    seconds = point.training.wall
    first = Measurement("run", point, Outcome.PAUSED, choosing_seconds=20.0)
    runtime_model.learn_from("semantic_freezing", 0, first, seconds + 20.5)
    assert runtime_model.expected("semantic_freezing", 0) == pytest.approx(0.5)


def test_the_end_of_a_trial_scores_all_validation_examples() -> None:
    runtime_model = RuntimeModel(0.001, validation_seconds=5.0)
    point = sample_point()
    seconds = point.training.wall + 1.0
    last = Measurement("run", point, Outcome.COMPLETED, None, point.validation, validation_seconds=4.0)
    runtime_model.learn_from("lora", 0, last, seconds + 4.0)
    assert runtime_model.expected("lora", 0) == pytest.approx(1.0), "what comes once per trial is no overhead"
    assert runtime_model.expected("lora", 0, ends=True) == pytest.approx(6.0)
    assert runtime_model.upper("lora", 0, 3, ends=True) == pytest.approx(1.5 * (3.0 + 5.0))
