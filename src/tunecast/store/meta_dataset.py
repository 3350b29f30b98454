"""Opening a store for reading, by default the meta-dataset that is shipped with the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path

from tunecast.errors import StoreError
from tunecast.paths import expanded
from tunecast.records import ModelFacts, Run
from tunecast.store.codec import loads
from tunecast.store.parquet import import_parquet
from tunecast.store.rows import record
from tunecast.store.store import Store


def shipped() -> Path | None:
    """Return the Parquet file of the runs that are shipped with the package, None if there is none."""
    path = Path(__file__).parent / "runs.parquet"
    return path if path.is_file() else None


def shipped_tables() -> Path | None:
    """Return the Parquet file of the published tables that are shipped, None if there is none."""
    path = Path(__file__).parent / "published.parquet"
    return path if path.is_file() else None


@cache
def shipped_models() -> Mapping[str, ModelFacts]:
    """Return the facts of the base models of the shipped runs and tables, by name."""
    import pyarrow.parquet as pq

    files = [file for file in (shipped(), shipped_tables()) if file is not None]
    texts = [pq.read_table(file, columns=["model_facts"]).column(0).unique().to_pylist() for file in files]
    models = [record(ModelFacts, loads(text)) for listed in texts for text in listed]
    return {model.name: model for model in reversed(models)}


def shipped_runs() -> Sequence[Run]:
    """Return all shipped runs, none if none are shipped. Reading them takes seconds, so they are kept."""
    file = shipped()
    return () if file is None else _runs_of(file)


@lru_cache(maxsize=1)
def _runs_of(file: Path) -> tuple[Run, ...]:
    with open_for_reading(file) as store:
        return tuple(store.runs())


def published_runs(url_or_path: str | Path | None = None) -> list[Run]:
    """Read the runs of published tables.

    Each has :attr:`~tunecast.records.Run.published`. Compare values within a ``Run.group`` only.

    Args:
        url_or_path: As for :func:`open_for_reading`; None for the shipped tables.

    Raises:
        StoreError: The store does not exist or cannot be read, or no tables are shipped.
    """
    source = shipped_tables() if url_or_path is None else url_or_path
    if source is None:
        raise StoreError("This Tunecast was shipped without published tables.", "Name a store.")
    with open_for_reading(source) as store:
        return list(store.runs(published=True))


def open_for_reading(url_or_path: str | Path | None = None, *, published: bool = False) -> Store:
    """Open a store for reading.

    Args:
        published: Whether the shipped meta-dataset includes the published tables.
        url_or_path: As for :meth:`~tunecast.store.Store.open`, or the path of a Parquet export, which is
            loaded into memory; None for the shipped meta-dataset.

    Raises:
        StoreError: The store does not exist or cannot be read, or no meta-dataset is shipped.
    """
    source = shipped() if url_or_path is None else url_or_path
    if source is None:
        raise StoreError("This Tunecast was shipped without a meta-dataset.", "Name a store with --store.")
    if Path(str(source)).suffix.lower() != ".parquet":
        return Store.open(source, create=False)
    store = Store.open(":memory:")
    try:
        import_parquet(expanded(source), store, checked=False)
        if url_or_path is None and published and (tables := shipped_tables()) is not None:
            import_parquet(tables, store, checked=False)
    except BaseException:  # the caller never gets this store, so it must be closed here
        store.close()
        raise
    return store
