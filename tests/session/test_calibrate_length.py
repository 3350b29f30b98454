"""The arithmetic of a full length; the speed that a worker would measure is given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tunecast.budget import Budget
from tunecast.errors import BudgetError
from tunecast.executors.requests import Calibrate
from tunecast.methods.space import BASELINE
from tunecast.progress import Silent
from tunecast.records import Pipeline
from tunecast.session.budget_tracker import BudgetTracker
from tunecast.session.calibrate_length import FullLength, measure_full_length
from tunecast.session.prepare import PreparedTask
from tunecast.session.settings import SessionSettings
from tunecast.session.workloads import Efforts
from tunecast.training.plan import plan_trial
from tunecast.training.training_task import TrialSpec

SPEED = 1000.0


def measured(
    prepared: PreparedTask, settings: SessionSettings, *, pipeline: Pipeline = BASELINE, **changes: Any
) -> FullLength:
    changed = replace(settings, **changes)
    spec = TrialSpec("speed", pipeline, 0, 1, len(prepared.training_task.train), "")
    budget_tracker = BudgetTracker(Budget.parse(changed.budget), 0.0)
    asked: list[Any] = []

    def ask(request: Any) -> float:
        asked.append(request)
        return SPEED

    found = measure_full_length(changed, prepared.training_task, spec, budget_tracker, ask, Silent())
    assert [type(request) for request in asked] == [Calibrate]
    return found


def test_seconds_give_a_trial_a_quarter_of_what_they_afford(
    prepared: PreparedTask, settings: SessionSettings
) -> None:
    found = measured(prepared, settings, budget="10s", strategy="asha")
    assert found.tokens == pytest.approx(0.25 * 10 * SPEED, rel=0.02)
    assert found.seconds_per_token == 1 / SPEED


def test_tokens_give_a_trial_exactly_a_quarter(prepared: PreparedTask, settings: SessionSettings) -> None:
    assert measured(prepared, settings, budget="8k-tokens", strategy="asha").tokens == 2000


@pytest.mark.parametrize("strategy", ["transfer", "quick-tune"])
def test_who_knows_other_tasks_tries_fewer_pipelines_for_longer(
    strategy: str, prepared: PreparedTask, settings: SessionSettings
) -> None:
    assert measured(prepared, settings, budget="9k-tokens", strategy=strategy).tokens == 3000


@pytest.mark.parametrize("strategy", ["transfer", "quick-tune"])
def test_of_a_time_it_has_a_quarter_too_since_what_is_good_may_be_slow(
    strategy: str, prepared: PreparedTask, settings: SessionSettings
) -> None:
    found = [measured(prepared, settings, budget="12s", strategy=name) for name in (strategy, "asha")]
    assert found[0].tokens == pytest.approx(found[1].tokens, rel=0.02)


def test_without_a_search_the_baseline_may_have_most_of_it(
    prepared: PreparedTask, settings: SessionSettings
) -> None:
    alone = measured(prepared, settings, budget="8k-tokens", strategy="fixed-baseline")
    shared = measured(prepared, settings, budget="8k-tokens", strategy="fixed-3e-4")
    assert (alone.tokens, shared.tokens) == (7200, 3600)
    timed = measured(prepared, settings, budget="10s", strategy="fixed-baseline")
    assert timed.tokens == pytest.approx(0.6 * 10 * SPEED, rel=0.02)


@pytest.mark.parametrize(("strategy", "trials"), [("fixed-baseline", 1), ("fixed-3e-4", 2)])
def test_a_schedule_ends_within_the_tokens_of_a_session_that_searches_nothing(
    strategy: str, trials: int, prepared: PreparedTask, settings: SessionSettings
) -> None:
    lengths = [example.tokens for example in prepared.training_task.train]

    def end(budget: int) -> int:
        tokens = measured(prepared, settings, budget=f"{budget}-tokens", strategy=strategy).tokens
        return int(plan_trial(lengths, BASELINE, seed=0, full_length_tokens=tokens).tokens[-1])

    with pytest.raises(BudgetError) as caught:
        end(100)
    least = int(caught.value.hint.split("--budget ")[1].split("-tokens")[0])
    with pytest.raises(BudgetError):
        end(least - 1)
    whole = plan_trial(lengths, BASELINE, seed=0, full_length_tokens=3 * sum(lengths)).tokens
    assert least == trials * whole[3], "four steps, as the plan has them"
    for budget in range(least, 5 * least, 97):
        assert trials * whole[3] <= trials * end(budget) <= budget
    assert trials * end(5 * least) > 0.6 * 5 * least


def test_muon_counts_at_its_own_batch_and_not_as_it_was_timed(
    prepared: PreparedTask, settings: SessionSettings
) -> None:
    pipeline = Pipeline("full", {**BASELINE.hyperparameters, "optim": "muon"})
    small = Pipeline("full", {**pipeline.hyperparameters, "per_device_train_batch_size": 4})
    efforts = Efforts(prepared.training_task)
    assert efforts.of(small) > efforts.of(pipeline) > 1.0
    given = {"budget": "10s", "strategy": "asha"}
    muon, plain = (measured(prepared, settings, pipeline=p, **given) for p in (pipeline, BASELINE))
    assert muon.seconds_per_token == pytest.approx(1 / (SPEED * efforts.of(small)))
    longer = efforts.of(small) / efforts.of(pipeline)
    assert muon.tokens == pytest.approx(longer * plain.tokens, rel=0.02)


def test_epochs_limit_every_budget(prepared: PreparedTask, settings: SessionSettings) -> None:
    one = prepared.training_task.train_tokens
    assert measured(prepared, settings, budget="9-trials", epochs=2.0).tokens == 2 * one
    assert measured(prepared, settings, budget="5h", epochs=0.5).tokens == int(0.5 * one)


def test_too_small_a_budget_names_one_that_suffices(
    prepared: PreparedTask, settings: SessionSettings
) -> None:
    with pytest.raises(BudgetError) as caught:
        measured(prepared, settings, budget="100-tokens")
    needed = caught.value.hint.split("--budget ")[1].rstrip(".")
    assert measured(prepared, settings, budget=needed).tokens > 0


@pytest.mark.parametrize(("device", "batch_size"), [("cpu", 4), ("cuda:0", 16)])
def test_a_processor_is_timed_in_small_batches_and_an_accelerator_in_its_own(
    device: str, batch_size: int, prepared: PreparedTask, settings: SessionSettings
) -> None:
    asked: list[Calibrate] = []

    def ask(request: Any) -> float:
        asked.append(request)
        return SPEED

    training_task = replace(prepared.training_task, device=device)
    spec = TrialSpec("speed", BASELINE, 0, 1, len(training_task.train), "")
    budget = Budget.parse("8k-tokens")
    measure_full_length(settings, training_task, spec, BudgetTracker(budget, 0.0), ask, Silent())
    assert asked[0].spec.pipeline.number("per_device_train_batch_size") == batch_size
    assert asked[0].spec.full_length_tokens > 1
