"""The store of runs: SQL for concurrent writers, Parquet for exchange, importers for other tools' records."""

from tunecast.store.importing import (
    Assumed,
    ImportReport,
    Problem,
    find_runs,
    import_runs,
    put_published,
    read_published,
)
from tunecast.store.meta_dataset import open_for_reading, published_runs, shipped, shipped_runs
from tunecast.store.parquet import ImportCounts, export_parquet, import_parquet
from tunecast.store.store import Store
from tunecast.store.summaries import RunSummary

__all__ = [
    "Assumed",
    "ImportCounts",
    "ImportReport",
    "Problem",
    "RunSummary",
    "Store",
    "export_parquet",
    "find_runs",
    "import_parquet",
    "import_runs",
    "open_for_reading",
    "published_runs",
    "put_published",
    "read_published",
    "shipped",
    "shipped_runs",
]
