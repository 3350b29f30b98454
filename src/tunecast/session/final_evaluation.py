"""The end of a session: choose the winner on validation, report it on the test split, deliver it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tunecast.budget import Budget
from tunecast.executors.base import Ask
from tunecast.executors.requests import Save, SaveBase, ScoreModel
from tunecast.models.load import ResolvedModel
from tunecast.progress import Progress
from tunecast.records import Run, Score
from tunecast.results import Contender, SampleOutput, SessionRecord
from tunecast.search import get_strategy
from tunecast.session.folder import OutputFolder
from tunecast.session.prepare import PreparedTask
from tunecast.session.provenance import Origin
from tunecast.session.settings import SessionSettings
from tunecast.session.trials import Trial, Trials, retraining_note
from tunecast.store import Store
from tunecast.training.checkpoint import sync
from tunecast.training.runner import Scored
from tunecast.training.training_task import TrialSpec

FINALISTS = 3
VALIDATION_METRIC_EXAMPLES = 100
"""Answers that choose the winner where the objective is a metric."""
TEST_METRIC_EXAMPLES = 500
"""Answers scored on the test split, here and by ``tunecast evaluate``."""
SAMPLES = 5

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
    def measured_validation(self) -> Score | None:
        """Its loss on all validation examples, None if it was never measured: only ends of runs are."""
        return self.run.validation if self.run.curve[-1].step == self.step else None

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
        if self.metric:
            from tunecast.training.metrics import get_metric

            self._sign = -1.0 if get_metric(self.metric).higher_is_better else 1.0

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


@dataclass(frozen=True)
class Account:
    """Amounts that a session spent, for its record."""

    session: str
    budget: Budget
    used_seconds: float
    full_length_tokens: int


@dataclass(frozen=True)
class FinalScoring:
    """Chooses the winner, scores it and delivers it to ``best/``; all of this is outside the budget."""

    settings: SessionSettings
    prepared: PreparedTask
    folder: OutputFolder
    store: Store
    ask: Ask
    progress: Progress

    def run(self, trials: Trials, zero_shot: Run, account: Account) -> SessionRecord:
        """Deliver the best of base model, baseline and incumbent by validation, and score all three on test.

        The first trial is the baseline's.
        """
        judge = Judge(self.settings.objective)
        warnings = trials.warnings(get_strategy(self.settings.strategy).first_name)
        for warning in warnings:
            self.progress.log(f"Note: {warning}")
        contenders, validation = self._contenders(trials, zero_shot, judge)
        # min takes the first of equals: an incumbent that is the baseline's checkpoint wins as the baseline.
        winner = min(contenders, key=lambda name: judge.badness(validation[contenders[name].key]))
        test = self._score_on_test(contenders, judge)
        for name, finalist in contenders.items():
            self.store.set_scores(finalist.run.id, test=test[name].score)
        self.progress.start("Saving the winner")
        self._deliver(contenders[winner])
        self.progress.finish(str(self.folder.path / "best"))
        return SessionRecord(
            id=account.session,
            task=self.prepared.task,
            objective=self.settings.objective,
            strategy=self.settings.strategy,
            seed=self.settings.seed,
            budget=account.budget.text,
            granted_seconds=account.budget.seconds,
            used_seconds=account.used_seconds,
            full_length_tokens=account.full_length_tokens,
            contenders=tuple(
                Contender(name, c.run.id, c.run.pipeline, c.step, test[name].score, validation[c.key])
                for name, c in contenders.items()
            ),
            winner=winner,
            incumbent_loss=validation[contenders["incumbent"].key].loss,
            samples=_samples(test["zero_shot"], test[winner]),
            warnings=(*self.prepared.warnings, *warnings),
            output_dir=str(self.folder.path),
            configuration=self.settings.as_json(),
            versions=zero_shot.versions,
            ahead_on_test=tuple(
                name for name in contenders if judge.prefers(test[name].score, test[winner].score)
            ),
        )

    def _contenders(
        self, trials: Trials, zero_shot: Run, judge: Judge
    ) -> tuple[dict[str, Finalist], dict[Key, Score]]:
        """Return contenders by name, in the order that settles ties, and validation scores by checkpoint."""
        base = Finalist(zero_shot, None, 0)
        contenders = {"zero_shot": base}
        baseline = best_checkpoint(trials[0])
        if get_strategy(self.settings.strategy).has_baseline and baseline is not None:
            contenders["baseline"] = baseline
        leading = leading_checkpoints(trials)
        validation = validate([*contenders.values(), *leading], judge, self.ask, self.progress)
        incumbent = min(leading, key=lambda one: judge.badness(validation[one.key]), default=base)
        return {**contenders, "incumbent": incumbent}, validation

    def _score_on_test(self, contenders: Mapping[str, Finalist], judge: Judge) -> dict[str, Scored]:
        """Return test scores by name; each checkpoint is scored once, whatever its names."""
        examples = len(self.prepared.training_task.test)
        self.progress.start(
            f"Scoring {examples} test examples, outside the budget", len(contenders), "models"
        )
        limit = TEST_METRIC_EXAMPLES if judge.metric else SAMPLES
        known: dict[Key, Scored] = {}
        for name, finalist in contenders.items():
            if finalist.key not in known:
                request = finalist.scoring("test", judge.metric, limit, self.settings.seed)
                known[finalist.key] = _scored(finalist, request, self.ask, self.progress)
            self.progress.advance(note=f"{name} {known[finalist.key].score.loss:.3f}")
        self.progress.finish()
        return {name: known[finalist.key] for name, finalist in contenders.items()}

    def _deliver(self, winner: Finalist) -> None:
        """Write ``best/`` under another name and rename it, so that a half-written folder is never found."""
        import json

        temporary = self.folder.path / "best.part"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        model = self.prepared.training_task.model
        if winner.spec is None:
            self.ask(SaveBase(str(temporary)))
        else:
            location = _base_location(model)
            self.ask(Save(winner.spec, winner.step, str(temporary), location, winner.weights_hash))
            if model.converted and (temporary / "adapter_config.json").is_file():
                shutil.copytree(model.location, temporary / "base")
        (temporary / "pipeline.json").write_text(
            json.dumps(asdict(winner.run.pipeline), indent=2) + "\n", encoding="utf-8"
        )
        fingerprint = self.prepared.dataset.fingerprint
        Origin(self.settings.seed, self.prepared.task.dataset, fingerprint).write(temporary)
        # Sync before session.json marks the session as complete: a lost best/ would not be written again.
        for place in (*temporary.rglob("*"), temporary):
            sync(place)
        final = self.folder.path / "best"
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        sync(self.folder.path)


def best_checkpoint(trial: Trial) -> Finalist | None:
    """Return a trial's checkpoint with the lowest loss on the validation subset, None before its first."""
    if trial.run is None or trial.best_point is None:
        return None
    return Finalist(trial.run, trial, trial.best_point.step)


def leading_checkpoints(trials: Iterable[Trial]) -> list[Finalist]:
    """Return the best checkpoints of the leading trials by loss on the validation subset, at most three."""
    found = [finalist for trial in trials if (finalist := best_checkpoint(trial))]
    return sorted(found, key=_subset_loss)[:FINALISTS]


def validate(finalists: Iterable[Finalist], judge: Judge, ask: Ask, progress: Progress) -> dict[Key, Score]:
    """Score checkpoints on all validation examples that the session uses, each once.

    Points are scored on a small subset; more examples keep the luckiest checkpoint from winning. The loss at
    the end of a run was measured on these examples already, so it is not measured again.
    """
    unique = {finalist.key: finalist for finalist in finalists}
    progress.start("Comparing the leading checkpoints on validation", len(unique), "models")
    limit = VALIDATION_METRIC_EXAMPLES if judge.metric else 0
    scores: dict[Key, Score] = {}
    for key, finalist in unique.items():
        score = None if judge.metric else finalist.measured_validation
        if score is None:
            request = finalist.scoring("validation", judge.metric, limit)
            score = _scored(finalist, request, ask, progress).score
        scores[key] = score
        progress.advance()
    progress.finish()
    return scores


def _scored(finalist: Finalist, request: ScoreModel, ask: Ask, progress: Progress) -> Scored:
    """Return a worker's answer; tell the user if a lost checkpoint had to be trained again."""
    scored: Scored = ask(request)
    if scored.retrained_tokens:
        progress.log(retraining_note(finalist.run.id, scored.retrained_tokens))
    return scored


def _subset_loss(finalist: Finalist) -> float:
    point = finalist.run.best_point
    assert point is not None
    return point.validation.loss


def _samples(before: Scored, after: Scored) -> tuple[SampleOutput, ...]:
    pairs = zip(before.outputs[:SAMPLES], after.outputs[:SAMPLES], strict=True)
    return tuple(replace(new, before=old.after) for old, new in pairs)


def _base_location(model: ResolvedModel) -> str:
    """Return the base model's location as the adapter records it: beside it for a converted GGUF."""
    if model.converted:
        return "base"
    return str(Path(model.location).resolve()) if model.is_local else model.location
