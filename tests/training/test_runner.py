"""A worker's inside: trials advanced, scored and saved, and what becomes of those that fail."""

from __future__ import annotations

import math
import resource
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import workshop
from tunecast.errors import ModelError
from tunecast.records import Outcome, Pipeline
from tunecast.training import live_trial
from tunecast.training.checkpoint import CheckpointFolder, StepReport
from tunecast.training.compute import Compute
from tunecast.training.evaluate import Evaluator
from tunecast.training.runner import Runner
from tunecast.training.training_task import TrainingTask


@pytest.fixture(scope="module")
def task(tiny_llama: Path) -> TrainingTask:
    return workshop.training_task(tiny_llama)


@pytest.fixture(scope="module")
def runner(task: TrainingTask) -> Runner:
    return Runner(task)


def test_points_of_a_trial(runner: Runner, task: TrainingTask, tmp_path: Path) -> None:
    trial = workshop.spec(task, workshop.pipeline(), tmp_path, epochs=2, workers=3)
    plan = task.plan(trial)
    measured = workshop.run_trial(runner, trial)
    points = [one.point for one in measured if one.point]
    assert [point.step for point in points] == list(plan.grid)
    assert [point.tokens_seen for point in points] == [plan.tokens_at(step) for step in plan.grid]
    assert points[-1].label_tokens_seen == 2 * sum(example.label_tokens for example in task.train)
    assert points[-1].share == 1.0
    assert [one.outcome for one in measured] == [Outcome.PAUSED] * (len(points) - 1) + [Outcome.COMPLETED]
    assert [one.validation is not None for one in measured] == [False] * (len(points) - 1) + [True]
    assert [one.validation_seconds > 0 for one in measured] == [False] * (len(points) - 1) + [True]
    assert measured[-1].validation_seconds < points[-1].evaluation.wall
    assert {one.trainable_parameters for one in measured} == {4096}
    for point in points:
        assert point.validation.examples == len(task.subset)
        assert point.training.wall > 0 < point.evaluation.wall
        assert (point.micro_batch_size, point.workers) == (4, 3)
        assert (tmp_path / f"weights-{point.step}.safetensors").is_file()
    assert points[-1].validation.loss < points[0].validation.loss


def test_the_end_scores_no_example_twice(
    task: TrainingTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Runner(task)
    scored: list[int] = []
    measure = Evaluator.measure

    def watched(evaluator: Evaluator, model: Any, examples: Any) -> Any:
        scored.append(len(examples))
        return measure(evaluator, model, examples)

    monkeypatch.setattr(Evaluator, "measure", watched)
    measured = workshop.run_trial(own, workshop.spec(task, workshop.pipeline(), tmp_path, epochs=2))
    assert scored == [len(task.subset)] * (len(measured) - 1) + [len(task.validation)]
    point, whole = measured[-1].point, measured[-1].validation
    assert point
    assert whole
    assert (point.validation.examples, whole.examples) == (len(task.subset), len(task.validation))


def test_time_decides_how_many_answers_are_generated(task: TrainingTask) -> None:
    many = replace(task, validation_examples=task.validation_examples * 5)
    own = Runner(many)

    def count(seconds: float | None) -> int:
        scored = own.score(None, 0, "validation", generate_limit=40, answers_within=seconds)
        assert scored.answering_seconds > 0
        return len(scored.outputs)

    assert [count(seconds) for seconds in (0.0, 1e6, None)] == [16, 32, 40]


def test_reports_come_from_between_the_points(
    task: TrainingTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_trial, "REPORT_SECONDS", 0.0)
    trial = workshop.spec(task, workshop.pipeline(), tmp_path, epochs=2)
    CheckpointFolder(tmp_path).write_report(StepReport(99, 1.0, 1.0))  # of a process that was killed
    told: list[StepReport] = []
    monkeypatch.setattr(CheckpointFolder, "write_report", lambda _, report: told.append(report))
    measured = workshop.run_trial(Runner(task), trial)
    assert [report.step for report in told] == list(range(1, task.plan(trial).total_steps + 1))
    assert CheckpointFolder(tmp_path).read_report() is None
    first = measured[0].point
    assert first
    assert sum(report.train_loss for report in told[: first.step]) / first.step == pytest.approx(
        first.train_loss, rel=0.05
    )
    assert all(report.tokens_per_second > 0 for report in told)


def test_a_lost_checkpoint_is_trained_anew(runner: Runner, task: TrainingTask, tmp_path: Path) -> None:
    trial = workshop.spec(task, workshop.pipeline(lora_dropout=0.1), tmp_path, epochs=2)
    before = workshop.curve(workshop.run_trial(runner, trial))
    for file in tmp_path.glob("*"):
        if file.name not in ("state-4.safetensors", "weights-4.safetensors"):
            file.unlink()
    again = workshop.run_trial(Runner(task), trial, after=before[-2][0])
    assert workshop.curve(again) == before[-1:]
    plan = task.plan(trial)
    assert again[0].retrained_tokens == plan.tokens_at(before[-2][0]) - plan.tokens_at(4) > 0
    assert again[0].retraining_seconds > 0


def test_an_accelerator_that_failed_for_good_ends_its_worker(
    task: TrainingTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = Runner(task)
    sound = workshop.spec(task, workshop.pipeline(), tmp_path / "sound")
    absurd = workshop.spec(
        task, workshop.pipeline(learning_rate=1e3), tmp_path / "absurd", divergence_nats=3.0
    )

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(Compute, "free_memory", fail)  # as torch does after an error that stays
    monkeypatch.setattr("tunecast.training.finished_model.load_model", fail)
    assert runner.advance(absurd, 0, 2).outcome is Outcome.DIVERGED
    with pytest.raises(SystemExit, match="cannot be loaded again"):
        runner.advance(sound, 0, 2)


def test_evaluation_may_use_all_memory_again_with_the_next_trial(
    runner: Runner, task: TrainingTask, tmp_path: Path
) -> None:
    usual = runner._evaluator.batch_tokens
    for folder in ("first", "second"):
        runner.advance(workshop.spec(task, workshop.pipeline(), tmp_path / folder), 0, 2)
        assert runner._evaluator.batch_tokens == usual
        runner._evaluator.batch_tokens = 1  # what is left where memory ran out


def test_tokens_of_a_retraining_that_breaks_are_spent(task: TrainingTask, tmp_path: Path) -> None:
    absurd = workshop.pipeline(learning_rate=1e3, warmup_ratio=0.0)
    trial = workshop.spec(task, absurd, tmp_path, epochs=2, divergence_nats=30.0)
    plan = task.plan(trial)
    broken = Runner(task).advance(trial, plan.grid[-2], plan.grid[-1])
    assert broken.outcome is Outcome.DIVERGED
    assert broken.retrained_tokens == plan.tokens_at(plan.grid[-2])


@pytest.mark.parametrize("earlier", [True, False])
def test_a_damaged_checkpoint_is_trained_anew(
    earlier: bool, runner: Runner, task: TrainingTask, tmp_path: Path
) -> None:
    trial = workshop.spec(task, workshop.pipeline(lora_dropout=0.1), tmp_path, epochs=2)
    measured = workshop.run_trial(runner, trial)
    before = workshop.curve(measured)
    at = before[-2][0]
    for step in [at] if earlier else [row[0] for row in before[:-1]]:
        weights = tmp_path / f"weights-{step}.safetensors"
        content = bytearray(weights.read_bytes())
        content[-8:] = bytes(byte ^ 0x55 for byte in content[-8:])
        weights.write_bytes(content)
    own = Runner(task)
    point = measured[-2].point
    assert point is not None
    assert own.score(trial, at, "subset").score == point.validation
    assert workshop.curve(workshop.run_trial(own, trial, after=at)) == before[-1:]


def test_a_checkpoint_that_is_not_the_committed_points_is_trained_anew(
    runner: Runner, task: TrainingTask, tmp_path: Path
) -> None:
    trial, other = (
        workshop.spec(task, workshop.pipeline(learning_rate=rate), tmp_path / f"{rate}", epochs=2)
        for rate in (5e-3, 1e-3)
    )
    measured = workshop.run_trial(runner, trial)
    workshop.run_trial(runner, other)
    before = measured[-2].point
    assert before is not None
    at, last, known = before.step, task.plan(trial).total_steps, before.checkpoint_hash
    for kind in ("weights", "state"):
        name = f"{kind}-{at}.safetensors"
        shutil.copy(Path(other.folder) / name, Path(trial.folder) / name)
    own = Runner(task)
    assert own.score(trial, at, "subset").score != before.validation, "whole, but another trial's"
    assert own.score(trial, at, "subset", weights_hash=known).score == before.validation
    again = Runner(task).advance(trial, at, last, weights_hash=known)
    assert again.retrained_tokens > 0
    assert workshop.curve([again]) == workshop.curve(measured[-1:])


def test_damaged_weights_are_neither_scored_nor_delivered(task: TrainingTask, tmp_path: Path) -> None:
    trial = workshop.spec(task, workshop.pipeline(), tmp_path / "trial")
    folders = [tmp_path / name for name in ("whole", "damaged")]
    for folder in folders:
        folder.mkdir()
    own = Runner(task)
    last = workshop.run_trial(own, trial)[-1]
    assert last.point is not None
    step, known = last.point.step, last.point.checkpoint_hash
    own.save(trial, step, str(folders[0]), "base", weights_hash=known)
    weights = Path(trial.folder) / f"weights-{step}.safetensors"
    content = bytearray(weights.read_bytes())
    content[-2] ^= 0x40  # a number in the last tensor becomes another one
    weights.write_bytes(content)
    assert own.score(trial, step, "validation").score != last.validation
    again = own.score(trial, step, "validation", weights_hash=known)
    assert again.score == last.validation
    assert again.retrained_tokens > 0
    assert not own.score(trial, step, "test", weights_hash=known).retrained_tokens, "put back"
    weights.write_bytes(content)
    own.save(trial, step, str(folders[1]), "base", weights_hash=known)
    whole, damaged = (load_file(folder / "adapter_model.safetensors") for folder in folders)
    assert all(torch.equal(tensor, damaged[name]) for name, tensor in whole.items())


def test_scores_base_and_checkpoints(runner: Runner, task: TrainingTask, tmp_path: Path) -> None:
    trial = workshop.spec(task, workshop.pipeline(), tmp_path)
    points = [one.point for one in workshop.run_trial(runner, trial)]
    first, last = points[0], points[-1]
    assert first
    assert last
    zero_shot = runner.score(None, 0, "subset", interval_seed=0).score
    assert zero_shot.loss_low is not None
    assert zero_shot.loss_low < zero_shot.loss < zero_shot.loss_high  # type: ignore[operator]
    assert last.validation.loss < zero_shot.loss
    assert runner.score(trial, first.step, "subset").score == first.validation
    # The last point's subset is measured among all validation examples, so in other batches.
    at_end = runner.score(trial, last.step, "subset").score
    assert at_end.loss == pytest.approx(last.validation.loss, rel=1e-5)
    kept_nowhere = replace(trial, folder="")
    assert runner.score(kept_nowhere, first.step, "subset").score == first.validation
    assert runner.score(None, 0, "subset", interval_seed=0).score == zero_shot


def test_a_scored_checkpoint_is_not_continued_by_mistake(
    runner: Runner, task: TrainingTask, tmp_path: Path
) -> None:
    trial = workshop.spec(task, workshop.pipeline(), tmp_path)
    whole = workshop.curve(workshop.run_trial(runner, trial))
    runner.score(trial, whole[0][0], "subset")
    assert workshop.curve(workshop.run_trial(runner, trial, after=whole[0][0])) == whole[1:]


def test_generates_for_a_metric(runner: Runner, task: TrainingTask) -> None:
    scored = runner.score(None, 0, "test", metric="token_f1", generate_limit=3, interval_seed=0)
    assert [output.reference for output in scored.outputs] == [
        example.turns[-1].content for example in task.test_examples[:3]
    ]
    assert all("Which colour" in output.prompt for output in scored.outputs)
    assert scored.score.metric_name == "token_f1"
    assert scored.score.metric_examples == 3
    assert scored.score.metric_low <= scored.score.metric <= scored.score.metric_high  # type: ignore[operator]
    assert scored.score.examples == len(task.test)


def test_long_prompts_leave_room_for_the_answer(tiny_gpt2: Path) -> None:
    task = workshop.training_task(tiny_gpt2, rows=4)
    assert task.facts.context == 128
    long = tuple(
        replace(example, turns=(replace(example.turns[0], content="red green " * 200), *example.turns[1:]))
        for example in task.test_examples[:2]
    )
    own = Runner(replace(task, test_examples=long, max_new_tokens=24))
    outputs = own.score(None, 0, "test", generate_limit=2).outputs
    assert len(outputs) == 2
    assert all("red green" in output.prompt for output in outputs)


def test_saves_trial_and_base_with_their_tokenizer(
    runner: Runner, task: TrainingTask, tmp_path: Path
) -> None:
    trial = workshop.spec(task, workshop.pipeline(), tmp_path / "trial")
    (tmp_path / "best").mkdir()
    workshop.run_trial(runner, trial)
    runner.save(trial, task.plan(trial).grid[0], str(tmp_path / "best"), "base")
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= {
        file.name for file in (tmp_path / "best").iterdir()
    }
    runner.save_base(str(tmp_path / "base"))
    saved, original = (
        load_file(Path(f) / "model.safetensors") for f in (tmp_path / "base", task.model.location)
    )
    assert saved.keys() == original.keys()
    assert all(torch.equal(saved[name], original[name]) for name in original)


def test_speed_is_measured_and_nothing_is_kept(runner: Runner, task: TrainingTask, tmp_path: Path) -> None:
    assert runner.measure_speed(workshop.spec(task, workshop.pipeline()), 0.0) > 0
    assert runner.score(None, 0, "subset").score == Runner(task).score(None, 0, "subset").score


def test_speed_is_that_of_the_steps_before_a_divergence(runner: Runner, task: TrainingTask) -> None:
    pipeline = workshop.pipeline(learning_rate=1e3, warmup_ratio=0.0)
    trial = workshop.spec(task, pipeline, epochs=2, divergence_nats=30.0)
    assert runner.measure_speed(trial, math.inf) > 0
    none = workshop.spec(task, workshop.pipeline(), divergence_nats=1e-3)
    with pytest.raises(ModelError, match="diverges at its first step"):
        runner.measure_speed(none, 0.0)
    assert runner.measure_speed(workshop.spec(task, workshop.pipeline()), 0.0) > 0


def test_a_peak_counts_from_when_the_last_trial_is_off(
    task: TrainingTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Runner(task)
    held: list[str] = []
    monkeypatch.setattr(
        "tunecast.training.runner.reset_peak",
        lambda device: held.append(own._live_spec.run if own._live_spec else ""),
    )
    for name in ("full", "lora"):
        trial = workshop.spec(task, workshop.pipeline(name), run=name)
        first, second = task.plan(trial).grid[:2]
        own.advance(trial, 0, first)
        own.advance(trial, first, second)
    assert held == ["", "full", "", "lora"]


def test_reloads_only_a_base_that_is_not_clean(task: TrainingTask) -> None:
    own = Runner(task)
    for variant, reloads in (("lora", 0), ("full", 0), ("pissa", 1), ("ia3", 1)):
        workshop.run_trial(own, workshop.spec(task, workshop.pipeline(variant), run=variant), points=1)
        own.release()
        assert own.reloads == reloads


@pytest.mark.parametrize(
    "broken",
    [workshop.pipeline("ia3", optim="nadam"), workshop.pipeline(target_modules="nowhere")],
    ids=["after injecting", "while injecting"],
)
def test_a_trial_that_cannot_begin_leaves_nothing_behind(broken: Pipeline, task: TrainingTask) -> None:
    own = Runner(task)
    failed = workshop.run_trial(own, workshop.spec(task, broken, run="broken"))
    assert [one.outcome for one in failed] == [Outcome.FAILED]
    trial = workshop.spec(task, workshop.pipeline("full"))
    expected = workshop.curve(workshop.run_trial(Runner(task), trial))
    assert workshop.curve(workshop.run_trial(own, trial)) == expected
    own.release()
    assert own.reloads == 1


def test_a_base_that_is_given_up_leaves_no_memory_behind(task: TrainingTask) -> None:
    own = Runner(task)
    own._base.itself = [own._base]  # a model that refers to itself, as some do
    base = weakref.ref(own._base)
    workshop.run_trial(own, workshop.spec(task, workshop.pipeline("pissa")), points=1)
    own.release()
    assert base() is None


def test_a_worker_that_lost_its_base_model_leaves(tiny_llama: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_llama, tmp_path / "model")
    task = workshop.training_task(tmp_path / "model")
    own = Runner(task)
    shutil.rmtree(tmp_path / "model")
    failed = workshop.run_trial(own, workshop.spec(task, workshop.pipeline(target_modules="nowhere")))
    assert [one.outcome for one in failed] == [Outcome.FAILED], "what broke the trial is still its outcome"
    with pytest.raises(SystemExit, match="cannot be loaded again"):
        own.score(None, 0, "subset")


@pytest.mark.parametrize("variant", ["lora", "full"])
def test_an_absurd_learning_rate_diverges(variant: str, runner: Runner, task: TrainingTask) -> None:
    pipeline = workshop.pipeline(variant, learning_rate=1e3, warmup_ratio=0.0)
    trial = workshop.spec(task, pipeline, epochs=2, divergence_nats=30.0)
    *earlier, last = workshop.run_trial(runner, trial)
    assert last.outcome is Outcome.DIVERGED
    assert last.error is not None
    assert last.error.kind == "DivergedError"
    assert "step" in last.error.text
    assert last.trainable_parameters > 0
    assert all(one.outcome is Outcome.PAUSED for one in earlier)
    fine = workshop.spec(task, workshop.pipeline(), run="next")
    assert workshop.run_trial(runner, fine)[-1].outcome is Outcome.COMPLETED


def test_weights_that_are_no_numbers_diverge_at_once(tiny_llama: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(tiny_llama, tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][3] = math.nan
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    task = workshop.training_task(broken)
    measured = workshop.run_trial(Runner(task), workshop.spec(task, workshop.pipeline()))
    assert [one.outcome for one in measured] == [Outcome.DIVERGED]
    assert measured[0].point is None
    assert measured[0].error is not None
    assert "step 1: loss nan" in measured[0].error.text


def test_whatever_else_breaks_a_trial_is_its_outcome(runner: Runner, task: TrainingTask) -> None:
    measured = workshop.run_trial(runner, workshop.spec(task, workshop.pipeline(optim="nadam")))
    assert [one.outcome for one in measured] == [Outcome.FAILED]
    assert measured[0].error is not None
    assert "optim=nadam" in measured[0].error.text


def test_a_full_disk_is_not_the_trials_fault(runner: Runner, task: TrainingTask, tmp_path: Path) -> None:
    trial = workshop.spec(task, workshop.pipeline(), tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            workshop.run_trial(runner, trial)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
    # With room again the same worker goes on as if nothing had happened.
    assert workshop.run_trial(runner, trial)[-1].outcome is Outcome.COMPLETED


def test_bfloat16_base_trains(tiny_llama: Path) -> None:
    own = Runner(workshop.training_task(tiny_llama, dtype="bfloat16"))
    zero_shot = own.score(None, 0, "subset").score.loss
    trial = workshop.spec(own.training_task, workshop.pipeline("full"), epochs=2)
    *_, last = workshop.run_trial(own, trial)
    assert last.outcome is Outcome.COMPLETED
    assert last.point is not None
    assert last.point.validation.loss < zero_shot - 0.3
