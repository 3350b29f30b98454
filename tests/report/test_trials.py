from __future__ import annotations

import dataclasses
import math

from report.sample_session import failures, full_session, make_record, make_runs
from tunecast.records import FORECAST_ONLY
from tunecast.report.trials import chosen_to_draw, grouped, view_trials, zero_shot_loss
from tunecast.report.wording import verdict


def test_views_hold_finite_points_only() -> None:
    runs = failures()
    exploded, nan, empty, _ = view_trials(make_record(make_runs(1)), runs)
    assert [len(exploded.points), len(nan.points), len(empty.points)] == [2, 0, 0]
    assert exploded.best_loss == 3.72
    assert nan.best_loss is None
    assert exploded.failed
    assert exploded.peak_bytes == 2_900_000_000
    assert math.isclose(exploded.seconds, 1.6 * 1.12)


def test_zero_shot_is_no_trial() -> None:
    record, runs = full_session()
    trials = view_trials(record, runs)
    assert len(trials) == len(runs) - 1
    assert zero_shot_loss(runs) == runs[0].final_loss
    assert zero_shot_loss(runs[1:]) is None


def test_a_run_for_a_forecast_is_no_trial() -> None:
    record, runs = full_session()
    beside = [dataclasses.replace(run, extra=FORECAST_ONLY) for run in runs[2:4]]
    assert len(view_trials(record, [*runs, *beside])) == len(runs) - 1
    assert verdict(record, [*runs, *beside]) == verdict(record, runs)


def test_a_sample_keeps_incumbent_and_best() -> None:
    runs = make_runs(300)
    trials = view_trials(make_record(runs), runs)
    drawn = chosen_to_draw(trials, 50)
    assert len(drawn) == 50
    assert sum(trial.incumbent for trial in drawn) == 1
    best = sorted(trials, key=lambda trial: trial.best_loss or math.inf)[:20]
    assert all(trial in drawn for trial in best)
    assert chosen_to_draw(trials, 300) == trials


def test_incumbent_is_drawn_last() -> None:
    record, runs = full_session()
    groups = list(grouped(view_trials(record, runs), ["full", "ia3", "lora"]))
    assert [method for method, _ in groups] == ["full", "ia3", "lora", "lora"]
    assert groups[-1][1][0].incumbent
    assert sum(len(members) for _, members in groups) == len(runs) - 1


def test_hover_is_escaped_and_bounded() -> None:
    record, runs = full_session()
    for trial in view_trials(record, runs):
        assert "<script" not in trial.hover
        assert len(trial.hover) < 900
