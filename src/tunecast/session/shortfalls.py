"""Says which trials of a search did not reach their end, because that bears on its comparison."""

from __future__ import annotations

from tunecast.records import Outcome
from tunecast.session.trial import Trial
from tunecast.session.trials import Trials


def shortfalls(trials: Trials, first_name: str) -> list[str]:
    """Return warnings for a comparison about trials that did not end, one sentence each.

    ``first_name`` is the name of the first trial's pipeline, such as ``baseline``.
    """
    warnings = []
    first = trials[0]
    if first.outcome.is_failure:
        warnings.append(f"The {first_name} pipeline did not reach its end: {_ending(first)}.")
    elif first.is_stopped_early:
        warnings.append(_stopped_early_text(first))
    elif first.is_stopped:
        sentence = f"The {first_name} pipeline was stopped by hand at {first.share:.0%}"
        warnings.append(f"{sentence} of its full length.")
    elif first.is_feasible and first.outcome is not Outcome.COMPLETED:
        sentence = f"The budget brought the {first_name} pipeline to only {first.share:.0%}"
        warnings.append(f"{sentence} of its full length.")
    broken = [t for t in trials.started if t.outcome in (Outcome.FAILED, Outcome.OUT_OF_MEMORY)]
    if broken and broken != [first]:
        count = f"{len(broken)} of {len(trials.started)} trials"
        warnings.append(f"{count} broke down; the first one: {_ending(broken[0])}.")
    return warnings


def _ending(trial: Trial) -> str:
    """Describe how a trial ended, without the error's text: reports are shared, and it may hold paths."""
    error = trial.run.error if trial.run else None
    outcome = trial.outcome.value.replace("_", " ")
    return f"{outcome} ({error.kind})" if error else outcome


def _stopped_early_text(trial: Trial) -> str:
    best = trial.best_point
    assert best is not None
    place = f"step {trial.step} of {trial.plan.total_steps}"
    early = f"Training stopped early at {place}: for {trial.patience} points"
    loss = f"the validation loss was no better than {best.validation.loss:.3f}, that of step {best.step}"
    metric = trial.training_task.point_metric
    return f"{early} {loss}, and {metric} did not improve either." if metric else f"{early} {loss}."
