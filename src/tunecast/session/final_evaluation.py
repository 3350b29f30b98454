"""The end of a session: choose the incumbent, score the contenders on the test split, deliver the winner."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tunecast.executors.requests import Ask, Save, SaveBase, ScoreModel
from tunecast.models.load import ResolvedModel
from tunecast.progress import Progress
from tunecast.records import Contender, Run, SampleOutput, Score, SessionRecord
from tunecast.search import GIVEN, first_name
from tunecast.session.budget import Budget
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
"""Answers by which finalists are compared, where the objective is a metric."""
TEST_METRIC_EXAMPLES = 500
"""Answers by which the test split is scored, here and by ``tunecast evaluate``."""
SAMPLES = 5


@dataclass(frozen=True)
class Finalist:
    """A checkpoint that may become the incumbent; ``trial`` None stands for the base model."""

    name: str
    run: Run
    trial: Trial | None
    step: int

    @property
    def spec(self) -> TrialSpec | None:
        """What its worker must know."""
        return self.trial.spec if self.trial else None

    @property
    def weights_hash(self) -> str:
        """The committed hash of its weights."""
        return next(point.checkpoint_hash for point in self.run.curve if point.step == self.step)

    def scoring(
        self, split: str, metric: str, generate_limit: int, interval_seed: int | None = None
    ) -> ScoreModel:
        """The request to score it."""
        return ScoreModel(
            self.spec, self.step, split, self.weights_hash, metric, generate_limit, interval_seed
        )


class Judge:
    """Compares scores by the session's objective; of equal metrics the lower loss is better."""

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


@dataclass(frozen=True)
class Account:
    """What a session spent, for its record.

    Args:
        session: Identifier of the session.
        budget: What was granted.
        used_seconds: Seconds of it that are gone.
        full_length_tokens: Horizon of every trial.
    """

    session: str
    budget: Budget
    used_seconds: float
    full_length_tokens: int


@dataclass(frozen=True)
class FinalScoring:
    """Chooses, scores and delivers; all of it outside the budget.

    Args:
        settings: The session's settings.
        prepared: The task.
        folder: The output folder, in which ``best/`` will hold the winner.
        store: Takes the test scores.
        ask: Lets a worker answer.
        progress: Told what is compared and scored.
    """

    settings: SessionSettings
    prepared: PreparedTask
    folder: OutputFolder
    store: Store
    ask: Ask
    progress: Progress

    def run(self, trials: Trials, zero_shot: Run, account: Account) -> SessionRecord:
        """Deliver the best of base model, baseline and incumbent by the test split.

        Args:
            trials: The session's trials; the first is the baseline's.
            zero_shot: The base model's run.
            account: What was spent.

        Returns:
            The session's record.
        """
        judge = Judge(self.settings.objective)
        warnings = trials.warnings(first_name(self.settings.strategy))
        for warning in warnings:
            self.progress.log(f"Note: {warning}")
        base = Finalist("zero_shot", zero_shot, None, 0)
        untrained = zero_shot.validation or zero_shot.curve[0].validation
        chosen = choose_incumbent(trials, judge, self.ask, self.progress)
        incumbent, validation = chosen or (base, untrained)
        contenders = self._contenders(base, trials[0], incumbent)
        scored = self._score_all(contenders, judge)
        # Where the incumbent is the baseline or the base model, that one wins: min takes the first.
        winner = min(contenders, key=lambda contender: judge.badness(scored[contender.name].score))
        for contender in contenders:
            self.store.set_scores(contender.run.id, test=scored[contender.name].score)
        self.progress.start("Saving the winner")
        self._deliver(winner)
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
                Contender(c.name, c.run.id, c.run.pipeline, c.step, scored[c.name].score) for c in contenders
            ),
            winner=winner.name,
            incumbent_loss=validation.loss,
            samples=_samples(scored["zero_shot"], scored[winner.name]),
            warnings=(*self.prepared.warnings, *warnings),
            output_dir=str(self.folder.path),
            configuration=self.settings.as_json(),
            versions=zero_shot.versions,
        )

    def _contenders(self, base: Finalist, baseline: Trial, incumbent: Finalist) -> list[Finalist]:
        """What is scored on the test split, in the order in which ties are won."""
        contenders = [base]
        if self.settings.strategy != GIVEN and baseline.run is not None and baseline.best_point is not None:
            contenders.append(Finalist("baseline", baseline.run, baseline, baseline.best_point.step))
        return [*contenders, replace(incumbent, name="incumbent")]

    def _score_all(self, contenders: Sequence[Finalist], judge: Judge) -> dict[str, Scored]:
        """Test scores by name; a checkpoint that stands twice is scored once."""
        examples = len(self.prepared.training_task.test)
        self.progress.start(
            f"Scoring {examples} test examples, outside the budget", len(contenders), "models"
        )
        known: dict[tuple[str, int], Scored] = {}
        scored = {}
        for contender in contenders:
            key = (contender.run.id, contender.step)
            if key not in known:
                limit = TEST_METRIC_EXAMPLES if judge.metric else SAMPLES
                known[key] = self.ask(contender.scoring("test", judge.metric, limit, self.settings.seed))
                _tell_of_retraining(contender, known[key], self.progress)
            scored[contender.name] = known[key]
            self.progress.advance(note=f"{contender.name} {known[key].score.loss:.3f}")
        self.progress.finish()
        return scored

    def _deliver(self, winner: Finalist) -> None:
        """Write ``best/`` under another name and rename it, so that a half-written one is never found."""
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
        # Durable before session.json says that the session is complete: a lost best/ would not be made again.
        for place in (*temporary.rglob("*"), temporary):
            sync(place)
        final = self.folder.path / "best"
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        sync(self.folder.path)


def choose_incumbent(
    trials: Trials, judge: Judge, ask: Ask, progress: Progress
) -> tuple[Finalist, Score] | None:
    """The best of the few leading checkpoints on all validation examples that the session uses, with its
    score there; None where nothing was trained.

    Points were scored on a small subset; more examples keep the luckiest from winning.
    """
    candidates = [
        Finalist("incumbent", trial.run, trial, trial.best_point.step)
        for trial in trials
        if trial.run is not None and trial.best_point is not None
    ]
    candidates.sort(key=_subset_loss)
    finalists = candidates[:FINALISTS]
    if not finalists:
        return None
    progress.start("Comparing the leading checkpoints", len(finalists), "checkpoints")
    scores: list[Score] = []
    for finalist in finalists:
        limit = VALIDATION_METRIC_EXAMPLES if judge.metric else 0
        scored: Scored = ask(finalist.scoring("validation", judge.metric, limit))
        _tell_of_retraining(finalist, scored, progress)
        scores.append(scored.score)
        progress.advance()
    progress.finish()
    badness = [judge.badness(score) for score in scores]
    best = badness.index(min(badness))
    return finalists[best], scores[best]


def _subset_loss(finalist: Finalist) -> float:
    point = finalist.run.best_point
    assert point is not None
    return point.validation.loss


def _tell_of_retraining(finalist: Finalist, scored: Scored, progress: Progress) -> None:
    if scored.retrained_tokens:
        progress.log(retraining_note(finalist.run.id, scored.retrained_tokens))


def _samples(before: Scored, after: Scored) -> tuple[SampleOutput, ...]:
    pairs = zip(before.outputs[:SAMPLES], after.outputs[:SAMPLES], strict=True)
    return tuple(replace(new, before=old.after) for old, new in pairs)


def _base_location(model: ResolvedModel) -> str:
    """Where the saved adapter finds its base: beside it for a converted GGUF, else the user's model."""
    if model.converted:
        return "base"
    return str(Path(model.location).resolve()) if model.is_local else model.location
