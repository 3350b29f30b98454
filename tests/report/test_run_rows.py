"""A run's rows say what it was, how it ended and what it took."""

from __future__ import annotations

from dataclasses import replace

from sample_runs import diverged_run, sample_point, sample_run, sample_score
from tunecast.records import ZERO_SHOT, GuardAccuracy, GuardScore, Outcome, Published, RunError
from tunecast.report.run_rows import run_rows, setting_rows


def test_a_finished_run_leads_with_its_scores() -> None:
    test = sample_score(
        2.0, loss_low=1.9, loss_high=2.1, metric=0.5, metric_name="exact_match", metric_examples=7
    )
    rows = dict(run_rows(sample_run(1, outcome=Outcome.COMPLETED, test=test)))
    assert list(rows)[:5] == ["run", "task", "pipeline", "outcome", "trained"]
    assert rows["task"] == "colours on smollm2"
    assert rows["outcome"] == "completed"
    assert rows["test loss"] == f"2.0000 (1.900 to 2.100) on {test.examples} examples"
    assert rows["test exact_match"] == "0.5000 on 7 examples"
    assert " of training, " in rows["time"]


def test_without_a_final_score_the_last_point_stands_for_it() -> None:
    run = sample_run(1, curve=(sample_point(8, 2.5), sample_point(16, 2.25)), validation=None, test=None)
    rows = dict(run_rows(run))
    assert rows["validation loss"].startswith("2.2500 on ")
    assert rows["trained"].startswith("16 of 64 steps, ")
    assert "test loss" not in rows


def test_a_run_that_broke_says_why() -> None:
    assert dict(run_rows(diverged_run(3)))["outcome"].endswith("FloatingPointError: loss is nan at step 8")
    run = sample_run(1, curve=(), outcome=Outcome.FAILED, error=RunError("Killed", ""))
    rows = dict(run_rows(run))
    assert rows["outcome"] == "failed: Killed"
    assert rows["trained"].startswith("0 of 64 steps")
    assert "peak memory" not in rows


def test_an_untrained_model_and_times_that_were_not_recorded() -> None:
    rows = dict(run_rows(sample_run(1, pipeline=ZERO_SHOT, total_steps=0)))
    assert (rows["pipeline"], rows["trained"]) == ("no training", "not trained")
    point = sample_point(8)
    unknown = replace(point, training=replace(point.training, wall=float("nan")))
    assert dict(run_rows(sample_run(1, curve=(unknown,))))["time"] == "not recorded"


def test_settings_hold_every_hyperparameter() -> None:
    run = sample_run(1)
    rows = dict(setting_rows(run))
    assert set(run.pipeline.hyperparameters) <= rows.keys()
    assert rows["seed"] == str(run.seed)


def test_a_published_run_says_what_its_table_tells() -> None:
    told = Published("sweep", "somebody/sweep", "9dfcc3a2cf44", "MIT", "accuracy", 0.4664, True)
    run = sample_run(1, curve=(), total_steps=780, full_length_tokens=0, published=told)
    rows = dict(run_rows(run))
    assert list(rows) == ["run", "task", "pipeline", "outcome", "result", "trained", "table", "source"]
    assert rows["result"] == f"{run.task.metric} 0.4664 accuracy, higher is better"
    assert rows["trained"] == f"780 steps, {run.unique_examples:,} examples"
    assert rows["source"] == "somebody/sweep at 9dfcc3a2cf44, MIT"
    costly = replace(run, published=replace(told, value=None, seconds=90.0, peak_bytes=8 * 10**9, epochs=2.5))
    assert dict(run_rows(costly))["trained"].startswith("2.5 epochs, 780 steps")
    assert "result" not in dict(run_rows(costly))
    assert {"time", "peak memory"} <= dict(run_rows(costly)).keys()


def test_what_guards_say_is_shown_by_checkpoint() -> None:
    accuracy = GuardAccuracy(0.5, 0.25, -0.5, 0.0)
    kept = GuardScore("kept", 40, 2.0, 2.5, 0.25, 0.75)
    choices = replace(kept, guard="arc_easy", accuracy=accuracy)
    rows = run_rows(sample_run(1).with_guards([(8, kept), (16, choices)]))
    told = "loss 2.0000 before, 2.5000 after, change 0.5000 (0.250 to 0.750; +25.0%) on 40 examples"
    start = rows.index(("guard kept, step 8", told))
    assert rows[start + 1 : start + 3] == [
        ("guard arc_easy, step 16", told),
        ("", "accuracy 0.500 before, 0.250 after, change -0.250 (-0.500 to 0.000)"),
    ]
    assert not [name for name, _ in run_rows(sample_run(1)) if name.startswith("guard")]
