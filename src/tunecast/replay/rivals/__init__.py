"""Search algorithms of other libraries, by these libraries, as strategies of a replay.

Those of :mod:`tunecast.search.rivals` are in the extra ``tunecast[rivals]``; Quick-Tune-Tool has its own
environment. All are imported or started only when one is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from tunecast.errors import ConfigurationError
from tunecast.records import Pipeline
from tunecast.search import Context
from tunecast.search.rivals import LIBRARIES, Maker, Rival, library_search

if TYPE_CHECKING:
    from tunecast.replay.rivals.quicktune import QuickTuneProcess

__all__ = [
    "QUICKTUNE",
    "RIVALS",
    "MetaTraining",
    "Rival",
    "check_rival",
    "rival_maker",
    "usual_rivals",
]

QUICKTUNE = {"quicktunetool": True, "quicktunetool-costless": False}
"""Quick-Tune-Tool by name, and whether its acquisition is cost-aware: as published, or as the package's
constructor has it by default."""

RIVALS = (*LIBRARIES, *QUICKTUNE)
"""Names."""


class MetaTraining:
    """Quick-Tune-Tool as it was last meta-trained: cases that may know the same runs share it."""

    def __init__(self) -> None:
        self._last: tuple[frozenset[str], QuickTuneProcess] | None = None

    def __call__(self, context: Context) -> QuickTuneProcess:
        """A process that has learned from a context's runs.

        Raises:
            ConfigurationError: Its environment is not installed, or too few runs are known.
        """
        from tunecast.replay.rivals.quicktune import meta_trained

        known = frozenset(run.id for run in context.runs)
        if self._last is None or self._last[0] != known:
            self._last = known, meta_trained(context)
        return self._last[1]


def usual_rivals() -> tuple[str, ...]:
    """The rivals that ``--rivals`` means: Quick-Tune-Tool joins where its environment is named."""
    from tunecast.replay.rivals.quicktune import INTERPRETER

    return RIVALS if os.environ.get(INTERPRETER) else tuple(LIBRARIES)


def check_rival(name: str, pipelines: Sequence[Pipeline]) -> None:
    """Refuse a rival that cannot be run here.

    Raises:
        ConfigurationError: Its library or environment is not installed.
    """
    if name in QUICKTUNE:
        from tunecast.replay.rivals.quicktune import QuickTuneProcess

        QuickTuneProcess()
    else:
        rival_maker(name, None)(pipelines, 0)


def rival_maker(name: str, context: Context | None, training: MetaTraining | None = None) -> Maker:
    """What builds rivals of one name for one task; what it learns from other tasks it learns here, once.

    Args:
        name: A name in :data:`RIVALS`.
        context: The task and what is known of others.
        training: Shares what was learned with other tasks and names.

    Raises:
        ConfigurationError: Its environment is not installed, or it lacks what it has to know.
    """
    if name not in QUICKTUNE:
        return partial(library_search, name, flag="--strategies")
    if context is None:
        raise ConfigurationError(f"--strategies: {name} rests on recorded runs of other tasks.")
    from tunecast.replay.rivals.quicktune import QuickTune

    process = (training or MetaTraining())(context)
    return lambda pipelines, seed: QuickTune(process, context, pipelines, seed, cost_aware=QUICKTUNE[name])
