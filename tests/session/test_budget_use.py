"""The part of a budget in seconds that is used, on machines of many speeds, by a clock made by hand."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sample_runs import sample_point
from scripted_executor import ScriptedExecutor
from tunecast.budget import Budget
from tunecast.executors.base import Handle
from tunecast.executors.requests import Advance
from tunecast.methods.rates import STEADY
from tunecast.methods.space import BASELINE
from tunecast.predictor import load_prior
from tunecast.progress import Silent
from tunecast.records import Outcome, Pipeline
from tunecast.search import DEFAULT, Context, get_strategy
from tunecast.session import beside_search, budget_tracker, search_loop
from tunecast.session.beside_search import BesideSearch
from tunecast.session.budget_tracker import GRACE, BudgetTracker
from tunecast.session.final_training import FinalTrainer
from tunecast.session.finalists import best_checkpoints, is_scored, leading_checkpoints
from tunecast.session.folder import OutputFolder
from tunecast.session.judge import Judge
from tunecast.session.placement import Placement
from tunecast.session.prepare import PreparedTask
from tunecast.session.requester import Requester
from tunecast.session.run_factory import Validation, session_validation
from tunecast.session.runtime_model import RuntimeModel, RuntimeModels
from tunecast.session.search_loop import Search
from tunecast.session.settings import SessionSettings
from tunecast.session.trial import Trial
from tunecast.session.trials import Trials
from tunecast.store import Store
from tunecast.training.measurement import Measurement

SECONDS = 300.0
TOKENS = 59
"""Of an example, as in ``stdlib``: runtime_models are given for such examples."""
FULL_EFFORT = 1.4
"""Seconds per token of full finetuning relative to the baseline's; no runtime model knows it beforehand."""
NOISE = 0.08
PIPELINES = [
    BASELINE,
    *(
        Pipeline(
            method,
            {**BASELINE.hyperparameters, "per_device_train_batch_size": size, "learning_rate": 1e-3 / place},
        )
        for place, (method, size) in enumerate([("full", 4), ("lora", 8), ("lora", 16)] * 4, 1)
    ),
]


class Machine(ScriptedExecutor):
    """Trains and scores at a given pace, give or take some noise, and is the clock of a session.

    Args:
        pace: Training tokens per second.
        scoring: Seconds to score all validation examples.
        subset_share: The part of them that is scored at a point before the end.
    """

    def __init__(self, pace: float, scoring: float, subset_share: float, seed: int = 0) -> None:
        super().__init__()
        self.pace, self.scoring, self.subset_share = pace, scoring, subset_share
        self.now = 0.0
        self.trials: list[Trial] = []
        self.draw = random.Random(seed)
        self.ends = [self.draw.uniform(2.0, 4.0) for _ in (*PIPELINES, "final")]

    def monotonic(self) -> float:
        """Stands for the clock."""
        return self.now

    def wait(self, timeout: float | None = None) -> list[tuple[Handle, Any]]:
        answered = [(handle, self.step(request)) for handle, request in self.busy.items()]
        self.busy.clear()
        return answered

    def step(self, request: Advance) -> Measurement:
        """Take a step, and leave files as a checkpoint does."""
        step, run = request.to_step, request.spec.run
        place = next(place for place, trial in enumerate(self.trials) if trial.spec.run == run)
        plan = self.trials[place].plan
        at_end = step == plan.total_steps
        tokens = plan.tokens_at(step) - plan.tokens_at(request.from_step)
        noise = self.draw.lognormvariate(0.0, NOISE)
        effort = FULL_EFFORT if request.spec.pipeline.method == "full" else 1.0
        training = noise * effort * tokens / self.pace
        scoring = noise * self.scoring * (1.0 if at_end else self.subset_share)
        self.now += training + scoring + 0.5
        folder = Path(request.spec.folder)
        folder.mkdir(parents=True, exist_ok=True)
        for kind in ("weights", "state"):
            (folder / f"{kind}-{step}.safetensors").touch()
        share = plan.share_at(step)
        point = sample_point(
            step,
            self.ends[min(place, len(PIPELINES))] + 1.0 - share,
            share=share,
            tokens_seen=plan.tokens_at(step),
        )
        point = replace(point, training=replace(point.training, wall=training))
        return Measurement(
            run,
            point,
            Outcome.COMPLETED if at_end else Outcome.PAUSED,
            measured=np.zeros(1) if at_end else None,
            validation_seconds=(1 - self.subset_share) * scoring if at_end else 0.0,
        )


def known_of(prepared: PreparedTask, full_length: int) -> Context:
    """What the default strategy knows of a task before the first trial."""
    return Context(
        dataset=prepared.dataset,
        model=prepared.training_task.facts,
        full_length_tokens=full_length,
        unique_examples=10**6,
        zero_shot_loss=5.0,
        bytes_per_label_token=prepared.training_task.bytes_per_label_token,
        prior=load_prior(),
    )


class Spent:
    """A search of five minutes that is over: the trials, the seconds until then, and those of comparing."""

    def __init__(
        self, machine: Machine, settings: SessionSettings, prepared: PreparedTask, validation: Validation,
        full_length: int, folder: OutputFolder, store: Store, kept: float = 0.0,
        pipelines: list[Pipeline] = PIPELINES,
    ) -> None:  # fmt: skip
        self.trials = Trials(
            "session",
            prepared,
            pipelines,
            folder,
            store,
            seed=0,
            full_length_tokens=full_length,
            unique_examples=10**6,
            workers=1,
            divergence_nats=99.0,
            halvings=validation.halvings,
        )
        machine.trials += self.trials
        self.tracker = tracker = BudgetTracker(Budget("seconds", SECONDS, "5m"), 5.0 + machine.scoring)
        tracker.reserve("final training", kept)
        share = machine.subset_share
        runtime_model = RuntimeModel(1 / machine.pace, share * machine.scoring, (1 - share) * machine.scoring)
        self.search = Search(
            trials=self.trials,
            policy=get_strategy(DEFAULT).policy(known_of(prepared, full_length)),
            executor=machine,
            budget_tracker=tracker,
            runtime_models=RuntimeModels(runtime_model, machine.slots[0].machine, "float32"),
            placement=Placement(settings, prepared.training_task, machine, limit=1),
            folder=folder,
            settings=settings,
            progress=Silent(),
            save=lambda: None,
            diagnostics=[],
            seconds_to_compare=machine.scoring,
        )
        self.place = folder, store
        self.search.spend()
        baseline = best_checkpoints(self.trials[0])
        finalists = [*leading_checkpoints(self.trials, Judge("loss")), *baseline]
        unscored = {finalist.key for finalist in finalists if not is_scored(finalist)}
        self.seconds = tracker.elapsed()
        self.comparing = len(unscored) * machine.scoring


def train_winner(spent: Spent, machine: Machine, settings: SessionSettings, prepared: PreparedTask) -> Trial:
    """Train the search's leader for longer, as a session does."""
    search, tracker, (folder, store) = spent.search, spent.tracker, spent.place
    assert search.leader is not None
    settings = replace(settings, final_training="budget", epochs=1000.0)
    trainer = FinalTrainer("session", settings, prepared, folder, store, search.runtime_model)
    tracker.reserve_for_comparing(machine.scoring)
    plan = trainer.plan(search.leader, tracker.left(search.used(), "final training"), "seconds")
    tracker.reserve("final training", 0.0)
    trials = trainer.begun(plan, spent.trials)
    machine.trials += trials

    def moved(trials: Trials) -> Trials:
        left = tracker.left(search.used(), "final training")
        if (other := trainer.replanned(plan, trials[0], left)) == plan:
            return trials
        machine.trials += (begun := trainer.begun(other, trials))
        return begun

    requester = Requester(machine, folder.path)
    beside = BesideSearch("session", prepared, store, requester, tracker, search, lambda: None, Silent())
    return beside.train_to_end(trials, 0.0, outside_budget=False, replan=moved)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[OutputFolder, Store]]:
    folder = OutputFolder(tmp_path / "out")
    with Store.open(":memory:") as store:
        yield folder, store
    folder.close()


@pytest.mark.parametrize("scoring", [0.2, 0.4], ids=lambda cost: f"scoring{cost}")
@pytest.mark.parametrize("pace", [60, 85, 122, 170, 240, 400])
def test_five_minutes_are_used_on_slow_and_fast_machines(
    pace: float,
    scoring: float,
    settings: SessionSettings,
    prepared: PreparedTask,
    place: tuple[OutputFolder, Store],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``scoring`` is the time to score a token relative to training on it."""
    task = prepared.training_task
    mean = task.train_tokens / len(task.train)
    pace *= mean / TOKENS
    full_length = int(0.25 * (SECONDS - 5.0) * pace)
    validation = session_validation(replace(task, validation=task.validation * 8), full_length, 0)
    examples = len(validation.whole)
    machine = Machine(pace, scoring * examples * mean / pace, len(validation.subset) / examples)
    for module in (budget_tracker, search_loop):
        monkeypatch.setattr(module, "time", machine)
    spent = Spent(machine, settings, prepared, validation, full_length, *place)
    used = spent.seconds + spent.comparing
    assert used <= (1 + GRACE) * SECONDS
    if used < 0.95 * SECONDS:  # only if another probe and its comparison would take more than what is left
        probe = FULL_EFFORT * 16 * mean / pace + machine.subset_share * machine.scoring
        assert used + (1 - 2 * NOISE) * (probe + machine.scoring) > SECONDS


def searched_half(
    settings: SessionSettings,
    prepared: PreparedTask,
    place: tuple[OutputFolder, Store],
    monkeypatch: pytest.MonkeyPatch,
    pipelines: list[Pipeline] = PIPELINES,
    seed: int = 0,
) -> tuple[Machine, Spent]:
    """A machine on which a search has spent its half of five minutes."""
    task = prepared.training_task
    pace = 122 * task.train_tokens / len(task.train) / TOKENS
    full_length = int(0.125 * (SECONDS - 5.0) * pace)
    validation = session_validation(replace(task, validation=task.validation * 8), full_length, 0)
    machine = Machine(pace, 4.0, len(validation.subset) / len(validation.whole), seed)
    for module in (budget_tracker, search_loop, beside_search):
        monkeypatch.setattr(module, "time", machine)
    spent = Spent(machine, settings, prepared, validation, full_length, *place, SECONDS / 2, pipelines)
    return machine, spent


@pytest.mark.parametrize("slower", [0.7, 1.0, 1.4])
def test_a_final_training_uses_its_half_though_it_is_faster_or_slower_than_the_trials(
    slower: float,
    settings: SessionSettings,
    prepared: PreparedTask,
    place: tuple[OutputFolder, Store],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, spent = searched_half(settings, prepared, place, monkeypatch)
    assert SECONDS / 3 < spent.seconds < 0.55 * SECONDS
    machine.pace /= slower
    trial = train_winner(spent, machine, settings, prepared)
    if slower < 1.0:
        assert trial.outcome is Outcome.COMPLETED
    else:
        least = 0.95 if slower == 1.0 else 0.5
        assert trial.curve[-1].share > least, "it goes on beyond the last point that fits"
    used = spent.tracker.elapsed() + machine.scoring
    assert used <= (1 + GRACE) * SECONDS
    assert used > 0.95 * SECONDS or slower < 1.0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("slower", [0.7, 1.0, 1.4])
def test_the_rate_of_a_final_training_has_fallen_when_the_seconds_are_over(
    slower: float,
    seed: int,
    settings: SessionSettings,
    prepared: PreparedTask,
    place: tuple[OutputFolder, Store],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steady = [
        replace(one, hyperparameters={**one.hyperparameters, "lr_scheduler_type": STEADY})
        for one in PIPELINES
    ]
    machine, spent = searched_half(settings, prepared, place, monkeypatch, steady, seed)
    machine.pace /= slower
    trial = train_winner(spent, machine, settings, prepared)
    used = spent.tracker.elapsed() + machine.scoring
    assert trial.curve[-1].share > 0.93, "at most one of some twenty steps is left"
    assert 0.93 * SECONDS < used <= (1 + GRACE) * SECONDS
