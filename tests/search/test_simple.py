"""Strategies without a surrogate, on small tables of losses."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from trial_tables import RUNGS, Trial, history, simulate
from tunecast.records import Outcome
from tunecast.search import Remaining, asha, fixed, random_search


def ranked(trial: int, rung: int) -> float:
    """Curves that never cross: the higher the number of the trial, the better it is."""
    return 5.0 - 0.1 * trial - 0.2 * rung


def test_fixed_trains_one_trial_to_its_end() -> None:
    table, choices = simulate(fixed(1), ranked, trials=3, steps=50)
    assert choices == [1] * len(RUNGS)
    assert [len(trial.losses) for trial in table] == [0, 7, 0]


def test_random_search_finishes_one_before_the_next() -> None:
    _, choices = simulate(random_search(), ranked, trials=4, steps=50, new_trials=3)
    assert choices == [0] * 7 + [1] * 7 + [2] * 7


def test_random_search_gives_a_second_worker_a_new_trial() -> None:
    assert random_search()(history([Trial((3.0,), running=True), Trial()]), Remaining(1.0)) == 1


def test_asha_promotes_the_better_half() -> None:
    waiting = [Trial(), Trial((4.0,)), Trial((3.0,)), Trial((5.0,)), Trial((2.0,))]
    choose = asha()
    assert choose(history(waiting), Remaining(1.0)) == 4
    promoted = [*waiting[:4], Trial((2.0,), running=True)]
    assert choose(history(promoted), Remaining(1.0)) == 2
    both = [*waiting[:2], Trial((3.0, 2.5)), waiting[3], Trial((2.0, 1.5))]
    assert choose(history(both), Remaining(1.0)) == 4  # the higher rung goes first
    assert (
        choose(history([*both[:4], Trial((2.0, 1.5), running=True)]), Remaining(1.0)) == 0
    )  # then a new one


def test_asha_spends_most_on_the_best() -> None:
    table, _ = simulate(asha(), ranked, trials=33, steps=500, new_trials=33)
    reached = [len(trial.losses) for trial in table[1:]]
    assert reached[-1] == max(reached)
    counts = [sum(depth > rung for depth in reached) for rung in range(len(RUNGS))]
    assert counts[0] == 32
    assert all(later < earlier for earlier, later in pairwise(counts) if earlier > 1)


def test_asha_larger_factor_promotes_fewer() -> None:
    reached = {}
    for factor in (2, 4):
        table, _ = simulate(
            asha(factor),
            lambda t, r: 5.0 - 0.1 * ((7 * t) % 17) - 0.2 * r,
            trials=17,
            steps=500,
            new_trials=17,
        )
        reached[factor] = sum(len(trial.losses) for trial in table)
    assert reached[4] < reached[2]


def test_asha_never_advances_failures_and_they_do_not_let_others_pass() -> None:
    def half_fail(trial: int, rung: int) -> float | None:
        return None if trial % 2 else ranked(trial, rung)

    def all_live(trial: int, rung: int) -> float:
        return math.inf if trial % 2 and rung == 0 else ranked(trial, rung)

    failing, choices = simulate(asha(), half_fail, trials=17, steps=500, new_trials=17)
    assert all(choices.count(trial) <= 1 for trial in range(1, 17, 2))
    living, _ = simulate(asha(), all_live, trials=17, steps=500, new_trials=17)
    # A failure is worth what a trial of infinite loss is worth, on every rung.
    assert [len(t.losses) for t in failing[::2]] == [len(t.losses) for t in living[::2]]


def test_asha_counts_a_loss_that_is_no_number_as_the_worst() -> None:
    trials = [Trial(), Trial((math.nan,), Outcome.DIVERGED), Trial((3.0,))]
    assert asha()(history(trials), Remaining(1.0)) == 2


@pytest.mark.parametrize(("new_trials", "expected"), [(None, 1), (0, None)])
def test_asha_with_budget_left_goes_on_with_the_best(new_trials: int | None, expected: int | None) -> None:
    trials = [Trial((1.0,), Outcome.FAILED), Trial((2.0, 1.9)), Trial((2.5,))]
    assert asha()(history(trials), Remaining(0.5, None, new_trials)) == expected
