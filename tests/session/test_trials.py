"""Trials with a real store and real folders; measurements are made by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sample_runs import sample_slot
from tunecast.budget import Budget
from tunecast.methods.space import BASELINE
from tunecast.records import Outcome, Pipeline, Point, RunError, Score, Seconds
from tunecast.session.budget_tracker import BudgetTracker
from tunecast.session.folder import OutputFolder
from tunecast.session.prepare import PreparedTask
from tunecast.session.runtime_model import RuntimeModel, RuntimeModels
from tunecast.session.shortfalls import shortfalls
from tunecast.session.trials import SKIPPED, Trials
from tunecast.store import Store
from tunecast.training.checkpoint import CheckpointFolder
from tunecast.training.measurement import Measurement

SLOT = sample_slot()
OTHER = Pipeline("lora", {**BASELINE.hyperparameters, "learning_rate": 1e-3})


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[OutputFolder]:
    opened = OutputFolder(tmp_path / "out")
    yield opened
    opened.close()


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(":memory:") as opened:
        yield opened


def laid_out(prepared: PreparedTask, folder: OutputFolder, store: Store) -> Trials:
    return Trials(
        "session",
        prepared,
        [BASELINE, OTHER],
        folder,
        store,
        seed=0,
        full_length_tokens=10_000,
        unique_examples=128,
        workers=1,
        divergence_nats=9.0,
    )


@pytest.fixture
def trials(prepared: PreparedTask, folder: OutputFolder, store: Store) -> Trials:
    return laid_out(prepared, folder, store)


def advance(
    trials: Trials,
    index: int,
    loss: float,
    outcome: Outcome = Outcome.PAUSED,
    *,
    accuracy: float | None = None,
    retrained_tokens: int = 0,
    skipped_steps: int = 0,
    elapsed: float = 7.0,
    evaluation: float = 0.1,
) -> None:
    """Record the next point of a trial, with the files that its checkpoint would have."""
    trial = trials[index]
    step = trial.next_step
    assert step is not None
    folder = Path(trial.spec.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("weights", "state"):
        (folder / f"{kind}-{step}.safetensors").write_bytes(b"x" * 1000)
    point = Point(
        step=step,
        tokens_seen=trial.plan.tokens_at(step),
        label_tokens_seen=step,
        share=trial.plan.share_at(step),
        learning_rate=1e-3,
        train_loss=loss,
        gradient_norm=1.0,
        validation=Score(
            loss, loss, loss, 16, 96, metric=accuracy, metric_name="" if accuracy is None else "accuracy"
        ),
        training=Seconds(1.0, 1.0),
        evaluation=Seconds(evaluation, evaluation),
        peak_bytes=None,
        micro_batch_size=16,
        load_average=None,
        workers=1,
    )
    measured = Measurement(
        trial.spec.run, point, outcome, retrained_tokens=retrained_tokens, skipped_steps=skipped_steps
    )
    trials.record(index, measured, SLOT, elapsed)


def files(trials: Trials, index: int) -> set[str]:
    return {file.name for file in Path(trials[index].spec.folder).iterdir()}


def test_every_candidate_has_a_run_of_its_own(trials: Trials) -> None:
    first, second = trials
    assert first.spec.run != second.spec.run
    assert first.spec.folder != second.spec.folder
    assert trials.started == []


def test_points_are_in_the_store_and_come_back(
    trials: Trials, prepared: PreparedTask, folder: OutputFolder, store: Store
) -> None:
    advance(trials, 0, 5.0)
    advance(trials, 0, 4.0)
    assert [point.elapsed_seconds for point in store.get(trials[0].spec.run).curve] == [7.0, 7.0]
    again = laid_out(prepared, folder, store)
    again.restore()
    assert again[0].run == trials[0].run
    assert (again[0].step, again[1].run) == (trials[0].step, None)


def test_only_what_is_needed_stays_on_disk(trials: Trials) -> None:
    advance(trials, 0, 4.0)
    best = trials[0].step
    advance(trials, 0, 5.0)
    latest = trials[0].step
    assert files(trials, 0) == {
        f"weights-{best}.safetensors",
        f"weights-{latest}.safetensors",
        f"state-{latest}.safetensors",
    }
    advance(trials, 0, 6.0, Outcome.DIVERGED)
    assert files(trials, 0) == {f"weights-{best}.safetensors"}


def test_the_best_by_the_metric_stays_on_disk_too(
    prepared: PreparedTask, folder: OutputFolder, store: Store
) -> None:
    classifier = replace(prepared.training_task, point_metric="accuracy")
    trials = laid_out(replace(prepared, training_task=classifier), folder, store)
    steps = []
    for loss, accuracy in ((4.0, 0.5), (5.0, 0.8)):
        advance(trials, 0, loss, accuracy=accuracy)
        steps.append(trials[0].step)
    advance(trials, 0, 7.0, Outcome.DIVERGED, accuracy=0.1)
    assert files(trials, 0) == {f"weights-{step}.safetensors" for step in steps}
    assert trials[0].best_point == trials[0].curve[0]


def test_checkpoints_of_the_worst_go_first(trials: Trials) -> None:
    advance(trials, 0, 4.0)
    advance(trials, 1, 5.0)
    assert trials.limit_disk(10_000, spare=set()) == []
    assert trials.limit_disk(2_500, spare=set()) == [trials[1].spec.run]
    assert (len(files(trials, 0)), len(files(trials, 1))) == (2, 0)
    assert trials.limit_disk(0, spare={0}) == []


def test_a_loss_of_zero_is_the_best_and_no_number_the_worst(trials: Trials) -> None:
    advance(trials, 0, 0.0)
    advance(trials, 1, 5.0)
    assert trials.limit_disk(2_500, spare=set()) == [trials[1].spec.run]
    advance(trials, 1, math.nan)
    assert trials.limit_disk(3_000, spare=set()) == [trials[1].spec.run]


def test_a_trial_whose_checkpoint_went_is_paid_for_again(
    trials: Trials, prepared: PreparedTask, folder: OutputFolder, store: Store
) -> None:
    advance(trials, 0, 4.0)
    advance(trials, 0, 3.0)
    trial = trials[0]
    done, ahead = trial.plan.tokens_at(trial.step), trial.tokens_to_next
    runtime_model, spent = RuntimeModel(0.001), trials.used(3.0)
    budget = BudgetTracker(Budget("tokens", done + ahead, ""), 0.0)
    assert (trial.resume_step, spent.tokens) == (trial.step, done)
    assert budget.fits(trial, None, spent, runtime_model)
    trials.limit_disk(0, spare=set())
    assert (trial.resume_step, trial.tokens_to_next) == (0, done + ahead)
    assert not budget.fits(trial, None, spent, runtime_model)
    assert trials.history(runtime_model).trials[0].expected_seconds == pytest.approx(0.001 * (done + ahead))
    trial.running = True
    assert trials.used(3.0).tokens == 2 * done + ahead
    advance(trials, 0, 2.5, retrained_tokens=done)
    assert trials.used(3.0).tokens == 2 * done + ahead
    again = laid_out(prepared, folder, store)
    again.restore()
    assert again.used(3.0).tokens == 2 * done + ahead


def test_scoring_a_checkpoint_that_went_has_to_fit_with_its_training(trials: Trials) -> None:
    for loss in (4.0, 3.0, 3.5):
        advance(trials, 0, loss)
    trial, best = trials[0], trials[0].curve[1].step
    pace = RuntimeModel(0.001)
    training = pace.upper(trial.spec.pipeline.method, trial.effort * trial.plan.tokens_at(best), 0)

    def fits(seconds: float) -> bool:
        tracker = BudgetTracker(Budget("seconds", 10 + seconds, ""), 0.0)
        tracker.reserve_for_comparing(seconds)
        return tracker.affords_scoring(trial, best, 1.0, trials.used(10.0), pace)

    assert (fits(1.0), fits(0.9)) == (True, False)
    trials.limit_disk(0, spare=set())
    assert training > 1
    assert (fits(1.0 + training), fits(0.9 + training)) == (True, False)
    in_tokens = BudgetTracker(Budget("tokens", 10, ""), 0.0)
    assert in_tokens.affords_scoring(trial, best, 1.0, trials.used(10.0), pace)


def test_the_disk_is_asked_once_for_each_commit(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session with hundreds of trials asks about each of them at every step."""
    looks = []
    latest = CheckpointFolder.latest

    def counted(folder: CheckpointFolder, at_most: int) -> int:
        looks.append(at_most)
        return latest(folder, at_most)

    monkeypatch.setattr(CheckpointFolder, "latest", counted)
    for loss in (4.0, 3.0):
        advance(trials, 0, loss)
        for _ in range(3):
            trials.history(RuntimeModel(0.001))
            trials.used(3.0)
            trials.limit_disk(1e9, spare=set())
    first, second = (point.step for point in trials[0].curve)
    assert looks == [first, second]


def test_skipped_steps_are_counted_over_all_points(trials: Trials) -> None:
    advance(trials, 0, 4.0, skipped_steps=2)
    advance(trials, 0, 3.0)
    advance(trials, 0, 2.5, skipped_steps=1)
    advance(trials, 1, 4.0)
    first, second = trials[0].run, trials[1].run
    assert first is not None
    assert second is not None
    assert first.extra == {SKIPPED: 3}
    assert second.extra == {}


def test_retraining_is_spent_where_the_worker_dies_of_it(trials: Trials) -> None:
    advance(trials, 0, 4.0)
    done, ahead = trials[0].plan.tokens_at(trials[0].step), trials[0].tokens_to_next
    trials.limit_disk(0, spare=set())
    trials.fail(0, Outcome.FAILED, RunError("WorkerCrash", "killed"), SLOT, 3.0)
    assert trials.used(3.0).tokens == 2 * done + ahead


def test_tokens_count_when_a_step_begins_and_when_it_fails(trials: Trials) -> None:
    trial = trials[0]
    ahead = trial.tokens_to_next
    assert trials.used(3.0).tokens == 0
    trial.running = True
    assert (trials.used(3.0).tokens, trials.used(3.0).trials) == (ahead, 1)
    trials.fail(0, Outcome.OUT_OF_MEMORY, RunError("WorkerCrash", "killed"), SLOT, 3.0)
    assert trials.used(3.0).tokens == ahead
    assert trial.outcome is Outcome.OUT_OF_MEMORY
    assert trials.history(RuntimeModel(0.001)).trials[0].next_share is None


def test_a_loss_that_explodes_at_a_point_costs_what_led_there(trials: Trials) -> None:
    advance(trials, 0, math.nan, Outcome.DIVERGED)
    assert trials.used(3.0).tokens == trials[0].plan.tokens_at(trials[0].step)
    advance(trials, 1, 4.0)
    trials.fail(1, Outcome.DIVERGED, RunError("DivergedError", "step 9"), SLOT, 3.0)
    assert trials[1].tokens_spent > trials[1].plan.tokens_at(trials[1].step)


def test_what_did_not_end_is_told(trials: Trials) -> None:
    advance(trials, 0, 4.0)
    share = f"{trials[0].curve[-1].share:.0%}"
    assert shortfalls(trials, "baseline") == [
        f"The budget brought the baseline pipeline to only {share} of its full length."
    ]
    advance(trials, 1, 5.0)
    for index, kind in enumerate((Outcome.DIVERGED, Outcome.FAILED)):
        trials.fail(index, kind, RunError("OddError", "two\nlines"), SLOT, 3.0)
    assert shortfalls(trials, "baseline") == [
        "The baseline pipeline did not reach its end: diverged (OddError).",
        "1 of 2 trials broke down; the first one: failed (OddError).",
    ]


def test_a_completed_baseline_needs_no_word(trials: Trials) -> None:
    advance(trials, 0, 4.0, Outcome.COMPLETED)
    assert shortfalls(trials, "baseline") == []


def test_a_loss_that_is_no_number_is_never_best(trials: Trials) -> None:
    advance(trials, 0, math.nan, Outcome.DIVERGED)
    assert trials[0].best_point is None
    advance(trials, 1, 5.0)
    assert trials[1].best_point == trials[1].curve[0]


def test_an_added_candidate_is_among_the_pipelines(trials: Trials) -> None:
    before, new = list(trials.pipelines), Pipeline("ia3", {**BASELINE.hyperparameters, "learning_rate": 0.01})
    trials.add(new)
    assert trials.pipelines == [*before, new]


def test_strategies_see_the_trials(trials: Trials) -> None:
    advance(trials, 1, 5.0)
    trials[0].running = True
    first, second = trials.history(RuntimeModel(0.001)).trials
    assert (first.running, first.curve, first.is_open) == (True, (), False)
    assert (second.curve, second.is_open) == (trials[1].curve, True)
    assert second.next_share == pytest.approx(2 * second.curve[-1].share, rel=0.3)
    assert second.expected_seconds == pytest.approx(0.001 * trials[1].tokens_to_next)
    _, second = trials.history(RuntimeModel(0.001, overhead_seconds=2.0)).trials
    points = len(trials[1].plan.grid) - 1
    assert second.expected_end_seconds == pytest.approx(0.001 * trials[1].tokens_to_end + 2.0 * points)
    assert second.points_ahead == points


def test_a_pace_is_taught_in_the_order_in_which_steps_were_made(
    trials: Trials, prepared: PreparedTask
) -> None:
    subset = tuple(prepared.training_task.validation[:4])
    trials._prepared = replace(prepared, training_task=replace(prepared.training_task, subset=subset))
    advance(trials, 0, 4.0, elapsed=5.0, evaluation=1.0)
    advance(trials, 1, 4.0, elapsed=1.0, evaluation=2.0)
    while (following := trials[1].next_step) != trials[1].plan.total_steps:
        assert following
        advance(trials, 1, 4.0, elapsed=2.0, evaluation=3.0)
    advance(trials, 1, 4.0, elapsed=9.0, evaluation=10.0)

    class Recorder(RuntimeModel):
        def learn(self, method: str, tokens: int, training_seconds: float, other_seconds: float) -> None:
            others.append(other_seconds)

    others: list[float] = []
    trials.teach(RuntimeModels(Recorder(1.0), SLOT.machine, "float32"))
    part, whole = (sum(e.tokens for e in some) for some in (subset, prepared.training_task.validation))
    assert (others[0], others[-2]) == (2.0, 1.0), "in the order of time, not of trials"
    assert others[-1] == pytest.approx(10.0 * part / whole), "the subset's part, as for any point"


def test_a_new_record_holds_the_raw_facts(trials: Trials, prepared: PreparedTask) -> None:
    advance(trials, 0, 5.0)
    run = trials[0].run
    assert run is not None
    assert run.model.config["hidden_size"] == 32
    assert run.dataset == prepared.dataset
    assert (run.machine, run.versions) == (SLOT.machine, SLOT.versions)
    assert run.total_steps == trials[0].plan.total_steps


def test_trials_of_equal_batches_share_their_plan(trials: Trials) -> None:
    assert trials[0].plan is trials[1].plan


def test_a_trial_that_memory_cannot_hold_has_no_next_point(trials: Trials) -> None:
    trials[0].is_feasible = False
    assert trials[0].next_step is None
    views = trials.history(RuntimeModel(1e-3)).trials
    assert [view.is_open for view in views] == [False, True]
    assert shortfalls(trials, "baseline") == []
