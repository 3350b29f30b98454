"""The tuning session: zero-shot, expert, search within the budget, the leader's end, comparison."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunecast.errors import BudgetError, ModelError
from tunecast.progress import Progress, SessionStatus, TrialStatus
from tunecast.records import ZERO_SHOT, Outcome, Pipeline, Run, RunError, Score, SessionRecord
from tunecast.search import ONLY_TRIALS, Remaining, Strategy, get_strategy, leader
from tunecast.session.budget import Budget
from tunecast.session.candidates import long_enough
from tunecast.session.compare import compare
from tunecast.session.executor import Crash, LocalExecutor
from tunecast.session.folder import OutputFolder, disk_error
from tunecast.session.pace import Pace
from tunecast.session.prepare import PreparedTask, Surroundings
from tunecast.session.requests import Advance, Broken, Calibrate, Request, ScoreModel, UseValidation
from tunecast.session.settings import SessionSettings
from tunecast.session.shared import affordable_validation, explosion_nats, zero_point
from tunecast.session.trials import Trials
from tunecast.store import Store
from tunecast.training.bench import TrialSpec
from tunecast.training.runner import Measurement

__all__ = ["Session"]

SHARE_OF_BUDGET = 0.25
"""A full length is at most this part of what the budget affords."""
SHARE_WITHOUT_SEARCH = 0.75
"""The part that all trials have together where nothing is searched; the rest is for evaluation."""
LEAST_STEPS = 4
SMALLEST_BATCH = 4
CALIBRATION_SECONDS = 3.0
CALIBRATION_SHARE = 0.05
"""Measuring the speed takes at most this part of a budget in seconds."""
ALLOWANCE = 1.5
"""A budget that is named as sufficient leaves this much for a machine that is busier next time."""
CRASHES_FORGIVEN = 1
DISK_ERRORS = ("OSError", "SafetensorError")


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
        self._used_before = self._seconds_before()
        self._clock_start = time.monotonic()
        self._fix_full_length()
        self._use_validation()
        zero_shot = self._measure_zero_shot()
        self._lay_out_trials(zero_shot)
        self._train(0, "Training the expert pipeline")
        self._search()
        self._finish_leader()
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
            used_seconds=self._elapsed(),
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

    def _elapsed(self) -> float:
        return self._used_before + time.monotonic() - self._clock_start

    def _save_state(self) -> None:
        self._state["used_seconds"] = self._elapsed()
        self._folder.write_session(self._state)

    def _fix_full_length(self) -> None:
        """Fix every trial's horizon before the first one, and keep it for a resumed session."""
        if "full_length_tokens" not in self._state:
            self._state["full_length_tokens"], self._state["seconds_per_token"] = self._measured_length()
            self._save_state()
        self._full_length = int(self._state["full_length_tokens"])
        self._pace = Pace(float(self._state["seconds_per_token"]))

    def _measured_length(self) -> tuple[int, float]:
        """Full length in tokens, and the measured seconds per token."""
        spec = self._spec(self._candidates[0], 1)
        lengths = [example.tokens for example in self._prepared.bench.training_examples(spec)]
        wanted = max(1, int(self._settings.epochs * sum(lengths)))
        self._progress.start("Measuring the training speed")
        seconds = min(CALIBRATION_SECONDS, CALIBRATION_SHARE * (self._budget.seconds or 0.0))
        speed = float(self.ask(Calibrate(self._calibration(spec, wanted), seconds)))
        self._progress.finish(f"{speed:,.0f} tokens/s")
        left = self._budget.amount - self._elapsed()
        affordable = {"seconds": left * speed, "tokens": self._budget.amount, "trials": math.inf}
        share = self._share_of_budget()
        full_length = int(min(wanted, share * affordable[self._budget.kind]))
        mean = sum(lengths) / len(lengths)
        least = min(LEAST_STEPS * SMALLEST_BATCH * mean, wanted)
        if full_length < least:
            raise BudgetError(
                f"--budget {self._budget.text} does not suffice for {LEAST_STEPS} optimiser steps "
                f"(measured: {speed:,.0f} tokens/s, {mean:.0f} tokens per example).",
                f"Give at least --budget {self._enough(least / share, speed)}, or a smaller model.",
            )
        return full_length, 1 / speed

    def _share_of_budget(self) -> float:
        """The part of the budget that one trial's full length may take."""
        alone = ONLY_TRIALS.get(self._settings.strategy)
        return SHARE_WITHOUT_SEARCH / alone if alone else SHARE_OF_BUDGET

    def _calibration(self, spec: TrialSpec, full_length_tokens: int) -> TrialSpec:
        """The expert pipeline in small batches: its speed at a fraction of a step's seconds."""
        values = {**spec.pipeline.hyperparameters, "per_device_train_batch_size": SMALLEST_BATCH}
        return replace(
            spec, pipeline=Pipeline(spec.pipeline.method, values), full_length_tokens=full_length_tokens
        )

    def _enough(self, tokens: float, speed: float) -> str:
        """A budget that suffices for so many tokens."""
        if self._budget.kind == "tokens":
            return f"{math.ceil(tokens)}-tokens"
        return f"{math.ceil(ALLOWANCE * (self._elapsed() + tokens / speed))}s"

    def _use_validation(self) -> None:
        """Choose the validation examples that the full length can afford, and tell every worker."""
        bench = self._prepared.bench
        subset, validation = affordable_validation(bench, self._full_length, self._settings.seed)
        self._prepared = replace(self._prepared, bench=replace(bench, subset=subset, validation=validation))
        self._executor.setup(UseValidation(subset, validation))

    def _measure_zero_shot(self) -> Run:
        """The run of the base model as it is."""
        bench = self._prepared.bench
        spec = self._spec(ZERO_SHOT, self._full_length)
        trials = Trials(
            self._id,
            self._prepared,
            [ZERO_SHOT],
            self._folder,
            self._store,
            seed=spec.seed,
            full_length_tokens=self._full_length,
            unique_examples=spec.unique_examples,
            workers=self._settings.workers,
            explosion_nats=spec.explosion_nats,
        )
        trials.restore()
        known = trials[0].run
        if known is not None:
            return known
        self._progress.start("Scoring the base model")
        clock = time.monotonic()
        subset: Score = self.ask(ScoreModel(None, 0, "subset")).score
        whole: Score = self.ask(ScoreModel(None, 0, "validation")).score
        seconds = time.monotonic() - clock
        point = zero_point(subset, seconds, self._settings.workers)
        measured = Measurement(spec.run, point, Outcome.COMPLETED, validation=whole)
        run = trials.record(0, measured, self._surroundings, self._elapsed())
        self._progress.finish(f"validation loss {subset.loss:.3f} on {len(bench.subset)} examples")
        return run

    def _lay_out_trials(self, zero_shot: Run) -> None:
        bench = self._prepared.bench
        start = zero_shot.curve[0].validation.loss
        self._trials = Trials(
            self._id,
            self._prepared,
            self._worth_trying(),
            self._folder,
            self._store,
            seed=self._settings.seed,
            full_length_tokens=self._full_length,
            unique_examples=self._unique_examples(),
            workers=self._settings.workers,
            explosion_nats=explosion_nats(start, bench.facts.vocabulary),
        )
        self._trials.restore()
        for trial in self._trials:
            seen = 0
            for point in trial.curve:
                tokens, seen = point.tokens_seen - seen, point.tokens_seen
                method = trial.spec.pipeline.method
                self._pace.learn(method, tokens, point.training.wall, point.evaluation.wall)

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

    def _spec(self, pipeline: Pipeline, full_length_tokens: int) -> TrialSpec:
        return TrialSpec(
            run=pipeline.id,
            pipeline=pipeline,
            seed=self._settings.seed,
            full_length_tokens=full_length_tokens,
            unique_examples=self._unique_examples(),
            folder=str(self._folder.trial(pipeline.id)),
        )

    def _train(self, index: int, activity: str) -> None:
        """Bring one trial to its end, as far as the budget reaches."""
        self._activity = activity
        while self._is_open(index) and self._fits(index, reserve=False):
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

    def _finish_leader(self) -> None:
        """Bring the trial that would end best to its full length."""
        index = leader(self._trials.history(self._pace))
        if index is not None:
            self._train(index, "Finishing the leading trial")

    def _chosen(self) -> int | None:
        index = self._strategy(self._trials.history(self._pace), self._remaining())
        if index is None or not self._fits(index, reserve=True):
            return None
        return index

    def _remaining(self) -> Remaining:
        used = self._trials.used(self._elapsed())
        seconds = self._budget.seconds
        return Remaining(
            fraction=self._budget.fraction_left(used),
            seconds=None if seconds is None else max(0.0, seconds - used.seconds),
            new_trials=int(self._budget.amount) - used.trials if self._budget.kind == "trials" else None,
        )

    def _is_open(self, index: int) -> bool:
        trial = self._trials[index]
        return trial.outcome is Outcome.PAUSED and trial.next_step is not None

    def _fits(self, index: int, *, reserve: bool) -> bool:
        """Whether the upper bound of a step, and of the leader's way to its end, is left of the budget."""
        trial = self._trials[index]
        used = self._trials.used(self._elapsed())
        ahead = leader(self._trials.history(self._pace)) if reserve else None
        if self._budget.kind == "trials":
            return trial.run is not None or used.trials < self._budget.amount
        reserved = [self._trials[ahead]] if ahead not in (None, index) and self._is_open(ahead) else []
        if self._budget.kind == "tokens":
            rest = sum(other.tokens_to_end for other in reserved)
            return used.tokens + trial.tokens_to_next + rest <= self._budget.amount
        needed = self._pace.upper(trial.spec.pipeline.method, trial.tokens_to_next)
        needed += sum(self._pace.upper(t.spec.pipeline.method, t.tokens_to_end) for t in reserved)
        return used.seconds + needed <= self._budget.amount

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
                self._refuse_unwritten(answer)
                self._commit(slot, index, answer)
        self._show()

    def _commit(self, slot: int, index: int, measured: Measurement) -> None:
        trial = self._trials[index]
        before = trial.curve[-1].tokens_seen if trial.curve else 0
        self._trials.record(index, measured, self._surroundings, self._elapsed())
        if measured.point is not None:
            training = measured.point.training.wall
            other = time.monotonic() - self._submitted[slot] - training
            if measured.validation is not None:  # the whole validation set is scored once per trial
                other -= measured.point.evaluation.wall
            method = trial.spec.pipeline.method
            self._pace.learn(method, measured.point.tokens_seen - before, training, other)
        self._save_state()
        ahead = leader(self._trials.history(self._pace))
        points = [(point.validation.loss, i) for i, t in enumerate(self._trials) if (point := t.best_point)]
        best = min(points)[1] if points else None
        spare = {i for i in (ahead, best) if i is not None}
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
        self._trials.fail(index, outcome, error, self._surroundings, self._elapsed())

    def _refuse_unwritten(self, measured: Measurement) -> None:
        """A checkpoint that could not be written says nothing about the pipeline, and is no outcome."""
        if measured.error is not None and measured.error.kind in DISK_ERRORS:
            raise disk_error(self._folder.path, measured.error.text)

    def _raise_broken(self, broken: Broken) -> None:
        if broken.system:
            raise disk_error(self._folder.path, broken.text)
        raise RuntimeError(f"{broken.kind}: {broken.text}")

    def _show(self) -> None:
        used = self._trials.used(self._elapsed())
        started = self._trials.started
        losses = [trial.run.final_loss if trial.run else None for trial in started]
        measured = [(loss, i) for i, loss in enumerate(losses) if loss is not None]
        self._progress.show(
            SessionStatus(
                granted_seconds=self._budget.seconds,
                used_seconds=used.seconds,
                budget_text=self._budget.text,
                fraction_used=1 - self._budget.fraction_left(used),
                trials=tuple(
                    TrialStatus(
                        method=trial.spec.pipeline.method,
                        learning_rate=trial.spec.pipeline.number("learning_rate"),
                        share=trial.curve[-1].share if trial.curve else 0.0,
                        losses=tuple(point.validation.loss for point in trial.curve),
                        outcome=trial.outcome,
                        running=trial.running,
                    )
                    for trial in started
                ),
                incumbent=min(measured)[1] if measured else None,
                activity=self._activity,
            )
        )
