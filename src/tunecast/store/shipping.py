"""The meta-dataset that is shipped with the package, and stores that are only read."""

from __future__ import annotations

from pathlib import Path

from tunecast.errors import StoreError
from tunecast.paths import expanded
from tunecast.store.parquet import import_parquet
from tunecast.store.store import Store


def shipped() -> Path | None:
    """The Parquet file of the runs that are shipped with the package, None where it has none."""
    path = Path(__file__).parent / "runs.parquet"
    return path if path.is_file() else None


def open_for_reading(url_or_path: str | Path | None = None) -> Store:
    """A store to read from: a given one, a Parquet export, or the shipped meta-dataset.

    Args:
        url_or_path: What :meth:`~tunecast.store.Store.open` takes, or the path of a Parquet export, which is
            read into memory; None for the shipped meta-dataset.

    Raises:
        StoreError: There is no such store, it cannot be read, or nothing is shipped.
    """
    source = shipped() if url_or_path is None else url_or_path
    if source is None:
        raise StoreError("This Tunecast is shipped without a meta-dataset.", "Name a store with --store.")
    if Path(str(source)).suffix.lower() != ".parquet":
        return Store.open(source, create=False)
    store = Store.open(":memory:")
    try:
        import_parquet(expanded(source), store)
    except BaseException:  # whatever it was, nobody gets this store, so nobody else closes it
        store.close()
        raise
    return store
