"""Strategies: which trial to advance next, as pure functions of the history and the remaining budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tunecast.errors import ConfigurationError, did_you_mean
from tunecast.records import Pipeline
from tunecast.search.context import Context, PredictedEnd
from tunecast.search.fixed_best import fixed_best
from tunecast.search.fixed_order import Order, as_listed, in_order
from tunecast.search.history import (
    History,
    Remaining,
    Strategy,
    TrialView,
    diagnostics_of,
    points_to_end,
    rung,
)
from tunecast.search.leader import leader, predicted_end
from tunecast.search.nearest import nearest_task
from tunecast.search.portfolio import portfolio
from tunecast.search.simple import advised, asha, fixed, random_search

__all__ = [
    "ADVISED",
    "BASELINE_BASED",
    "GIVEN",
    "LIBRARY_BASED",
    "ONLY_TRIALS",
    "RUN_BASED",
    "STRATEGIES",
    "SURROGATE_BASED",
    "Context",
    "Entry",
    "History",
    "PredictedEnd",
    "Remaining",
    "Strategy",
    "TrialView",
    "advised",
    "asha",
    "check_strategy",
    "diagnostics_of",
    "first_name",
    "fixed",
    "get_strategy",
    "leader",
    "listed_ids",
    "points_to_end",
    "predicted_end",
    "random_search",
    "rung",
]

GIVEN = "given"
"""The strategy of a session that trains the one pipeline it was given."""

ADVISED = "advised"
"""Trains what advice puts first and then halves: candidates come in the order of advice."""

Factory = Callable[[Context | None], Strategy]
"""Builds a strategy for a task; of those that know no other tasks, for any."""


@dataclass(frozen=True)
class Entry:
    """A strategy as it can be asked for.

    Args:
        build: Builds it.
        knows: What it rests on: ``runs`` of other tasks, which it looks up; ``surrogates`` of such runs,
            which rank its candidates beforehand; or ``nothing``.
        library: The package whose search it is (extra: rivals), empty for Tunecast's own.
        only_trials: Trials that it brings to their end, where it tries no others: they may share the whole
            budget. None where it searches.
    """

    build: Factory
    knows: Literal["nothing", "runs", "surrogates"] = "nothing"
    library: str = ""
    only_trials: int | None = None


ORDERS: dict[str, Callable[[Context], Order]] = {
    "fixed-best": fixed_best,
    "nearest-task": nearest_task,
    "portfolio": portfolio,
}
"""In which order strategies that look recorded runs up train candidates to their ends, from those runs."""

STRATEGIES = {
    ADVISED: Entry(lambda context: _advised(context)),
    "asha": Entry(lambda _: asha()),
    "random": Entry(lambda _: random_search()),
    "fixed-baseline": Entry(lambda _: fixed(0), only_trials=1),
    "fixed-3e-4": Entry(lambda _: fixed(1), only_trials=2),
    "fixed-best": Entry(lambda context: _run_based("fixed-best", context), knows="runs"),
    "nearest-task": Entry(lambda context: _run_based("nearest-task", context), knows="runs"),
    "portfolio": Entry(lambda context: _run_based("portfolio", context), knows="runs"),
    "transfer": Entry(lambda context: _surrogate_based("transfer", context), knows="surrogates"),
    "quick-tune": Entry(lambda context: _surrogate_based("quick-tune", context), knows="surrogates"),
    "tpe": Entry(lambda _: _library_based("optuna-tpe"), library="optuna"),
    "dehb": Entry(lambda _: _library_based("dehb-package"), library="dehb"),
}
"""Strategies by the name on the command line. ``fixed-3e-4`` expects the baseline at 3e-4 second."""

RUN_BASED = tuple(ORDERS)
"""Strategies that look recorded runs of other tasks up."""

ONLY_LISTED = ("fixed-best",)
"""Strategies of :data:`RUN_BASED` that stop after what they list; behind that others try the rest."""

SURROGATE_BASED = tuple(name for name, entry in STRATEGIES.items() if entry.knows == "surrogates")
"""Strategies that rest on surrogates of other tasks' runs; their candidates are ranked beforehand."""

STOPPING = (ADVISED, *SURROGATE_BASED)
"""Strategies that know what a trial may gain, and end where that is not worth its seconds, if told to."""

LIBRARY_BASED = {name: entry.library for name, entry in STRATEGIES.items() if entry.library}
"""Strategies that are other libraries', and the package that each needs."""

BASELINE_BASED = {name: entry.only_trials for name, entry in STRATEGIES.items() if entry.only_trials}
"""Strategies that train the baseline, or it at another rate too, and how many trials that is."""

ONLY_TRIALS = {**BASELINE_BASED, GIVEN: 1}
"""Trials that a strategy of a session brings to their end, where it tries no others."""


def listed_ids(name: str, context: Context, pipelines: Sequence[Pipeline]) -> list[str] | None:
    """Ids of candidates in the order in which a strategy of :data:`RUN_BASED` tries them; None for others.

    Args:
        name: Name of the strategy.
        context: The task, and the recorded runs.
        pipelines: The candidates; the order may depend on which there are.
    """
    if name not in RUN_BASED:
        return None
    return list(dict.fromkeys(pipelines[place].id for place in ORDERS[name](context)(pipelines)))


def first_name(strategy: str) -> str:
    """What the first candidate's pipeline is called, which every session trains to its end."""
    return GIVEN if strategy == GIVEN else "baseline"


def check_strategy(name: str, prior: str = "", value: float | None = None) -> None:
    """Refuse a name that no strategy has, and one whose prior or library is not there.

    Args:
        name: Its name on the command line.
        prior: File of the prior; empty for the one that comes with the package.
        value: Minutes that 1% of the loss is worth; None where nothing was said.

    Raises:
        ConfigurationError: There is none of that name, its library is not installed, or it takes no prior or
            no value.
        StoreError: It needs a prior, and there is none, or the file is none.
    """
    _check_there(name)
    if name in SURROGATE_BASED:
        from tunecast.predictor import prior_at

        prior_at(prior)
    takers = [("--prior", prior != "", SURROGATE_BASED), ("--value", value is not None, STOPPING)]
    for flag, is_given, names in takers:
        if is_given and name not in names:
            raise ConfigurationError(
                f"{flag}: the strategy {name} takes none.", f"Use one of: {', '.join(names)}."
            )


def get_strategy(name: str, context: Context | None = None) -> Strategy:
    """The strategy called ``name``.

    Args:
        name: Its name on the command line.
        context: The task at hand; those of :data:`RUN_BASED` and :data:`SURROGATE_BASED` cannot do without,
            and the latter not without its prior.

    Raises:
        ConfigurationError: There is none of that name, or it lacks its library or what it has to know.
    """
    _check_there(name)
    return fixed(0) if name == GIVEN else STRATEGIES[name].build(context)


def _check_there(name: str) -> None:
    """Refuse a name that no strategy has, and one whose library is not installed."""
    if name != GIVEN and name not in STRATEGIES:
        raise ConfigurationError(
            f"--strategy: there is no strategy {name!r}.",
            f"{did_you_mean(name, STRATEGIES)}Known ones: {', '.join(STRATEGIES)}.",
        )
    if name in LIBRARY_BASED:
        from tunecast.search.rivals import check_library

        check_library(name, LIBRARY_BASED[name], flag="--strategy")


def _needed(name: str, context: Context | None) -> Context:
    """The context of a strategy that knows other tasks."""
    if context is None:
        others = ", ".join(other for other, entry in STRATEGIES.items() if entry.knows == "nothing")
        raise ConfigurationError(
            f"--strategy: {name} rests on recorded runs of other tasks, and there are none here.",
            f"Use one of: {others}.",
        )
    return context


def _advised(context: Context | None) -> Strategy:
    """The strategy of advice; what tells the worth of seconds is imported only where that is asked for."""
    if context is None or context.value_minutes is None:
        return advised()
    from tunecast.search.cost_benefit import while_worth_it

    return while_worth_it(advised(), context, context.value_minutes)


def _run_based(name: str, context: Context | None) -> Strategy:
    """A strategy of :data:`RUN_BASED`."""
    known = _needed(name, context)
    order = ORDERS[name](known) if known.listed is None else as_listed(known.listed)
    return in_order(order, only_listed=name in ONLY_LISTED)


def _surrogate_based(name: str, context: Context | None) -> Strategy:
    """A strategy of :data:`SURROGATE_BASED`; surrogates are imported for these alone."""
    from tunecast.search.transfer import transfer

    return transfer(_needed(name, context), refits=name == "quick-tune")


def _library_based(name: str) -> Strategy:
    """A strategy of :data:`LIBRARY_BASED`; its library is imported for it alone."""
    from functools import partial

    from tunecast.search.rivals import library_search
    from tunecast.search.rivals.rebuilt import rebuilt

    return rebuilt(partial(library_search, name, flag="--strategy"))
