"""The algorithms of other libraries; skipped where these are not installed."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from replay.made_up import pipelines, task_runs
from tunecast.errors import ConfigurationError
from tunecast.methods.space import BASELINE
from tunecast.records import Outcome, Pipeline
from tunecast.replay.cases import Case, cases_of
from tunecast.replay.comparing import compare_strategies
from tunecast.replay.folds import Fold, context_of
from tunecast.replay.machine import Replayed, replay
from tunecast.search import Context, History, Remaining, TrialView, random_search
from tunecast_benchmarks.rivals import (
    LIBRARIES,
    QUICKTUNE,
    MetaTraining,
    Rival,
    Watch,
    check_rival,
    contestants,
    usual_rivals,
)
from tunecast_benchmarks.rivals.base import Proposal
from tunecast_benchmarks.rivals.quicktune import INTERPRETER, QuickTune, QuickTuneProcess, meta_trained
from tunecast_benchmarks.rivals.space import CandidateSpace
from tunecast_benchmarks.verdict import Verdict
from tunecast_benchmarks.wording import rival_rows

PACKAGES = {"optuna-tpe": "optuna", "dehb-package": "dehb"}
rivals = pytest.mark.parametrize("name", LIBRARIES)
BUDGET = 30.0
INFORMED_BUDGET = 2.0
"""For what knows other tasks and has to show it early: four trials by chance suffice in this valley."""


def rival(name: str, choices: Sequence[Pipeline], seed: int = 0) -> Rival:
    pytest.importorskip(PACKAGES[name.removesuffix("-index")])
    return LIBRARIES[name].build(choices, seed)


@pytest.fixture(scope="module")
def valley() -> Case:
    """Two hundred pipelines of one method over three decades of learning rates, the best in the middle."""
    rates = np.geomspace(3e-4, 7e-2, 200)
    choices = [
        Pipeline("lora", {"learning_rate": float(f"{r:.6g}"), "per_device_train_batch_size": 4, "lora_r": 8})
        for r in rates
    ]
    return cases_of(task_runs("valley", choices=choices, noise=0.0))[0][0]


@rivals
def test_beats_random_on_a_table_whose_best_is_in_the_middle(name: str, valley: Case) -> None:
    theirs, ours = [], []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(valley.candidates))
        shuffled = [valley.candidates[index] for index in order]
        strategy = rival(name, [candidate.pipeline for candidate in shuffled[1:]], seed)
        seconds = BUDGET * valley.baseline_seconds
        theirs.append(replay(valley, shuffled, strategy, seconds).regret)
        ours.append(replay(valley, shuffled, random_search(), seconds).regret)
        assert strategy.asked >= 5
    assert np.mean(theirs) < np.mean(ours)


@rivals
def test_only_open_trials_are_chosen_and_all_kinds_of_ends_are_told(name: str) -> None:
    case = cases_of(task_runs("a"))[0][0]
    assert any(candidate.run.outcome is Outcome.DIVERGED for candidate in case.candidates)
    strategy = rival(name, [candidate.pipeline for candidate in case.candidates[1:]])
    done = replay(case, case.candidates, strategy, 1e4)
    assert done.regret < 0.05
    assert strategy.version.split()[0] == PACKAGES[name.removesuffix("-index")]


@pytest.mark.parametrize("name", [name for name in LIBRARIES if name.startswith("optuna")])
def test_when_all_were_tried_what_it_gave_up_goes_on_with_the_rest_of_the_budget(
    name: str, valley: Case
) -> None:
    few = valley.candidates[60:72]
    whole = sum(candidate.seconds for candidate in few)
    strategy = rival(name, [candidate.pipeline for candidate in few[1:]])
    assert replay(valley, few, strategy, 2 * whole).used_seconds == pytest.approx(whole)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_method_of_which_all_were_tried_is_no_failure_to_dehb(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {"lora": np.geomspace(2e-3, 5e-2, 12), "ia3": (0.02, 0.04)}
    choices = [
        Pipeline(method, {"learning_rate": float(f"{rate:.4g}"), "per_device_train_batch_size": 4})
        for method, own in rates.items()
        for rate in own
    ]
    case = cases_of(task_runs("a", choices=choices))[0][0]
    assert all(candidate.run.outcome is Outcome.COMPLETED for candidate in case.candidates)
    strategy = rival("dehb-package", [candidate.pipeline for candidate in case.candidates[1:]])
    told: list[float] = []
    tell = strategy._dehb.tell  # type: ignore[attr-defined]

    def watched(job: object, result: dict[str, float]) -> None:
        told.append(result["fitness"])
        tell(job, result)

    monkeypatch.setattr(strategy._dehb, "tell", watched)  # type: ignore[attr-defined]
    replay(case, case.candidates, strategy, 1e4, workers=workers)
    assert set(told) <= {point.validation.loss for c in case.candidates for point in c.run.curve}


@rivals
def test_the_same_seed_repeats_itself_and_workers_are_no_hindrance(name: str) -> None:
    case = cases_of(task_runs("a"))[0][0]
    choices = [candidate.pipeline for candidate in case.candidates[1:]]
    for workers in (1, 3):
        one, other = (
            replay(case, case.candidates, rival(name, choices), 60.0, workers=workers) for _ in range(2)
        )
        assert one.improvements == other.improvements


@pytest.fixture(scope="module")
def informed(valley: Case) -> tuple[QuickTuneProcess, Context]:
    """Quick-Tune-Tool with what three other tasks with a valley taught it."""
    if INTERPRETER not in os.environ:
        pytest.skip(f"{INTERPRETER} names no environment")
    choices = [candidate.pipeline for candidate in valley.candidates][::8]
    known = [
        run
        for number, shift in enumerate((-0.3, 0.0, 0.3))
        for run in task_runs(f"known{number}", choices=choices, shift=shift)
    ]
    context = context_of(valley, known, Fold.TASK, {})
    return meta_trained(context), context


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", QUICKTUNE)
def test_quick_tune_tool_learns_from_other_tasks_and_beats_random(
    name: str, valley: Case, informed: tuple[QuickTuneProcess, Context]
) -> None:
    theirs, ours = [], []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(valley.candidates))
        shuffled = [valley.candidates[index] for index in order]
        choices = [candidate.pipeline for candidate in shuffled[1:]]
        strategy = QuickTune(*informed, choices, seed, cost_aware=QUICKTUNE[name])
        seconds = INFORMED_BUDGET * valley.baseline_seconds
        theirs.append(replay(valley, shuffled, strategy, seconds, workers=1 + seed % 2).regret)
        ours.append(replay(valley, shuffled, random_search(), seconds).regret)
        print(name, seed, theirs[-1], ours[-1], strategy.asked)
        assert strategy.asked >= 5
        assert strategy.version.startswith("quicktunetool ")
    assert np.mean(theirs) < np.mean(ours)


@pytest.mark.timeout(1800)
@pytest.mark.skipif(INTERPRETER not in os.environ, reason=f"{INTERPRETER} names no environment")
def test_quick_tune_tool_takes_failures_and_goes_on_until_no_candidate_is_open() -> None:
    early, *others = sorted(task_runs("a"), key=lambda run: run.outcome is not Outcome.DIVERGED)
    case = cases_of([replace(early, curve=()), *others])[0][0]
    assert any(not candidate.run.curve for candidate in case.candidates)
    context = context_of(case, task_runs("b"), Fold.TASK, {})
    strategy = contestants(["quicktunetool"])["quicktunetool"](context)(
        [c.pipeline for c in case.candidates[1:]], 0
    )
    done = replay(case, case.candidates, strategy, 1e5)
    assert done.regret == 0
    assert done.steps == sum(len(candidate.legs) for candidate in case.candidates)


@pytest.mark.timeout(1800)
@pytest.mark.skipif(INTERPRETER not in os.environ, reason=f"{INTERPRETER} names no environment")
def test_quick_tune_tool_is_meta_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNECAST_CACHE", str(tmp_path))
    case = cases_of(task_runs("a"))[0][0]
    context = context_of(case, task_runs("b"), Fold.TASK, {})
    choices = [candidate.pipeline for candidate in case.candidates[1:]]

    def replayed() -> Replayed:
        strategy = QuickTune(meta_trained(context), context, choices, 0, cost_aware=True)
        return replace(replay(case, case.candidates, strategy, 1e3), thinking_seconds=0.0)

    first = replayed()
    (kept,) = (tmp_path / "quicktune").iterdir()
    written = kept.stat().st_mtime_ns
    assert replayed() == first
    assert kept.stat().st_mtime_ns == written
    kept.write_bytes(kept.read_bytes()[:100])
    replayed()
    assert kept.stat().st_size > 100, "what was cut off is made again"


def test_a_missing_environment_says_how_to_make_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(INTERPRETER, raising=False)
    assert not set(usual_rivals()) & set(QUICKTUNE)
    with pytest.raises(ConfigurationError, match=r"(?s)is not set.*install\.sh"):
        check_rival("quicktunetool")
    monkeypatch.setenv(INTERPRETER, str(tmp_path / "python"))
    with pytest.raises(ConfigurationError, match="there is no"):
        check_rival("quicktunetool")
    monkeypatch.setenv(INTERPRETER, sys.executable)  # which has no such package
    with pytest.raises(ConfigurationError, match=r"(?s)ModuleNotFoundError.*install\.sh"):
        check_rival("quicktunetool")


def test_cases_that_may_know_the_same_runs_share_what_was_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[Context] = []
    monkeypatch.setattr("tunecast_benchmarks.rivals.quicktune.meta_trained", trained.append)
    case = cases_of(task_runs("a"))[0][0]
    training = MetaTraining()
    for known in (task_runs("b"), task_runs("b"), [*task_runs("b"), *task_runs("c")]):
        training(context_of(case, known, Fold.TASK, {}))
    assert [len({run.task.dataset for run in context.runs}) for context in trained] == [1, 2]


def test_quick_tune_tool_cannot_do_without_other_tasks() -> None:
    case = cases_of(task_runs("a"))[0][0]
    with pytest.raises(ConfigurationError, match="0 are too few"):
        meta_trained(context_of(case, [], Fold.TASK, {}))


def test_what_they_proposed_and_got_is_counted() -> None:
    pytest.importorskip("optuna")
    runs = [*task_runs("a"), *task_runs("b")]
    cases, _ = cases_of(runs)
    names = ("random", "optuna-tpe", "optuna-tpe-index")
    watch = Watch()
    found = compare_strategies(
        cases, runs, names, seeds=1, budgets=(4.0,), thinking_seconds=0.0, own=contestants(names[1:]),
        watch=watch,
    )  # fmt: skip
    verdict = Verdict(found, watch.asked)
    free, index = rival_rows(verdict)
    assert free[1].startswith("optuna ")
    assert int(free[2]) > 0
    assert 0 < float(free[3]) < 1
    assert index[3] == "by index"
    figures = verdict.as_json()["strategies"]
    assert figures["optuna-tpe"]["library_asks"] == int(free[2])
    assert "version" not in figures["random"]


def test_libraries_that_are_strategies_of_sessions_are_counted_too() -> None:
    for package in ("optuna", "dehb"):
        pytest.importorskip(package)
    runs = [*task_runs("a"), *task_runs("b")]
    cases, _ = cases_of(runs)
    names = ("random", "tpe", "dehb")
    found = compare_strategies(cases[:1], runs, names, seeds=1, budgets=(2.0,), thinking_seconds=0.0)
    dehb, tpe = sorted(rival_rows(Verdict(found)))
    assert [row[0] for row in (dehb, tpe)] == ["dehb", "tpe"]
    assert tpe[1] == f"optuna {version('optuna')}"
    assert dehb[1] == f"dehb {version('dehb')}"
    for name, _, asked, distance in (tpe, dehb):
        assert int(asked) == found.usage[name].asks > 0
        assert distance == "not counted"


class Scripted(Rival):
    """Proposes what a script says."""

    def __init__(self, choices: Sequence[Pipeline], script: Sequence[tuple[int, float]]) -> None:
        super().__init__(choices, by_index=False)
        self.script = list(script)
        self.dropped: list[object] = []

    def _ask(self) -> Proposal | None:
        if not self.script:
            return None
        index, share = self.script.pop(0)
        return Proposal((index, share), self._pipelines[index], share=share)

    def _tell(self, token: object, loss: float | None, share: float) -> None:
        pass

    def _drop(self, token: object, loss: float | None) -> None:
        self.dropped.append(token)


def test_a_candidate_that_was_busy_when_it_was_wanted_is_had_later(valley: Case) -> None:
    some = valley.candidates[60:63]
    script = [(0, 0.25), (0, 1.0), (1, 0.25), (0, 1.0)]
    strategy = Scripted([candidate.pipeline for candidate in some], script)
    wanted = [TrialView(candidate.pipeline, next_share=0.25) for candidate in some]
    first = strategy(seen(wanted), Remaining(1.0))
    running = [replace(wanted[0], running=True), *wanted[1:]]
    second = strategy(seen(running), Remaining(1.0))
    assert (first, second) == (1, 2)
    assert strategy.dropped == [(0, 1.0)]
    curve = tuple(leg.point for leg in some[0].legs if leg.point and leg.share <= 0.25)
    assert curve
    measured = [replace(wanted[0], curve=curve, next_share=0.5), replace(wanted[1], running=True), wanted[2]]
    assert strategy(seen(measured), Remaining(1.0)) == 1
    assert strategy.distances == [0.0, 0.0, 0.0]


def seen(trials: Sequence[TrialView]) -> History:
    """A history whose first place is none of the candidates."""
    return History((TrialView(BASELINE), *trials))


def test_what_quick_tune_tools_process_leaves_behind_goes_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    says = "import json, tempfile; print(json.dumps({'version': tempfile.mkdtemp()}), flush=True); input()"
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} -I -c "{says}"\n')
    interpreter.chmod(0o755)
    monkeypatch.setenv(INTERPRETER, str(interpreter))
    process = QuickTuneProcess()
    left = Path(process.version)
    assert left.is_dir()
    del process
    gc.collect()
    assert not left.exists()


def test_a_missing_library_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunecast.plugins.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"--strategies: optuna-tpe needs the package optuna"):
        contestants(["optuna-tpe"])


def test_the_space_is_what_the_candidates_span() -> None:
    space = CandidateSpace(pipelines(48))
    assert space.methods == ("full", "ia3", "lora")
    axes = {axis.name: axis for axis in space.axes["full"]}
    assert set(axes) == {"learning_rate", "per_device_train_batch_size"}
    assert axes["learning_rate"].log
    assert axes["per_device_train_batch_size"].choices == (4, 8, 16)
    assert axes["learning_rate"].at(0.5) == pytest.approx(
        (axes["learning_rate"].low * axes["learning_rate"].high) ** 0.5
    )
    lowest = space.from_vector([0.0] * space.dimensions)
    assert lowest.method == "full"
    assert lowest["optim"] == "adamw"
    assert lowest["learning_rate"] == axes["learning_rate"].low
    lora = {axis.name: axis for axis in space.axes["lora"]}
    assert None in lora["weight_decay"].choices  # which only the baseline has
    assert space.pipeline("lora", {"lora_r": 8, "lora_alpha": None}).hyperparameters.keys() >= {"lora_r"}
