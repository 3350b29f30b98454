"""The checkpoints that may win a session, and how their scores compare."""

from __future__ import annotations

import math
from collections.abc import Iterable, Set
from dataclasses import dataclass

import numpy as np

from tunecast.data import LOSS
from tunecast.executors.base import Ask
from tunecast.executors.requests import ScoreModel
from tunecast.progress import Progress
from tunecast.records import Run, Score
from tunecast.results import TrainedOn
from tunecast.search import get_strategy
from tunecast.session.settings import SessionSettings
from tunecast.session.trials import Trial, retraining_note
from tunecast.training.label_metrics import label_metric
from tunecast.training.measurement import Scored
from tunecast.training.training_task import TrialSpec

FINALISTS = 3

Key = tuple[str, int]
"""A checkpoint: the id of its run, and its step."""


@dataclass(frozen=True)
class Finalist:
    """A checkpoint that may win; the base model has no ``trial``."""

    run: Run
    trial: Trial | None
    step: int

    @property
    def key(self) -> Key:
        """Identity of the checkpoint."""
        return self.run.id, self.step

    @property
    def spec(self) -> TrialSpec | None:
        """Specification for its worker."""
        return self.trial.spec if self.trial else None

    @property
    def weights_hash(self) -> str:
        """The committed hash of its weights."""
        return next(point.checkpoint_hash for point in self.run.curve if point.step == self.step)

    @property
    def trained_on(self) -> TrainedOn:
        """The amount of training, from its trial's plan."""
        if self.trial is None:
            return TrainedOn(0, 0, self.run.unique_examples, 0.0)
        seen = np.concatenate(self.trial.plan.batches[: self.step])
        available = self.run.unique_examples
        return TrainedOn(self.step, len(np.unique(seen)), available, len(seen) / available)

    def scoring(
        self, split: str, metric: str, generate_limit: int, interval_seed: int | None = None
    ) -> ScoreModel:
        """Return the request to score it."""
        return ScoreModel(
            self.spec, self.step, split, self.weights_hash, metric, generate_limit, interval_seed
        )


class Judge:
    """Compares scores by the session's objective; the loss settles ties between metrics."""

    def __init__(self, objective: str) -> None:
        self.metric = "" if objective == "loss" else objective
        self.by_labels = False
        if self.metric:
            from tunecast.training.metrics import get_metric

            metric = get_metric(self.metric)
            self.by_labels = metric.by_labels
            self._sign = -1.0 if metric.higher_is_better else 1.0

    def badness(self, score: Score) -> tuple[float, ...]:
        """Lower is better."""
        loss = score.loss if math.isfinite(score.loss) else math.inf
        if not self.metric:
            return (loss,)
        assert score.metric is not None
        return self._sign * score.metric, loss

    def prefers(self, one: Score, other: Score) -> bool:
        """Whether the first score is better."""
        return self.badness(one) < self.badness(other)


def best_checkpoint(trial: Trial) -> Finalist | None:
    """Return a trial's checkpoint with the lowest loss on the validation subset, None before its first."""
    if trial.run is None or trial.best_point is None:
        return None
    return Finalist(trial.run, trial, trial.best_point.step)


def leading_checkpoints(trials: Iterable[Trial], judge: Judge) -> list[Finalist]:
    """Return the best checkpoints of the leading trials on the validation subset, at most three.

    They lead by loss. If points measured the metric that decides, they lead by it and by loss in turns.
    """
    found = [finalist for trial in trials if (finalist := best_checkpoint(trial))]
    by_loss = sorted(found, key=lambda one: _subset_score(one).loss)
    if not judge.by_labels or any(_subset_score(one).metric_name != judge.metric for one in found):
        return by_loss[:FINALISTS]
    by_metric = sorted(found, key=lambda one: judge.badness(_subset_score(one)))
    turns = [one for pair in zip(by_metric, by_loss, strict=True) for one in pair]
    return list({one.key: one for one in turns}.values())[:FINALISTS]


def is_scored(finalist: Finalist) -> bool:
    """Whether the losses of a checkpoint on all validation examples are known from the end of its trial."""
    trial = finalist.trial
    return trial is not None and trial.measured is not None and finalist.step == trial.plan.total_steps


def most_to_score(trials: Iterable[Trial], advanced: Set[int], settings: SessionSettings, metric: str) -> int:
    """Count the checkpoints that a comparison after the next steps would have to score, at most.

    Args:
        trials: The trials; the first is the baseline's if the strategy has one.
        advanced: Places of those that the next steps advance: each may be among the leaders then.
        settings: The session's.
        metric: What decides; answers to a metric are never known from the end of a trial, nor are guards.
    """
    found = {place: one for place, trial in enumerate(trials) if (one := best_checkpoint(trial))}
    has_baseline = get_strategy(settings.strategy).has_baseline
    # Who leads by labels is not known from the loss: the baseline may be no leader and be scored beside them.
    beside = has_baseline and label_metric(metric) is not None
    known = sorted(
        found.keys() - set(advanced),
        key=lambda place: (beside and place == 0, _subset_score(found[place]).loss),
    )
    baseline_anew = has_baseline and 0 in advanced
    baseline = {0} if has_baseline and 0 in known else set()

    def unscored(places: Iterable[int]) -> int:
        rescores = metric != LOSS or bool(settings.guard)
        return sum(rescores or not is_scored(found[place]) for place in places)

    newcomers = min(FINALISTS, len(advanced) - baseline_anew)
    return max(
        new + baseline_anew + unscored(baseline.union(known[: FINALISTS - new]))
        for new in range(newcomers + 1)
    )


def score_finalist(finalist: Finalist, request: ScoreModel, ask: Ask, progress: Progress) -> Scored:
    """Return a worker's answer; tell the user if a lost checkpoint had to be trained again."""
    scored: Scored = ask(request)
    if scored.retrained_tokens:
        progress.log(retraining_note(finalist.run.id, scored.retrained_tokens))
    return scored


def _subset_score(finalist: Finalist) -> Score:
    point = finalist.run.best_point
    assert point is not None
    return point.validation
