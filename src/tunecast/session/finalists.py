"""The checkpoints that may win a session, and how their scores compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from tunecast.data import LOSS
from tunecast.executors.base import Ask
from tunecast.executors.requests import ScoreModel
from tunecast.progress import Progress
from tunecast.records import Point, Run, Score
from tunecast.results import TrainedOn
from tunecast.search import get_strategy
from tunecast.session.judge import Judge
from tunecast.session.settings import SessionSettings
from tunecast.session.trial import Trial
from tunecast.session.trials import retraining_note
from tunecast.training.label_metrics import is_label_metric
from tunecast.training.measurement import Scored
from tunecast.training.training_task import TrialSpec

FINALISTS = 3
"""Checkpoints that lead on the validation subset and are compared on all validation examples."""
FURTHER = 3
"""Checkpoints after the leading ones for which seconds are kept if there is a limit on guards."""

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
        return self._point.checkpoint_hash

    @property
    def subset_score(self) -> Score:
        """Its score on the validation subset."""
        return self._point.validation

    @property
    def trained_on(self) -> TrainedOn:
        """The amount of training, from its trial's plan."""
        if self.trial is None:
            return TrainedOn(0, 0, self.run.unique_examples, 0.0)
        seen = np.concatenate(self.trial.plan.batches[: self.step])
        available = self.run.unique_examples
        return TrainedOn(self.step, len(np.unique(seen)), available, len(seen) / available)

    @property
    def _point(self) -> Point:
        return next(point for point in self.run.curve if point.step == self.step)

    def scoring(
        self,
        split: str,
        metric: str,
        generate_limit: int,
        interval_seed: int | None = None,
        label_limit: int = 0,
    ) -> ScoreModel:
        """Return the request to score it."""
        return ScoreModel(
            self.spec,
            self.step,
            split,
            self.weights_hash,
            metric,
            generate_limit,
            interval_seed,
            label_limit=label_limit,
        )


def best_checkpoints(trial: Trial) -> list[Finalist]:
    """Return the checkpoints of a trial that may win, best first; see :attr:`Trial.best_points`."""
    if trial.run is None:
        return []
    return [Finalist(trial.run, trial, point.step) for point in trial.best_points]


def ranked_checkpoints(trials: Iterable[Trial], judge: Judge) -> list[Finalist]:
    """Return the checkpoints that may win in the order of the validation subset.

    They are ordered by loss. If points measured the metric that decides, it and the loss take turns.
    """
    found = [finalist for trial in trials for finalist in best_checkpoints(trial)]
    by_loss = sorted(found, key=lambda one: one.subset_score.loss)
    measured = all(one.subset_score.metric_name == judge.metric for one in found)
    if not (is_label_metric(judge.metric) and measured):
        return by_loss
    by_metric = sorted(found, key=lambda one: judge.badness(one.subset_score))
    turns = [one for pair in zip(by_metric, by_loss, strict=True) for one in pair]
    return list({one.key: one for one in turns}.values())


def leading_checkpoints(trials: Iterable[Trial], judge: Judge) -> list[Finalist]:
    """Return the checkpoints that lead on the validation subset, at most three."""
    return ranked_checkpoints(trials, judge)[:FINALISTS]


def is_scored(finalist: Finalist) -> bool:
    """Whether the losses of a checkpoint on all validation examples are known from the end of its trial."""
    trial = finalist.trial
    return trial is not None and trial.measured is not None and finalist.step == trial.plan.total_steps


def further(settings: SessionSettings) -> int:
    """Count the checkpoints after the leading ones for which seconds are kept."""
    return 0 if settings.guard_limit is None else FURTHER


def most_to_score(trials: Iterable[Trial], advanced: Set[int], settings: SessionSettings, metric: str) -> int:
    """Count the checkpoints for which a comparison after the next steps needs seconds, at most.

    Args:
        trials: The trials; the first is the baseline's if the strategy has one.
        advanced: Places of those that the next steps advance: each may be among the leaders then.
        settings: The session's.
        metric: What decides; answers to a metric are never known from the end of a trial, nor are guards.
    """
    places = dict(enumerate(trials))
    found = {place: ones for place, trial in places.items() if (ones := best_checkpoints(trial))}
    after_leaders = min(further(settings), max(0, len(found.keys() | advanced) - FINALISTS))
    return after_leaders + _most_leaders(places, found, advanced, settings, metric)


def _most_leaders(
    places: Mapping[int, Trial],
    found: Mapping[int, Sequence[Finalist]],
    advanced: Set[int],
    settings: SessionSettings,
    metric: str,
) -> int:
    """Count the leading checkpoints, and the baseline's, that have to be scored; ``found`` is by place."""
    has_baseline = get_strategy(settings.strategy).has_baseline
    if is_label_metric(metric):
        # The loss does not tell who leads by labels; the baseline may be scored beside the leaders.
        most = {place: len(ones) for place, ones in found.items()}
        most |= {place: places[place].most_best_points for place in advanced}
        beside = most.pop(0, 0) if has_baseline else 0
        return min(FINALISTS, sum(most.values())) + beside
    known = sorted(found.keys() - set(advanced), key=lambda place: found[place][0].subset_score.loss)
    rescores_baseline = has_baseline and 0 in advanced
    baseline = {0} if has_baseline and 0 in known else set()

    def unscored(places: Iterable[int]) -> int:
        rescores = metric != LOSS or bool(settings.guard)
        return sum(rescores or not is_scored(found[place][0]) for place in places)

    newcomers = min(FINALISTS, len(advanced) - rescores_baseline)
    return max(
        new + rescores_baseline + unscored(baseline.union(known[: FINALISTS - new]))
        for new in range(newcomers + 1)
    )


def score_finalist(finalist: Finalist, request: ScoreModel, ask: Ask, progress: Progress) -> Scored:
    """Return a worker's answer; tell the user if a lost checkpoint had to be trained again."""
    scored: Scored = ask(request)
    if scored.retrained_tokens:
        progress.log(retraining_note(finalist.run.id, scored.retrained_tokens))
    return scored
