from __future__ import annotations

import dataclasses

import pytest

from report.sample_session import failures, full_session, make_record, make_runs
from tunecast.records import Outcome
from tunecast.report.curves import curves_plot, incumbent_plot
from tunecast.report.trials import view_trials


def test_every_curve_is_drawn_and_the_incumbent_on_top() -> None:
    record, runs = full_session()
    plot = curves_plot(record, view_trials(record, runs), 4.14)
    assert plot
    names = [trace.name for trace in plot.figure.data]
    assert names == ["full", "ia3", "lora", "lora", "failed"]
    gaps = sum(list(trace.x).count(None) for trace in plot.figure.data)
    assert gaps == sum(bool(trial.points) for trial in view_trials(record, runs)) - 1
    assert plot.figure.layout.xaxis.type == "log"
    assert "3 trials without a finite measurement" in plot.caption


@pytest.mark.parametrize(("last", "said"), [(9.0, False), (30.0, True)])
def test_it_is_told_why_lines_end_early(last: float, said: bool) -> None:
    """The budget ends a trial that is being advanced; only those before it were passed over."""
    record, _ = full_session()
    runs = make_runs(3)[1:]
    ends = [(Outcome.COMPLETED, 20.0), (Outcome.PAUSED, 10.0), (Outcome.PAUSED, last)]
    runs = [
        dataclasses.replace(
            run,
            outcome=outcome,
            curve=tuple(dataclasses.replace(point, elapsed_seconds=end) for point in run.curve),
        )
        for run, (outcome, end) in zip(runs, ends, strict=True)
    ]
    plot = curves_plot(record, view_trials(record, runs), 4.14)
    assert plot
    assert ("1 was still being advanced when the search ended." in plot.caption) is said
    passed_over = "1 trial that ends early was" if said else "2 trials that end early were"
    assert f"{passed_over} paused because others promised more." in plot.caption


def test_failed_trials_are_marked_within_the_axis() -> None:
    record, runs = full_session()
    plot = curves_plot(record, view_trials(record, runs), 4.14)
    assert plot
    failed = plot.figure.data[-1]
    assert max(failed.y) <= plot.figure.layout.yaxis.range[1]


def test_nothing_measured_gives_no_plot() -> None:
    runs = [failures()[2]]
    trials = view_trials(make_record(make_runs(1)), runs)
    record = make_record(make_runs(1))
    assert curves_plot(record, trials, None) is None
    assert incumbent_plot(record, trials, None) is None


def test_incumbent_only_improves() -> None:
    record, runs = full_session()
    plot = incumbent_plot(record, view_trials(record, runs), 4.14)
    assert plot
    line = plot.figure.data[0]
    assert list(line.y) == sorted(line.y, reverse=True)
    assert list(line.x) == sorted(line.x)
    assert "minutes" in plot.figure.layout.xaxis.title.text


def test_without_recorded_time_there_is_no_incumbent_plot() -> None:
    record, runs = full_session()
    runs = [
        dataclasses.replace(
            run, curve=tuple(dataclasses.replace(point, elapsed_seconds=0.0) for point in run.curve)
        )
        for run in runs
    ]
    assert incumbent_plot(record, view_trials(record, runs), 4.14) is None


def test_a_session_decided_by_a_metric_says_what_is_drawn() -> None:
    record, runs = full_session()
    record = dataclasses.replace(record, objective="exact_match")
    plot = incumbent_plot(record, view_trials(record, runs), None)
    assert plot
    assert "chosen by exact_match" in plot.caption
