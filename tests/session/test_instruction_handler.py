"""Sessions that are told something while they run, and after a kill; on a real model and a real store."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kills import committed, measured
from sessions import record_of
from tunecast import api
from tunecast.methods.space import BASELINE
from tunecast.progress import SessionStatus, Silent
from tunecast.records import STOPPED, Outcome, Pipeline, Run
from tunecast.results import SessionRecord
from tunecast.session.feasible import Room
from tunecast.session.instructions import FOLDER, Instruction, give, new_instruction
from tunecast.session.prepare import PreparedTask
from tunecast.session.settings import SessionSettings

MINE = Pipeline("lora", {**BASELINE.hyperparameters, "lora_r": 8, "learning_rate": 1e-3})
Tell = Callable[[SessionStatus], Instruction | None]


class Killed(BaseException):
    """In the place of a kill, right after an instruction was handled."""


class Told(Silent):
    """Gives each instruction once, as soon as the session's status is what it waits for."""

    def __init__(self, folder: Path, *tells: Tell, kill: bool = False) -> None:
        self.folder = folder
        self.tells = list(tells)
        self.lines: list[str] = []
        self.statuses: list[SessionStatus] = []
        self.kill = kill

    def show(self, status: SessionStatus) -> None:
        self.statuses.append(status)
        if self.tells and (told := self.tells[0](status)) is not None:
            del self.tells[0]
            give(self.folder, told)

    def log(self, text: str) -> None:
        self.lines.append(text)
        if self.kill and text.startswith("By hand"):
            raise Killed


def as_measured(run: Run) -> Any:
    """What was measured, and whether a person stopped it, but not when."""
    extra = {name: value for name, value in run.extra.items() if name != STOPPED}
    return STOPPED in run.extra, measured(replace(run, extra=extra))


def points(status: SessionStatus) -> int:
    return sum(len(trial.losses) for trial in status.trials)


def after(count: int, told: Instruction) -> Tell:
    """Give an instruction once there are so many points."""
    return lambda status: told if points(status) >= count else None


@pytest.fixture
def some(settings: SessionSettings, tmp_path: Path) -> SessionSettings:
    return replace(
        settings,
        output_dir=str(tmp_path / "out"),
        budget="3-trials",
        executor="in-process",
        methods=("lora", "ia3"),
        strategy="random",
        forecast=False,
    )


def folder_of(settings: SessionSettings) -> Path:
    return Path(settings.output_dir)


def state_in(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((folder / "session.json").read_text())
    return state


def candidates(folder: Path) -> list[Run]:
    return [run for run in committed(folder) if run.is_candidate]


def tune(settings: SessionSettings, *tells: Tell) -> tuple[SessionRecord, Told]:
    told = Told(folder_of(settings), *tells)
    return api.tune(settings, progress=told), told


def test_a_stopped_trial_goes_no_further_and_its_points_compete(some: SessionSettings) -> None:
    def stop(status: SessionStatus) -> Instruction | None:
        second = status.trials[1] if len(status.trials) > 1 else None
        if second is None or not second.losses:
            return None
        return new_instruction("stop-trial", run=second.run)

    record, _ = tune(some, stop)
    folder = folder_of(some)
    stopped = next(run for run in candidates(folder) if STOPPED in run.extra)
    (handled,) = state_in(folder)["instructions"]
    assert stopped.id == handled["instruction"]["run"]
    assert stopped.outcome is Outcome.PAUSED
    assert 1 <= len(stopped.curve) < len(candidates(folder)[0].curve)
    assert stopped.extra[STOPPED]["instruction"] == handled["instruction"]["id"]
    assert stopped.extra[STOPPED]["elapsed_seconds"] >= stopped.curve[-1].elapsed_seconds
    assert not handled["refused"]
    assert not list((folder / FOLDER).iterdir())
    assert any("was stopped at" in warning for warning in record.warnings)
    others = [run for run in candidates(folder) if run.id != stopped.id]
    assert all(run.outcome is Outcome.COMPLETED for run in others), "they go on"
    assert "By hand" in (folder / "report.html").read_text()


def test_a_stopped_baseline_is_named_in_the_warnings(some: SessionSettings) -> None:
    def stop(status: SessionStatus) -> Instruction | None:
        return new_instruction("stop-trial", run=status.trials[0].run) if points(status) else None

    record, _ = tune(some, stop)
    assert any("The baseline pipeline was stopped by hand at" in warning for warning in record.warnings)
    assert len(candidates(folder_of(some))) == 3


def test_an_added_pipeline_goes_before_the_strategys_choices(some: SessionSettings) -> None:
    _, told = tune(some, after(1, new_instruction("add-pipeline", pipeline=MINE)))
    first, second, _ = candidates(folder_of(some))
    assert (first.pipeline.method, second.pipeline) == ("lora", MINE)
    assert second.outcome is Outcome.COMPLETED
    reasons = {choice.reason for status in told.statuses for choice in status.choices}
    assert "It was added by hand, and goes before what the strategy would choose." in reasons
    assert state_in(folder_of(some))["candidates"][-1]["hyperparameters"]["lora_r"] == 8


def test_an_added_pipeline_needs_to_state_only_what_differs(some: SessionSettings) -> None:
    partial = Pipeline("ia3", {"learning_rate": 0.0123})
    tune(some, after(1, new_instruction("add-pipeline", pipeline=partial)))
    _, second, _ = candidates(folder_of(some))
    assert second.pipeline.method == "ia3"
    assert second.pipeline.learning_rate == 0.0123
    assert second.pipeline.number("per_device_train_batch_size") > 0


@pytest.mark.parametrize("strategy", ["random", "fixed-baseline"])
def test_an_added_pipeline_that_memory_cannot_hold_is_refused(
    strategy: str, some: SessionSettings, prepared: PreparedTask
) -> None:
    large, room = Pipeline("full", {"learning_rate": 1e-5}), Room(prepared.training_task)
    least, most = room.bytes_of(BASELINE), room.bytes_of(Pipeline("full", BASELINE.hyperparameters))
    assert least is not None
    assert most is not None
    some = replace(some, strategy=strategy, max_memory_gb=(0.5 * least + 0.5 * most) / 1e9)
    tune(some, after(1, new_instruction("add-pipeline", pipeline=large)))
    state = state_in(folder_of(some))
    (handled,) = state["instructions"]
    assert handled["refused"]
    assert "GB for its pipeline" in handled["effect"]
    assert not state["added"]
    assert not [one for one in state["candidates"] if one["method"] == "full"]


def test_an_extended_budget_is_spent(some: SessionSettings) -> None:
    record, _ = tune(some, after(1, new_instruction("extend-budget", budget="5-trials")))
    assert len(candidates(folder_of(some))) == 5
    assert state_in(folder_of(some))["configuration"]["budget"] == "5-trials"
    assert record.budget == record.configuration["budget"] == "5-trials"
    again = api.tune(replace(some, budget="5-trials"), resume=True, progress=Silent())
    assert again.id == record.id, "--resume takes the session as it is"


def test_a_session_ends_now_with_the_best(some: SessionSettings) -> None:
    record, told = tune(some, after(1, new_instruction("end-now")))
    assert sum(len(run.curve) for run in candidates(folder_of(some))) == 1
    assert (folder_of(some) / "best" / "README.md").is_file()
    assert any("ended before the budget was spent" in warning for warning in record.warnings)
    assert not any("of the budget was not used" in line for line in told.lines)


def test_an_ended_session_goes_on_with_a_larger_budget(some: SessionSettings) -> None:
    tune(some, after(1, new_instruction("end-now")))
    api.tune(replace(some, budget="4-trials"), resume=True, progress=Silent())
    assert len(candidates(folder_of(some))) == 4
    assert record_of(folder_of(some)).budget == "4-trials"


def test_a_final_training_is_ended_too(some: SessionSettings) -> None:
    def end(status: SessionStatus) -> Instruction | None:
        final = status.activity.startswith("Training the winner") and status.trials[-1].losses
        return new_instruction("end-now") if final else None

    _, told = tune(replace(some, budget="2-trials", final_training="epochs=8"), end)
    (final,) = [run for run in committed(folder_of(some)) if run.is_beside_search]
    assert final.outcome is Outcome.PAUSED
    assert final.curve
    assert any("was stopped before the end of the final training" in line for line in told.lines)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (new_instruction("stop-trial", run="../../etc"), "names no trial of this search"),
        (new_instruction("extend-budget", budget="2h"), "is in seconds, but the session has"),
        (new_instruction("extend-budget", budget="3-trials"), "is not more than 3-trials"),
        (new_instruction("extend-budget", budget="<b>"), "names no budget"),
    ],
    ids=["no trial", "another unit", "not more", "no budget"],
)
def test_what_cannot_be_done_is_refused_in_words(
    some: SessionSettings, told: Instruction, reason: str
) -> None:
    record, heard = tune(replace(some, budget="3-trials"), after(1, told))
    lines = [line for line in heard.lines if line.startswith("Not done")]
    assert len(lines) == 1
    assert reason in lines[0]
    assert len(candidates(folder_of(some))) == 3
    assert not any("By hand" in warning for warning in record.warnings)


def test_an_end_before_any_point_is_refused(some: SessionSettings) -> None:
    folder_of(some).mkdir()
    give(folder_of(some), new_instruction("end-now"))
    _, heard = tune(replace(some, budget="1-trials"))
    assert any("there is nothing to deliver" in line for line in heard.lines)
    assert candidates(folder_of(some))[0].outcome is Outcome.COMPLETED


def test_a_training_of_one_pipeline_can_only_be_ended(some: SessionSettings) -> None:
    told = Told(
        folder_of(some),
        after(1, new_instruction("extend-budget", budget="9-trials")),
        after(1, new_instruction("end-now")),
    )
    record = api.train(some, MINE, progress=told)
    assert any("a training of one pipeline without a search" in line for line in told.lines)
    (run,) = candidates(folder_of(some))
    assert run.outcome is Outcome.PAUSED
    assert record.budget == "1-trials"


@pytest.mark.parametrize("kind", ["stop-trial", "add-pipeline", "extend-budget", "end-now"])
def test_an_instruction_survives_a_kill(some: SessionSettings, kind: str) -> None:
    """Killed as soon as it was handled, and gone on from there: the same as without the kill."""

    def tell(status: SessionStatus) -> Instruction | None:
        if points(status) < 2:
            return None
        return {
            "stop-trial": new_instruction("stop-trial", run=status.trials[0].run),
            "add-pipeline": new_instruction("add-pipeline", pipeline=MINE),
            "extend-budget": new_instruction("extend-budget", budget="4-trials"),
            "end-now": new_instruction("end-now"),
        }[kind]

    record, _ = tune(some, tell)
    folder = folder_of(some)
    again = replace(some, output_dir=str(folder.with_name("again")))
    killed = Told(folder_of(again), tell, kill=True)
    with pytest.raises(Killed):
        api.tune(again, progress=killed)
    assert list((folder_of(again) / FOLDER).iterdir()), "it was not withdrawn yet"
    budget = state_in(folder_of(again))["configuration"]["budget"]
    resumed = api.tune(replace(again, budget=budget), resume=True, progress=Silent())
    assert [as_measured(run) for run in committed(folder_of(again))] == [
        as_measured(run) for run in committed(folder)
    ]
    assert resumed.winner == record.winner
    assert len(state_in(folder_of(again))["instructions"]) == 1, "it was handled once"


def test_a_session_that_was_killed_finds_what_it_is_told_meanwhile(some: SessionSettings) -> None:
    def die(status: SessionStatus) -> Instruction | None:
        if points(status) < 2:
            return None
        raise Killed

    with pytest.raises(Killed):
        tune(some, die)
    give(folder_of(some), new_instruction("add-pipeline", pipeline=MINE))
    api.tune(some, resume=True, progress=Silent())
    assert candidates(folder_of(some))[1].pipeline == MINE


def test_choices_come_with_reasons_and_with_what_would_be_next(some: SessionSettings) -> None:
    _, told = tune(some)
    choices = [choice for status in told.statuses for choice in status.choices]
    assert all(choice.reason.endswith(".") for choice in choices)
    first = choices[0]
    assert first.reason == "The baseline pipeline is trained to its end first: others are compared with it."
    assert choices[-1].run != first.run
    aheads = [status.ahead for status in told.statuses if status.ahead is not None]
    assert aheads[0].run == first.run
    assert aheads[0].share > first.share


def test_an_unreadable_instruction_that_cannot_be_removed_is_told_once(some: SessionSettings) -> None:
    blocked = folder_of(some) / FOLDER / "2000000000000-00000000.json"

    def block(status: SessionStatus) -> None:
        blocked.mkdir(parents=True, exist_ok=True)

    _, told = tune(some, block)
    assert sum("cannot be read" in line for line in told.lines) == 1
    assert len(told.statuses) > 2
