"""Strategies: one class each, one register line each; which trial to advance next is a pure function.

:mod:`~tunecast.search.strategy` defines a strategy's answers; docs/adding-a-strategy.md shows how to add one.
"""

from tunecast.search.context import Context
from tunecast.search.fixed_best import FixedBest
from tunecast.search.history import History, Policy, Remaining, TrialView, diagnostics_of, points_to_end, rung
from tunecast.search.leader import leader, predicted_end
from tunecast.search.nearest import NearestTask
from tunecast.search.portfolio import Portfolio
from tunecast.search.prior_based import QuickTune, Transfer
from tunecast.search.registry import (
    DEFAULT,
    check_strategy,
    find_strategy,
    get_strategy,
    register,
    rests_on_prior,
    strategies,
)
from tunecast.search.simple import (
    GIVEN,
    Asha,
    FixedBaseline,
    FixedRate,
    Given,
    Random,
    asha,
    fixed,
    random_search,
)
from tunecast.search.strategy import Strategy

register(Random())
register(Asha())
register(FixedBaseline())
register(FixedRate())
register(FixedBest())
register(NearestTask())
register(Portfolio())
register(Transfer())
register(QuickTune())
register(Given())

__all__ = [
    "DEFAULT",
    "GIVEN",
    "Context",
    "History",
    "Policy",
    "Remaining",
    "Strategy",
    "TrialView",
    "asha",
    "check_strategy",
    "diagnostics_of",
    "find_strategy",
    "fixed",
    "get_strategy",
    "leader",
    "points_to_end",
    "predicted_end",
    "random_search",
    "register",
    "rests_on_prior",
    "rung",
    "strategies",
]
