"""What a finetuning does to other tasks: losses of the leading checkpoints on guards, beside the base."""

from __future__ import annotations

import numpy as np

from tunecast.executors.base import Ask
from tunecast.executors.requests import ScoreModel
from tunecast.progress import Progress
from tunecast.results import Guarded, GuardScore
from tunecast.session.finalists import Finalist, Key, score_finalist
from tunecast.session.guards import Guard
from tunecast.session.prepare import PreparedTask
from tunecast.session.settings import SessionSettings
from tunecast.training.losses import get_loss
from tunecast.training.measurement import Scored

SPLIT = "guard"


class GuardScorer:
    """Scores checkpoints on guards, each once.

    Args:
        prepared: The session's task, with guards that :func:`~tunecast.session.guards.affordable` chose; the
            workers hold their examples in the same order.
    """

    def __init__(
        self, settings: SessionSettings, prepared: PreparedTask, ask: Ask, progress: Progress
    ) -> None:
        self._guards, self._loss = prepared.guards, get_loss(prepared.training_task.loss)
        self._limit, self._seed = settings.guard_limit, settings.seed
        self._ask, self._progress = ask, progress
        self._base: np.ndarray | None = None
        self._found: dict[Key, Guarded] = {}

    def score_base(self) -> None:
        """Score the base model, with which all others are compared."""
        if self._guards and self._base is None:
            scored: Scored = self._ask(ScoreModel(None, 0, SPLIT))
            self._base = scored.measured

    def is_left_out(self, finalist: Finalist) -> bool:
        """Score a checkpoint, and return whether it loses more on some guard than the limit allows."""
        if not self._guards or finalist.trial is None:
            return False
        if finalist.key not in self._found:
            found = self._found[finalist.key] = self._scored(finalist)
            if found.left_out:
                self._progress.log(f"Note: {self._warning(found)}")
        return self._found[finalist.key].left_out

    @property
    def found(self) -> tuple[Guarded, ...]:
        """All checkpoints that were scored, in the order of scoring."""
        return tuple(self._found.values())

    def warnings(self) -> list[str]:
        """Name each checkpoint that is left out, and the guard where it loses most."""
        return [self._warning(one) for one in self.found if one.left_out]

    def _warning(self, one: Guarded) -> str:
        worst = max(one.scores, key=lambda score: score.percent)
        return (
            f"Run {one.run} ({one.pipeline.method}, step {one.step}) was left out of the choice: its loss on "
            f"the guard {worst.guard} is {worst.percent:.3g}% above the base model's; --guard-limit is "
            f"{self._limit:g}%."
        )

    def _scored(self, finalist: Finalist) -> Guarded:
        self.score_base()
        assert self._base is not None
        request = finalist.scoring(SPLIT, "", 0)
        measured = score_finalist(finalist, request, self._ask, self._progress).measured
        scores, start = [], 0
        for guard in self._guards:
            part = slice(start, start := start + len(guard.examples))
            scores.append(self._compared(guard, self._base[part], measured[part]))
        # Written so that a loss that is no number is too much as well.
        left_out = self._limit is not None and not all(one.percent <= self._limit for one in scores)
        return Guarded(finalist.run.id, finalist.step, finalist.run.pipeline, tuple(scores), left_out)

    def _compared(self, guard: Guard, base: np.ndarray, measured: np.ndarray) -> GuardScore:
        loss, examples = self._loss, guard.examples
        low, high = loss.difference_interval(examples, measured, base, seed=self._seed)
        before, after = loss.score(examples, base).loss, loss.score(examples, measured).loss
        return GuardScore(guard.name, len(examples), before, after, low, high)
