"""Search algorithms of other libraries as strategies of a replay.

They are imported, and Quick-Tune-Tool's process is started, only on use.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from tunecast.plugins import check_library
from tunecast.records import Pipeline
from tunecast.replay.comparing import Contestant, Maker
from tunecast.search import Context, Policy, strategies
from tunecast_benchmarks.rivals.base import Rival, Search

if TYPE_CHECKING:
    from tunecast_benchmarks.rivals.quicktune import QuickTuneProcess


@dataclass(frozen=True)
class Library:
    """A library's search.

    Args:
        package: The package to import.
        build: Builds the search.
    """

    package: str
    build: Search


def _optuna(pipelines: Sequence[Pipeline], seed: int, by_index: bool) -> Rival:
    from tunecast_benchmarks.rivals.optuna_tpe import OptunaTpe

    return OptunaTpe(pipelines, seed, by_index=by_index)


def _dehb(pipelines: Sequence[Pipeline], seed: int, by_index: bool) -> Rival:
    from tunecast_benchmarks.rivals.dehb_package import DehbPackage

    return DehbPackage(pipelines, seed, by_index=by_index)


LIBRARIES = {
    "optuna-tpe": Library("optuna", partial(_optuna, by_index=False)),
    "optuna-tpe-index": Library("optuna", partial(_optuna, by_index=True)),
    "dehb-package": Library("dehb", partial(_dehb, by_index=False)),
    "dehb-package-index": Library("dehb", partial(_dehb, by_index=True)),
}
"""Optuna's TPE with its Hyperband pruner, and the authors' DEHB, by name. Their proposals are replaced by the
most similar candidate, or they choose by index."""

QUICKTUNE = {"quicktunetool": True, "quicktunetool-costless": False}
"""Quick-Tune-Tool by name, and whether its acquisition is cost-aware: as published, or as the package's
constructor has it by default."""

RIVALS = (*LIBRARIES, *QUICKTUNE)
"""Names."""


class MetaTraining:
    """The last meta-trained Quick-Tune-Tool; cases that may know the same runs share it."""

    def __init__(self) -> None:
        self._last: tuple[frozenset[str], QuickTuneProcess] | None = None

    def __call__(self, context: Context) -> QuickTuneProcess:
        """Start a process that is meta-trained on a context's runs.

        Raises:
            ConfigurationError: Its environment is not installed, or too few runs are known.
        """
        from tunecast_benchmarks.rivals.quicktune import meta_trained

        known = frozenset(run.id for run in context.runs)
        if self._last is None or self._last[0] != known:
            self._last = known, meta_trained(context)
        return self._last[1]


def usual_rivals() -> tuple[str, ...]:
    """The names behind ``--rivals``; Quick-Tune-Tool is among them if its environment is named."""
    from tunecast_benchmarks.rivals.quicktune import INTERPRETER

    return RIVALS if os.environ.get(INTERPRETER) else tuple(LIBRARIES)


def contestants(names: Iterable[str]) -> dict[str, Contestant]:
    """Prepare rivals for a comparison; rivals that learn from other tasks share their knowledge.

    Args:
        names: Names in :data:`RIVALS`.

    Raises:
        ConfigurationError: A library or environment is not installed.
    """
    training = MetaTraining()
    found: dict[str, Contestant] = {}
    for name in names:
        check_rival(name)
        found[name] = _contestant(name, training)
    return found


def check_rival(name: str) -> None:
    """Refuse a rival that cannot run here.

    Raises:
        ConfigurationError: Its library or environment is not installed.
    """
    if name in QUICKTUNE:
        from tunecast_benchmarks.rivals.quicktune import QuickTuneProcess

        QuickTuneProcess()
    else:
        check_library(name, LIBRARIES[name].package, flag="--strategies")


def _contestant(name: str, training: MetaTraining) -> Contestant:
    return partial(_quicktune, name, training) if name in QUICKTUNE else lambda _: LIBRARIES[name].build


def _quicktune(name: str, training: MetaTraining, context: Context) -> Maker:
    from tunecast_benchmarks.rivals.quicktune import QuickTune

    process = training(context)
    return lambda pipelines, seed: QuickTune(process, context, pipelines, seed, cost_aware=QUICKTUNE[name])


@dataclass
class Asked:
    """Number of a library's answers, and their distances from the candidates.

    Args:
        version: The library and its version.
        asks: Number of its answers.
        distances: Distances between candidates and the library's proposals.
    """

    version: str
    asks: int = 0
    distances: list[float] = field(default_factory=list)


class Watch:
    """Counts libraries' answers during a comparison; pass it as ``watch``."""

    def __init__(self) -> None:
        self.asked: dict[str, Asked] = {}

    def __call__(self, name: str, strategy: Policy) -> None:
        """Count one replay."""
        if isinstance(strategy, Rival):
            asked = self.asked.setdefault(name, Asked(strategy.version))
            asked.asks += strategy.asked
            asked.distances += strategy.distances


def of_sessions(asks: Mapping[str, int]) -> dict[str, Asked]:
    """Counts of the libraries that are session strategies, by name, from the strategies' answers."""
    return {
        one.name: Asked(f"{one.library} {version(one.library)}", asks[one.name])
        for one in strategies()
        if one.library and one.name in asks
    }
