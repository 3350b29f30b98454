"""What trackers show of runs and sessions, under the same names everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tunecast.records import Outcome, Point, Run, Scalar
from tunecast.results import SessionRecord

Metrics = dict[str, float]


def run_name(run: Run) -> str:
    """Return the name of a run: its method, and as much of its id as makes it unique."""
    return f"{run.pipeline.method}-{run.id[:12]}"


def parameters(run: Run) -> dict[str, Scalar]:
    """Return the pipeline of a run, and what else determined it."""
    return {
        "method": run.pipeline.method,
        **run.pipeline.hyperparameters,
        "model": run.task.model,
        "dataset": run.task.dataset,
        "objective": run.task.metric,
        "seed": run.seed,
        "full_length_tokens": run.full_length_tokens,
        "unique_examples": run.unique_examples,
        "max_length": run.max_length,
        "dtype": run.dtype,
        "trainable_parameters": run.trainable_parameters,
        "purpose": str(run.extra.get("purpose", "search" if run.is_candidate else "base model")),
    }


def points(run: Run) -> Iterator[tuple[int, Metrics]]:
    """Yield every point of a run as its optimiser step and its figures.

    Losses are nats per label token. ``training_seconds`` counts the run's own training up to the point,
    ``elapsed_seconds`` the session's budget.
    """
    seconds = 0.0
    for point in run.curve:
        seconds += point.training.wall
        yield point.step, {**_measured(point), "training_seconds": seconds}


def _measured(point: Point) -> Metrics:
    figures = {
        "validation_loss": point.validation.loss,
        "validation_metric": point.validation.metric,
        "train_loss": point.train_loss,
        "gradient_norm": point.gradient_norm,
        "learning_rate": point.learning_rate,
        "tokens_seen": point.tokens_seen,
        "label_tokens_seen": point.label_tokens_seen,
        "evaluation_seconds": point.evaluation.wall,
        "elapsed_seconds": point.elapsed_seconds,
        "peak_bytes": point.peak_bytes,
    }
    return {name: float(value) for name, value in figures.items() if value is not None}


def outcome(run: Run) -> dict[str, str]:
    """Return how a run stands or ended, and the kind of error; its text may hold paths."""
    if run.error is None:
        return {"outcome": run.outcome.value}
    return {"outcome": run.outcome.value, "error": run.error.kind}


def has_ended(run: Run) -> bool:
    """Whether no further point follows."""
    return run.outcome is not Outcome.PAUSED


def run_summary(run: Run, record: SessionRecord) -> Metrics:
    """Return the best validation loss of a run, and its scores on the test split if it was scored there.

    A run with several scored checkpoints has the scores of the last one.
    """
    best = run.best_point
    figures = {} if best is None else {"best_validation_loss": best.validation.loss}
    for contender in record.contenders:
        if contender.run == run.id:
            figures.update(_scored("", contender.test.loss, contender.test.metric))
    return figures


def session_summary(record: SessionRecord) -> Metrics:
    """Return the test scores of all that were compared, by name, and the seconds that were used."""
    figures = {"used_seconds": record.used_seconds}
    for contender in record.contenders:
        figures.update(_scored(f"{contender.name}_", contender.test.loss, contender.test.metric))
    return figures


def session_outcome(record: SessionRecord) -> Mapping[str, str]:
    """Return what the session chose."""
    winner = record.contender(record.winner)
    return {"winner": record.winner, "winner_method": winner.pipeline.method, "winner_run": winner.run}


def _scored(prefix: str, loss: float, metric: float | None) -> Metrics:
    figures = {f"{prefix}test_loss": loss, f"{prefix}test_metric": metric}
    return {name: value for name, value in figures.items() if value is not None}
