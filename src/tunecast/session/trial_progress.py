"""Where a trial stands, worked out once: a session asks for this of every trial at every step of any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from tunecast.records import Run
from tunecast.training.checkpoint import CheckpointFolder


@dataclass(frozen=True)
class TrialProgress:
    """What follows from a trial's run, its plan and its folder.

    Args:
        run: The run, as it was.
        following: The next step of its grid, None at the end.
        points_left: Points of its grid that it has not reached.
        resume_step: The step to continue from, 0 for the beginning.
        size_bytes: Bytes of its checkpoints.
    """

    run: Run | None
    following: int | None
    points_left: int
    resume_step: int
    size_bytes: int

    @classmethod
    def of(cls, run: Run | None, step: int, grid: Sequence[int], folder: CheckpointFolder | None) -> Self:
        """Look up where a trial stands; without a folder it keeps no checkpoints."""
        ahead = [later for later in grid if later > step]
        resumed = folder.latest(step) if folder and step else 0
        size = folder.size_bytes() if folder else 0
        return cls(run, next(iter(ahead), None), len(ahead), resumed, size)
