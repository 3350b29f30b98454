"""Strategies that know other tasks, on tasks with a planted law."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planted_runs import (
    SHARES,
    ZERO_SHOT_LOSS,
    planted_end,
)
from search.planted_task import DATASET, MODEL, candidates, context, view
from tunecast.data.meta_features import DEPENDENCE
from tunecast.errors import ConfigurationError, StoreError
from tunecast.predictor import Prior, prior_at
from tunecast.records import Pipeline, Run, stable_hash
from tunecast.search import (
    History,
    Policy,
    Remaining,
    asha,
    check_strategy,
    diagnostics_of,
    get_strategy,
)
from tunecast.search.task_predictor import TaskPredictor, TrialPredictions
from tunecast.search.transfer import ASIDE, NEW, OTHER, Guided, transfer


def play(
    strategy: Policy, runs: Sequence[Run], steps: int, remaining: Remaining | None = None
) -> tuple[list[int], list[int]]:
    """Let a strategy advance recorded runs: points by run, and its choices."""
    reached = [0] * len(runs)
    choices = []
    for _ in range(steps):
        history = History(tuple(view(run, count) for run, count in zip(runs, reached, strict=True)))
        index = strategy(history, remaining or Remaining(0.5))
        if index is None:
            break
        assert history.trials[index].is_open
        reached[index] += 1
        choices.append(index)
    return reached, choices


def best_end(runs: Sequence[Run], reached: Sequence[int]) -> float:
    ends = [run.curve[-1].validation.loss for run, n in zip(runs, reached, strict=True) if n == len(SHARES)]
    return min(ends, default=math.inf)


@pytest.mark.parametrize("learns_residuals", [False, True])
def test_tries_good_candidates_from_the_start(prior: Prior, learns_residuals: bool) -> None:
    runs = candidates(40)
    truth = [planted_end(run.pipeline, MODEL, DATASET) for run in runs]
    reached, choices = play(transfer(context(prior=prior), learns_residuals=learns_residuals), runs, 16)
    assert truth[choices[0]] <= sorted(truth)[10]
    assert best_end(runs, reached) <= sorted(truth)[5]
    halved = play(asha(), runs, 16)[1]
    tried, tried_by_halving = ([truth[index] for index in set(made)] for made in (choices, halved))
    assert np.mean(tried) < np.mean(tried_by_halving)


def test_is_a_pure_function_of_the_history(prior: Prior) -> None:
    runs = candidates(12)
    strategy = transfer(context(prior=prior))
    other = transfer(context(prior=prior))
    for points in ((0,) * 12, (1, 2, 0) * 4, (4, 0, 3, 1) * 3, (0,) * 12):
        history = History(tuple(view(run, n) for run, n in zip(runs, points, strict=True)))
        assert strategy(history, Remaining(0.5)) == other(history, Remaining(0.5))


def test_a_trial_that_can_still_end_goes_before_one_that_cannot(prior: Prior) -> None:
    runs = candidates(6)
    history = History((view(runs[0], 3), *(view(run, 0) for run in runs[1:])))
    predictor = TaskPredictor(context(), prior)
    left = float(predictor.predict(history).end_seconds[0]) + 0.1
    assert transfer(context(prior=prior))(history, Remaining(0.1, seconds=left)) == 0


def test_so_it_does_where_tokens_are_counted(prior: Prior) -> None:
    runs = candidates(6)
    history = History((view(runs[0], 3), *(view(run, 0) for run in runs[1:])))
    strategy = transfer(context(prior=prior))
    left = 1.1 * (1.0 - history.trials[0].curve[-1].share)
    assert strategy(history, Remaining(0.1, full_lengths=left)) == 0
    ahead = [view(runs[0], 2), view(runs[1], 2), *(view(run, 0) for run in runs[2:])]
    best = int(np.argmin(TaskPredictor(context(), prior).predict(History(tuple(ahead))).mean[:2]))
    left = 1.2 * (1.0 - ahead[best].curve[-1].share)
    assert strategy(History(tuple(ahead)), Remaining(0.1, full_lengths=left)) == best


def test_where_time_is_left_for_one_trial_it_is_the_best_that_goes_on(prior: Prior) -> None:
    runs = candidates(12)
    history = History((view(runs[0], 2), view(runs[1], 2), *(view(run, 0) for run in runs[2:])))
    predictions = TaskPredictor(context(), prior).predict(history)
    best = int(np.argmin(predictions.mean[:2]))
    strategy = transfer(context(prior=prior))
    left = 1.2 * float(predictions.end_seconds[best])
    assert strategy(history, Remaining(0.1, seconds=left)) == best
    ample = {strategy(history, Remaining(0.9, seconds=100 * left)) for _ in range(2)}
    assert ample != {best}, "with time to spare others are tried"


@pytest.mark.parametrize("left", [Remaining(0.5, seconds=9000.0), Remaining(0.5, full_lengths=90.0)])
def test_the_best_goes_on_to_its_end_once_half_as_much_was_probed(left: Remaining) -> None:
    runs = candidates(8)
    # Points lie at an eighth, a quarter, a half and the whole; the best one is at a quarter.
    few = History((view(runs[0], 2), view(runs[1], 1), *(view(run, 0) for run in runs[2:])))
    many = History((view(runs[0], 2), view(runs[1], 3), *(view(run, 0) for run in runs[2:])))
    ended = History((view(runs[0], 2), view(runs[1], 3), view(runs[2], 4), *many.trials[3:]))

    def chosen(history: History, ends: Sequence[float], value: float | None = None) -> int | None:
        told = Dreamt([*ends, *[-0.3] * (8 - len(ends))], [90.0] * 8)
        told.is_new = False
        return Guided(told, context(value_minutes=value))(history, left)  # type: ignore[arg-type]

    assert chosen(few, [-0.2, -0.1]) not in (0, 1), "what has not begun may end better"
    assert chosen(many, [-0.2, -0.1]) == 0
    assert chosen(many, [-0.2, -0.1], value=0.1) != 0, "its end is not worth what it takes"
    assert chosen(ended, [-0.2, -0.1, 0.0]) not in (0, 1), "one that ended allows for more probes"
    running = History((replace(many.trials[0], running=True), *many.trials[1:]))
    assert chosen(running, [-0.2, -0.1]) not in (None, 0), "another worker is at it"


def test_a_cheap_point_of_a_slow_trial_is_not_worth_more_than_a_dear_one_of_a_quick_trial() -> None:
    runs = candidates(3)
    history = History((view(runs[0], 3), *(view(run, 0) for run in runs[1:])))

    class Told(Dreamt):
        def predict(self, _: History) -> TrialPredictions:
            made = super().predict(_)
            return replace(made, step_seconds=np.array([1.0, 4.0, 5.0]))

    told = Told([0.0, -0.1, -0.1], [100.0, 100.0, 50.0])
    told.is_new = False
    assert Guided(told, context())(history, Remaining(0.5, seconds=9000.0)) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("left", [Remaining(0.5), Remaining(0.5, full_lengths=90.0)])
def test_seconds_do_not_choose_where_the_budget_counts_something_else(left: Remaining) -> None:
    runs = candidates(3)
    history = History((view(runs[0], 3), *(view(run, 0) for run in runs[1:])))

    def chosen(seconds: list[float], left: Remaining) -> int | None:
        told = Dreamt([0.0, -0.1, -0.11], seconds)
        told.is_new = False
        return Guided(told, context())(history, left)  # type: ignore[arg-type]

    fast_second, in_seconds = [100.0, 1.0, 50.0], Remaining(0.5, seconds=9000.0)
    assert chosen(fast_second, in_seconds) == 1
    assert chosen(fast_second, left) == chosen([1.0, 100.0, 50.0], left) == 2


@pytest.mark.parametrize(("begun", "chosen"), [(0, 5), (1, 4), (2, 4), (3, 5)])
def test_who_may_end_anywhere_is_hoped_to_end_best_in_every_third_turn(begun: int, chosen: int) -> None:
    runs = candidates(6)
    history = History(tuple(view(run, int(0 < place <= begun)) for place, run in enumerate(runs)))

    class Told(Dreamt):
        is_new = False

        def predict(self, _: History) -> TrialPredictions:
            return replace(super().predict(_), deviation=np.array([0.01] * 5 + [4.0]))

    told, left = Told([0.0] * 4 + [-0.1, -0.06], [50.0] * 6), Remaining(0.5, seconds=900.0)
    assert Guided(told, context())(history, left) == chosen  # type: ignore[arg-type]
    assert Guided(told, context(), most_uncertainty=math.inf)(history, left) == 5  # type: ignore[arg-type]


def test_no_new_trial_when_none_may_be_started(prior: Prior) -> None:
    runs = candidates(6)
    strategy = transfer(context(prior=prior))
    blank = History(tuple(view(run, 0) for run in runs))
    assert strategy(blank, Remaining(0.5, new_trials=0)) is None
    begun = History((view(runs[0], 1), *(view(run, 0) for run in runs[1:])))
    assert strategy(begun, Remaining(0.5, new_trials=0)) == 0
    assert strategy(begun, Remaining(0.5, new_trials=6)) != 0, "it is the limit that kept others away"


def test_stops_when_the_gain_is_not_worth_its_seconds(prior: Prior) -> None:
    runs = candidates(20)
    _, whole = play(transfer(context(prior=prior)), runs, 200)
    _, worth_little = play(transfer(context(value_minutes=0.5, prior=prior)), runs, 200)
    _, worth_nothing = play(transfer(context(value_minutes=1e-9, prior=prior)), runs, 200)
    assert len(worth_nothing) < len(worth_little) < len(whole)
    assert len(worth_nothing) >= 1


def test_a_candidate_that_is_worth_its_seconds_keeps_the_search_going() -> None:
    class Told:
        """The incumbent, one that is surely a little better, one that may be far better, and a bad one."""

        is_new = False
        failure = np.zeros(4)

        def predict(self, _: History) -> TrialPredictions:
            mean, deviation = np.array([0.0, -0.015, 0.0, 1.0]), np.array([1e-3, 0.005, 0.3, 1e-3])
            seconds = np.full(4, 200.0)
            return TrialPredictions(mean, deviation, seconds / 16, seconds, self.failure, True)

    runs = candidates(4)
    begun = History(tuple(view(run, points) for run, points in zip(runs, (3, 0, 0, 1), strict=True)))
    told = Told()

    def chosen(value_minutes: float | None) -> int | None:
        strategy = Guided(told, context(value_minutes=value_minutes))  # type: ignore[arg-type]
        return strategy(begun, Remaining(0.5, 1000.0))

    assert chosen(None) == 1
    assert chosen(0.5) == 2, "1.5% is worth 45 s, what the other may gain more than 200 s"
    assert chosen(1e-3) is None
    told.failure = np.array([0.0, 0.0, 0.9, 0.0])
    assert chosen(0.5) is None, "it would hardly come to its end"


class Dreamt:
    """Predicts what a test dreams up, of a dataset that counts as new."""

    is_new = True

    def __init__(self, mean: Sequence[float], seconds: Sequence[float], *, is_reliable: bool = True) -> None:
        self.mean, self.seconds = np.array(mean), np.array(seconds)
        self.is_reliable = is_reliable

    def predict(self, _: History) -> TrialPredictions:
        spread, failure = np.full(len(self.mean), 0.02), np.zeros(len(self.mean))
        return TrialPredictions(self.mean, spread, self.seconds / 16, self.seconds, failure, self.is_reliable)


def test_chance_draws_from_what_can_end_and_is_worth_its_seconds() -> None:
    runs = candidates(8)
    history = History((view(runs[0], 3), view(runs[1], 1), *(view(run, 0) for run in runs[2:])))
    everyone = stable_hash([run.pipeline.id for run in runs])
    first, second, *_ = sorted(range(2, 8), key=lambda n: stable_hash([everyone, runs[n].pipeline.id]))

    def drawn_of(mean: Sequence[float], seconds: Sequence[float], value: float | None = None) -> int | None:
        strategy = Guided(Dreamt(mean, seconds), context(value_minutes=value))  # type: ignore[arg-type]
        return strategy(history, Remaining(0.5, seconds=100.0))

    hopeful, quick = [0.0, 0.0, *[-0.1] * 6], [50.0] * 8
    slow = [500.0 if place == first else 50.0 for place in range(8)]
    poor = [1.0 if place == first else mean for place, mean in enumerate(hopeful)]
    assert drawn_of(hopeful, quick) == first
    assert drawn_of(hopeful, slow) == second, "it would never end"
    assert drawn_of(poor, quick) == first, "that the prior thinks little of it is no reason"
    assert drawn_of(poor, quick, value=1.0) == second, "but what a minute is worth is one"


def test_where_the_prior_is_left_aside_halving_goes_on_while_it_is_worth_it() -> None:
    runs = candidates(8)
    history = History((*(view(run, 4) for run in runs[:4]), *(view(run, 0) for run in runs[4:])))
    ends = [0.0, -0.1, 0.1, 0.05]

    def chosen(value: float | None, new: float = -1.0, seconds: float = 100.0) -> int | None:
        told = Dreamt([*ends, *[new] * 4], [seconds] * 8, is_reliable=False)
        strategy = Guided(told, context(value_minutes=value))  # type: ignore[arg-type]
        return strategy(history, Remaining(0.5))

    drawn_first = chosen(None)
    assert drawn_first is not None
    assert chosen(10.0) == drawn_first
    assert chosen(1e-3) is None
    assert chosen(1.0, new=-9.0) == chosen(1.0, new=9.0), "what the prior predicts counts no more"
    # A spread of 9% around an end 11% behind the best leaves about half a percent to expect.
    assert (chosen(1.0, seconds=20.0), chosen(1.0, seconds=200.0)) == (drawn_first, None)


@pytest.mark.parametrize("left", [Remaining(0.1, full_lengths=0.7), Remaining(0.1, seconds=120.0)])
def test_tokens_are_kept_for_the_best_trial_while_a_worker_advances_it(left: Remaining) -> None:
    runs = candidates(4)
    best, other = view(runs[0], 2, running=True), view(runs[1], 2)
    history = History((best, other, *(view(run, 0) for run in runs[2:])))
    told = Dreamt([-0.2, -0.1, 0.0, 0.0], [90.0, 90.0, 100.0, 100.0])
    strategy = Guided(told, context())  # type: ignore[arg-type]
    assert strategy(history, left) == (None if left.seconds is None else 1)
    waiting = replace(history, trials=(view(runs[0], 3), *history.trials[1:]))
    assert strategy(waiting, left) == 0
    ample = replace(left, full_lengths=9.0) if left.seconds is None else replace(left, seconds=9000.0)
    assert strategy(history, ample) in (1, 2, 3)


def test_all_end_when_nothing_is_open(prior: Prior) -> None:
    closed = History(tuple(view(run, 4) for run in candidates(3)))
    assert transfer(context(prior=prior))(closed, Remaining(0.5)) is None


def test_where_the_prior_is_wrong_successive_halving_takes_over(prior: Prior) -> None:
    def upside_down(run: Run) -> Run:
        """Where the prior expects the most, nothing is gained, and the other way round."""
        points = [
            replace(
                point,
                validation=replace(
                    point.validation, loss=ZERO_SHOT_LOSS * (0.35 / (point.validation.loss / 4.0))
                ),
            )
            for point in run.curve
        ]
        return replace(run, curve=tuple(points))

    runs = [upside_down(run) for run in candidates(24)]
    finished = [*range(0, 24, 2)]
    history = History(tuple(view(run, 4 if n in finished else 0) for n, run in enumerate(runs)))
    predictions = TaskPredictor(context(), prior).predict(history)
    assert not predictions.is_reliable
    strategy = transfer(context(prior=prior))
    assert diagnostics_of(strategy, History(tuple(view(run, 0) for run in runs))) == ()
    assert diagnostics_of(strategy, history) == (ASIDE,)
    chosen = strategy(history, Remaining(0.5))
    assert chosen is not None
    assert chosen not in finished
    backwards = History((history.trials[0], *reversed(history.trials[1:])))
    again = strategy(backwards, Remaining(0.5))
    assert again is not None
    # With other candidates around it, the draw differs: a fixed order would be the same in every session.
    others = {
        strategy(History((*history.trials, view(candidates(1, seed)[0], 0))), Remaining(0.5))
        for seed in range(100, 112)
    }
    assert len(others) > 3


def test_a_prior_that_the_session_did_not_begin_with_is_left_aside(prior: Prior) -> None:
    runs = candidates(12)
    history = History(tuple(view(run, 2 if n < 2 else 0) for n, run in enumerate(runs)))
    other = transfer(context(prior=prior, is_prior_kept=False))
    assert diagnostics_of(other, history) == (OTHER,)
    everyone = stable_hash([run.pipeline.id for run in runs])
    drawn = min(range(2, 12), key=lambda n: stable_hash([everyone, runs[n].pipeline.id]))
    assert other(history, Remaining(0.5)) == drawn
    assert transfer(context(prior=prior))(history, Remaining(0.5)) != drawn


def test_where_the_prior_is_right_it_stays(prior: Prior) -> None:
    runs = candidates(24)
    history = History(tuple(view(run, 4 if n % 2 else 0) for n, run in enumerate(runs)))
    assert TaskPredictor(context(), prior).predict(history).is_reliable


def test_without_a_zero_shot_loss_a_typical_one_serves(prior: Prior) -> None:
    runs = candidates(5)
    history = History(tuple(view(run, 0) for run in runs))
    assert transfer(context(zero_shot_loss=None, prior=prior))(history, Remaining(0.5)) is not None


Draw = Callable[[int], list[Pipeline]]


def test_a_prior_of_the_users_own_is_taken_from_its_file(prior: Prior, tmp_path: Path) -> None:
    path = tmp_path / "own prior"
    prior.save(path)
    runs = candidates(20)
    history = History(tuple(view(run, 0) for run in runs))
    theirs = context(prior=prior_at(str(path)))
    own = get_strategy("transfer").policy(theirs)(history, Remaining(0.5))
    assert own == transfer(context(prior=prior))(history, Remaining(0.5))
    with pytest.raises(StoreError, match="nowhere cannot be read"):
        check_strategy("transfer", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigurationError, match="--prior: the strategy asha does not use it"):
        check_strategy("asha", str(path))


def test_where_nothing_alike_was_learned_from_every_other_new_trial_is_left_to_chance(prior: Prior) -> None:
    runs = candidates(40)
    foreign = replace(DATASET, meta_features={**DATASET.meta_features, DEPENDENCE: 0.1})
    assert TaskPredictor(context(dataset=foreign), prior).is_new
    blank = History(tuple(view(run, 0) for run in runs))
    assert diagnostics_of(transfer(context(dataset=foreign, prior=prior)), blank) == (NEW,)
    assert diagnostics_of(transfer(context(prior=prior)), blank) == diagnostics_of(asha(), blank) == ()
    _, usual = play(transfer(context(prior=prior)), runs, 40)
    _, doubting = play(transfer(context(dataset=foreign, prior=prior)), runs, 40)
    everyone = stable_hash([run.pipeline.id for run in runs])
    dice = sorted(range(len(runs)), key=lambda n: stable_hash([everyone, runs[n].pipeline.id]))
    for choices, hedged in ((usual, False), (doubting, True)):
        assert ({dice[0], dice[1]} <= set(choices)) is hedged
