"""A collecting worker: opens a task when a run needs another one than before, and makes runs whole."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import signal
import sys
import time
from dataclasses import dataclass, replace

from tunecast.collect.cells import DATA_SEED, Cell
from tunecast.collect.planfile import Scoring
from tunecast.models.machine import current_versions, measure_machine
from tunecast.models.processor import OthersLoad
from tunecast.progress import Silent
from tunecast.records import ZERO_SHOT, Outcome, Point, Run, Score, Task
from tunecast.session.prepare import Surroundings, prepare_task
from tunecast.session.settings import SessionSettings
from tunecast.session.shared import affordable_validation, explosion_nats, new_run, zero_point
from tunecast.training.bench import TrialSpec, validation_subset
from tunecast.training.failures import describe_failure
from tunecast.training.runner import HELD_BEFORE, Measurement, Runner

__all__ = ["BlankRun", "Host", "MakeRun", "Station"]

LEAST_METRIC_EXAMPLES = 16
"""A metric of fewer generated answers says next to nothing: where answers are long, none is measured."""
OTHERS_ALLOWED = 0.25
"""Cores that other processes may keep busy while a run is made, for its machine to count as idle."""


@dataclass(frozen=True)
class Station:
    """What a collecting worker is started with.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: Threads of this worker.
        workers: Workers on the same device, for the record.
        collection: Name of the collection; its runs carry it as their session.
        scoring: How runs are scored on the test split.
    """

    device: str
    threads: int
    workers: int
    collection: str
    scoring: Scoring

    def open(self) -> Host:
        """A host, in the worker's process."""
        _die_with_parent()
        return Host(self)


@dataclass(frozen=True)
class MakeRun:
    """Make the run of a cell."""

    cell: Cell

    def perform(self, host: Host) -> Run:
        """Train, measure and score."""
        return host.make(self.cell)


@dataclass(frozen=True)
class BlankRun:
    """Give the record of a cell without training, to note in it why the run cannot be made."""

    cell: Cell

    def perform(self, host: Host) -> Run:
        """Open the task only."""
        return host.blank(self.cell)


class Host:
    """Makes runs, one after the other, in this process; keeps the last task open."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._open: _OpenTask | None = None

    def make(self, cell: Cell) -> Run:
        """The complete record of a cell's run; what goes wrong in training is its outcome.

        Raises:
            UserError: The dataset or the base model cannot be used.
        """
        task = self._task(cell)
        task.rest()
        _return_memory()
        run = task.blank(cell)
        others = OthersLoad()
        run = task.zero_shot(run) if cell.pipeline == ZERO_SHOT else task.trained(run, cell)
        run = replace(run, exclusive=run.exclusive and others.cores() <= OTHERS_ALLOWED)
        if run.outcome is not Outcome.COMPLETED:
            return run
        try:
            return task.tested(run, cell)
        except Exception as error:  # a run that cannot be scored is kept, with the reason
            outcome, record = describe_failure(error)
            return replace(run, outcome=outcome, error=record)

    def blank(self, cell: Cell) -> Run:
        """The record of a cell's run before its first point.

        Raises:
            UserError: The dataset or the base model cannot be used.
        """
        return self._task(cell).blank(cell)

    def _task(self, cell: Cell) -> _OpenTask:
        """The cell's task, opened anew where it is not the present one."""
        if self._open is None or not self._open.serves(cell):
            self._open = None
            gc.unfreeze()
            gc.collect()  # its memory goes before the next one's comes
            self._open = _OpenTask(self._station, cell)
            # The encoded dataset is millions of objects, which every later collection would walk through.
            gc.freeze()
        self._open.use_validation(cell.full_length_tokens)
        return self._open


class _OpenTask:
    """A dataset and a base model, loaded."""

    def __init__(self, station: Station, cell: Cell) -> None:
        self._station = station
        self._names = (cell.model, cell.dataset)
        self._base_losses: dict[str, float] = {}
        settings = SessionSettings(
            model=cell.model, data=cell.dataset.path, seed=DATA_SEED, device=station.device
        )
        prepared = prepare_task(settings, Silent())
        bench = prepared.bench
        limit = station.scoring.test_tokens
        test = validation_subset(bench.test, token_limit=limit, minimum=1, seed=DATA_SEED)
        self._bench = replace(bench, threads=station.threads, test=test)
        task = Task(prepared.task.dataset, prepared.task.model, cell.dataset.metric)
        self._prepared = replace(prepared, bench=self._bench, task=task)
        self._runner = Runner(self._bench)

    def rest(self) -> None:
        """Take the last run's trial off."""
        self._runner.release()

    def serves(self, cell: Cell) -> bool:
        """Whether this is the task of a cell."""
        return self._names == (cell.model, cell.dataset)

    def use_validation(self, full_length_tokens: int) -> None:
        """Choose the validation examples that a full length affords."""
        subset, whole = affordable_validation(self._bench, full_length_tokens, DATA_SEED)
        bench = replace(self._bench, subset=subset, validation=whole)
        self._prepared = replace(self._prepared, bench=bench)
        self._runner.bench = bench

    def blank(self, cell: Cell) -> Run:
        """The record of a cell's run before its first point."""
        bench, spec = self._prepared.bench, self._spec(cell)
        return new_run(
            self._station.collection,
            self._prepared,
            spec,
            Surroundings(measure_machine(bench.device, bench.threads), current_versions()),
            total_steps=0 if cell.pipeline == ZERO_SHOT else bench.plan(spec).total_steps,
            trainable_parameters=0,
            exclusive=cell.exclusive,
            extra={
                "number": cell.number,
                "shared": cell.shared,
                "test_tokens": sum(example.tokens for example in bench.test),
            },
        )

    def zero_shot(self, run: Run) -> Run:
        """The run of the base model as it is."""
        subset = self._runner.score(None, 0, "subset")
        whole = self._runner.score(None, 0, "validation").score
        point = zero_point(subset.score, subset.evaluation, self._station.workers)
        return replace(run, curve=(point,), outcome=Outcome.COMPLETED, validation=whole)

    def trained(self, run: Run, cell: Cell) -> Run:
        """The run, advanced over the whole fidelity grid or as far as it goes."""
        spec = self._limited_spec(cell)
        started = time.perf_counter()
        points: list[Point] = []
        held = 0
        measured = Measurement(run.id, None, Outcome.PAUSED)
        for step in self._prepared.bench.plan(spec).grid:
            measured = self._runner.advance(spec, points[-1].step if points else 0, step)
            held = held or measured.held_bytes
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
            extra={**run.extra, HELD_BEFORE: held},
        )

    def tested(self, run: Run, cell: Cell) -> Run:
        """The run with the test score of its last weights; a metric that fails is left out, and said why."""
        if not (cell.measures_metric and self._metric_examples() >= LEAST_METRIC_EXAMPLES):
            return replace(run, test=self._test_score(cell, run.total_steps, ""))
        try:
            return replace(run, test=self._test_score(cell, run.total_steps, cell.dataset.metric))
        except Exception as error:  # the loss can be had without generating, which takes more memory
            _, record = describe_failure(error)
        test = self._test_score(cell, run.total_steps, "")
        return replace(run, test=test, extra={**run.extra, "metric_error": record.kind})

    def _metric_examples(self) -> int:
        """Answers that may be generated for one metric."""
        scoring = self._station.scoring
        affordable = scoring.generated_tokens // self._bench.max_new_tokens
        return min(scoring.metric_examples, affordable, len(self._bench.test_examples))

    def _test_score(self, cell: Cell, step: int, metric: str) -> Score:
        """The score of a step's weights on the test examples; generation is limited in tokens."""
        return self._runner.score(
            None if cell.pipeline == ZERO_SHOT else self._limited_spec(cell),
            step,
            "test",
            metric=metric,
            generate_limit=self._metric_examples() if metric else 0,
            interval_seed=DATA_SEED,
        ).score

    def _spec(self, cell: Cell) -> TrialSpec:
        """The trial; without a folder for checkpoints, since an interrupted run is begun anew."""
        return TrialSpec(
            run=cell.id,
            pipeline=cell.pipeline,
            seed=cell.seed,
            full_length_tokens=cell.full_length_tokens,
            unique_examples=cell.unique_examples,
            folder="",
            workers=self._station.workers,
        )

    def _limited_spec(self, cell: Cell) -> TrialSpec:
        """The trial as it is trained; one that differs in anything would be trained anew to be scored."""
        limit = explosion_nats(self._base_loss(), self._bench.facts.vocabulary)
        return replace(self._spec(cell), explosion_nats=limit)

    def _base_loss(self) -> float:
        """Zero-shot loss on the present validation subset, measured once."""
        key = self._prepared.bench.validation_hash
        if key not in self._base_losses:
            self._base_losses[key] = self._runner.score(None, 0, "subset").score.loss
        return self._base_losses[key]


def _die_with_parent() -> None:
    """Let the kernel end this process with its parent, even while it is stopped by a pause; Linux only."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _return_memory() -> None:
    """Give free memory back, lest a run's peak be that of the largest run before it; glibc only."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
