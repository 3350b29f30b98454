"""A run that another program recorded, and its conversion to a :class:`~tunecast.records.Run`.

Missing values stay unknown: NaN for floats, 0 or empty for others, and listed in ``extra["unknown"]``.
Inferred values are listed in ``extra["inferred"]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tunecast.records import (
    DatasetFacts,
    Hyperparameters,
    Machine,
    Outcome,
    Pipeline,
    Point,
    Run,
    RunError,
    Score,
    Seconds,
    Task,
    Versions,
    stable_hash,
)
from tunecast.store.importing.arguments import number, same_number, whole
from tunecast.store.importing.model_config import model_facts
from tunecast.store.revising import UNKNOWN


@dataclass(frozen=True)
class Problem:
    """A problem of an import: its place (file, row or run) and the reason."""

    where: str
    reason: str


@dataclass(frozen=True)
class Assumed:
    """Names from the user for runs whose records lack them; empty for none."""

    task: str = ""
    model: str = ""
    method: str = ""


@dataclass(frozen=True)
class LoggedEvaluation:
    """One recorded evaluation on validation data; missing values are None. Units are those of a ``Point``."""

    step: int
    loss: float
    tokens_seen: int | None = None
    learning_rate: float | None = None
    train_loss: float | None = None
    gradient_norm: float | None = None
    evaluation_seconds: float | None = None


@dataclass(frozen=True)
class ForeignRun:
    """A run as another program recorded it; missing values are None or empty.

    Args:
        key: Identity of the run within its source, independent of file paths; it determines the id.
        where: Place from which it was read; empty if it is no more specific than the source.
        hyperparameters: Values by their name in transformers and peft.
        config: The base model's own configuration.
        test_loss: Loss on held-out data after training.
        versions: Versions by field of ``Versions``.
        extra: Other values worth keeping, as JSON.
    """

    source: str
    key: str
    where: str = ""
    task: str = ""
    model: str = ""
    method: str = ""
    hyperparameters: Hyperparameters = field(default_factory=dict)
    seed: int | None = None
    total_steps: int | None = None
    full_length_tokens: int | None = None
    unique_examples: int | None = None
    max_length: int | None = None
    evaluations: tuple[LoggedEvaluation, ...] = ()
    outcome: Outcome = Outcome.COMPLETED
    error: RunError | None = None
    test_loss: float | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    parameters: int | None = None
    trainable_parameters: int | None = None
    dtype: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    created_at: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_run(self, assumed: Assumed) -> Run:
        """Convert to a run of a store; ``extra`` names the source and the unknown fields."""
        task, model, method = (
            getattr(self, name) or getattr(assumed, name) or UNKNOWN for name in ("task", "model", "method")
        )
        unknown = sorted(
            {*self._unknown(), *(n for n, v in (("task", task), ("model", model)) if v == UNKNOWN)}
        )
        return Run(
            id=stable_hash(["imported", self.source, self.key]),
            session=f"import-{self.source}",
            task=Task(task, model),
            pipeline=Pipeline(method, dict(self.hyperparameters)),
            seed=self.seed or 0,
            full_length_tokens=self.full_length_tokens or 0,
            total_steps=self.total_steps or 0,
            unique_examples=self.unique_examples or 0,
            max_length=self.max_length or 0,
            validation_hash="",
            dataset=DatasetFacts(task, "", "", {}, {}, {}, 0),
            model=model_facts(model, self.config, self.parameters),
            machine=Machine("", 0, 0, 0, 0, {}, math.nan),
            versions=Versions(**{name: self.versions.get(name, "") for name in Versions.__annotations__}),
            dtype=self.dtype,
            trainable_parameters=self.trainable_parameters or 0,
            exclusive=False,
            created_at=self.created_at or 0.0,
            curve=tuple(self._point(evaluation) for evaluation in self._by_step()),
            outcome=self._outcome(),
            error=self.error,
            test=None if self.test_loss is None else _score(self.test_loss),
            extra={**self.extra, "source": self.source, "unknown": unknown},
        )

    def _by_step(self) -> list[LoggedEvaluation]:
        """Return the evaluations in order of step; the last one of each step counts."""
        return [evaluation for _, evaluation in sorted({e.step: e for e in self.evaluations}.items())]

    def _outcome(self) -> Outcome:
        last = self._by_step()[-1:]
        diverged = any(not math.isfinite(evaluation.loss) for evaluation in last)
        return Outcome.DIVERGED if diverged else self.outcome

    def _unknown(self) -> Iterator[str]:
        yield from (
            "dataset",
            "machine",
            "validation_hash",
            "nats_per_completion",
            "bits_per_byte",
            "seconds",
        )
        optional = (
            "seed",
            "total_steps",
            "full_length_tokens",
            "unique_examples",
            "max_length",
            "parameters",
        )
        for name in (*optional, "trainable_parameters", "created_at"):
            if getattr(self, name) is None:
                yield name
        for name in ("method", "hyperparameters", "config", "dtype", "versions"):
            if not getattr(self, name):
                yield name
        if any(evaluation.tokens_seen is None for evaluation in self.evaluations):
            yield "tokens_seen"

    def _point(self, evaluation: LoggedEvaluation) -> Point:
        known = {name: _or_nan(getattr(evaluation, name)) for name in ("learning_rate", "evaluation_seconds")}
        return Point(
            step=evaluation.step,
            tokens_seen=evaluation.tokens_seen or 0,
            label_tokens_seen=0,
            share=evaluation.step / self.total_steps if self.total_steps else math.nan,
            learning_rate=known["learning_rate"],
            train_loss=evaluation.train_loss,
            gradient_norm=evaluation.gradient_norm,
            validation=_score(evaluation.loss),
            training=Seconds(math.nan, math.nan),
            evaluation=Seconds(known["evaluation_seconds"], math.nan),
            peak_bytes=None,
            micro_batch_size=0,
            load_average=None,
            workers=0,
            elapsed_seconds=math.nan,
        )


@dataclass(frozen=True)
class Recorded:
    """The result of an importer: runs and problems."""

    runs: tuple[ForeignRun, ...] = ()
    problems: tuple[Problem, ...] = ()

    def __add__(self, other: Recorded) -> Recorded:
        return replace(self, runs=self.runs + other.runs, problems=self.problems + other.problems)


def read_one(where: str, read: Callable[[], Recorded]) -> Recorded:
    """Read one run; an invalid record becomes a problem of this run only."""
    try:
        return read()
    except (TypeError, ValueError, AttributeError, OverflowError, OSError) as error:
        return Recorded(problems=(Problem(where, f"is invalid and left out: {error}"),))


def repeated_steps(evaluations: Iterable[LoggedEvaluation]) -> Iterator[str]:
    """Report steps with several different losses among a run's evaluations; the last one counts."""
    losses: dict[int, list[float]] = {}
    for evaluation in evaluations:
        found = losses.setdefault(evaluation.step, [])
        if not any(same_number(evaluation.loss, loss) for loss in found):
            found.append(evaluation.loss)
    for step, found in losses.items():
        if len(found) > 1:
            yield f"{len(found)} different losses were logged at step {step}; the last counts"


def whole_or_problem(value: Any, name: str, where: str, problems: list[Problem]) -> int | None:
    """Parse a non-negative integer; another number is reported and stays unknown.

    Negative numbers are not reported, because programs write -1 for unset values.
    """
    found, read = whole(value), number(value)
    if found is None and read is not None and not read < 0:
        problems.append(Problem(where, f"{name} is {read:g}, not an integer in range"))
    return found


def _score(loss: float) -> Score:
    return Score(loss, math.nan, math.nan, 0, 0)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
