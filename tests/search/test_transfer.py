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
    planted_dataset,
    planted_end,
    planted_model,
    planted_pipeline,
    planted_run,
    planted_runs,
    with_peaks,
)
from tunecast.data.meta_features import DEPENDENCE
from tunecast.errors import ConfigurationError, StoreError
from tunecast.methods.rates import adapter_rate
from tunecast.predictor import Prior, WorkerCapacity, prior_at
from tunecast.predictor.examples import WORST
from tunecast.predictor.features import columns, pipeline_row
from tunecast.predictor.memory import fit_bytes
from tunecast.predictor.train import train
from tunecast.records import Outcome, Pipeline, Run, Seconds, stable_hash
from tunecast.search import (
    Context,
    History,
    Policy,
    Remaining,
    TrialView,
    asha,
    check_strategy,
    diagnostics_of,
    get_strategy,
)
from tunecast.search.failure import memory_odds
from tunecast.search.ranking import ranked
from tunecast.search.task_predictor import TaskPredictor, TrialPredictions, _seconds
from tunecast.search.transfer import ASIDE, NEW, OTHER, Guided, transfer

MODEL = planted_model()
DATASET = planted_dataset(9)


@pytest.fixture(scope="module")
def prior() -> Prior:
    return train(planted_runs(tasks=8, runs=30), families=("forest",))


def context(**changes: object) -> Context:
    return replace(Context(DATASET, MODEL, 64_000, 400, ZERO_SHOT_LOSS), **changes)


def candidates(count: int, seed: int = 5) -> list[Run]:
    draw = np.random.default_rng(seed)
    return [planted_run(DATASET, MODEL, planted_pipeline(draw, MODEL), 77_000 + n) for n in range(count)]


def view(run: Run, points: int, **changes: object) -> TrialView:
    done = points >= len(run.curve)
    made = TrialView(
        run.pipeline,
        run.curve[:points],
        None if done else run.curve[points].share,
        Outcome.COMPLETED if done else Outcome.PAUSED,
    )
    return replace(made, **changes)


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


def test_a_point_better_than_predicted_attracts_the_search(prior: Prior) -> None:
    runs = candidates(12)
    predictor = TaskPredictor(context(), prior)
    blank = predictor.predict(History(tuple(view(run, 0) for run in runs)))
    started = [view(run, 2 if place == 3 else 0) for place, run in enumerate(runs)]
    last = started[3].curve[-1]
    better = replace(last, validation=replace(last.validation, loss=0.8 * last.validation.loss))
    started[3] = replace(started[3], curve=(started[3].curve[0], better))
    seen = predictor.predict(History(tuple(started)))
    worse = predictor.predict(History(tuple(view(run, 2 * (n == 3)) for n, run in enumerate(runs))))
    assert seen.mean[3] < min(blank.mean[3], worse.mean[3])


@pytest.mark.parametrize("points", [0, 2])
@pytest.mark.parametrize("learns_residuals", [False, True])
def test_a_trial_that_diverged_ended_as_surrogates_are_taught_and_moves_no_other(
    prior: Prior, points: int, learns_residuals: bool
) -> None:
    runs = candidates(8)
    others = [view(run, 2 * (place < 3)) for place, run in enumerate(runs)]
    gone = view(runs[3], points, outcome=Outcome.DIVERGED, next_share=None)
    without, with_it = (
        TaskPredictor(context(), prior, learns_residuals=learns_residuals).predict(History(tuple(trials)))
        for trials in (others, [*others[:3], gone, *others[4:]])
    )
    assert with_it.mean[3] == WORST
    assert with_it.mean[4:] == pytest.approx(without.mean[4:])


def test_a_trial_that_broke_down_tells_what_it_told_before(prior: Prior) -> None:
    runs = candidates(6)
    paused = [view(runs[0], 1), *(view(run, 0) for run in runs[1:])]
    broken = [replace(paused[0], outcome=Outcome.OUT_OF_MEMORY, next_share=None), *paused[1:]]
    predictor = TaskPredictor(context(), prior)
    before, after = (predictor.predict(History(tuple(views))) for views in (paused, broken))
    assert after.mean == pytest.approx(before.mean)
    assert after.deviation == pytest.approx(before.deviation)


def test_a_predicted_divergence_is_no_evidence_against_the_prior(prior: Prior) -> None:
    """Its last point before it broke down may be a good one."""
    high, low = 60 * adapter_rate(MODEL), adapter_rate(MODEL)
    pipelines = [_lora(rate) for rate in (high, 1.1 * high, 1.2 * high, low, 1.1 * low, 0.9 * low)]
    runs = [planted_run(DATASET, MODEL, pipeline, 88_000 + n) for n, pipeline in enumerate(pipelines)]
    lucky = [_flattered(run) for run in runs[:3]]
    trials = [view(run, 1, outcome=Outcome.DIVERGED, next_share=None) for run in lucky]
    trials += [view(run, 3) for run in runs[3:]]
    assert TaskPredictor(context(), prior).predict(History(tuple(trials))).is_reliable


def _lora(rate: float) -> Pipeline:
    return Pipeline("lora", {"learning_rate": rate, "lora_r": 8, "lora_alpha": 16})


def _flattered(run: Run) -> Run:
    first = run.curve[0]
    point = replace(first, validation=replace(first.validation, loss=0.2 * first.validation.loss))
    return replace(run, curve=(point, *run.curve[1:]))


def test_a_completed_trial_is_known(prior: Prior) -> None:
    runs = candidates(3)
    seen = TaskPredictor(context(), prior).predict(
        History((view(runs[0], 4), view(runs[1], 0), view(runs[2], 0)))
    )
    assert seen.mean[0] == pytest.approx(math.log(runs[0].curve[-1].validation.loss / ZERO_SHOT_LOSS))
    assert seen.deviation[0] < 0.02 < seen.deviation[1]


def test_the_level_of_the_task_moves_what_has_not_begun(prior: Prior) -> None:
    runs = candidates(10)
    predictor = TaskPredictor(context(), prior)
    worse = [
        replace(v, curve=tuple(replace(p, validation=replace(p.validation, loss=3.9)) for p in v.curve))
        for v in (view(run, 4) for run in runs[:5])
    ]
    blank = predictor.predict(History(tuple(view(run, 0) for run in runs)))
    moved = predictor.predict(History((*worse, *(view(run, 0) for run in runs[5:]))))
    assert (moved.mean[5:] > blank.mean[5:]).all()


def test_seconds_are_as_measured_and_scale_to_this_machine(prior: Prior) -> None:
    runs = candidates(10)
    predictor = TaskPredictor(context(), prior)
    seen = predictor.predict(History((view(runs[0], 2), *(view(run, 0) for run in runs[1:]))))
    ahead = (SHARES[2] - SHARES[1]) * 64_000
    tokens = runs[0].curve[1].tokens_seen
    spent = sum(point.training.wall for point in runs[0].curve[:2])
    evaluation = runs[0].curve[0].evaluation.wall
    assert seen.step_seconds[0] == pytest.approx(ahead * spent / tokens + evaluation)
    points = [replace(p, training=Seconds(3 * p.training.wall, 3 * p.training.cpu)) for p in runs[0].curve]
    slower = replace(runs[0], curve=tuple(points))
    slow = predictor.predict(History((view(slower, 2), *(view(run, 0) for run in runs[1:]))))
    assert (slow.step_seconds[1:] > 1.5 * seen.step_seconds[1:]).all(), "the others are as slow here"
    full = [n for n, run in enumerate(runs) if run.pipeline.method == "full" and n]
    lora = [n for n, run in enumerate(runs) if run.pipeline.method == "lora" and n]
    assert np.mean(seen.end_seconds[full]) > 1.5 * np.mean(seen.end_seconds[lora])


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_without_seconds_of_the_device_the_sessions_own_hints_serve(prior: Prior, device: str) -> None:
    from sample_runs import sample_machine

    runs = candidates(4)
    hinted = [view(run, 0, expected_seconds=2.0 + n) for n, run in enumerate(runs)]
    predictor = TaskPredictor(context(machine=sample_machine(device=device)), prior)
    found = predictor.predict(History(tuple(hinted))).step_seconds
    if device == "cuda:0":
        assert found == pytest.approx([2.0, 3.0, 4.0, 5.0])
    else:
        assert np.median(found) == pytest.approx(3.5, rel=0.5)


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


def test_an_evaluation_counts_before_one_of_a_trial_was_seen(prior: Prior) -> None:
    runs = candidates(4)
    blank = History(tuple(view(run, 0) for run in runs))
    without = TaskPredictor(context(), prior).predict(blank)
    told = TaskPredictor(context(evaluation_seconds=7.0), prior).predict(blank)
    assert told.step_seconds - without.step_seconds == pytest.approx([7.0] * 4)
    assert (told.end_seconds - without.end_seconds > 7.0).all(), "there are several on the way"


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


def drawn(count: int) -> list[Pipeline]:
    draw = np.random.default_rng(11)
    return [planted_pipeline(draw, MODEL) for _ in range(count)]


def test_ranking_keeps_good_ones_different_ones_and_some_as_drawn(prior: Prior) -> None:
    pipelines = drawn(400)
    kept = ranked(context(prior=prior), pipelines, 40)
    assert len({pipeline.id for pipeline in kept}) == 40
    ends = [planted_end(pipeline, MODEL, DATASET) for pipeline in pipelines]
    first = [planted_end(pipeline, MODEL, DATASET) for pipeline in kept[:10]]
    assert np.mean(first) < np.quantile(ends, 0.3)
    assert {pipeline.method for pipeline in kept} == {"lora", "full"}
    places = [pipelines.index(pipeline) for pipeline in kept[30:]]
    assert places == sorted(places)
    assert places[-1] < 60


def test_what_would_diverge_is_not_among_the_candidates_where_others_are(prior: Prior) -> None:
    class Odds:
        """Learning rates in the upper part of those that are asked about diverge."""

        def __init__(self, part: float) -> None:
            self.part = part

        def probability(self, features: np.ndarray) -> np.ndarray:
            rates = features[:, columns(("log_effective_rate",))[0]]
            return np.where(rates > np.quantile(rates, 1 - self.part), 0.9, 0.1)

    pipelines = drawn(200)

    def diverging(part: float) -> set[str]:
        rows = np.array([pipeline_row(pipeline, MODEL) for pipeline in pipelines])
        odds = Odds(part).probability(rows)
        return {pipeline.id for pipeline, chance in zip(pipelines, odds, strict=True) if chance > 0.5}

    for part, most in ((0.5, 0), (0.9, 20)):
        kept = ranked(context(prior=replace(prior, failure=Odds(part))), pipelines, 40)
        assert len({pipeline.id for pipeline in kept}) == 40
        assert len(diverging(part) & {pipeline.id for pipeline in kept}) == most


@pytest.fixture(scope="module")
def roomy(prior: Prior) -> tuple[Prior, WorkerCapacity]:
    """A prior that knows bytes, and room for some of what is drawn."""
    told = [run for seed, width in enumerate((96, 128, 160)) for run in peaks_of(width, seed)]
    learned = replace(prior, bytes=fit_bytes(told))
    room = WorkerCapacity("cpu", "bfloat16", 2048, 1)
    expected = learned.bytes["cpu"].log_bytes(MODEL, DATASET, drawn(200), room)
    return learned, replace(room, bytes=round(float(np.exp(np.quantile(expected, 0.6)))))


def peaks_of(width: int, seed: int) -> list[Run]:
    runs = planted_runs(tasks=6, runs=20, seed=seed, model=planted_model(width))
    return with_peaks([replace(run, max_length=2048) for run in runs])


def test_what_memory_would_not_hold_is_not_among_the_candidates_where_others_are(
    roomy: tuple[Prior, WorkerCapacity],
) -> None:
    prior, room = roomy
    pipelines = drawn(200)
    told, ignorant = context(prior=prior, room=room), context(prior=prior)
    odds = memory_odds(told, prior, pipelines)
    beyond = {pipeline.id for pipeline, chance in zip(pipelines, odds, strict=True) if chance > 0.5}
    assert 20 < len(beyond) < 180
    assert not memory_odds(ignorant, prior, pipelines).any()
    elsewhere = replace(told, room=replace(room, device="cuda:0"))
    assert not memory_odds(elsewhere, prior, pipelines).any()
    chosen, anything = ({p.id for p in ranked(one, pipelines, 40)} for one in (told, ignorant))
    assert not beyond & chosen
    assert beyond & anything


def test_the_odds_of_a_failure_are_those_of_divergence_and_of_too_little_memory(
    roomy: tuple[Prior, WorkerCapacity],
) -> None:
    prior, room = roomy
    runs = candidates(20)
    trials = [view(run, int(number == 0)) for number, run in enumerate(runs)]
    found = TaskPredictor(context(prior=prior, room=room), prior).predict(History(tuple(trials))).failure
    diverging = TaskPredictor(context(prior=prior), prior).predict(History(tuple(trials))).failure
    beyond = memory_odds(context(room=room), prior, [run.pipeline for run in runs])
    assert beyond.min() < 0.1
    assert beyond.max() > 0.9
    assert found[0] == 0.0  # it has a point, so memory holds it
    assert found[1:] == pytest.approx(1 - (1 - diverging[1:]) * (1 - beyond[1:]))


def test_ranking_few_or_none(prior: Prior) -> None:
    assert ranked(context(prior=prior), [], 10) == []
    assert len(ranked(context(prior=prior), drawn(3), 10)) == 3


def test_a_prior_of_the_users_own_is_taken_from_its_file(prior: Prior, tmp_path: Path) -> None:
    path = tmp_path / "own prior"
    prior.save(path)
    runs = candidates(20)
    history = History(tuple(view(run, 0) for run in runs))
    theirs = context(prior=prior_at(str(path)))
    own = get_strategy("transfer").policy(theirs)(history, Remaining(0.5))
    assert own == transfer(context(prior=prior))(history, Remaining(0.5))
    drawn = [run.pipeline for run in runs]
    assert ranked(theirs, drawn, 8) == ranked(context(prior=prior), drawn, 8)
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


def test_a_trial_of_fewer_points_takes_fewer_evaluations() -> None:
    trial = TrialView(Pipeline("lora", {}), next_share=1 / 64)
    few = replace(trial, points_ahead=4)
    _, ends = _seconds([trial, few], np.array([0.01, 0.01]), 1000, 2.0)
    assert ends.tolist() == [10.0 + 7 * 2.0, 10.0 + 4 * 2.0]
