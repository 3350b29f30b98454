"""The trials of a session: candidates in a fixed order, and the commit of what they measure."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunecast.budget import Used
from tunecast.errors import StoreError
from tunecast.executors.base import Slot
from tunecast.methods import get_method
from tunecast.records import STOPPED, ZERO_SHOT, Outcome, Pipeline, Run, RunError, stable_hash
from tunecast.search import History, TrialView
from tunecast.session.folder import OutputFolder
from tunecast.session.prepare import PreparedTask
from tunecast.session.run_factory import new_run
from tunecast.session.runtime_model import RuntimeModel, RuntimeModels
from tunecast.session.trial import RETRAINED, TAKEN_OVER, Trial
from tunecast.session.workloads import Efforts
from tunecast.store import Store
from tunecast.training.measurement import SKIPPED, Measurement
from tunecast.training.plan import HALVINGS, TrialPlan
from tunecast.training.training_task import TrialSpec

EVEN_POINTS = 16
"""Evenly spaced points of a trial that may stop early: the fidelity grid has none in its last half."""


class Trials:
    """All trials of a session, and the only place that commits measurements.

    Args:
        folder: Place of checkpoints; None keeps none, for trials that are trained in one go.
        unique_examples: Training examples that they may draw from.
        workers: Workers that share the device.
        divergence_nats: Loss per label token above which a trial counts as diverged.
        patience: Points without a better validation loss after which a trial stops; with it, a trial has
            evenly spaced points too.
        halvings: Points of their fidelity grid before its end, as halvings of the full length.
        extra: Raw facts of every run that have no field.
    """

    def __init__(
        self,
        session: str,
        prepared: PreparedTask,
        pipelines: Sequence[Pipeline],
        folder: OutputFolder | None,
        store: Store,
        *,
        seed: int,
        full_length_tokens: int,
        unique_examples: int,
        workers: int,
        divergence_nats: float,
        patience: int | None = None,
        halvings: tuple[int, ...] = HALVINGS,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self._session = session
        self._extra = extra
        self._prepared = prepared
        self._store = store
        self._workers = workers
        self._plans: dict[tuple[float, float, bool], TrialPlan] = {}
        self._efforts = Efforts(prepared.training_task)
        self._patience = patience

        def spec_of(pipeline: Pipeline) -> TrialSpec:
            run = self._run_id(pipeline, seed, full_length_tokens, unique_examples)
            return TrialSpec(
                run=run,
                pipeline=pipeline,
                seed=seed,
                full_length_tokens=full_length_tokens,
                unique_examples=unique_examples,
                folder=str(folder.trial(run)) if folder else "",
                workers=workers,
                divergence_nats=divergence_nats,
                even_points=EVEN_POINTS if patience else 0,
                halvings=halvings,
            )

        self._spec_of = spec_of
        self._all: list[Trial] = []
        for pipeline in pipelines:
            self.add(pipeline)

    def add(self, pipeline: Pipeline) -> None:
        """Append a candidate."""
        task, effort = self._prepared.training_task, self._efforts.of(pipeline)
        self._all.append(
            Trial(self._spec_of(pipeline), task, self._plans, patience=self._patience, effort=effort)
        )

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, index: int) -> Trial:
        return self._all[index]

    def __iter__(self) -> Iterator[Trial]:
        return iter(self._all)

    @property
    def pipelines(self) -> list[Pipeline]:
        """Their pipelines, in order."""
        return [trial.spec.pipeline for trial in self._all]

    @property
    def started(self) -> list[Trial]:
        """Trials that have used any budget."""
        return [trial for trial in self._all if trial.run is not None or trial.running]

    @property
    def metric(self) -> str:
        """What the session is decided by, ``loss`` included; known once its data are."""
        return self._prepared.task.metric

    def restore(self) -> None:
        """Take up the committed points of an earlier process of this session.

        Raises:
            StoreError: A point lies beyond the end of its trial.
        """
        known = {run.id: run for run in self._store.runs(session=self._session)}
        for trial in self._all:
            trial.run = known.get(trial.spec.run)
            if trial.step and not 0 < trial.step <= trial.plan.total_steps:
                raise StoreError(
                    f"The run {trial.spec.run} of the store has a point at step {trial.step}, but ends at "
                    f"step {trial.plan.total_steps}.",
                    "Choose another --output-dir.",
                )

    def teach(self, runtime_models: RuntimeModels) -> None:
        """Let the runtime models of workers learn from the points of an earlier process, in their order."""
        at_end = self._prepared.training_task.subset_share
        steps: list[tuple[float, RuntimeModel, tuple[str, float, float, float]]] = []
        for trial in self._all:
            seen = 0
            pace = runtime_models.first if trial.run is None else runtime_models.of(trial.run.machine)
            for point in trial.curve:
                # As for a step that was watched: what is scored at the end alone is not the overhead's.
                share = at_end if point.step == trial.plan.total_steps else 1.0
                other = share * point.evaluation.wall
                tokens = trial.effort * (point.tokens_seen - seen)
                taught = trial.spec.pipeline.method, tokens, point.training.wall, other
                steps.append((point.elapsed_seconds, pace, taught))
                seen = point.tokens_seen
        for _, pace, taught in sorted(steps, key=lambda step: step[0]):
            pace.learn(*taught)

    def history(self, runtime_model: RuntimeModel) -> History:
        """Return the strategies' view."""
        return History(tuple(self._view(trial, runtime_model) for trial in self._all))

    def used(self, seconds: float) -> Used:
        """Return the amounts that the trials have spent."""
        return Used(seconds, sum(trial.tokens_spent for trial in self.started), len(self.started))

    def record(self, index: int, measured: Measurement, slot: Slot, elapsed_seconds: float) -> Run:
        """Commit a worker's measurement: first to the store, then to memory; then drop old checkpoints.

        A run carries the machine of its first point. ``elapsed_seconds`` of the budget were used so far.
        """
        trial = self._all[index]
        points = trial.curve
        if measured.point is not None:
            points = (*points, replace(measured.point, elapsed_seconds=elapsed_seconds))
        run = trial.run or self._new_run(trial, slot, measured.trainable_parameters or _counted(trial))
        counts = {
            RETRAINED: trial.retrained_tokens + measured.retrained_tokens,
            SKIPPED: int(run.extra.get(SKIPPED, 0)) + measured.skipped_steps,
        }
        run = replace(
            run,
            extra={**run.extra, **{name: count for name, count in counts.items() if count}},
            curve=points,
            outcome=measured.outcome,
            error=measured.error,
            validation=measured.validation,
        )
        self._store.put(run)
        trial.run, trial.measured = run, measured.measured
        trial.running = False
        self._prune(trial)
        return run

    def fail(
        self,
        index: int,
        outcome: Outcome,
        error: RunError,
        slot: Slot,
        elapsed_seconds: float,
    ) -> Run:
        """Commit that a trial ended because its worker died."""
        trial = self._all[index]
        retrained = trial.tokens_to(trial.step)  # how much of it was done is unknown
        nothing = Measurement(trial.spec.run, None, outcome, error, retrained_tokens=retrained)
        return self.record(index, nothing, slot, elapsed_seconds)

    def stop(self, index: int, note: Mapping[str, Any], slot: Slot) -> None:
        """Commit that a trial goes no further, because a person wants that.

        Args:
            note: The instruction; it stays in the run.
            slot: Where a trial without points was being trained.
        """
        trial = self._all[index]
        run = trial.run or self._new_run(trial, slot, _counted(trial))
        run = replace(run, extra={**run.extra, STOPPED: dict(note)})
        self._store.put(run)
        trial.run = run

    def take_over(self, earlier: Trial, step: int) -> None:
        """Let the first trial, which has not begun, go on from another's point as if it were its own.

        Args:
            earlier: A trial that differs in its end alone.
            step: One of its points, up to which both have the same course.

        Raises:
            OSError: The disk is full or not writable.
        """
        trial, before = self._all[0], earlier.run
        assert before is not None
        points = (point for point in before.curve if point.step <= step)
        run = replace(
            before,
            id=trial.spec.run,
            pipeline=trial.spec.pipeline,
            full_length_tokens=trial.spec.full_length_tokens,
            total_steps=trial.plan.total_steps,
            created_at=time.time(),
            curve=tuple(replace(point, share=trial.plan.share_at(point.step)) for point in points),
            outcome=Outcome.PAUSED,
            validation=None,
            extra={**(self._extra or {}), TAKEN_OVER: trial.plan.tokens_at(step)},
        )
        trial.run = run
        for kept in {step, *(point.step for point in trial.best_points)}:
            trial.checkpoints.copy(earlier.checkpoints, kept)
        self._store.put(run)

    def limit_disk(self, most_bytes: float, spare: set[int]) -> list[str]:
        """Drop checkpoints of the worst waiting trials until the rest fits; they can be trained again.

        Trials at the places in ``spare`` are left alone. Returns the ids of the trials that lost their
        checkpoints.
        """
        sizes = {index: trial.checkpoint_bytes for index, trial in enumerate(self._all) if trial.run}
        total = sum(sizes.values())
        worst_first = sorted(
            (i for i, size in sizes.items() if size and i not in spare and not self._all[i].running),
            key=lambda index: _last_loss(self._all[index]),
            reverse=True,
        )
        dropped = []
        for index in worst_first:
            if total <= most_bytes:
                break
            self._all[index].checkpoints.keep_only(continue_from=(), weights_of=())
            self._all[index].look_again()
            total -= sizes[index]
            dropped.append(self._all[index].spec.run)
        return dropped

    def _view(self, trial: Trial, runtime_model: RuntimeModel) -> TrialView:
        following = trial.next_step if not trial.outcome.is_failure else None
        method = trial.spec.pipeline.method
        return TrialView(
            pipeline=trial.spec.pipeline,
            curve=trial.curve,
            next_share=trial.plan.share_at(following) if following else None,
            outcome=trial.outcome,
            running=trial.running,
            expected_seconds=runtime_model.expected(method, trial.work_to_next, ends=trial.ends_next),
            expected_end_seconds=runtime_model.expected(
                method, trial.work_to_end, trial.points_to_end, ends=True
            ),
            points_ahead=trial.points_to_end,
        )

    def _prune(self, trial: Trial) -> None:
        assert trial.run is not None
        trial.look_again()
        if not trial.spec.folder:
            return
        kept = {point.step for point in trial.best_points}
        resumable = {trial.step} if trial.run.outcome is Outcome.PAUSED else set()
        if trial.branching_step:
            resumable.add(trial.branching_step)
        trial.checkpoints.keep_only(continue_from=resumable, weights_of=kept)

    def _run_id(self, pipeline: Pipeline, seed: int, full_length_tokens: int, unique_examples: int) -> str:
        training_task = self._prepared.training_task
        return stable_hash(
            {
                "session": self._session,
                "data": self._prepared.dataset.fingerprint,
                "model": training_task.facts.identity,
                "method": pipeline.method,
                "hyperparameters": dict(pipeline.hyperparameters),
                "seed": seed,
                "full_length_tokens": full_length_tokens,
                "unique_examples": unique_examples,
                "max_length": training_task.max_length,
                "dtype": training_task.dtype,
            }
        )

    def _new_run(self, trial: Trial, slot: Slot, trainable_parameters: int) -> Run:
        return new_run(
            self._session,
            self._prepared,
            trial.spec,
            slot,
            total_steps=0 if trial.spec.pipeline == ZERO_SHOT else trial.plan.total_steps,
            trainable_parameters=trainable_parameters,
            extra=self._extra,
        )


def _last_loss(trial: Trial) -> float:
    """Return the validation loss of the last point; infinite without one, or if it is not finite."""
    loss = trial.curve[-1].validation.loss if trial.curve else math.inf
    return loss if math.isfinite(loss) else math.inf


def _counted(trial: Trial) -> int:
    """Count the trained parameters of a trial that failed before its worker could."""
    pipeline = trial.spec.pipeline
    if pipeline == ZERO_SHOT:
        return 0
    return get_method(pipeline.method).trainable_parameters(trial.training_task.facts, pipeline)


def retraining_note(run: str, tokens: int) -> str:
    """Return the note for a checkpoint that had to be trained again."""
    return f"The checkpoint of trial {run} was gone or damaged: {tokens:,} tokens were trained once more."
