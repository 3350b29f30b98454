"""Runs that users have already: from a Trainer, MLflow or a table, and what could not be understood."""

from tunecast.store.importing.foreign import Assumed, Problem
from tunecast.store.importing.sources import ImportReport, find_runs, import_runs

__all__ = ["Assumed", "ImportReport", "Problem", "find_runs", "import_runs"]
