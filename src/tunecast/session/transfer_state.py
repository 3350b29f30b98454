"""Keeps a session's knowledge of other tasks as it was before the first trial.

By the time a session resumes, its store may hold other runs, and its prior may have been replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tunecast.errors import ConfigurationError
from tunecast.progress import Progress
from tunecast.records import Pipeline, Run
from tunecast.search import Context, Strategy
from tunecast.search.task_predictor import predicted_ends
from tunecast.search.task_tables import known_tables
from tunecast.session.state import SessionState
from tunecast.store import Store, shipped_runs

if TYPE_CHECKING:
    from tunecast.predictor import Prior


def prior_known(strategy: Strategy, file: str) -> Prior | None:
    """Read the trained prior for a strategy that rests on one; return None for any other.

    Without a ``file``, the prior that comes with the package is read.

    Raises:
        StoreError: The prior is missing or damaged.
    """
    if not strategy.predicts:
        return None
    from tunecast.predictor import prior_at

    return prior_at(file)


def runs_known(strategy: Strategy, store: Store, session: str, progress: Progress) -> tuple[Run, ...]:
    """Read recorded runs for a strategy that rests on them; return none for any other.

    These are the shipped runs and those of the session's store, except the session's own, which a strategy
    sees in its history.

    Raises:
        ConfigurationError: The strategy rests on recorded runs, and there are too few.
        StoreError: The store cannot be read.
    """
    if strategy.knows != "runs":
        return ()
    progress.start("Reading recorded runs, outside the budget")
    runs = {run.id: run for run in store.runs() if run.session != session}
    runs |= {run.id: run for run in shipped_runs()}
    tables = known_tables(runs.values())
    progress.finish(f"{len(runs):,} runs; {len(tables)} tasks with enough pipelines to compare")
    if not tables:
        raise ConfigurationError(
            f"--strategy {strategy.name} rests on recorded runs of other tasks, and there are too few: no "
            "task has four pipelines on the same model, full length and examples.",
            "Use --strategy asha, or name a store with such runs by --store; tunecast collect makes them.",
        )
    return tuple(runs.values())


def keep(
    state: SessionState,
    strategy: Strategy,
    context: Context,
    candidates: Sequence[Pipeline],
    *,
    baseline_fits: bool,
) -> None:
    """Write a session's candidates, and its strategy's conclusions from other tasks, into its state.

    A resumed session reads them back, since another version or processor might leave out other candidates.
    The first candidate is the baseline.
    """
    state.candidates = list(candidates)
    if context.prior is not None:
        state.prior = context.prior.identity
        state.predicted = predicted_ends(context, context.prior, candidates)
    state.listed = strategy.order(context, candidates if baseline_fits else candidates[1:])


def as_begun(context: Context, state: SessionState) -> Context:
    """Return a context with the knowledge that :func:`keep` saved when the session began."""
    return replace(
        context,
        listed=None if state.listed is None else tuple(state.listed),
        is_prior_kept=context.prior is None or state.prior == context.prior.identity,
    )
