"""The collecting worker: makes complete runs, and opens another task only when a run needs one."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from dataclasses import dataclass, replace

from tunecast.collect.planfile import DatasetChoice, Scoring
from tunecast.collect.run_specs import DATA_SEED, RunSpec
from tunecast.data import LOSS
from tunecast.errors import ConfigurationError
from tunecast.executors.base import Slot
from tunecast.hardware.machine import current_versions, measure_machine
from tunecast.hardware.processor import BackgroundLoad
from tunecast.progress import Silent
from tunecast.records import ZERO_SHOT, Outcome, Point, Run, Score, Task
from tunecast.session.prepare import prepare_task
from tunecast.session.run_factory import affordable_validation, divergence_nats, new_run, zero_point
from tunecast.session.settings import SessionSettings
from tunecast.training.failures import describe_failure
from tunecast.training.label_metrics import is_label_metric
from tunecast.training.measurement import HELD_BEFORE, SKIPPED, Measurement
from tunecast.training.runner import Runner
from tunecast.training.training_task import TrainingTask, TrialSpec, validation_subset

MIN_METRIC_EXAMPLES = 16
"""A metric from fewer answers says next to nothing, so it is not measured."""
OTHERS_ALLOWED = 0.25
"""The machine counts as idle if other processes keep at most this many cores busy during a run."""


@dataclass(frozen=True)
class CollectWorker:
    """The workplace of a collecting worker.

    Args:
        workers: Workers on the same device, for the record.
        collection: Name of the collection, which its runs have as their session.
        scoring: How runs are scored on the test split.
    """

    device: str
    threads: int
    workers: int
    collection: str
    scoring: Scoring

    @property
    def devices(self) -> int:
        """One for each worker."""
        return 1

    def open(self) -> Host:
        """Build a host, in the worker's process."""
        return Host(self)


@dataclass(frozen=True)
class MakeRun:
    """Make the run of a run spec; if ``blank`` only its record, to note why the run cannot be made."""

    run_spec: RunSpec
    blank: bool = False

    def perform(self, host: Host) -> Run:
        """Open the task; train, measure and score unless ``blank``."""
        return host.blank(self.run_spec) if self.blank else host.make(self.run_spec)


class Host:
    """Makes runs one after the other in this process, and keeps the last task open."""

    def __init__(self, collect_worker: CollectWorker) -> None:
        self._worker = collect_worker
        self._open: _OpenTask | None = None

    def make(self, run_spec: RunSpec) -> Run:
        """Make a run spec's run; a failure in training is its outcome.

        Raises:
            UserError: The dataset or the base model cannot be used.
        """
        task = self._task(run_spec)
        task.rest()
        _return_memory()
        run = task.blank(run_spec)
        others = BackgroundLoad()
        run = task.zero_shot(run) if run_spec.pipeline == ZERO_SHOT else task.trained(run, run_spec)
        run = replace(run, exclusive=run.exclusive and others.cores() <= OTHERS_ALLOWED)
        if run.outcome is not Outcome.COMPLETED:
            return run
        try:
            return task.tested(run, run_spec)
        except Exception as error:  # a run that cannot be scored is kept with the reason
            outcome, record = describe_failure(error)
            return replace(run, outcome=outcome, error=record)

    def blank(self, run_spec: RunSpec) -> Run:
        """Return the record of a run spec's run before its first point.

        Raises:
            UserError: The dataset or the base model cannot be used.
        """
        return self._task(run_spec).blank(run_spec)

    def _task(self, run_spec: RunSpec) -> _OpenTask:
        """Return the run spec's task, opening it if it is not the current one."""
        if self._open is None or not self._open.serves(run_spec):
            self._open = None
            gc.collect()  # free the old task's memory before the next one is loaded
            self._open = _OpenTask(self._worker, run_spec)
        self._open.use_validation(run_spec.full_length_tokens)
        return self._open


class _OpenTask:
    """A dataset and a base model, loaded."""

    def __init__(self, collect_worker: CollectWorker, run_spec: RunSpec) -> None:
        self._worker = collect_worker
        self._names = (run_spec.model, run_spec.dataset)
        self._base_losses: dict[str, float] = {}
        # Points measure the loss alone, whatever the task; the plan says which metric the end is scored by.
        settings = SessionSettings(
            model=run_spec.model,
            data=run_spec.dataset.path,
            objective=LOSS,
            seed=DATA_SEED,
            device=collect_worker.device,
        )
        prepared = prepare_task(settings, Silent())
        training_task = prepared.training_task
        _check_labels(run_spec.dataset, training_task)
        limit = collect_worker.scoring.test_tokens
        test = validation_subset(training_task.test, token_limit=limit, minimum=1, seed=DATA_SEED)
        self._training_task = replace(training_task, threads=collect_worker.threads, test=test)
        task = Task(prepared.task.dataset, prepared.task.model, run_spec.dataset.metric)
        self._prepared = replace(prepared, training_task=self._training_task, task=task)
        # The encoded dataset is millions of objects that every later collection would visit.
        gc.freeze()
        self._runner = Runner(self._training_task)

    def rest(self) -> None:
        self._runner.release()

    def serves(self, run_spec: RunSpec) -> bool:
        return self._names == (run_spec.model, run_spec.dataset)

    def use_validation(self, full_length_tokens: int) -> None:
        subset, whole = affordable_validation(self._training_task, full_length_tokens, DATA_SEED)
        training_task = replace(self._training_task, subset=subset, validation=whole)
        self._prepared = replace(self._prepared, training_task=training_task)
        self._runner.training_task = training_task

    def blank(self, run_spec: RunSpec) -> Run:
        """Return the record of a run spec's run before its first point."""
        training_task, spec = self._prepared.training_task, self._spec(run_spec)
        return new_run(
            self._worker.collection,
            self._prepared,
            spec,
            Slot(measure_machine(training_task.device, training_task.threads), current_versions()),
            total_steps=0 if run_spec.pipeline == ZERO_SHOT else training_task.plan(spec).total_steps,
            trainable_parameters=0,
            exclusive=run_spec.exclusive,
            extra={
                "number": run_spec.number,
                "shared": run_spec.shared,
                "test_tokens": sum(example.tokens for example in training_task.test),
            },
        )

    def zero_shot(self, run: Run) -> Run:
        subset = self._runner.score(None, 0, "subset")
        whole = self._runner.score(None, 0, "validation").score
        point = zero_point(subset.score, subset.evaluation, self._worker.workers)
        return replace(run, curve=(point,), outcome=Outcome.COMPLETED, validation=whole)

    def trained(self, run: Run, run_spec: RunSpec) -> Run:
        """Complete a run by training over the whole fidelity grid, as far as it goes."""
        spec = self._limited_spec(run_spec)
        started = time.perf_counter()
        points: list[Point] = []
        held = skipped = 0
        measured = Measurement(run.id, None, Outcome.PAUSED)
        for step in self._prepared.training_task.plan(spec).grid:
            measured = self._runner.advance(spec, points[-1].step if points else 0, step)
            held = held or measured.held_bytes
            skipped += measured.skipped_steps
            if measured.point is not None:
                elapsed = time.perf_counter() - started
                points.append(replace(measured.point, elapsed_seconds=elapsed))
            if measured.outcome.is_failure:
                break
        return replace(
            run,
            curve=tuple(points),
            outcome=measured.outcome,
            error=measured.error,
            validation=measured.validation,
            trainable_parameters=measured.trainable_parameters,
            extra={**run.extra, HELD_BEFORE: held, **({SKIPPED: skipped} if skipped else {})},
        )

    def tested(self, run: Run, run_spec: RunSpec) -> Run:
        """Add the test score of the last weights; a failed metric is left out, with the reason noted."""
        if not (run_spec.measures_metric and self._metric_examples() >= MIN_METRIC_EXAMPLES):
            return replace(run, test=self._test_score(run_spec, run.total_steps, ""))
        try:
            return replace(run, test=self._test_score(run_spec, run.total_steps, run_spec.dataset.metric))
        except Exception as error:  # the loss needs no generation, which takes more memory
            _, record = describe_failure(error)
        test = self._test_score(run_spec, run.total_steps, "")
        return replace(run, test=test, extra={**run.extra, "metric_error": record.kind})

    def _metric_examples(self) -> int:
        """Return the number of answers that the metric may be measured on."""
        scoring = self._worker.scoring
        most = min(scoring.metric_examples, len(self._training_task.test_examples))
        if is_label_metric(self._prepared.task.metric):
            return most
        return min(most, scoring.generated_tokens // self._training_task.max_new_tokens)

    def _test_score(self, run_spec: RunSpec, step: int, metric: str) -> Score:
        """Score a step's weights on the test examples, generating a limited number of tokens."""
        return self._runner.score(
            None if run_spec.pipeline == ZERO_SHOT else self._limited_spec(run_spec),
            step,
            "test",
            metric=metric,
            generate_limit=self._metric_examples() if metric else 0,
            interval_seed=DATA_SEED,
        ).score

    def _spec(self, run_spec: RunSpec) -> TrialSpec:
        """Return the trial, without a folder for checkpoints, because an interrupted run starts over."""
        return TrialSpec(
            run=run_spec.id,
            pipeline=run_spec.pipeline,
            seed=run_spec.seed,
            full_length_tokens=run_spec.full_length_tokens,
            unique_examples=run_spec.unique_examples,
            folder="",
            workers=self._worker.workers,
        )

    def _limited_spec(self, run_spec: RunSpec) -> TrialSpec:
        """Return the trial as it is trained; if it differed at all, scoring would train it again."""
        limit = divergence_nats(self._base_loss(), self._training_task.facts.vocabulary)
        return replace(self._spec(run_spec), divergence_nats=limit)

    def _base_loss(self) -> float:
        """Return the zero-shot loss on the current validation subset, measuring it once."""
        key = self._prepared.training_task.validation_hash
        if key not in self._base_losses:
            self._base_losses[key] = self._runner.score(None, 0, "subset").score.loss
        return self._base_losses[key]


def _check_labels(dataset: DatasetChoice, training_task: TrainingTask) -> None:
    if is_label_metric(dataset.metric) and not training_task.labels:
        raise ConfigurationError(
            f"The metric {dataset.metric} of {dataset.path} needs a classification, which this is not.",
            "Give the dataset another metric in the plan.",
        )


def _return_memory() -> None:
    """Give free memory back to the system, so that a run's peak is its own; glibc only."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
