from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest

from sample_runs import sample_point, sample_run
from tunecast.budget import Budget, Used
from tunecast.methods.space import BASELINE
from tunecast.records import Outcome
from tunecast.session.budget_tracker import BudgetTracker
from tunecast.session.prepare import PreparedTask
from tunecast.session.runtime_model import RuntimeModel
from tunecast.session.trial import Trial
from tunecast.training.training_task import TrialSpec


def a_trial(prepared: PreparedTask) -> Trial:
    return Trial(TrialSpec("run", BASELINE, 0, 4000, 64, ""), prepared.training_task)


def test_the_clock_goes_on_from_earlier_processes() -> None:
    budget_tracker = BudgetTracker(Budget.parse("90s"), seconds_before=30.0)
    first = budget_tracker.elapsed()
    time.sleep(0.02)
    assert 30.0 <= first < budget_tracker.elapsed() < 90.0


@pytest.mark.parametrize(("text", "tokens"), [("5k-tokens", 5000.0), ("3-trials", math.inf)])
def test_tokens_that_a_counted_budget_affords(text: str, tokens: float) -> None:
    assert BudgetTracker(Budget.parse(text), 0.0).affordable_tokens(100.0) == tokens


def test_tokens_that_the_rest_of_the_seconds_affords() -> None:
    assert BudgetTracker(Budget.parse("100s"), 60.0).affordable_tokens(10.0) == pytest.approx(400.0, rel=0.05)


def test_a_step_may_not_run_into_the_time_for_comparing(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = BudgetTracker(Budget.parse("100s"), 90.0)
    assert not tracker.is_overrun
    tracker.reserve_for_comparing(20.0)
    assert tracker.is_overrun


def test_what_happens_outside_takes_no_seconds_of_the_budget() -> None:
    tracker = BudgetTracker(Budget.parse("90s"), seconds_before=30.0)
    with tracker.outside():
        time.sleep(0.5)
    assert 30.0 <= tracker.elapsed() < 30.5


def test_a_last_step_may_overrun_a_little_and_only_seconds() -> None:
    seconds = [BudgetTracker(Budget.parse("100s"), before) for before in (99.0, 104.0, 106.0)]
    assert [budget_tracker.is_overrun for budget_tracker in seconds] == [False, False, True]
    assert not BudgetTracker(Budget.parse("1-trials"), 1e6).is_overrun


def test_a_dear_optimiser_needs_more_of_the_budget(prepared: PreparedTask) -> None:
    trial, dear = a_trial(prepared), a_trial(prepared)
    dear.effort = 3.0
    runtime_model = RuntimeModel(1e-3)
    needed = runtime_model.upper("lora", trial.tokens_to_next)
    budget_tracker = BudgetTracker(Budget("seconds", 2 * needed, ""), 0.0)
    assert budget_tracker.fits(trial, None, Used(), runtime_model)
    assert not budget_tracker.fits(dear, None, Used(), runtime_model)
    prices = [budget_tracker.price([one], runtime_model, 0.0, upper=False) for one in (trial, dear)]
    assert prices[1] == pytest.approx(3 * prices[0])
    to_end = runtime_model.upper("lora", trial.tokens_to_end, trial.points_to_end, ends=True)
    enough = BudgetTracker(Budget("seconds", 2 * to_end, ""), 0.0)
    assert [enough.affords_end(one, Used(), runtime_model) for one in (trial, dear)] == [True, False]


def test_remaining_tells_each_budget_in_its_unit() -> None:
    seconds = BudgetTracker(Budget.parse("100s"), 0.0).remaining(Used(seconds=25.0), 500)
    trials = BudgetTracker(Budget.parse("8-trials"), 0.0).remaining(Used(trials=2), 500)
    tokens = BudgetTracker(Budget.parse("2k-tokens"), 0.0).remaining(Used(tokens=500), 500)
    assert (seconds.fraction, seconds.seconds, seconds.new_trials) == (0.75, 75.0, None)
    assert (trials.fraction, trials.seconds, trials.new_trials) == (0.75, None, 6)
    assert (tokens.fraction, tokens.seconds, tokens.full_lengths) == (0.75, None, 3.0)
    assert seconds.full_lengths is trials.full_lengths is None


def test_a_step_fits_only_with_what_is_reserved(prepared: PreparedTask) -> None:
    trial, other = a_trial(prepared), a_trial(prepared)
    budget_tracker = BudgetTracker(Budget.parse("6k-tokens"), 0.0)
    runtime_model = RuntimeModel(1e-3)
    spent = Used(tokens=6000 - trial.tokens_to_next)
    assert budget_tracker.fits(trial, None, spent, runtime_model)
    assert not budget_tracker.fits(trial, None, replace(spent, tokens=spent.tokens + 1), runtime_model)
    assert not budget_tracker.fits(trial, other, spent, runtime_model)


def test_a_reserve_cannot_be_spent_until_it_is_released(prepared: PreparedTask) -> None:
    trial = a_trial(prepared)
    budget_tracker = BudgetTracker(Budget("tokens", trial.tokens_to_end, ""), 0.0)
    budget_tracker.reserve("forecast", 1.0)
    assert not budget_tracker.affords_end(trial, Used(), RuntimeModel(1.0))
    assert not budget_tracker.fits(
        trial, None, Used(tokens=trial.tokens_to_end - trial.tokens_to_next), RuntimeModel(1.0)
    )
    assert budget_tracker.left(Used(tokens=100)) == trial.tokens_to_end - 101
    assert budget_tracker.left(Used(tokens=100), "forecast") == trial.tokens_to_end - 100
    budget_tracker.reserve("forecast", 0.0)
    assert budget_tracker.affords_end(trial, Used(), RuntimeModel(1.0))


def test_strategies_are_not_told_of_what_is_held_back() -> None:
    budget_tracker = BudgetTracker(Budget.parse("20-trials"), 0.0)
    budget_tracker.reserve("forecast", 2.0)
    remaining = budget_tracker.remaining(Used(trials=9), 500)
    assert (remaining.fraction, remaining.new_trials) == (0.5, 9)


def test_time_for_comparing_is_not_searched_with() -> None:
    tracker = BudgetTracker(Budget.parse("100s"), 0.0)
    tracker.reserve_for_comparing(15.0)
    tracker.reserve("forecast", 10.0)
    used = Used(seconds=50.0)
    assert tracker.remaining(used, 1000).seconds == pytest.approx(25.0)
    assert tracker.left(used, "forecast") == pytest.approx(35.0)
    for more_than_all in (90.0, 95.0):
        tracker.reserve_for_comparing(more_than_all)
        assert tracker.remaining(used, 1000).fraction == tracker.left(used) == 0.0
    trials = BudgetTracker(Budget.parse("10-trials"), 0.0)
    trials.reserve_for_comparing(90.0)
    assert trials.left(Used(trials=4)) == 6.0


@pytest.mark.parametrize(("text", "tenth"), [("29-trials", 2.0), ("70-trials", 7.0), ("25-tokens", 2.0)])
def test_a_share_is_whole_where_the_budget_is_counted(text: str, tenth: float) -> None:
    assert BudgetTracker(Budget.parse(text), 0.0).share(0.1) == tenth


def test_the_price_of_trials_in_one_go(prepared: PreparedTask) -> None:
    trials, runtime_model = [a_trial(prepared), a_trial(prepared)], RuntimeModel(0.5)
    tokens = sum(trial.tokens_to_end for trial in trials)
    assert BudgetTracker(Budget.parse("9-trials"), 0.0).price(trials, runtime_model, 3.0) == 2
    assert BudgetTracker(Budget.parse("9k-tokens"), 0.0).price(trials, runtime_model, 3.0) == tokens
    seconds = BudgetTracker(Budget.parse("1h"), 0.0)
    assert seconds.price(trials, runtime_model, 3.0, upper=False) == pytest.approx(0.5 * tokens + 6.0)
    assert seconds.price(trials, runtime_model, 3.0) > 0.5 * tokens + 9.0


def test_seconds_are_judged_by_their_upper_bound(prepared: PreparedTask) -> None:
    trial = a_trial(prepared)
    runtime_model = RuntimeModel(1.0)
    expected = runtime_model.expected("lora", trial.tokens_to_next)
    upper = runtime_model.upper("lora", trial.tokens_to_next)
    between = Budget("seconds", (expected + upper) / 2, "")
    assert not BudgetTracker(between, 0.0).fits(trial, None, Used(), runtime_model)
    assert BudgetTracker(between, 0.0).is_expected_to_fit(trial, Used(), runtime_model)
    less = Budget("seconds", 0.9 * expected, "")
    assert not BudgetTracker(less, 0.0).is_expected_to_fit(trial, Used(), runtime_model)
    assert BudgetTracker(Budget("seconds", 1.01 * upper, ""), 0.0).fits(trial, None, Used(), runtime_model)


def test_what_is_left_of_seconds_is_used_up_to_a_step_between_points(prepared: PreparedTask) -> None:
    trial, runtime_model = a_trial(prepared), RuntimeModel(1.0, overhead_seconds=10.0)
    plan, grid = trial.plan, trial.plan.grid
    first = grid[0]

    def reached(seconds: float) -> int | None:
        return BudgetTracker(Budget("seconds", seconds, ""), 0.0).last_step(trial, Used(), runtime_model)

    assert reached(plan.tokens_at(first) + 10.0) == first
    assert reached(1e6) == first, "the next point, not beyond it"
    assert reached(plan.tokens_at(first) + 9.0) is None, "a trial begins with four steps or more"
    trial.run = sample_run(
        outcome=Outcome.PAUSED, curve=(sample_point(first, tokens_seen=plan.tokens_at(first)),)
    )
    for more in (1, 2):
        assert first + more < grid[-1]
        needed = plan.tokens_at(first + more) - plan.tokens_at(first) + 10.0
        # Without a checkpoint it would be trained once more.
        assert reached(plan.tokens_at(first) + needed) == min(first + more, grid[1])
    assert reached(plan.tokens_at(first) + 10.0) is None
    tokens = BudgetTracker(Budget("tokens", 1e6, ""), 0.0)
    assert tokens.last_step(trial, Used(), runtime_model) is None


def test_a_budget_of_trials_only_limits_new_ones(prepared: PreparedTask) -> None:
    new = a_trial(prepared)
    budget_tracker = BudgetTracker(Budget.parse("2-trials"), 0.0)
    assert new.outcome is Outcome.PAUSED
    assert budget_tracker.fits(new, None, Used(trials=1), RuntimeModel(1.0))
    assert not budget_tracker.fits(new, None, Used(trials=2), RuntimeModel(1.0))


def test_the_end_of_a_trial_costs_every_point_on_the_way(prepared: PreparedTask) -> None:
    trial = a_trial(prepared)
    runtime_model = RuntimeModel(1e-6)
    runtime_model.learn("lora", 100, 1e-4, other_seconds=2.0)
    points = len(trial.plan.grid)
    assert points > 1
    assert not BudgetTracker(Budget("seconds", 2.0 * points, ""), 0.0).affords_end(
        trial, Used(), runtime_model
    )
    assert BudgetTracker(Budget("seconds", 4.0 * points, ""), 0.0).affords_end(trial, Used(), runtime_model)


def test_the_end_of_a_trial_is_counted_exactly_in_tokens(prepared: PreparedTask) -> None:
    trial = a_trial(prepared)
    exact = BudgetTracker(Budget("tokens", trial.tokens_to_end, ""), 0.0)
    assert exact.affords_end(trial, Used(), RuntimeModel(1.0))
    assert not exact.affords_end(trial, Used(tokens=1), RuntimeModel(1.0))


def test_a_bound_that_reaches_the_end_holds_the_last_scoring(prepared: PreparedTask) -> None:
    spec = replace(a_trial(prepared).spec, full_length_tokens=1)
    trial = Trial(spec, prepared.training_task)
    assert trial.ends_next
    without = RuntimeModel(1e-6)
    scoring = RuntimeModel(1e-6, validation_seconds=10.0)
    tight, ample = (BudgetTracker(Budget("seconds", seconds, ""), 0.0) for seconds in (14.0, 16.0))
    assert tight.fits(trial, None, Used(), without)
    assert tight.affords_end(trial, Used(), without)
    assert not tight.fits(trial, None, Used(), scoring)
    assert not tight.affords_end(trial, Used(), scoring)
    assert ample.fits(trial, None, Used(), scoring)
    assert ample.affords_end(trial, Used(), scoring)
    longer = a_trial(prepared)
    assert not longer.ends_next
    assert tight.fits(longer, None, Used(), scoring), "its next point is not its last"
    assert not tight.affords_end(longer, Used(), scoring)
    assert not tight.fits(longer, trial, Used(), scoring)


def test_what_is_kept_for_a_final_training_is_not_searched_with() -> None:
    budget_tracker = BudgetTracker(Budget.parse("10k-tokens"), 0.0)
    budget_tracker.reserve("final training", 4000.0)
    budget_tracker.reserve("forecast", 1000.0)
    used = Used(tokens=2000)
    assert budget_tracker.remaining(used, 1000).full_lengths == 3.0
    assert budget_tracker.left(used, "forecast") == 4000.0
    assert budget_tracker.left(used, "forecast", "final training") == 8000.0
    assert budget_tracker.search_share == 0.5
    budget_tracker.reserve("final training", 0.0)
    assert budget_tracker.left(used, "forecast") == 8000.0


def test_a_budget_that_ended_uses_no_more() -> None:
    budget_tracker = BudgetTracker(Budget.parse("90s"), seconds_before=100.0)
    budget_tracker.end()
    used = budget_tracker.elapsed()
    time.sleep(0.01)
    assert budget_tracker.elapsed() == used
    assert not budget_tracker.is_overrun
