"""Strategies of ``tunecast tune`` that are other libraries' searches: optuna's TPE and the authors' DEHB."""

from __future__ import annotations

from typing import ClassVar

from tunecast.search.context import Context
from tunecast.search.history import Policy
from tunecast.search.strategy import Strategy

WITHOUT_DEPENDENCIES = "pip install --no-deps dehb"
"""DEHB asks for an older numpy than it needs."""


class LibraryBased(Strategy):
    """Leads a library's search through the history; the library is imported when it is used."""

    search: ClassVar[str]
    """Name of the search in :data:`~tunecast_benchmarks.rivals.LIBRARIES`."""

    def policy(self, context: Context) -> Policy:
        """Return the library's search as a pure function of the history."""
        from tunecast_benchmarks.rivals import LIBRARIES
        from tunecast_benchmarks.rivals.rebuilt import rebuilt

        return rebuilt(LIBRARIES[self.search].build)


class Tpe(LibraryBased):
    """Tree-structured Parzen estimator with the Hyperband pruner."""

    name = "tpe"
    library = "optuna"
    search = "optuna-tpe"


class Dehb(LibraryBased):
    """Differential evolution with Hyperband."""

    name = "dehb"
    library = "dehb"
    installation = WITHOUT_DEPENDENCIES
    search = "dehb-package"
