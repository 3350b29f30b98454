"""Search algorithms of other libraries, by these libraries.

They are optional (``pip install 'tunecast[rivals]'``) and imported only when one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from tunecast.errors import ConfigurationError
from tunecast.records import Pipeline
from tunecast.search.rivals.base import Rival

__all__ = ["LIBRARIES", "Maker", "Rival", "check_library", "library_search"]

Maker = Callable[[Sequence[Pipeline], int], Rival]
"""Builds a library's search from the candidates and the library's own seed; it knows nothing yet."""


def _optuna(pipelines: Sequence[Pipeline], seed: int, by_index: bool) -> Rival:
    from tunecast.search.rivals.optuna_tpe import OptunaTpe

    return OptunaTpe(pipelines, seed, by_index=by_index)


def _dehb(pipelines: Sequence[Pipeline], seed: int, by_index: bool) -> Rival:
    from tunecast.search.rivals.dehb_package import DehbPackage

    return DehbPackage(pipelines, seed, by_index=by_index)


LIBRARIES: dict[str, Maker] = {
    "optuna-tpe": lambda pipelines, seed: _optuna(pipelines, seed, by_index=False),
    "optuna-tpe-index": lambda pipelines, seed: _optuna(pipelines, seed, by_index=True),
    "dehb-package": lambda pipelines, seed: _dehb(pipelines, seed, by_index=False),
    "dehb-package-index": lambda pipelines, seed: _dehb(pipelines, seed, by_index=True),
}
"""By name: optuna's TPE with its Hyperband pruner, and the authors' DEHB. They propose freely and get the
most similar candidate, or choose by index."""


def library_search(name: str, pipelines: Sequence[Pipeline], seed: int, *, flag: str) -> Rival:
    """A library's search, new and without knowledge.

    Args:
        name: A name in :data:`LIBRARIES`.
        pipelines: The candidates, in the order of the history behind its first place.
        seed: The library's own seed.
        flag: The option of the command line that asked for it, for the message.

    Raises:
        ConfigurationError: Its library is not installed.
    """
    try:
        return LIBRARIES[name](pipelines, seed)
    except ModuleNotFoundError as error:
        raise _missing(flag, name, str(error.name)) from None


def check_library(name: str, library: str, *, flag: str) -> None:
    """Refuse a search whose library is not installed, without importing it.

    Raises:
        ConfigurationError: It is not installed.
    """
    if find_spec(library) is None:
        raise _missing(flag, name, library)


def _missing(flag: str, name: str, library: str) -> ConfigurationError:
    return ConfigurationError(
        f"{flag}: {name} needs the package {library}.",
        "Install it: pip install 'tunecast[rivals]', and pip install --no-deps dehb, which asks for an older "
        "numpy than it needs.",
    )
