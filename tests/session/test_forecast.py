"""What more data would bring: the sizes that are measured and what affords them, and whole sessions."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kills import Victim, check_between, check_end, committed
from sample_runs import sample_point, sample_slot
from sessions import IN_PROCESS, Finished, call_main, finish, unfinish
from tunecast.budget import Budget, Used
from tunecast.executors import base as executor
from tunecast.methods.space import BASELINE
from tunecast.records import FORECAST_ONLY, Outcome, Pipeline, Run, RunError, Score
from tunecast.session.beside_search import BesideSearch
from tunecast.session.budget_tracker import BudgetTracker
from tunecast.session.forecast import Survey, Surveyor, end_loss, examples_seen, leading_trial, part_of
from tunecast.session.prepare import PreparedTask
from tunecast.session.runtime_model import RuntimeModel
from tunecast.session.state import Part, SurveyPlan
from tunecast.session.trial import Trial
from tunecast.session.trials import Trials
from tunecast.store import Store
from tunecast.training.measurement import Measurement
from tunecast.training.plan import nested_subset
from tunecast.training.training_task import TrialSpec

pytestmark = pytest.mark.slow

SMALL_BATCHES = Pipeline("lora", {**BASELINE.hyperparameters, "per_device_train_batch_size": 4})
SLOT = sample_slot()


def a_trial(prepared: PreparedTask, epochs: float = 1.0, pipeline: Pipeline = SMALL_BATCHES) -> Trial:
    tokens = int(epochs * prepared.training_task.train_tokens)
    return Trial(TrialSpec("leading", pipeline, 0, tokens, 128, ""), prepared.training_task)


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(":memory:") as opened:
        yield opened


def surveyor(
    prepared: PreparedTask, store: Store, budget: str, runtime_model: float = 1e-3, epochs: float = 1.0
) -> Surveyor:
    tracker = BudgetTracker(Budget.parse(budget), 0.0)
    return Surveyor("session", prepared, store, tracker, RuntimeModel(runtime_model), epochs)


def surveyed(decides: Surveyor, leading: Trial, used: Used = Used()) -> Survey:  # noqa: B008
    return decides.survey(leading, used, leading)


def a_run(surveyor: Surveyor, trial: Trial, loss: float, outcome: Outcome = Outcome.COMPLETED) -> Run:
    """The run of a trial that ended so, as it is committed for a part."""
    plan = SurveyPlan(trial.spec.run, (Part(trial.spec.unique_examples, 1000),), "")
    (part,) = surveyor.again([trial], plan).parts
    return recorded(part, loss, outcome)


def recorded(part: Trials, loss: float, outcome: Outcome) -> Run:
    score = Score(loss, loss, loss, 16, 96) if outcome is Outcome.COMPLETED else None
    point = sample_point(part[0].plan.total_steps, loss=9.0)
    measured = Measurement(part[0].spec.run, point, outcome, validation=score)
    return part.record(0, measured, SLOT, 7.0)


def leading(prepared: PreparedTask, store: Store, **values: object) -> Trial:
    trial = a_trial(prepared, **values)  # type: ignore[arg-type]
    trial.run = a_run(surveyor(prepared, store, "1-trials"), trial, 3.0)
    return trial


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize(("share", "count"), [(1 / 8, 16), (1 / 4, 32), (1 / 2, 64)])
def test_a_part_is_passed_over_as_often_as_the_whole(
    prepared: PreparedTask, epochs: int, share: float, count: int
) -> None:
    part = part_of(a_trial(prepared, epochs), share)
    subset = nested_subset(128, count, seed=0)
    tokens = sum(prepared.training_task.train[int(index)].tokens for index in subset)
    assert part == Part(count, epochs * tokens)
    assert set(nested_subset(128, count // 2, seed=0)) < set(subset)


def test_a_trial_that_ends_within_a_pass_saw_only_what_it_saw(prepared: PreparedTask) -> None:
    trial = a_trial(prepared, 0.5)
    seen = examples_seen(trial)
    assert 56 <= seen <= 72
    part = part_of(trial, 1 / 4)
    assert part is not None
    assert part.unique_examples == round(seen / 4)
    spec = replace(trial.spec, unique_examples=part.unique_examples)
    subset = prepared.training_task.training_examples(spec)
    assert part.full_length_tokens == sum(example.tokens for example in subset)


def test_no_part_is_empty_or_the_whole(prepared: PreparedTask) -> None:
    trial = a_trial(prepared)
    assert part_of(trial, 1 / 1000) is None
    assert part_of(trial, 0.999) is None


def test_a_part_that_failed_counts_whole(prepared: PreparedTask, store: Store) -> None:
    """It is trained in one go, and nobody knows how far it came."""
    trial = leading(prepared, store)
    plan = SurveyPlan(trial.spec.run, (Part(16, 900),), "")
    (part,) = surveyor(prepared, store, "1G-tokens").again([trial], plan).parts
    part.fail(0, Outcome.OUT_OF_MEMORY, RunError("WorkerCrash", "killed"), SLOT, 1.0)
    assert part.used(0.0).tokens == part[0].plan.tokens_at(part[0].plan.total_steps) >= 900


def sizes(survey: Survey) -> list[int]:
    return [trial.spec.unique_examples for (trial,) in survey.parts]


@pytest.mark.parametrize(
    ("budget", "parts"),
    [("10-trials", []), ("19-trials", []), ("20-trials", [16, 32]), ("30-trials", [16, 32, 64])],
)
def test_trials_that_a_tenth_affords(
    prepared: PreparedTask, store: Store, budget: str, parts: list[int]
) -> None:
    decides = surveyor(prepared, store, budget)
    assert sizes(surveyed(decides, leading(prepared, store), Used(trials=1))) == parts
    assert decides.to_hold_back([a_trial(prepared)], 1e-3) == len(parts)


def test_tokens_that_a_tenth_affords(prepared: PreparedTask, store: Store) -> None:
    trial = leading(prepared, store)
    all_three = surveyed(surveyor(prepared, store, "1G-tokens"), trial)
    price = sum(part.tokens_to_end for (part,) in all_three.parts)
    exact = surveyor(prepared, store, f"{10 * price}-tokens")
    assert sizes(surveyed(exact, trial)) == [16, 32, 64]
    assert sizes(surveyed(surveyor(prepared, store, f"{10 * price - 1}-tokens"), trial)) == [16, 32]
    assert sizes(surveyed(exact, trial, Used(tokens=9 * price + 1))) == [16, 32], "only so much is left"
    assert exact.to_hold_back([a_trial(prepared)], 1e-3) == price
    ample = surveyor(prepared, store, "1G-tokens").to_hold_back([a_trial(prepared)], 1e-3)
    assert price < ample < 2 * price, "no more than it needs"


def test_a_budget_that_affords_nothing_loses_nothing_and_says_why(
    prepared: PreparedTask, store: Store
) -> None:
    trial = leading(prepared, store)
    small, large = surveyor(prepared, store, "15k-tokens"), surveyor(prepared, store, "1M-tokens")
    assert small.to_hold_back([a_trial(prepared)], 1e-3) == 0
    dear = surveyed(small, trial)
    assert dear.parts == ()
    assert dear.reason == (
        "the runs on parts of the data would take 13.0% of the budget, and a forecast may take at most 10%"
    )
    late = surveyed(large, trial, Used(tokens=999_000))
    assert late.reason == "the runs on parts of the data would take 0.2% of the budget, and 0.1% are left"


def test_seconds_are_reckoned_by_their_upper_bound_and_with_the_scoring(
    prepared: PreparedTask, store: Store
) -> None:
    trial = leading(prepared, store)
    assert trial.run is not None
    expected = 1e-3 * 7 / 8 * prepared.training_task.train_tokens
    assert sizes(surveyed(surveyor(prepared, store, f"{10.1 * expected:.3f}s"), trial)) == [16, 32]
    assert sizes(surveyed(surveyor(prepared, store, f"{100 * expected:.3f}s"), trial)) == [16, 32, 64]
    slow = replace(trial.run.curve[-1].evaluation, wall=100 * expected)
    trial.run = replace(trial.run, curve=(replace(trial.run.curve[-1], evaluation=slow),))
    assert sizes(surveyed(surveyor(prepared, store, f"{100 * expected:.3f}s"), trial)) == []


def test_too_few_steps(prepared: PreparedTask, store: Store) -> None:
    large = Pipeline("lora", {**BASELINE.hyperparameters, "per_device_train_batch_size": 16})
    decides = surveyor(prepared, store, "1G-tokens")
    survey = surveyed(decides, leading(prepared, store, pipeline=large))
    assert survey.reason == (
        "a forecast repeats the completed trial with the lowest loss (lora, learning rate 0.0002) on parts "
        "of its data; that trial has 8 optimiser steps, and 16 are needed"
    )
    assert survey.budget == "", "it saw all examples, so longer trials would not help"
    half = leading(prepared, store, pipeline=large, epochs=0.5)
    assert surveyed(decides, half).budget == "", "twice as long is not enough, and it may not be longer"
    short = surveyed(surveyor(prepared, store, "1G-tokens", epochs=8.0), half)
    assert (short.budget, short.new_session) == ("6000000000-tokens", True)
    assert decides.to_hold_back([a_trial(prepared, pipeline=large)], 1e-3) == 0
    twice = leading(prepared, store, pipeline=large, epochs=2.0)
    assert sizes(surveyed(decides, twice)) == [32, 64], "an eighth has 2 steps"


def test_the_leading_trial_ended_best_on_all_validation_examples(
    prepared: PreparedTask, store: Store
) -> None:
    decides = surveyor(prepared, store, "1-trials")
    trials = [a_trial(prepared) for _ in range(4)]
    for trial, loss in zip(trials, (3.0, 2.0, 1.0, math.nan), strict=True):
        trial.run = a_run(decides, trial, loss, Outcome.PAUSED if loss == 1.0 else Outcome.COMPLETED)
    assert leading_trial(trials) is trials[1]
    assert [end_loss(trial) for trial in trials] == [3.0, 2.0, None, None]
    assert leading_trial(trials[2:]) is None
    unfinished = decides.survey(None, Used(), trials[2]).forecast(0)
    assert unfinished.reason == "no trial reached the end of its schedule"
    assert (unfinished.budget, unfinished.new_session) == ("30-trials", False), "two runs are a tenth of 20"


def test_parts_that_failed_are_named(prepared: PreparedTask, store: Store) -> None:
    trial = leading(prepared, store)
    decides = surveyor(prepared, store, "30-trials")
    chosen = surveyed(decides, trial)
    for part, outcome in zip(chosen.parts, (Outcome.DIVERGED, Outcome.COMPLETED), strict=False):
        recorded(part, 4.0, outcome)
    survey = decides.again([trial], chosen.plan)
    outlook = survey.forecast(0)
    assert outlook.measured == ((32, 4.0), (128, 3.0))
    assert outlook.forecasts == ()
    assert outlook.budget == "60-trials"
    assert outlook.reason == (
        "too few sizes: 2 measured, 3 are needed; the run on 16 examples: diverged; "
        "the run on 64 examples: not started"
    )


def unfinish_forecast(finished: Finished, folder: Path, parts: int = 0) -> None:
    """Copy a finished session as it was when its search had ended and so many parts were measured."""
    shutil.copytree(finished.folder, folder)
    candidates = [run for run in committed(folder) if run.is_candidate]
    unfinish(folder, keep=1 + len(candidates) + parts)


@pytest.fixture(scope="module")
def forecast_session(tiny_llama: Path, toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A session whose budget affords a search and three runs on parts of the data."""
    folder = tmp_path_factory.mktemp("forecast") / "out"
    flags = ["--budget", "48k-tokens", "--strategy", "random", "--epochs", "1", "--methods", "lora"]
    flags += ["--range", "learning_rate=1e-3:1e-1"]
    flags += ["--fix", "per_device_train_batch_size=4", "--fix", "warmup_ratio=0.5"]
    flags += ["--final-training", "none"]
    return finish(folder, tiny_llama, toy_data, *flags)


@pytest.mark.timeout(900)
def test_a_session_says_what_more_data_would_bring(forecast_session: Finished) -> None:
    outlook = forecast_session.result["forecast"]
    assert [size for size, _ in outlook["measured"]] == [16, 32, 64, 128]
    assert [one["data_size"] for one in outlook["forecasts"]] == [256, 512, 1280]
    for one in outlook["forecasts"]:
        assert one["low"] < one["loss"] < one["high"]
    assert "Measuring what more data brings" in forecast_session.messages
    report = (forecast_session.folder / "report.html").read_text()
    assert "<h2>What more data would bring</h2>" in report
    assert "1,280" in report
    code, out, _ = call_main("tune", "--resume", "--output-dir", str(forecast_session.folder))
    assert code == 0
    assert "on 128 examples to" in " ".join(out.split())


@pytest.mark.timeout(900)
def test_the_runs_are_real_and_no_candidates(forecast_session: Finished) -> None:
    runs = committed(forecast_session.folder)
    parts = [run for run in runs if run.extra == FORECAST_ONLY]
    candidates = [run for run in runs if run.is_candidate]
    assert len(runs) == 1 + len(candidates) + len(parts)
    completed = [run for run in candidates if run.outcome is Outcome.COMPLETED]
    best = min(completed, key=lambda run: run.validation.loss)  # type: ignore[union-attr]
    measured = [(run.unique_examples, run.validation.loss) for run in (*parts, best) if run.validation]
    assert [list(pair) for pair in measured] == forecast_session.result["forecast"]["measured"]
    for run in parts:
        assert (run.pipeline, run.session) == (best.pipeline, best.session)
        assert [point.step for point in run.curve] == [run.total_steps]
        share = run.full_length_tokens / best.full_length_tokens
        assert share == pytest.approx(run.unique_examples / 128, rel=0.05)
        assert not (forecast_session.folder / "trials" / run.id).exists()
    tokens = [sum(run.curve[-1].tokens_seen for run in group if run.curve) for group in (candidates, parts)]
    assert 0 < tokens[1] <= 4800
    assert 30_000 < tokens[0] <= 48_000 - tokens[1]
    report = (forecast_session.folder / "report.html").read_text()
    assert f"for {len(candidates)} trials" in report


@pytest.mark.timeout(900)
def test_a_run_that_outlasts_the_budget_is_given_up(
    forecast_session: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    unfinish_forecast(forecast_session, folder)
    begun: list[Trials] = []
    advance = BesideSearch._advance

    def watched(beside: BesideSearch, part: Trials, step: int) -> bool:
        begun.append(part)
        return advance(beside, part, step)

    monkeypatch.setattr(BesideSearch, "_advance", watched)
    monkeypatch.setattr(BudgetTracker, "is_overrun", property(lambda _: bool(begun)))
    monkeypatch.setattr(executor, "POLL_SECONDS", 0.001)
    # A request can be given up in a worker process only.
    flags = ("--executor", "local", "--output-dir", str(folder), "--json")
    code, out, err = call_main("tune", "--resume", *flags)
    assert code == 0, err
    assert len(begun) == 1
    assert "The budget ran out before the end of the run on 16 examples." in err
    assert "the run on 16 examples: not started" in json.loads(out)["forecast"]["reason"]
    assert (folder / "best" / "README.md").is_file()


@pytest.mark.timeout(900)
def test_an_end_while_it_measures_changes_nothing(forecast_session: Finished, tmp_path: Path) -> None:
    victim = Victim(forecast_session.flags, tmp_path / "out")
    unfinish_forecast(forecast_session, victim.folder, parts=1)
    (kept,) = [run for run in committed(victim.folder) if run.extra]
    whole = committed(forecast_session.folder)
    check_between(victim, whole)
    code, out, err = call_main(
        "tune", *victim.flags, *IN_PROCESS, "--output-dir", str(victim.folder), "--resume", "--json"
    )
    assert code == 0, err[-3000:]
    check_end(victim, whole)
    again = {run.id: run for run in committed(victim.folder)}
    assert again[kept.id] == kept, "it was repeated"
    assert json.loads(out)["forecast"] == forecast_session.result["forecast"]


def test_a_budget_of_few_trials_says_why(finished_session: Finished) -> None:
    outlook = finished_session.result["forecast"]
    assert {one["law"] for one in outlook["forecasts"]} == {"recorded runs"}
    assert outlook["data_size"] == 128
    assert outlook["reason"] == (
        "the runs on parts of the data would take 33.3% of the budget, and a forecast may take at most 10%"
    )
    assert outlook["budget"] == "30-trials"
    command = f"tunecast tune --resume --budget 30-trials --output-dir {finished_session.folder.name}\n"
    assert command in (finished_session.folder / "report.html").read_text().replace("</pre>", "\n")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("budget", "final_training", "new_session"),
    [("3k-tokens", "none", True), ("7k-tokens", "none", False), ("7k-tokens", "budget", True)],
)
def test_the_budget_that_is_advised_is_enough(
    budget: str, final_training: str, new_session: bool, tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    flags = (
        "--final-training",
        final_training,
        "--methods",
        "lora",
        "--range",
        "learning_rate=1e-3:1e-1",
        "--fix",
        "per_device_train_batch_size=4",
    )
    small = finish(tmp_path / "small", tiny_llama, toy_data, "--budget", budget, *flags)
    outlook = small.result["forecast"]
    assert (bool(outlook["reason"]), outlook["new_session"]) == (True, new_session)
    if new_session:
        more = finish(tmp_path / "new", tiny_llama, toy_data, "--budget", outlook["budget"], *flags).result
    else:
        resumed = ("--resume", "--budget", outlook["budget"], "--output-dir", str(small.folder), "--json")
        code, out, err = call_main("tune", *resumed, "--executor", "in-process")
        assert code == 0, err
        more = json.loads(out)
    assert more["forecast"]["reason"] == ""
    assert more["forecast"]["forecasts"]
