"""What a session knows of other tasks before its first trial."""

from __future__ import annotations

from tunecast.errors import ConfigurationError
from tunecast.progress import Progress
from tunecast.records import Run
from tunecast.search import RUN_BASED
from tunecast.search.known import known_tables
from tunecast.store import Store, open_for_reading, shipped

__all__ = ["runs_known"]


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
