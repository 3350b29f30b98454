"""The workplace and the requests of a session, whose workers hold a
:class:`~tunecast.training.runner.Runner`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tunecast.training.training_task import TrialSpec

if TYPE_CHECKING:
    from tunecast.data import EncodedExample
    from tunecast.executors.crew import Crew
    from tunecast.training.measurement import Measurement, Scored
    from tunecast.training.runner import Runner
    from tunecast.training.training_task import TrainingTask


@dataclass(frozen=True)
class TrainingPlace:
    """The workplace for the trials of one task."""

    task: TrainingTask

    @property
    def device(self) -> str:
        """``cpu``, ``cuda`` or ``cuda:N``."""
        return self.task.device

    @property
    def threads(self) -> int:
        """Threads of one worker, or of each of its processes."""
        return self.task.threads

    @property
    def devices(self) -> int:
        """Devices of one worker."""
        return self.task.devices

    def open(self) -> Runner | Crew:
        """Load the base model, in the process that will train it or in one for each device."""
        if self.task.devices > 1:
            from tunecast.executors.crew import Crew

            return Crew(self.task)
        from tunecast.training.runner import Runner

        return Runner(self.task)


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
    """Measure the training speed of a trial and keep nothing of it."""

    spec: TrialSpec
    seconds: float

    def perform(self, runner: Runner) -> float:
        """Return tokens per second."""
        return runner.measure_speed(self.spec, self.seconds)


@dataclass(frozen=True)
class UseValidation:
    """Set the examples that points are scored on, and those of guards."""

    subset: tuple[EncodedExample, ...]
    validation: tuple[EncodedExample, ...]
    guard: tuple[EncodedExample, ...] = ()

    def perform(self, runner: Runner) -> None:
        """Change the runner's training_task."""
        runner.training_task = replace(
            runner.training_task, subset=self.subset, validation=self.validation, guard=self.guard
        )


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
    answers_within: float | None = None
    label_limit: int = 0

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
            answers_within=self.answers_within,
            label_limit=self.label_limit,
        )


@dataclass(frozen=True)
class Steer:
    """Change how strongly the small models of proxy-tuning steer the large one."""

    alpha: float

    def perform(self, runner: Runner) -> None:
        """Change it."""
        runner.steer(self.alpha)


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
