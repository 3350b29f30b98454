from __future__ import annotations

from report.sample_session import full_session, make_record, make_runs
from tunecast.report.choices import hyperparameter_plots
from tunecast.report.trials import view_trials


def panels() -> dict[str, object]:
    record, runs = full_session()
    return {plot.name: plot.figure for plot in hyperparameter_plots(view_trials(record, runs), 4.14)}


def test_learning_rate_comes_first_on_a_log_axis() -> None:
    found = panels()
    assert next(iter(found)) == "hyper-learning_rate"
    assert found["hyper-learning_rate"].layout.xaxis.type == "log"  # type: ignore[attr-defined]


def test_a_panel_holds_only_methods_where_the_hyperparameter_is_active() -> None:
    found = panels()
    assert {trace.name for trace in found["hyper-lora_r"].data} == {"lora"}  # type: ignore[attr-defined]
    assert {trace.name for trace in found["hyper-neftune_noise_alpha"].data} == {"full"}  # type: ignore[attr-defined]


def test_few_values_become_equal_steps_in_order() -> None:
    axis = panels()["hyper-per_device_train_batch_size"].layout.xaxis  # type: ignore[attr-defined]
    assert axis.ticktext == ("4", "8", "16", "32")
    names = panels()["hyper-use_dora"].layout.xaxis.ticktext  # type: ignore[attr-defined]
    assert names == ("no", "yes")


def test_panels_share_one_range_of_losses() -> None:
    ranges = {figure.layout.yaxis.range for figure in panels().values()}  # type: ignore[attr-defined]
    assert len(ranges) == 1


def test_few_trials_have_no_panels() -> None:
    names = {
        trials: [plot.name for plot in hyperparameter_plots(view_trials(make_record(runs), runs), None)]
        for trials in (1, 4, 5)
        if (runs := make_runs(trials))
    }
    assert names[1] == names[4] == []
    assert names[5][0] == "hyper-learning_rate"
    assert hyperparameter_plots([], None) == []


def test_every_panel_has_five_dots() -> None:
    for figure in panels().values():
        assert sum(len(trace.x) for trace in figure.data) >= 5  # type: ignore[attr-defined]
