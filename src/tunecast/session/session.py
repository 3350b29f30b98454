"""The tuning session: zero-shot, expert, search within the budget, the leader's end, comparison."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunecast import errors
from tunecast.errors import ModelError
from tunecast.progress import Progress
from tunecast.records import ZERO_SHOT, Outcome, Pipeline, Run, RunError, SessionRecord
from tunecast.search import ONLY_TRIALS, Strategy, first_name, get_strategy, leader
from tunecast.session.allowance import Allowance
from tunecast.session.budget import Budget, Used
from tunecast.session.candidates import long_enough
from tunecast.session.compare import FINALISTS, compare
from tunecast.session.executor import Crash, LocalExecutor
from tunecast.session.folder import OutputFolder, disk_error
from tunecast.session.opening import measure_full_length, score_base_model
from tunecast.session.pace import Pace
from tunecast.session.prepare import PreparedTask, Surroundings
from tunecast.session.requests import Advance, Broken, Request, UseValidation
from tunecast.session.settings import SessionSettings
from tunecast.session.shared import affordable_validation, explosion_nats
from tunecast.session.status import session_status
from tunecast.session.trials import Trial, Trials
from tunecast.store import Store
from tunecast.training.bench import TrialSpec
from tunecast.training.runner import Measurement

__all__ = ["Session"]

CRASHES_FORGIVEN = 1
EARLY_SHARE = 0.25
"""Up to this share of the full length a trial is a probe; beyond it is meant to be brought to its end."""
MOST_PASSED_OVER = 8
"""Candidates that a strategy may name in vain before the rest of the budget counts as too small for any."""


class Session:
    """One run of ``tunecast tune``.

    Args:
        settings: The resolved configuration.
        prepared: The task.
        folder: The locked output folder.
        store: Where runs are committed.
        executor: The workers.
        progress: Told how far everything is.
        state: What ``session.json`` holds, or is to hold once the session has begun.
        candidates: The pipelines that may be tried; the first is the expert pipeline.
        expert_fits: Whether memory holds the first; it is not trained otherwise, and there are others.
    """

    def __init__(
        self,
        settings: SessionSettings,
        prepared: PreparedTask,
        folder: OutputFolder,
        store: Store,
        executor: LocalExecutor,
        progress: Progress,
        state: Mapping[str, Any],
        candidates: Sequence[Pipeline],
        expert_fits: bool = True,
    ) -> None:
        self._settings = settings
        self._prepared = prepared
        self._folder = folder
        self._store = store
        self._executor = executor
        self._progress = progress
        self._budget = Budget.parse(settings.budget)
        self._strategy: Strategy = get_strategy(settings.strategy)
        self._state = dict(state)
        self._candidates = candidates
        self._expert_fits = expert_fits
        self._crashes: dict[tuple[int, int], int] = {}
        self._submitted: dict[int, float] = {}
        self._activity = ""

    def run(self) -> SessionRecord:
        """Run to the end, from wherever an earlier process left off.

        Raises:
            BudgetError: The budget does not suffice for a few steps.
            OutputError: The disk takes no more.
            ModelError: The base model cannot be loaded.
        """
        self._progress.start("Loading the base model")
        ready = self._executor.ready()
        self._surroundings = Surroundings(ready.machine, ready.versions)
        self._progress.finish(f"{ready.loading_seconds:.1f} s, outside the budget")
        self._allowance = Allowance(self._budget, self._seconds_before())
        self._fix_full_length()
        self._use_validation()
        zero_shot = self._measure_zero_shot()
        self._lay_out_trials(zero_shot)
        self._train(0, f"Training the {first_name(self._settings.strategy)} pipeline")
        self._search()
        while self._finish_leader():
            self._search()  # with what was reserved for the leader and is left
        self._save_state()
        return compare(
            self._settings,
            self._prepared,
            self._folder,
            self._store,
            self._trials,
            zero_shot,
            self.ask,
            self._progress,
            session=self._id,
            used_seconds=self._allowance.elapsed(),
            full_length_tokens=self._full_length,
            budget=self._budget,
        )

    def ask(self, request: Request) -> Any:
        """Let a worker answer; one crash is forgiven.

        Raises:
            OutputError: The disk takes no more.
            ModelError: The worker died again and again.
            RuntimeError: The worker cannot answer.
        """
        for _ in range(1 + CRASHES_FORGIVEN):
            answer = self._executor.call(request)
            if not isinstance(answer, Crash):
                break
        if isinstance(answer, Crash):
            raise ModelError(
                f"{answer.text.capitalize()}, {1 + CRASHES_FORGIVEN} times in a row.",
                "Free some memory and go on with --resume; what was measured so far is kept.",
            )
        if isinstance(answer, Broken):
            self._raise_broken(answer)
        return answer

    @property
    def _id(self) -> str:
        return str(self._state["id"])

    def _seconds_before(self) -> float:
        """Seconds of the budget that earlier processes of this session used, as far as they could tell."""
        committed = [
            point.elapsed_seconds for run in self._store.runs(session=self._id) for point in run.curve
        ]
        return max([float(self._state.get("used_seconds", 0.0)), *committed])

    def _save_state(self) -> None:
        self._state["used_seconds"] = self._allowance.elapsed()
        self._folder.write_session(self._state)

    def _fix_full_length(self) -> None:
        """Fix every trial's horizon before the first one, and keep it for a resumed session."""
        if "full_length_tokens" not in self._state:
            bench = self._prepared.bench
            pipeline = self._candidates[0 if self._expert_fits else 1]
            spec = TrialSpec("speed", pipeline, self._settings.seed, 1, self._unique_examples(), "")
            found = measure_full_length(
                self._settings, bench, spec, self._allowance, self.ask, self._progress
            )
            self._state["full_length_tokens"] = found.tokens
            self._state["seconds_per_token"] = found.seconds_per_token
            self._save_state()
        self._full_length = int(self._state["full_length_tokens"])
        self._pace = Pace(float(self._state["seconds_per_token"]))

    def _use_validation(self) -> None:
        """Choose the validation examples that the full length can afford, and tell every worker."""
        bench = self._prepared.bench
        subset, validation = affordable_validation(bench, self._full_length, self._settings.seed)
        self._prepared = replace(self._prepared, bench=replace(bench, subset=subset, validation=validation))
        self._executor.setup(UseValidation(subset, validation))

    def _measure_zero_shot(self) -> Run:
        """The run of the base model as it is."""
        base = self._laid_out([ZERO_SHOT], math.inf)
        if base[0].run is None:
            measured = score_base_model(base, self._prepared.bench, self.ask, self._progress)
            return base.record(0, measured, self._surroundings, self._allowance.elapsed())
        return base[0].run

    def _lay_out_trials(self, zero_shot: Run) -> None:
        start = zero_shot.curve[0].validation.loss
        limit = explosion_nats(start, self._prepared.bench.facts.vocabulary)
        self._trials = self._laid_out(self._worth_trying(), limit)
        self._trials[0].is_feasible = self._expert_fits
        for trial in self._trials:
            seen = 0
            for point in trial.curve:
                tokens, seen = point.tokens_seen - seen, point.tokens_seen
                method = trial.spec.pipeline.method
                self._pace.learn(method, tokens, point.training.wall, point.evaluation.wall)

    def _laid_out(self, pipelines: Sequence[Pipeline], limit: float) -> Trials:
        """Trials of these pipelines, with what an earlier process committed of them."""
        trials = Trials(
            self._id,
            self._prepared,
            pipelines,
            self._folder,
            self._store,
            seed=self._settings.seed,
            full_length_tokens=self._full_length,
            unique_examples=self._unique_examples(),
            workers=self._settings.workers,
            explosion_nats=limit,
        )
        trials.restore()
        return trials

    def _worth_trying(self) -> list[Pipeline]:
        """What the strategy is pinned to, and the sampled candidates that this full length suits."""
        pinned = ONLY_TRIALS.get(self._settings.strategy, 1)
        bench = self._prepared.bench
        return [
            *self._candidates[:pinned],
            *long_enough(
                self._candidates[pinned:],
                full_length_tokens=self._full_length,
                mean_tokens=bench.train_tokens / len(bench.train),
            ),
        ]

    def _unique_examples(self) -> int:
        available = len(self._prepared.bench.train)
        return min(self._settings.unique_examples or available, available)

    def _train(self, index: int, activity: str) -> None:
        """Bring one trial to its end, as far as the budget reaches."""
        self._activity = activity
        while self._is_open(index) and self._fits(index):
            self._advance_all({0: index})

    def _search(self) -> None:
        """Let the strategy spend what is not reserved for the leader's end."""
        self._activity = f"Searching ({self._settings.strategy})"
        slots: dict[int, int] = {}
        while True:
            for slot in self._executor.idle():
                index = self._chosen()
                if index is None:
                    break
                slots[slot] = index
                self._submit(slot, index)
            if not slots:
                return
            self._collect(slots)

    def _finish_leader(self) -> bool:
        """Bring the trial that would end best towards its end; False where there was nothing to do."""
        index = leader(self._trials.history(self._pace))
        if index is None:
            return False
        before = self._trials[index].step
        self._train(index, "Finishing the leading trial")
        return self._trials[index].step > before

    def _chosen(self) -> int | None:
        """What the strategy wants to advance; where that does not fit, what it wants instead."""
        passed_over: set[int] = set()
        while len(passed_over) < MOST_PASSED_OVER:
            history = self._trials.history(self._pace, passed_over)
            index = self._strategy(history, self._allowance.remaining(self._used()))
            if index is None or self._fits_search(index):
                return index
            passed_over.add(index)
        return None

    def _is_open(self, index: int) -> bool:
        trial = self._trials[index]
        return trial.outcome is Outcome.PAUSED and trial.next_step is not None

    def _fits(self, index: int, reserved: Trial | None = None) -> bool:
        """Whether the budget affords a trial's next step, and the end of a reserved one after it."""
        return self._allowance.fits(self._trials[index], reserved, self._used(), self._pace)

    def _fits_search(self, index: int) -> bool:
        """Whether the budget affords a step and still lets the leader, or a trial that is far on, end."""
        trial, used = self._trials[index], self._used()
        following = trial.next_step
        far_on = following is not None and trial.plan.share_at(following) > EARLY_SHARE
        if far_on and not self._allowance.affords_end(trial, used, self._pace):
            return False
        ahead = leader(self._trials.history(self._pace))
        reserved = self._trials[ahead] if ahead not in (None, index) and self._is_open(ahead) else None
        # A leader that cannot end any more is no reason to leave the rest of the budget unused.
        if reserved is not None and not self._allowance.affords_end(reserved, used, self._pace):
            reserved = None
        return self._fits(index, reserved)

    def _used(self) -> Used:
        return self._trials.used(self._allowance.elapsed())

    def _advance_all(self, slots: dict[int, int]) -> None:
        """Advance trials by one step each and wait for all of them."""
        for slot, index in slots.items():
            self._submit(slot, index)
        while slots:
            self._collect(slots)

    def _submit(self, slot: int, index: int) -> None:
        trial = self._trials[index]
        following = trial.next_step
        assert following is not None
        trial.running = True
        self._submitted[slot] = time.monotonic()
        self._show()
        self._executor.submit(slot, Advance(trial.spec, trial.step, following))

    def _collect(self, slots: dict[int, int]) -> None:
        """Commit what has come back; a crashed step is tried once more."""
        for slot, answer in self._executor.wait(timeout=1.0):
            index = slots.pop(slot)
            if isinstance(answer, Broken):
                self._raise_broken(answer)
            elif isinstance(answer, Crash):
                self._handle_crash(index, answer)
            else:
                self._commit(slot, index, answer)
        self._show()

    def _commit(self, slot: int, index: int, measured: Measurement) -> None:
        trial = self._trials[index]
        before = trial.curve[-1].tokens_seen if trial.curve else 0
        self._trials.record(index, measured, self._surroundings, self._allowance.elapsed())
        if measured.point is not None:
            training = measured.point.training.wall
            other = time.monotonic() - self._submitted[slot] - training
            if measured.validation is not None:  # all validation examples are scored once per trial
                other -= measured.point.evaluation.wall
            method = trial.spec.pipeline.method
            self._pace.learn(method, measured.point.tokens_seen - before, training, other)
        self._save_state()
        ahead = leader(self._trials.history(self._pace))
        points = [(point.validation.loss, i) for i, t in enumerate(self._trials) if (point := t.best_point)]
        spare = {0, *(i for _, i in sorted(points)[:FINALISTS]), *(() if ahead is None else (ahead,))}
        for run in self._trials.limit_disk(self._settings.keep_gb * 1e9, spare):
            limit = f"--keep-gb {self._settings.keep_gb:g}"
            self._progress.log(f"Dropped the checkpoint of trial {run}: {limit}.")

    def _handle_crash(self, index: int, crash: Crash) -> None:
        trial = self._trials[index]
        trial.running = False
        key = (index, trial.step)
        self._crashes[key] = self._crashes.get(key, 0) + 1
        self._progress.log(f"{crash.text}; a new one is started.")
        if self._crashes[key] <= CRASHES_FORGIVEN:
            return
        # The kernel ends the largest process when memory runs out; nobody else kills twice at the same step.
        outcome = Outcome.OUT_OF_MEMORY if crash.exit_code == -9 else Outcome.FAILED
        error = RunError("WorkerCrash", crash.text)
        self._trials.fail(index, outcome, error, self._surroundings, self._allowance.elapsed())

    def _raise_broken(self, broken: Broken) -> None:
        if broken.system:
            raise disk_error(self._folder.path, broken.text)
        if broken.memory:
            raise ModelError(
                f"Memory ran out outside of any trial: {broken.text}",
                "Give a smaller --max-length, a smaller model or another --device.",
            )
        kind = getattr(errors, broken.kind, None)
        if kind is not None:
            raise kind(broken.text, broken.hint)
        raise RuntimeError(f"{broken.kind}: {broken.text}")

    def _show(self) -> None:
        status = session_status(self._trials.started, self._budget, self._used(), self._activity)
        self._progress.show(status)
