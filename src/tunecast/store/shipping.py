"""Opening a store for reading, by default the meta-dataset that is shipped with the package."""

from __future__ import annotations

from pathlib import Path

from tunecast.errors import StoreError
from tunecast.paths import expanded
from tunecast.store.parquet import import_parquet
from tunecast.store.store import Store


def shipped() -> Path | None:
    """Return the Parquet file of the runs that are shipped with the package, None if there is none."""
    path = Path(__file__).parent / "runs.parquet"
    return path if path.is_file() else None


def open_for_reading(url_or_path: str | Path | None = None) -> Store:
    """Open a store for reading.

    Args:
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
    except BaseException:  # the caller never gets this store, so it must be closed here
        store.close()
        raise
    return store
