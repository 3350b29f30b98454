"""Cases out of recorded runs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from replay.made_up import SECONDS_PER_TOKEN, START, pipelines, task_runs
from tunecast.methods.space import BASELINE
from tunecast.records import ZERO_SHOT, Outcome, Run
from tunecast.replay.cases import Case, Clock, cases_of, on_clock


def one_case(runs: list[Run], **options: object) -> Case:
    cases, reasons = cases_of(runs, **options)  # type: ignore[arg-type]
    assert reasons == []
    (case,) = cases
    return case


def test_a_case_holds_every_recorded_pipeline_once() -> None:
    runs = task_runs("a")
    again = replace(runs[1], id="again", seed=5, test=runs[2].test)
    case = one_case([*runs, again])
    assert len(case.candidates) == len(pipelines())
    assert case.baseline is case.candidates[0]
    assert case.baseline.run.id == runs[1].id
    assert case.start_loss == START
    assert case.name == "a on nano at 16,384 tokens"


def test_interrupted_unscored_partial_and_forecast_runs_are_left_out() -> None:
    runs = task_runs("a")
    runs[2] = replace(runs[2], outcome=Outcome.PAUSED)
    runs[3] = replace(runs[3], test=None) if not runs[3].outcome.is_failure else runs[3]
    runs[4] = replace(runs[4], unique_examples=100)
    runs[5] = replace(runs[5], extra={"purpose": "forecast"})
    assert len(one_case(runs).candidates) == len(pipelines()) - 4


def test_a_leg_is_what_was_recorded() -> None:
    case = one_case(task_runs("a"))
    baseline = case.candidates[0]
    assert [leg.point for leg in baseline.legs] == list(baseline.run.curve)
    assert [leg.share for leg in baseline.legs] == [0.25, 0.5, 1.0]
    assert baseline.legs[1].training_seconds == pytest.approx(4096 * SECONDS_PER_TOKEN["lora"])
    assert case.baseline_seconds == pytest.approx(16_384 * SECONDS_PER_TOKEN["lora"] + 3 * 0.2)
    assert case.seconds_per_token == pytest.approx(SECONDS_PER_TOKEN["lora"])
    processor = one_case(on_clock(task_runs("a"), Clock.CPU))
    assert processor.baseline_seconds == pytest.approx(2 * case.baseline_seconds)
    assert processor.evaluation_seconds == case.zero_shot.curve[0].evaluation.cpu
    seen, recorded = (one.baseline.run.curve[0].training.wall for one in (processor, case) if one.baseline)
    assert seen == pytest.approx(2 * recorded), "strategies look at the points"


def test_the_base_models_run_is_of_the_same_device_and_subset() -> None:
    runs = task_runs("a")
    own = next(run for run in runs if run.pipeline == ZERO_SHOT)
    elsewhere = replace(own, id="elsewhere", machine=replace(own.machine, device="cuda:0"))
    subset = replace(own, id="subset", validation_hash="of another full length")
    for more in ([elsewhere, subset, *runs], [*runs, subset, elsewhere]):
        assert one_case(more).zero_shot.id == own.id
    without = [run for run in runs if run is not own]
    assert one_case([elsewhere, subset, *without]).zero_shot.id == "subset"


def test_a_trial_that_failed_between_points_is_charged_the_step_in_which_it_did() -> None:
    case = one_case(task_runs("a"))
    failed = next(c for c in case.candidates if c.run.outcome is Outcome.DIVERGED)
    assert failed.validation_loss == failed.test_loss == math.inf
    (measured, lost) = failed.legs
    assert lost.point is None
    assert lost.share == 2 * measured.share
    rate = SECONDS_PER_TOKEN[failed.pipeline.method]
    assert lost.seconds == pytest.approx(lost.tokens * rate)
    assert lost.tokens == measured.tokens


def test_a_trial_that_failed_before_its_first_point_is_charged_the_way_there() -> None:
    runs = task_runs("a")
    place = next(i for i, run in enumerate(runs) if run.outcome is Outcome.DIVERGED)
    runs[place] = replace(runs[place], curve=(), outcome=Outcome.OUT_OF_MEMORY)
    case = one_case(runs)
    (leg,) = case.candidates[place - 1].legs
    assert leg.point is None
    batch = runs[place].pipeline.number("per_device_train_batch_size")
    assert leg.share == {4.0: 1 / 16, 8.0: 1 / 8, 16.0: 1 / 4}[batch]
    assert leg.seconds > 0


def test_a_point_above_the_limit_ends_a_trial_itself() -> None:
    runs = task_runs("a")
    place = next(i for i, run in enumerate(runs) if run.outcome is Outcome.DIVERGED)
    point = runs[place].curve[0]
    for loss in (math.nan, 1000.0):
        exploded = replace(point, validation=replace(point.validation, loss=loss))
        runs[place] = replace(runs[place], curve=(exploded,))
        assert len(one_case(runs).candidates[place - 1].legs) == 1


def test_the_baseline_is_known_by_all_but_its_batch_size() -> None:
    runs = task_runs("a")
    smaller = replace(
        BASELINE, hyperparameters={**BASELINE.hyperparameters, "per_device_train_batch_size": 4}
    )
    runs[1] = replace(runs[1], pipeline=smaller)
    case = one_case(runs)
    assert case.is_baseline_recorded
    assert case.baseline.pipeline == smaller
    without = one_case([runs[0], *runs[2:]])
    assert not without.is_baseline_recorded
    seconds = sorted(c.seconds for c in without.candidates if c.run.outcome is Outcome.COMPLETED)
    assert without.baseline_seconds == seconds[len(seconds) // 2]


@pytest.mark.parametrize(
    ("part", "why"),
    [(slice(0, 4), "3 recorded pipelines, 8 are needed"), (slice(1, None), "own test loss is not recorded")],
)
def test_reasons_for_no_case(part: slice, why: str) -> None:
    cases, reasons = cases_of(task_runs("a")[part])
    assert cases == []
    assert why in reasons[0]


def test_nothing_better_than_the_base_model_is_no_case() -> None:
    runs = task_runs("a")
    assert runs[0].test is not None
    runs[0] = replace(runs[0], test=replace(runs[0].test, loss=0.1))
    assert "no recorded pipeline is better" in cases_of(runs)[1][0]
