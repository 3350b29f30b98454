from __future__ import annotations

import dataclasses
import math

from report.sample_session import full_session, metric_session
from tunecast.report.tradeoffs import cost_plots, pareto_front, scores_plots
from tunecast.report.trials import view_trials


def test_front_holds_what_nothing_beats_in_both() -> None:
    assert pareto_front([(3, 2.0), (1, 3.0), (2, 3.5), (4, 2.0), (5, 1.0)]) == [(1, 3.0), (3, 2.0), (5, 1.0)]
    assert pareto_front([]) == []


def test_seconds_and_bytes_are_drawn_where_known() -> None:
    record, runs = full_session()
    trials = view_trials(record, runs)
    assert [plot.name for plot in cost_plots(trials, 4.14)] == ["cost-seconds", "cost-bytes"]
    blind = [dataclasses.replace(trial, peak_bytes=None) for trial in trials]
    assert [plot.name for plot in cost_plots(blind, 4.14)] == ["cost-seconds"]
    assert cost_plots([], None) == []


def test_every_usable_trial_is_a_dot() -> None:
    record, runs = full_session()
    trials = view_trials(record, runs)
    figure = cost_plots(trials, 4.14)[0].figure
    dots = sum(len(trace.x) for trace in figure.data if trace.mode == "markers")
    assert dots == sum(trial.best_loss is not None for trial in trials)


def test_scores_show_intervals_and_leave_out_what_is_not_finite() -> None:
    record, _ = full_session()
    loss, metric = scores_plots(record)
    assert (loss.name, metric.name) == ("scores-loss", "scores-metric")
    for plot in (loss, metric):
        assert [trace.error_x.array[0] > 0 for trace in plot.figure.data] == [True] * 3
    broken = dataclasses.replace(
        record.contenders[1], test=dataclasses.replace(record.contenders[1].test, loss=math.nan)
    )
    loss = scores_plots(dataclasses.replace(record, contenders=(record.contenders[0], broken)))[0]
    assert len(loss.figure.data) == 1
    assert scores_plots(dataclasses.replace(record, contenders=())) == []


def test_the_metric_that_decided_is_drawn_first_and_constant_answers_beside_the_models() -> None:
    record, _ = metric_session()
    metric, loss = scores_plots(record)
    assert (metric.name, metric.figure.layout.xaxis.title.text) == ("scores-metric", "test exact_match")
    names = [trace.y[0] for trace in metric.figure.data]
    assert names == ["zero-shot", "LoRA, 10 steps", "<b>incumbent</b>", "majority answer"]
    assert metric.figure.data[3].x[0] == 0.31
    # The majority answer's loss is a tenth of the base model's: a linear axis would hide the differences.
    assert loss.figure.layout.xaxis.type == "log"
