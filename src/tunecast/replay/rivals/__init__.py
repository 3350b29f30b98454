"""Search algorithms of other libraries, by these libraries, as strategies of a replay.

They are optional (``pip install 'tunecast[rivals]'``) and imported only when one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tunecast.errors import ConfigurationError
from tunecast.records import Pipeline
from tunecast.replay.rivals.base import Rival

__all__ = ["RIVALS", "Rival", "get_rival"]


def _optuna(pipelines: Sequence[Pipeline], seed: int, by_index: bool) -> Rival:
    from tunecast.replay.rivals.optuna_tpe import OptunaTpe

    return OptunaTpe(pipelines, seed, by_index=by_index)


def _dehb(pipelines: Sequence[Pipeline], seed: int, by_index: bool) -> Rival:
    from tunecast.replay.rivals.dehb_package import DehbPackage

    return DehbPackage(pipelines, seed, by_index=by_index)


RIVALS: dict[str, Callable[[Sequence[Pipeline], int], Rival]] = {
    "optuna-tpe": lambda pipelines, seed: _optuna(pipelines, seed, by_index=False),
    "optuna-tpe-index": lambda pipelines, seed: _optuna(pipelines, seed, by_index=True),
    "dehb-package": lambda pipelines, seed: _dehb(pipelines, seed, by_index=False),
    "dehb-package-index": lambda pipelines, seed: _dehb(pipelines, seed, by_index=True),
}
"""By name: optuna's TPE with its Hyperband pruner, and the authors' DEHB. They propose freely and get the
most similar candidate, or choose by index."""


def get_rival(name: str, pipelines: Sequence[Pipeline], seed: int) -> Rival:
    """The rival called ``name``, new and without knowledge.

    Args:
        name: A name in :data:`RIVALS`.
        pipelines: The candidates, in the order of the history behind its first place.
        seed: The library's own seed.

    Raises:
        ConfigurationError: Its library is not installed.
    """
    try:
        return RIVALS[name](pipelines, seed)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"--strategies: {name} needs the package {error.name}.",
            "Install it: pip install 'tunecast[rivals]'.",
        ) from None
