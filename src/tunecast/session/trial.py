"""One candidate of a session: its plan, its run and its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tunecast.data import LOSS
from tunecast.methods import get_method
from tunecast.methods.rates import is_steady
from tunecast.records import STOPPED, Outcome, Point, Run
from tunecast.session.judge import Judge
from tunecast.session.trial_progress import TrialProgress
from tunecast.training.checkpoint import CheckpointFolder, StepReport
from tunecast.training.plan import TrialPlan
from tunecast.training.training_task import TrainingTask, TrialSpec

if TYPE_CHECKING:
    import numpy as np

RETRAINED = "retrained_tokens"
"""In ``Run.extra``: training tokens beyond those of the curve that went into the trial."""
TAKEN_OVER = "taken_over_tokens"
"""In ``Run.extra``: training tokens at its beginning that another trial has spent."""


@dataclass
class Trial:
    """One candidate of a session."""

    spec: TrialSpec
    training_task: TrainingTask = field(repr=False)
    plans: dict[tuple[float, float, bool], TrialPlan] = field(default_factory=dict, repr=False)
    run: Run | None = None
    running: bool = False
    is_feasible: bool = True
    """Whether memory holds it; an infeasible trial has no next point."""
    patience: int | None = None
    """Points that are better in nothing that decides after which it stops; None never stops it."""
    measured: np.ndarray | None = field(default=None, repr=False)
    """What :meth:`Loss.measure` gave at its end for each validation example; None in a resumed session."""
    effort: float = 1.0
    """Weight of its training tokens in a runtime model, which knows its method, but not its optimiser."""
    _known: TrialProgress | None = field(default=None, repr=False)

    @cached_property
    def plan(self) -> TrialPlan:
        """Its course; trials of equal batch size, warm-up and kind of schedule share it."""
        pipeline = self.spec.pipeline
        batch, warmup = pipeline.number("per_device_train_batch_size"), pipeline.number("warmup_ratio")
        key = batch, warmup, is_steady(pipeline.hyperparameters)
        if key not in self.plans:
            self.plans[key] = self.training_task.plan(self.spec)
        return self.plans[key]

    @property
    def curve(self) -> tuple[Point, ...]:
        """Its points so far."""
        return self.run.curve if self.run else ()

    @property
    def outcome(self) -> Outcome:
        """Its state."""
        return self.run.outcome if self.run else Outcome.PAUSED

    @property
    def step(self) -> int:
        """The step of its last committed point."""
        return self.curve[-1].step if self.curve else 0

    @property
    def share(self) -> float:
        """Share of its full length at its last committed point, 0 before the first."""
        return self.curve[-1].share if self.curve else 0.0

    @property
    def weights_hash(self) -> str:
        """Hash of the weights at its last committed point, empty if there is none."""
        return self.curve[-1].checkpoint_hash if self.curve else ""

    @property
    def next_step(self) -> int | None:
        """The step of its next point, None at the end."""
        if not self.is_feasible or self.is_stopped_early or self.is_stopped:
            return None
        return self._progress.following

    @property
    def is_stopped_early(self) -> bool:
        """Whether nothing that decides has improved for long enough that it stops."""
        if self.patience is None or self.outcome is not Outcome.PAUSED:
            return False
        best = max((point.step for point in self.best_points), default=None)
        if best is None:
            return False
        return sum(point.step > best for point in self.curve) >= self.patience

    @property
    def is_stopped(self) -> bool:
        """Whether a person stopped it; its points stay, and compete."""
        return self.run is not None and STOPPED in self.run.extra

    @property
    def goes_on(self) -> bool:
        """Whether it has a further point; a worker may already be on its way there."""
        return self.outcome is Outcome.PAUSED and self.next_step is not None

    @property
    def points_to_end(self) -> int:
        """Points that it has not reached yet."""
        return self._progress.points_left

    @property
    def ends_next(self) -> bool:
        """Whether its next point is its last, where all validation examples are scored."""
        return self.next_step == self.plan.total_steps

    @property
    def resume_step(self) -> int:
        """The step to continue from; earlier than :attr:`step` if that checkpoint is gone."""
        return self._progress.resume_step

    @property
    def branching_step(self) -> int:
        """The last point from which it can go on to a later end; 0 if there is none."""
        pipeline = self.spec.pipeline
        if not is_steady(pipeline.hyperparameters) or self.outcome.is_failure:
            return 0
        if get_method(pipeline.method).depends_on_length:
            return 0
        return max((p.step for p in self.curve if p.step <= self.plan.steady_steps), default=0)

    @property
    def tokens_to_next(self) -> int:
        """Training tokens up to its next point."""
        return self.tokens_to(self.next_step) if self.next_step else 0

    @property
    def tokens_to_end(self) -> int:
        """Training tokens up to its last point."""
        return self.tokens_to(self.plan.total_steps)

    @property
    def work_to_next(self) -> float:
        """Training tokens up to its next point, as a runtime model weighs them."""
        return self.effort * self.tokens_to_next

    @property
    def work_to_end(self) -> float:
        """Training tokens up to its last point, as a runtime model weighs them."""
        return self.effort * self.tokens_to_end

    def tokens_to(self, step: int) -> int:
        """Training tokens up to ``step`` from where it can be continued."""
        return self.plan.tokens_at(step) - self.plan.tokens_at(self.resume_step)

    def work_to_restore(self, step: int) -> float:
        """Training tokens that bring back the weights of ``step`` if they are gone, weighed by effort."""
        if self.spec.folder and self.checkpoints.is_kept(step):
            return 0.0
        start = self.checkpoints.latest(step) if self.spec.folder else 0
        return self.effort * (self.plan.tokens_at(step) - self.plan.tokens_at(start))

    @property
    def retrained_tokens(self) -> int:
        """Training tokens that were repeated because a checkpoint was gone."""
        return int(self.run.extra.get(RETRAINED, 0)) if self.run else 0

    @property
    def tokens_spent(self) -> int:
        """Training tokens spent on it; a step that is under way or failed counts fully."""
        unmeasured = self.running or (self.outcome.is_failure and not self._diverged_at_its_point)
        spent = self.plan.tokens_at(self.next_step if unmeasured and self.next_step else self.step)
        again = self.retrained_tokens + (self.tokens_to(self.step) if self.running else 0)
        return spent + again - (int(self.run.extra.get(TAKEN_OVER, 0)) if self.run else 0)

    @property
    def _diverged_at_its_point(self) -> bool:
        """Whether its last point's loss ended it, so that no step followed."""
        return bool(self.curve) and not self.curve[-1].validation.loss <= self.spec.divergence_nats

    @property
    def best_points(self) -> tuple[Point, ...]:
        """The points whose checkpoints may win; see :meth:`Judge.best_points`."""
        return Judge(self.training_task.point_metric or LOSS).best_points(self.curve)

    @property
    def most_best_points(self) -> int:
        """The most points that :attr:`best_points` may hold after the next one."""
        return min(2, len(self.curve) + 1) if self.training_task.point_metric else 1

    @property
    def best_point(self) -> Point | None:
        """Its point of the lowest finite loss, None if there is none."""
        return min(self.best_points, key=lambda point: point.validation.loss, default=None)

    @property
    def report(self) -> StepReport | None:
        """Its worker's latest report from beyond its last point, None if there is none."""
        report = self.checkpoints.read_report() if self.running and self.spec.folder else None
        return report if report and self.step < report.step <= self.plan.total_steps else None

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes of its checkpoints when it was last committed."""
        return self._progress.size_bytes

    @property
    def checkpoints(self) -> CheckpointFolder:
        """Its folder."""
        return CheckpointFolder(Path(self.spec.folder))

    def look_again(self) -> None:
        """Forget what its folder holds, because checkpoints came or went."""
        self._known = None

    @property
    def _progress(self) -> TrialProgress:
        if self._known is None or self._known.run is not self.run:
            folder = self.checkpoints if self.spec.folder else None
            self._known = TrialProgress.of(self.run, self.step, self.plan.grid, folder)
        return self._known
