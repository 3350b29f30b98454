"""Turns runs into training rows: every prefix of every curve is an example of how the run ended."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from tunecast.arrays import Flags, Floats, Ints
from tunecast.methods.space import minimises_measured
from tunecast.predictor.features import FEATURES, PIPELINE, curve_row, joined, log_loss, pipeline_row
from tunecast.predictor.task import task_of
from tunecast.predictor.task_groups import group_folds
from tunecast.records import ZERO_SHOT, Outcome, Run

END_SHARE = 0.97
"""A point at or beyond this share of the full length counts as the end of the curve."""
WORST = math.log(4.0)
"""Cap on the logarithm of the final loss over the zero-shot loss: anything worse is equally useless, and a
diverged run counts as this."""
MIN_TO_ESTIMATE = 5
"""Minimum of runs to estimate a zero-shot loss from their first points."""
NEARLY_STILL = 3
MAX_TRAVEL = 1.0
"""Maximum number of steps, at its method's usual rate, after which a run has hardly moved.

On tasks with a measured zero-shot loss, the estimate is off by 6% (root mean square); without this limit by
29%.
"""


@dataclass(frozen=True)
class Examples:
    """Rows to learn from; all arrays have the same first axis.

    Args:
        features: Shape (rows, features), in the order of :data:`tunecast.predictor.features.FEATURES`.
        target: Logarithm of the loss at the end of the schedule over that of the last point, or over the
            zero-shot loss before the first point.
        end: Logarithm of the loss at the end over the zero-shot loss.
        rise: Logarithm of the loss at the end over the lowest of the curve; 0 for a diverged run.
        share: Share of the schedule at the last point, 0 before the first.
        task: Index into ``tasks``.
        model: Index into ``models``.
        group: Number of the combination of task, base model, full length and examples, whose rows compete.
        run: Index into ``runs``.
        tasks: Names of datasets; different datasets may have the same name.
        models: Names of base models; different ones may have the same name.
    """

    features: Floats
    target: Floats
    end: Floats
    rise: Floats
    share: Floats
    task: Ints
    model: Ints
    group: Ints
    run: Ints
    tasks: tuple[str, ...]
    models: tuple[str, ...]
    runs: tuple[str, ...]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.target)

    def folds(self, count: int, seed: int) -> Ints:
        """Assign a fold to every row, shape (rows,), keeping families of datasets whole."""
        return group_folds(self.tasks, self.task, count, seed)

    def where(self, chosen: Flags) -> Examples:
        """Select rows by a mask of shape (rows,)."""
        arrays = {
            item.name: getattr(self, item.name)[chosen]
            for item in fields(self)
            if item.name not in ("tasks", "models", "runs")
        }
        return Examples(**arrays, tasks=self.tasks, models=self.models, runs=self.runs)


@dataclass(frozen=True)
class ZeroShotLosses:
    """Validation losses of base models, in nats per label token.

    ``by_subset`` holds measured losses by identity of dataset and base model, and validation subset;
    ``by_task`` those on any subset, estimated if not measured.
    """

    by_subset: Mapping[tuple[str, str, str], float]
    by_task: Mapping[tuple[str, str], float]

    @classmethod
    def of(cls, runs: Iterable[Run]) -> ZeroShotLosses:
        """Collect the losses from runs.

        If a loss was not measured, it is estimated from runs that had hardly moved by their first point: the
        highest first loss of the few that moved least. Over all runs, the highest would come from a rate that
        is too high.
        """
        by_subset: dict[tuple[str, str, str], float] = {}
        measured: dict[tuple[str, str], float] = {}
        firsts: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for run in runs:
            if not run.curve:
                continue
            task, first = _task_of(run), run.curve[0].validation.loss
            if run.pipeline.method == ZERO_SHOT.method:
                measured[task] = by_subset[*task, run.validation_hash] = first
            elif run.outcome is Outcome.COMPLETED and math.isfinite(first) and _has_features(run):
                firsts.setdefault(task, []).append((_travel(run), first))
        nearly = {
            task: max(loss for _, loss in sorted(seen)[:NEARLY_STILL])
            for task, seen in firsts.items()
            if len(seen) >= MIN_TO_ESTIMATE and min(seen)[0] <= MAX_TRAVEL
        }
        return cls(by_subset, nearly | measured)

    def for_run(self, run: Run) -> float | None:
        """Return the loss before a run, if possible on its own validation subset; None if unknown."""
        task = _task_of(run)
        return self.by_subset.get((*task, run.validation_hash), self.by_task.get(task))

    @property
    def median(self) -> float:
        """The median loss, counting every task on every base model once."""
        return statistics.median(self.by_task.values())


def _task_of(run: Run) -> tuple[str, str]:
    return run.dataset.identity, run.model.identity


def _travel(run: Run) -> float:
    """Return how far a run may have moved by its first point: steps times the multiple of the usual rate."""
    row = pipeline_row(run.pipeline, run.model)
    return math.exp(row[PIPELINE.index("log_effective_rate")]) * run.curve[0].step


def examples_of(runs: Sequence[Run]) -> Examples:
    """Make a row of every prefix of every completed or diverged run's curve.

    Runs are left out if their task's zero-shot loss is unknown, if they failed because of the machine, if
    they minimised another loss than the measured one, or if they were imported without enough facts of their
    base model or length.
    """
    return _put_together([_rows(run, start, end) for run, start, end in _teaching(runs)])


def teaching_runs(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that :func:`examples_of` makes rows from."""
    return [run for run, _, _ in _teaching(runs)]


def _teaching(runs: Sequence[Run]) -> Iterator[tuple[Run, float, float]]:
    """Yield usable runs with their zero-shot loss and the logarithm of their final loss."""
    zero_shot = ZeroShotLosses.of(runs)
    for run in filter(_has_features, runs):
        start, end = zero_shot.for_run(run), _end(run)
        if start is not None and end is not None and run.pipeline.method != ZERO_SHOT.method:
            yield run, start, end


def _has_features(run: Run) -> bool:
    return (
        run.is_described
        and minimises_measured(run.pipeline)
        and all(math.isfinite(point.learning_rate) for point in run.curve)
    )


def _end(run: Run) -> float | None:
    """Return the logarithm of the final loss; infinite for a diverged run, None if the end is unknown."""
    if run.outcome is Outcome.DIVERGED:
        return math.inf
    if run.outcome is not Outcome.COMPLETED or not run.curve or not run.curve[-1].share >= END_SHARE:
        return None
    return log_loss(run.curve[-1].validation.loss)


@dataclass(frozen=True)
class _RunRows:
    """A run's rows: one for each prefix of its curve, starting with the empty one; fields as in Examples."""

    run: Run
    features: Floats
    targets: list[float]
    shares: list[float]
    end: float
    rise: float


def _rows(run: Run, start: float, end: float) -> _RunRows:
    """Make the rows of a run from its zero-shot loss and the logarithm of its final loss."""
    task = task_of(run, start)
    points = [p for p in run.curve if 0 < p.share < END_SHARE and math.isfinite(p.validation.loss)]
    prefixes = [points[:count] for count in range(len(points) + 1)]
    curves = np.array([curve_row(prefix, start, run.pipeline.number("learning_rate")) for prefix in prefixes])
    pipeline = np.array([pipeline_row(run.pipeline, run.model)]).repeat(len(prefixes), axis=0)
    zero = log_loss(start)
    relative = min(end - zero, WORST)
    lasts = [log_loss(prefix[-1].validation.loss) - zero if prefix else 0.0 for prefix in prefixes]
    shares = [prefix[-1].share if prefix else 0.0 for prefix in prefixes]
    targets = [relative - min(last, WORST) for last in lasts]
    return _RunRows(run, joined(task, pipeline, curves), targets, shares, relative, _rise(run, end))


def _rise(run: Run, end: float) -> float:
    """Return by how much a loss ends above its lowest; 0 for a diverged run, which never ended low."""
    if not math.isfinite(end):
        return 0.0
    return min(end - min(log_loss(point.validation.loss) for point in run.curve), WORST)


def _put_together(parts: Sequence[_RunRows]) -> Examples:
    runs = [part.run for part in parts]
    counts = np.array([len(part.targets) for part in parts], dtype=np.int64)
    tasks = _by_name({run.dataset.identity: run.task.dataset for run in runs})
    models = _by_name({run.model.identity: run.task.model for run in runs})
    tasks_in_order, models_in_order = list(tasks), list(models)
    keys = [(*_task_of(run), run.full_length_tokens, run.unique_examples) for run in runs]
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}

    def spread(values: Sequence[int]) -> Ints:
        return np.repeat(np.array(values, dtype=np.int64), counts)

    return Examples(
        features=np.concatenate([np.zeros((0, len(FEATURES))), *(part.features for part in parts)]),
        target=np.array([target for part in parts for target in part.targets], dtype=np.float64),
        end=np.repeat(np.array([part.end for part in parts], dtype=np.float64), counts),
        rise=np.repeat(np.array([part.rise for part in parts], dtype=np.float64), counts),
        share=np.array([share for part in parts for share in part.shares], dtype=np.float64),
        task=spread([tasks_in_order.index(run.dataset.identity) for run in runs]),
        model=spread([models_in_order.index(run.model.identity) for run in runs]),
        group=spread([numbers[key] for key in keys]),
        run=spread(list(range(len(runs)))),
        tasks=tuple(tasks.values()),
        models=tuple(models.values()),
        runs=tuple(run.id for run in runs),
    )


def _by_name(names: Mapping[str, str]) -> dict[str, str]:
    """Sort identities by name."""
    return dict(sorted(names.items(), key=lambda item: (item[1], item[0])))
