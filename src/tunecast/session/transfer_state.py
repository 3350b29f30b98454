"""What a session knows of other tasks before its first trial, and keeps: by the time at which it goes on, its
store may hold other runs, and its prior may have been trained anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tunecast.errors import ConfigurationError
from tunecast.progress import Progress
from tunecast.records import Pipeline, Run
from tunecast.search import RUN_BASED, SURROGATE_BASED, Context, listed_ids
from tunecast.search.task_tables import known_tables
from tunecast.session.state import SessionState
from tunecast.store import Store, open_for_reading, shipped

if TYPE_CHECKING:
    from tunecast.predictor import Prior


def prior_known(strategy: str, file: str) -> Prior | None:
    """The trained surrogates for a strategy that rests on them; None for any other.

    Args:
        strategy: Name of the strategy.
        file: File of the prior; empty for the one that comes with the package.

    Raises:
        StoreError: There is none, or it is damaged.
    """
    if strategy not in SURROGATE_BASED:
        return None
    from tunecast.predictor import prior_at

    return prior_at(file)


def runs_known(strategy: str, store: Store, session: str, progress: Progress) -> tuple[Run, ...]:
    """Recorded runs for a strategy that rests on them; none for any other.

    They are the shipped ones and those of the session's store, without those of the session itself: these a
    strategy sees in its history.

    Args:
        strategy: Name of the strategy.
        store: Where the session commits its runs.
        session: The session's identifier.
        progress: Told how many there are.

    Raises:
        ConfigurationError: The strategy rests on recorded runs, and there are too few.
        StoreError: The store cannot be read.
    """
    if strategy not in RUN_BASED:
        return ()
    progress.start("Reading recorded runs, outside the budget")
    runs = {run.id: run for run in store.runs() if run.session != session}
    if shipped() is not None:
        with open_for_reading() as meta_dataset:
            runs |= {run.id: run for run in meta_dataset.runs()}
    tables = known_tables(runs.values())
    progress.finish(f"{len(runs):,} runs; {len(tables)} tasks with enough pipelines to compare")
    if not tables:
        raise ConfigurationError(
            f"--strategy {strategy} rests on recorded runs of other tasks, and there are too few: no task "
            "has four pipelines on the same model, full length and examples.",
            "Use --strategy asha, or name a store with such runs by --store; tunecast collect makes them.",
        )
    return tuple(runs.values())


def keep(
    state: SessionState,
    strategy: str,
    context: Context,
    candidates: Sequence[Pipeline],
    *,
    baseline_fits: bool,
) -> None:
    """Write into a session's state what may be tried, and what its strategy made of other tasks.

    Another version, or another processor, might leave other candidates out.

    Args:
        state: The session's, which is changed.
        strategy: Name of the strategy.
        context: The task, and what is known of others.
        candidates: What may be tried; the first is the baseline.
        baseline_fits: Whether that is one of them.
    """
    state.candidates = list(candidates)
    state.prior = None if context.prior is None else context.prior.identity
    state.listed = listed_ids(strategy, context, candidates if baseline_fits else candidates[1:])


def as_begun(context: Context, state: SessionState) -> Context:
    """A context that knows what :func:`keep` wrote down, where it did.

    Args:
        context: The task, and what is known of others by now.
        state: The session's.
    """
    return replace(
        context,
        listed=None if state.listed is None else tuple(state.listed),
        is_prior_kept=context.prior is None or state.prior == context.prior.identity,
    )
