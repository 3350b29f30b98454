"""What is asked of a worker, and what comes back; a session's requests know which call of the runner answers
them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tunecast import errors
from tunecast.records import Machine, Outcome, RunError, Versions
from tunecast.session.folder import disk_error
from tunecast.training.training_task import TrialSpec

if TYPE_CHECKING:
    from tunecast.data import EncodedExample
    from tunecast.training.runner import Measurement, Runner, Scored


def receive(connection: Connection) -> Any:
    """The next message.

    Raises:
        EOFError: The other side is gone, be it in the middle of a message.
    """
    try:
        content = connection.recv_bytes()
    except OSError as error:
        raise EOFError(str(error)) from error
    return pickle.loads(content)


class Request(Protocol):
    """Something for a worker to do."""

    def perform(self, opened: Any, /) -> Any:
        """Do it with what the workplace's ``open`` returned, and return the answer."""


Ask = Callable[[Request], Any]
"""Lets a worker answer a request."""


@dataclass(frozen=True)
class Ready:
    """A worker's first message: its model is loaded."""

    machine: Machine
    versions: Versions
    loading_seconds: float


@dataclass(frozen=True)
class Broken:
    """A worker could not answer: not the trial failed but the request.

    Args:
        kind: The exception's class.
        text: What it said.
        system: Whether it is an error of disk or system.
        hint: What the user can do, where it is the user's to mend.
        memory: Whether memory ran out.
    """

    kind: str
    text: str
    system: bool
    hint: str = ""
    memory: bool = False

    @property
    def failure(self) -> tuple[Outcome, RunError]:
        """What a run is recorded as that could not be made for it."""
        return Outcome.OUT_OF_MEMORY if self.memory else Outcome.FAILED, RunError(self.kind, self.text)

    def error(self, folder: Path | None = None) -> Exception:
        """The error to raise in the session's process: the user's where it is one to mend, else ours.

        Args:
            folder: Where the worker writes, if it does: what the disk or the system refused it is told of.
        """
        if self.system and folder is not None:
            return disk_error(folder, self.text)
        if self.memory:
            return errors.ModelError(
                f"Memory ran out outside of any trial: {self.text}",
                "Give a smaller --max-length, a smaller model or another --device.",
            )
        kind = getattr(errors, self.kind, None)
        return kind(self.text, self.hint) if kind else RuntimeError(f"{self.kind}: {self.text}")


@dataclass(frozen=True)
class Advance:
    """Advance a trial from its last committed step to the next of its grid."""

    spec: TrialSpec
    from_step: int
    to_step: int
    weights_hash: str = ""

    def perform(self, runner: Runner) -> Measurement:
        """Train and measure."""
        return runner.advance(self.spec, self.from_step, self.to_step, weights_hash=self.weights_hash)


@dataclass(frozen=True)
class Calibrate:
    """Measure the training speed of a trial; nothing of it is kept."""

    spec: TrialSpec
    seconds: float

    def perform(self, runner: Runner) -> float:
        """Tokens per second."""
        return runner.measure_speed(self.spec, self.seconds)


@dataclass(frozen=True)
class UseValidation:
    """Set the examples that points are scored on."""

    subset: tuple[EncodedExample, ...]
    validation: tuple[EncodedExample, ...]

    def perform(self, runner: Runner) -> None:
        """Change the runner's training_task."""
        runner.training_task = replace(runner.training_task, subset=self.subset, validation=self.validation)


@dataclass(frozen=True)
class ScoreModel:
    """Score the base model (``spec`` None) or a trial's checkpoint; see :meth:`Runner.score`."""

    spec: TrialSpec | None
    step: int
    split: str
    weights_hash: str = ""
    metric: str = ""
    generate_limit: int = 0
    interval_seed: int | None = None

    def perform(self, runner: Runner) -> Scored:
        """Evaluate and generate."""
        return runner.score(
            self.spec,
            self.step,
            self.split,
            weights_hash=self.weights_hash,
            metric=self.metric,
            generate_limit=self.generate_limit,
            interval_seed=self.interval_seed,
        )


@dataclass(frozen=True)
class Save:
    """Write a trial's checkpoint as a loadable model."""

    spec: TrialSpec
    step: int
    folder: str
    base_location: str
    weights_hash: str = ""

    def perform(self, runner: Runner) -> None:
        """Write it."""
        runner.save(self.spec, self.step, self.folder, self.base_location, weights_hash=self.weights_hash)


@dataclass(frozen=True)
class SaveBase:
    """Write the base model."""

    folder: str

    def perform(self, runner: Runner) -> None:
        """Write it."""
        runner.save_base(self.folder)
