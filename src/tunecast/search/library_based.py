"""Strategies that are other libraries' searches: optuna's TPE and the authors' DEHB (extra: rivals)."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from tunecast.search.context import Context
from tunecast.search.history import Policy
from tunecast.search.strategy import Strategy


class LibraryBased(Strategy):
    """Leads a library's search through the history; the library is imported when it is used."""

    search: ClassVar[str]
    """The search's name in :data:`tunecast.search.rivals.LIBRARIES`."""

    def policy(self, context: Context) -> Policy:
        """See :func:`~tunecast.search.rivals.rebuilt.rebuilt`."""
        from tunecast.search.rivals import library_search
        from tunecast.search.rivals.rebuilt import rebuilt

        return rebuilt(partial(library_search, self.search, flag="--strategy"))


class Tpe(LibraryBased):
    """Tree-structured Parzen estimator with the Hyperband pruner."""

    name = "tpe"
    library = "optuna"
    search = "optuna-tpe"


class Dehb(LibraryBased):
    """Differential evolution with Hyperband."""

    name = "dehb"
    library = "dehb"
    search = "dehb-package"
