"""Importers for runs recorded by a Trainer, MLflow or a table, with a report of the problems."""

from tunecast.store.importing.foreign import Assumed, Problem
from tunecast.store.importing.published import put_published, read_published
from tunecast.store.importing.sources import ImportReport, find_runs, import_runs

__all__ = [
    "Assumed",
    "ImportReport",
    "Problem",
    "find_runs",
    "import_runs",
    "put_published",
    "read_published",
]
