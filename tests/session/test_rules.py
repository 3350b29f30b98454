"""Rules by which a session spends its budget."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import pytest

from trial_tables import Trial, history
from tunecast.records import Outcome, Pipeline
from tunecast.search import History, Remaining, random_search
from tunecast.session.rules import MAX_PASSED_OVER, choose, fits_beside, is_probe
from tunecast.training.plan import plan_trial

FAR_ON = (4.0, 3.9, 3.8, 3.7, 3.6)
"""Losses of a trial whose next point is at half of its full length."""


@dataclass
class Coins:
    """A budget view that suffices for named trials and ends only, and keeps what it was asked."""

    steps: Collection[int] = ()
    ends: Collection[int] = ()
    asked: list[tuple[int, int | None]] = field(default_factory=list)
    looks: int = 0

    def remaining(self) -> Remaining:
        self.looks += 1
        return Remaining(1.0)

    def fits(self, index: int, reserved: int | None) -> bool:
        self.asked.append((index, reserved))
        return index in self.steps

    def affords_end(self, index: int) -> bool:
        return index in self.ends


@pytest.mark.parametrize("batch_size", [4, 8, 16])
def test_the_points_up_to_a_quarter_are_probes(batch_size: int) -> None:
    lengths = np.random.default_rng(0).integers(20, 200, 900)
    pipeline = Pipeline("full", {"per_device_train_batch_size": batch_size, "warmup_ratio": 0.0})
    plan = plan_trial([int(length) for length in lengths], pipeline, seed=0, full_length_tokens=60_000)
    probes = [step for step in plan.grid if is_probe(plan.share_at(step))]
    assert probes == [*plan.grid[:-2]]
    assert plan.share_at(probes[-1]) == pytest.approx(0.25, abs=0.04)


def test_what_does_not_fit_is_passed_over() -> None:
    budget_view = Coins(steps=(2,))
    assert choose(random_search(), history([Trial(), Trial(), Trial()]), budget_view) == 2
    assert [index for index, _ in budget_view.asked] == [0, 1, 2]
    assert budget_view.looks == 3, "an answer takes time, which the next one has to include"


def test_a_strategy_that_names_what_does_not_fit_again_and_again_is_left() -> None:
    many = history([Trial()] * (MAX_PASSED_OVER + 2))
    assert choose(random_search(), many, Coins(steps=(MAX_PASSED_OVER,))) is None
    assert choose(random_search(), many, Coins(steps=(MAX_PASSED_OVER - 1,))) == MAX_PASSED_OVER - 1


def test_a_strategy_may_stop() -> None:
    assert choose(lambda seen, left: None, history([Trial()]), Coins(steps=(0,))) is None


@pytest.mark.parametrize("closed", [Trial(running=True), Trial((3.0,), Outcome.DIVERGED), Trial((3.0,) * 7)])
def test_a_choice_that_cannot_be_advanced_is_an_error(closed: Trial) -> None:
    with pytest.raises(RuntimeError, match="trial 1, which cannot be advanced"):
        choose(lambda seen, left: 1, history([Trial(), closed]), Coins(steps=(0, 1)))


def test_what_was_passed_over_cannot_be_chosen_again() -> None:
    with pytest.raises(RuntimeError, match="cannot be advanced"):
        choose(lambda seen, left: 0, history([Trial()]), Coins())


def reserved(table: list[Trial], budget_view: Coins, index: int = 1) -> int | None:
    """Whose end is kept free beside a step that fits."""
    assert fits_beside(index, history(table), budget_view)
    ((_, kept),) = budget_view.asked
    return kept


def test_the_leaders_end_is_kept_free() -> None:
    waiting = [Trial((3.0,)), Trial(), Trial((2.0,))]
    assert reserved(waiting, Coins(steps=(1,), ends=(0, 2))) == 2
    assert reserved(waiting, Coins(steps=(1,), ends=(0, 1))) is None, "it may not end, the other does"
    assert reserved(waiting, Coins(steps=(2,), ends=(0, 2)), index=2) is None, "it is the leader itself"
    assert reserved([Trial(), Trial()], Coins(steps=(1,), ends=(0, 1))) is None, "there is no leader"


def test_a_leader_that_may_not_end_gets_what_is_left() -> None:
    budget_view = Coins(steps=(1, 2), ends=(0,))
    assert not fits_beside(1, history([Trial((3.0,)), Trial(), Trial((2.0,))]), budget_view)
    assert fits_beside(2, history([Trial((3.0,)), Trial(), Trial((2.0,))]), budget_view)
    assert fits_beside(1, history([Trial((3.0,)), Trial(), Trial((2.0,), running=True)]), budget_view)


def test_of_a_leader_at_its_end_nothing_is_kept_free() -> None:
    assert reserved([Trial((3.0,)), Trial(), Trial((2.0,) * 7)], Coins(steps=(1,), ends=(0, 1, 2))) is None


def test_beside_the_first_trial_it_is_the_first_that_must_end() -> None:
    beside = [Trial((3.0,), running=True), Trial(), Trial((2.0,))]
    assert reserved(beside, Coins(steps=(1,), ends=(0, 2))) == 0


def test_a_trial_that_is_far_on_is_advanced_only_where_it_can_end() -> None:
    seen: History = history([Trial((5.0,)), Trial(FAR_ON), Trial(FAR_ON[:-1])])
    assert not fits_beside(1, seen, Coins(steps=(1, 2)))
    assert fits_beside(1, seen, Coins(steps=(1, 2), ends=(1,)))
    assert fits_beside(2, seen, Coins(steps=(1, 2), ends=(1,)))
