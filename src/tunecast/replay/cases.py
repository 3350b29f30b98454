"""Cases of a replay: one task, one base model, one full length, and all pipelines recorded there."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from tunecast.methods.space import BASELINE
from tunecast.records import ZERO_SHOT, DatasetFacts, ModelFacts, Outcome, Pipeline, Point, Run, Seconds
from tunecast.session.run_factory import divergence_nats

MIN_CANDIDATES = 8
"""With fewer recorded pipelines, there is nothing to choose on a task."""
BATCH_SIZE = "per_device_train_batch_size"
ALL_EXAMPLES = 0.9
"""Runs on this part of a task's most unique examples count as runs on all: some cannot be encoded."""


class Clock(StrEnum):
    """The recorded seconds used by a replay."""

    WALL = "wall"
    CPU = "cpu"


@dataclass(frozen=True)
class Leg:
    """One fidelity step of a candidate: its cost, and its point, which is None if the trial failed on the
    way.

    ``share`` of the full length is reached at its end; ``other_seconds`` go to evaluation.
    """

    share: float
    tokens: int
    training_seconds: float
    other_seconds: float
    point: Point | None

    @property
    def seconds(self) -> float:
        """All seconds of the step."""
        return self.training_seconds + self.other_seconds


@dataclass(frozen=True, eq=False)
class Candidate:
    """A recorded pipeline of a case; its last leg leads to the run's outcome."""

    run: Run
    legs: tuple[Leg, ...]

    @property
    def pipeline(self) -> Pipeline:
        """Its pipeline."""
        return self.run.pipeline

    @property
    def seconds(self) -> float:
        """Seconds to its end."""
        return sum(leg.seconds for leg in self.legs)

    def is_like(self, pipeline: Pipeline) -> bool:
        """Whether it is this pipeline but for the batch size, which collections reduce for long examples."""
        pairs = (dict(one.hyperparameters) | {BATCH_SIZE: 0} for one in (self.pipeline, pipeline))
        return self.pipeline.method == pipeline.method and next(pairs) == next(pairs)

    @property
    def validation_loss(self) -> float:
        """Loss on all validation examples at its end; infinite if it failed."""
        return self.run.end_loss

    @property
    def test_loss(self) -> float:
        """Test loss at its end; infinite if it failed."""
        return self.run.test.loss if self.run.test and math.isfinite(self.validation_loss) else math.inf


@dataclass(frozen=True, eq=False)
class Case:
    """One task on one base model at one full length, with all its recorded pipelines.

    Args:
        candidates: The recorded pipelines, one run each, in the order of recording.
        zero_shot: The base model's own run.
        baseline: The recorded baseline, which is trained first. Without a record of it, the candidate of
            median seconds takes its place.
        is_baseline_recorded: Whether it is the baseline itself.
    """

    dataset: DatasetFacts
    model: ModelFacts
    full_length_tokens: int
    candidates: tuple[Candidate, ...]
    zero_shot: Run
    baseline: Candidate
    is_baseline_recorded: bool

    @property
    def task(self) -> str:
        """The dataset's name."""
        return self.dataset.name

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"{self.task} on {self.model.name} at {self.full_length_tokens:,} tokens"

    @property
    def baseline_seconds(self) -> float:
        """Seconds of a baseline trial at full length: the unit of budgets."""
        return self.baseline.seconds

    @property
    def seconds_per_token(self) -> float:
        """The baseline's training rate, as a session measures it before its first trial."""
        return _rate(self.baseline.run)

    @property
    def start_loss(self) -> float:
        """The base model's test loss."""
        return self.zero_shot.test.loss if self.zero_shot.test else math.nan

    @property
    def evaluation_seconds(self) -> float:
        """Seconds to score the base model, as a session measures them before its first trial."""
        return self.zero_shot.curve[0].evaluation.wall

    @cached_property
    def scale(self) -> float:
        """Nats between the base model and the best candidate on the test split: a normalised regret of 1."""
        return self.start_loss - min(candidate.test_loss for candidate in self.candidates)


def cases_of(runs: Iterable[Run], *, least_candidates: int = MIN_CANDIDATES) -> tuple[list[Case], list[str]]:
    """Group recorded runs into cases of at least ``least_candidates`` pipelines.

    Left out are runs on fewer than all examples of a task, interrupted runs, runs that ended without a test
    score, and repetitions of a pipeline (the first run counts).

    Returns:
        The cases by task, model and full length; and why others cannot be replayed, one sentence each.
    """
    many = list(runs)
    zero_shots: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in many:
        if run.pipeline.method == ZERO_SHOT.method and run.test and run.curve:
            zero_shots[_task_key(run)].append(run)
    most_examples: dict[tuple[str, str], int] = defaultdict(int)
    for run in many:
        most_examples[_task_key(run)] = max(most_examples[_task_key(run)], run.unique_examples)
    groups: dict[tuple[str, str, int, str], dict[str, Run]] = defaultdict(dict)
    for run in many:
        whole = run.unique_examples >= ALL_EXAMPLES * most_examples[_task_key(run)]
        if run.is_candidate and whole and _is_usable(run):
            key = (*_task_key(run), run.full_length_tokens, run.machine.device)
            groups[key].setdefault(run.pipeline.id, run)
    cases, reasons = [], []
    for key, group in groups.items():
        first = next(iter(group.values()))
        where = f"{first.task.dataset} on {first.task.model} at {first.full_length_tokens:,} tokens"
        zero_shot = _most_alike(zero_shots[key[:2]], first)
        if len(group) < least_candidates:
            reasons.append(f"{where}: {len(group)} recorded pipelines, {least_candidates} are needed.")
        elif zero_shot is None:
            reasons.append(f"{where}: the base model's own test loss is not recorded.")
        else:
            case = _case(list(group.values()), zero_shot)
            if case is None or not case.scale > 0:
                reasons.append(f"{where}: no recorded pipeline is better than the base model.")
            else:
                cases.append(case)
    cases.sort(key=lambda case: (case.task, case.model.name, case.full_length_tokens))
    return cases, reasons


def _task_key(run: Run) -> tuple[str, str]:
    return run.dataset.identity, run.model.identity


def _most_alike(zero_shots: Sequence[Run], run: Run) -> Run | None:
    """Return the base model's run that best matches a run's device and validation subset."""

    def differences(zero_shot: Run) -> tuple[bool, bool]:
        other_device = zero_shot.machine.device != run.machine.device
        return other_device, zero_shot.validation_hash != run.validation_hash

    return min(zero_shots, key=differences, default=None)


def _is_usable(run: Run) -> bool:
    if run.outcome is Outcome.PAUSED:
        return False
    return run.outcome.is_failure or (bool(run.curve) and run.test is not None)


def _case(runs: Sequence[Run], zero_shot: Run) -> Case | None:
    completed = [run for run in runs if run.outcome is Outcome.COMPLETED]
    if not completed:
        return None
    paces = _StepTimes(completed)
    limit = divergence_nats(zero_shot.curve[0].validation.loss, zero_shot.model.vocabulary)
    candidates = tuple(Candidate(run, _legs(run, paces, limit)) for run in runs)
    ended = sorted((c for c in candidates if math.isfinite(c.validation_loss)), key=lambda c: c.seconds)
    if not ended:
        return None
    recorded = next((c for c in ended if c.is_like(BASELINE)), None)
    first = runs[0]
    return Case(
        first.dataset,
        first.model,
        first.full_length_tokens,
        candidates,
        zero_shot,
        recorded or ended[len(ended) // 2],
        recorded is not None,
    )


def on_clock(runs: Iterable[Run], clock: Clock) -> list[Run]:
    """Replace the wall seconds in points, which strategies see, by the seconds that count."""
    return list(runs) if clock is Clock.WALL else [_by_cpu(run) for run in runs]


def _by_cpu(run: Run) -> Run:
    def busy(seconds: Seconds) -> Seconds:
        return replace(seconds, wall=seconds.cpu)

    points = (replace(p, training=busy(p.training), evaluation=busy(p.evaluation)) for p in run.curve)
    return replace(run, curve=tuple(points))


def _rate(run: Run) -> float:
    """Return the training seconds per token of a run."""
    return sum(point.training.wall for point in run.curve) / max(1, run.curve[-1].tokens_seen)


class _StepTimes:
    """Estimates the unrecorded seconds of a step in which a trial failed."""

    def __init__(self, completed: Sequence[Run]) -> None:
        rates: dict[str, list[float]] = defaultdict(list)
        for run in completed:
            rates[run.pipeline.method].append(_rate(run))
        self._by_method = {method: statistics.median(own) for method, own in rates.items()}
        self._any = statistics.median(rate for own in rates.values() for rate in own)
        starts: dict[float, list[float]] = defaultdict(list)
        for run in completed:
            starts[run.pipeline.number(BATCH_SIZE)].append(run.curve[0].share)
        self._starts = {batch: statistics.median(own) for batch, own in starts.items()}
        self._any_start = statistics.median(run.curve[0].share for run in completed)

    def rate(self, method: str) -> float:
        """Median training seconds per token of the method's completed runs, or of all completed runs."""
        return self._by_method.get(method, self._any)

    def first_share(self, pipeline: Pipeline) -> float:
        """Median share at the first point of completed runs with the same batch size, or of all of them."""
        return self._starts.get(pipeline.number(BATCH_SIZE), self._any_start)


def _legs(run: Run, paces: _StepTimes, limit: float) -> tuple[Leg, ...]:
    """Return the recorded steps, and the step in which a trial failed between two points.

    Nothing is recorded for that step. It is charged whole, up to the next place of the fidelity grid, at the
    method's own rate, as a budget in tokens charges it.
    """
    legs = []
    tokens = 0
    for point in run.curve:
        training, other = point.training.wall, point.evaluation.wall
        legs.append(Leg(point.share, point.tokens_seen - tokens, training, other, point))
        tokens = point.tokens_seen
    last = run.curve[-1] if run.curve else None
    if not run.outcome.is_failure or (last is not None and not last.validation.loss <= limit):
        return tuple(legs)
    share = min(1.0, 2 * last.share) if last else paces.first_share(run.pipeline)
    lost = max(1, round((share - (last.share if last else 0.0)) * run.full_length_tokens))
    return (*legs, Leg(share, lost, lost * paces.rate(run.pipeline.method), 0.0, None))
