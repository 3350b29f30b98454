"""The search of a session on real trials and a real store; what workers answer is made by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sample_runs import sample_point
from scripted_executor import ScriptedExecutor
from tunecast.budget import Budget
from tunecast.errors import OutputError
from tunecast.executors.base import Broken, Crash, Handle, Request
from tunecast.executors.requests import Advance
from tunecast.methods.space import BASELINE
from tunecast.progress import SessionStatus, Silent
from tunecast.records import Outcome, Pipeline
from tunecast.search import History, Policy, Remaining, random_search
from tunecast.session import search_loop
from tunecast.session.budget_tracker import BudgetTracker
from tunecast.session.folder import OutputFolder
from tunecast.session.placement import Placement
from tunecast.session.prepare import PreparedTask
from tunecast.session.runtime_model import RuntimeModel, RuntimeModels
from tunecast.session.search_loop import Search
from tunecast.session.settings import SessionSettings
from tunecast.session.trials import Trials
from tunecast.store import Store
from tunecast.training.measurement import Measurement

CANDIDATES = [
    BASELINE,
    *(Pipeline("lora", {**BASELINE.hyperparameters, "lora_r": rank}) for rank in (2, 4, 8)),
]
FULL_LENGTH = 10_000
KILLED = Crash("the worker was killed by SIGKILL", Outcome.OUT_OF_MEMORY)


class Hand(ScriptedExecutor):
    """Answers at once: with what a script says, else with the next point."""

    def __init__(self, trials: Trials, losses: tuple[float, ...], workers: int) -> None:
        super().__init__(workers)
        self.places = {trial.spec.run: place for place, trial in enumerate(trials)}
        self.trials = trials
        self.losses = losses
        self.script: list[Any] = []
        self.asked: list[int] = []
        self.hashes: list[str] = []
        self.retrained = 0
        self.side_by_side: set[frozenset[int]] = set()
        self.answers = math.inf
        self.late: list[tuple[Handle, Any]] = []
        self.stall: Callable[[], None] = lambda: None

    def submit(self, request: Request, slot: int | None = None) -> Handle:
        assert isinstance(request, Advance)
        self.asked.append(self.places[request.spec.run])
        return super().submit(request, slot)

    def wait(self, timeout: float | None = None) -> list[tuple[Handle, Any]]:
        self.side_by_side.add(frozenset(self.places[request.spec.run] for request in self.busy.values()))
        if len(self.hashes) >= self.answers:
            self.stall()
            late, self.late = self.late, []
            for handle, _ in late:
                del self.busy[handle]
            return late
        handle = self.in_slot(0) or self.in_slot(1)
        assert handle is not None
        request = self.busy.pop(handle)
        return [(handle, self.script.pop(0) if self.script else self.point(request))]

    def in_slot(self, slot: int) -> Handle | None:
        """What was submitted to a slot and is not answered."""
        return next((handle for handle in self.busy if handle.slot == slot), None)

    def late_answers(self, first: object) -> list[tuple[Handle, Any]]:
        """The answers of two busy slots: the first slot's is given, the other's is its point."""
        one, other = self.in_slot(0), self.in_slot(1)
        assert one is not None
        assert other is not None
        return [(one, first), (other, self.point(self.busy[other]))]

    def point(self, request: Advance) -> Measurement:
        place, step = self.places[request.spec.run], request.to_step
        plan = self.trials[place].plan
        at = {"share": plan.share_at(step), "tokens_seen": plan.tokens_at(step)}
        self.hashes.append(request.weights_hash)
        folder = Path(request.spec.folder)
        folder.mkdir(parents=True, exist_ok=True)
        for kind in ("weights", "state"):
            (folder / f"{kind}-{step}.safetensors").write_bytes(b"x" * 1000)
        outcome = Outcome.COMPLETED if step == plan.total_steps else Outcome.PAUSED
        point = sample_point(step, self.losses[place], **at)
        return Measurement(request.spec.run, point, outcome, retrained_tokens=self.retrained)


class Told(Silent):
    """Keeps what is logged, and counts what is shown."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shown = 0

    def show(self, status: SessionStatus) -> None:
        self.shown += 1

    def log(self, text: str) -> None:
        self.lines.append(text)


Begin = Callable[..., tuple[Search, Hand]]


@pytest.fixture
def begin(settings: SessionSettings, prepared: PreparedTask, tmp_path: Path) -> Iterator[Begin]:
    folder = OutputFolder(tmp_path / "out")
    with Store.open(":memory:") as store:

        def make(
            full_lengths: float,
            policy: Policy,
            *,
            losses: tuple[float, ...] = (4.0, 3.0, 2.0, 3.5),
            workers: int = 1,
            keep_gb: float = 10.0,
            progress: Silent | None = None,
            save: Callable[[], None] = lambda: None,
            diagnostics: list[str] | None = None,
            budget_tracker: BudgetTracker | None = None,
        ) -> tuple[Search, Hand]:
            trials = Trials(
                "session",
                prepared,
                CANDIDATES,
                folder,
                store,
                seed=0,
                full_length_tokens=FULL_LENGTH,
                unique_examples=128,
                workers=workers,
                divergence_nats=9.0,
            )
            hand = Hand(trials, losses, workers)
            whole = trials[0].plan.tokens_at(trials[0].plan.total_steps)
            tokens = Budget("tokens", int(full_lengths * whole), "")
            search = Search(
                trials=trials,
                policy=policy,
                executor=hand,
                budget_tracker=budget_tracker or BudgetTracker(tokens, 0.0),
                runtime_models=RuntimeModels(RuntimeModel(1e-3), hand.slots[0].machine, "float32"),
                placement=Placement(settings, prepared.training_task, hand, limit=1),
                folder=folder,
                settings=replace(settings, keep_gb=keep_gb, workers=workers),
                progress=progress or Silent(),
                save=save,
                diagnostics=[] if diagnostics is None else diagnostics,
            )
            return search, hand

        yield make
    folder.close()


def outcomes(search: Search) -> list[Outcome]:
    return [trial.outcome for trial in search.trials]


def one_step_each(history: History, remaining: Remaining) -> int | None:
    return next((i for i, t in enumerate(history.trials) if t.is_open and not t.is_started), None)


def test_the_first_trial_is_trained_before_any_other(begin: Begin) -> None:
    search, hand = begin(2.0, random_search())
    search.spend()
    first = len(search.trials[0].curve)
    assert hand.asked == [0] * first + [1] * len(search.trials[1].curve)
    assert outcomes(search)[:2] == [Outcome.COMPLETED] * 2


def test_beside_the_first_trial_the_others_go_on(begin: Begin) -> None:
    search, hand = begin(3.0, random_search(), workers=2)
    search.spend()
    assert frozenset({0, 1}) in hand.side_by_side
    assert outcomes(search)[0] is Outcome.COMPLETED


def test_many_steps_under_way_are_shown_together(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    all_shown, few_shown = Told(), Told()
    search, _ = begin(4.0, random_search(), workers=2, progress=all_shown)
    search.spend()
    monkeypatch.setattr(search_loop, "CROWD", 1)
    monkeypatch.setattr(search_loop, "POLL_SECONDS", math.inf)
    search, _ = begin(4.0, random_search(), workers=2, progress=few_shown)
    search.spend()
    assert 0 < few_shown.shown < all_shown.shown


def test_a_run_carries_the_machine_of_the_slot_that_computed_it(begin: Begin) -> None:
    search, hand = begin(3.0, random_search(), workers=2)
    search.spend()
    first, second = (slot.machine for slot in hand.slots)
    assert first != second
    machines = [trial.run.machine for trial in search.trials if trial.run]
    assert machines[:2] == [first, second]


def test_what_is_left_brings_the_leader_to_its_end(begin: Begin) -> None:
    search, hand = begin(2.6, one_step_each)
    search.spend()
    assert outcomes(search) == [Outcome.COMPLETED, Outcome.PAUSED, Outcome.COMPLETED, Outcome.PAUSED]
    assert hand.asked[-1] == 2


def test_the_budget_is_kept_to(begin: Begin) -> None:
    for full_lengths in (0.4, 1.3, 2.7):
        search, _ = begin(full_lengths, random_search())
        whole = search.trials[0].plan.tokens_at(search.trials[0].plan.total_steps)
        search.spend()
        assert search.used().tokens <= full_lengths * whole


def test_a_crashed_step_is_tried_once_more(begin: Begin) -> None:
    search, hand = begin(1.0, random_search())
    hand.script = [KILLED]
    search.spend()
    assert outcomes(search)[0] is Outcome.COMPLETED
    assert len(hand.asked) == 1 + len(search.trials[0].curve)


def test_a_step_that_crashes_twice_ends_its_trial_alone(begin: Begin) -> None:
    told = Told()
    search, hand = begin(2.5, random_search(), progress=told)
    hand.script = [KILLED, KILLED]
    search.spend()
    first = search.trials[0].run
    assert first is not None
    assert first.error is not None
    assert (first.outcome, first.error.kind) == (Outcome.OUT_OF_MEMORY, "WorkerCrash")
    assert outcomes(search)[1] is Outcome.COMPLETED
    endings = ("retrying with a new worker", "the trial ends")
    assert told.lines == [f"the worker was killed by SIGKILL; {ending}." for ending in endings]


def test_a_disk_that_takes_no_more_ends_the_search(begin: Begin) -> None:
    search, hand = begin(2.0, random_search())
    hand.script = [Broken("OSError", "No space left on device", system=True)]
    with pytest.raises(OutputError, match="No space left"):
        search.spend()


def test_a_small_budget_is_spent_on_the_first_step_that_is_expected_to_fit(begin: Begin) -> None:
    search, _ = begin(1.0, random_search())
    model, trial = search.runtime_model, search.trials[0]
    method = trial.spec.pipeline.method
    expected, upper = (predict(method, trial.tokens_to_next) for predict in (model.expected, model.upper))
    small = BudgetTracker(Budget("seconds", (expected + upper) / 2, ""), 0.0)
    search, hand = begin(1.0, random_search(), budget_tracker=small)
    search.spend()
    assert len(hand.asked) >= 1
    assert search.trials[0].curve, "no first step fits by its upper bound"


def test_every_commit_is_saved(begin: Begin) -> None:
    saved: list[int] = []
    search, hand = begin(2.0, random_search(), save=lambda: saved.append(1))
    search.spend()
    assert len(saved) == len(hand.asked) > 1


def test_steps_that_outlast_the_budget_are_broken_off(begin: Begin) -> None:
    told, budget_tracker = Told(), BudgetTracker(Budget("seconds", 1000.0, ""), 0.0)
    saved: list[float] = []

    def save() -> None:
        saved.append(budget_tracker.elapsed())

    search, hand = begin(
        2.0, random_search(), workers=2, progress=told, budget_tracker=budget_tracker, save=save
    )

    def stall() -> None:
        budget_tracker._seconds_before = 2000.0

    hand.stall, hand.answers = stall, 1
    search.spend()
    baseline, other = search.trials[0], search.trials[1]
    assert hand.given_up == 2
    assert saved[-1] > 1000.0, "who goes on from here has nothing left"
    assert (len(baseline.curve), len(other.curve)) == (1, 0), "the points that they had"
    assert outcomes(search) == [Outcome.PAUSED] * 4
    assert not any(trial.running for trial in search.trials)
    sentence = "The budget ran out before the end of a step of trial"
    assert sorted(told.lines) == sorted(f"{sentence} {trial.spec.run}." for trial in (baseline, other))


def test_what_came_in_time_counts_though_it_is_found_at_the_end(begin: Begin) -> None:
    budget_tracker = BudgetTracker(Budget("seconds", 1000.0, ""), 0.0)
    search, hand = begin(2.0, random_search(), workers=2, budget_tracker=budget_tracker)

    def stall() -> None:
        if budget_tracker._seconds_before == 0.0 and len(hand.busy) == 2:
            budget_tracker._seconds_before = 2000.0
            hand.late = hand.late_answers(KILLED)

    hand.stall, hand.answers = stall, 1
    search.spend()
    assert (len(search.trials[0].curve), len(search.trials[1].curve)) == (1, 1)
    assert hand.given_up == 0


def test_an_answer_that_cannot_be_used_loses_no_other(begin: Begin) -> None:
    search, hand = begin(3.0, random_search(), workers=2)

    def stall() -> None:
        broken = Broken("OSError", "No space left on device", system=True)
        hand.late = hand.late_answers(broken)

    hand.stall, hand.answers = stall, 1
    with pytest.raises(OutputError, match="No space left"):
        search.spend()
    assert (len(search.trials[0].curve), len(search.trials[1].curve)) == (1, 1)


def test_checkpoints_beyond_the_limit_go_but_for_those_in_the_running(begin: Begin) -> None:
    told = Told()
    search, _ = begin(3.0, one_step_each, losses=(1.0, 3.0, 2.0, 3.5), keep_gb=1e-6, progress=told)
    search.spend()
    dropped = search.trials[3].spec.run
    assert told.lines == [f"Dropped the checkpoint of trial {dropped}: --keep-gb 1e-06."]


def test_a_step_goes_on_from_the_committed_points_weights(begin: Begin) -> None:
    search, hand = begin(1.0, random_search())
    search.spend()
    steps = [point.checkpoint_hash for point in search.trials[0].curve]
    assert hand.hashes == ["", *steps[:-1]]
    assert all(steps)


def test_what_is_trained_once_more_is_told(begin: Begin) -> None:
    told = Told()
    search, hand = begin(1.0, random_search(), progress=told)
    hand.retrained = 1234
    search.spend()
    run = search.trials[0].spec.run
    assert told.lines[0] == (
        f"The checkpoint of trial {run} was gone or damaged: 1,234 tokens were trained once more."
    )


class Wavering:
    """Doubts something from its beginning, and something else while a certain trial has one point."""

    def __call__(self, history: History, remaining: Remaining) -> int | None:
        return random_search()(history, remaining)

    def diagnostics(self, history: History) -> tuple[str, ...]:
        wavers = len(history.trials[1].curve) == 1
        return ("The dataset is new.", *(("The prior is wrong.",) if wavers else ()))


def test_what_a_strategy_doubts_is_told_once_and_kept_for_whoever_goes_on(begin: Begin) -> None:
    told, diagnostics, saved = Told(), [], []
    search, _ = begin(
        2.0, Wavering(), progress=told, diagnostics=diagnostics, save=lambda: saved.append([*diagnostics])
    )
    search.spend()
    assert len(search.trials[1].curve) > 1
    assert told.lines == ["Note: The dataset is new.", "Note: The prior is wrong."]
    assert diagnostics == ["The dataset is new.", "The prior is wrong."]
    before = len(search.trials[0].curve)
    assert saved[: before + 1] == [diagnostics[:1]] * before + [diagnostics], (
        "with the point that brought it up"
    )
    again = Told()
    begin(2.0, Wavering(), progress=again, diagnostics=diagnostics)[0].spend()
    assert again.lines == []


def test_a_strategys_wrong_choice_is_an_error(begin: Begin) -> None:
    search, _ = begin(2.0, lambda history, remaining: 0)
    with pytest.raises(RuntimeError, match="trial 0, which cannot be advanced"):
        search.spend()
